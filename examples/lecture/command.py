"""The command line that the examples of the lecture share: run the experiment, print its numbers, write its figure."""

import argparse
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure


def numbers(result: Any) -> dict[str, float]:
    """Return the fields of a result that are single numbers.

    >>> from dataclasses import make_dataclass
    >>> numbers(make_dataclass("Result", ["height", "path"])(1.5, (0.0, 1.0)))
    {'height': 1.5}
    """
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def command(name: str, claim: str | None, experiment: Callable[[int], Any], draw: Callable[[Any], Figure]) -> None:
    """Run `experiment(seed)`, print its numbers, and write `draw(result)` to OUT/NAME.png."""
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.lecture.{name}", description=claim, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/lecture"), help="the figure's folder (build/lecture)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    result = experiment(options.seed)
    for label, value in numbers(result).items():
        print(f"{label.replace('_', ' '):40} {value:10.4g}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.png"
    draw(result).savefig(path, dpi=110)
    print(f"{path} ({time.perf_counter() - began:.0f} s)")
