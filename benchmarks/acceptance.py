"""What every benchmark prints and writes: one line per acceptance point, its raw numbers as CSV, and the exit status."""

import argparse
import csv
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayesdyn.data import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Point:
    """A figure measured once per repetition (seed, timing), what it has to meet, and whether its mean did; None: information."""

    name: str
    values: tuple[float, ...]
    target: str
    met: bool | None
    unit: str = ""

    @property
    def figure(self) -> float:
        """The mean over repetitions."""
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        """Return `point | figure ± spread | target | ok or short`; the spread is the standard deviation over repetitions."""
        figure = f"{self.figure:.4g}{self.unit}"
        if len(self.values) > 1:
            figure = f"{self.figure:.4g} ± {statistics.stdev(self.values):.2g}{self.unit} (std of {len(self.values)})"
        verdict = {True: "ok", False: "short", None: "info"}[self.met]
        return f"{self.name} | {figure} | {self.target or '-'} | {verdict}"


class Acceptance:
    """Collects the points of one benchmark; each is printed when it is known.

    >>> acceptance = Acceptance("example")
    >>> acceptance.above("error ratio", [1.5, 2.5], 1.0)
    error ratio | 2 ± 0.71 (std of 2) | > 1 | ok
    >>> acceptance.inform("time", [3.0], unit=" s")
    time | 3 s | - | info
    >>> acceptance.exit_status
    0
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.points: list[Point] = []

    def above(self, point: str, values: Sequence[float], bound: float, unit: str = "") -> None:
        """Judge a mean that has to be larger than `bound`; NaN is short."""
        self.add(point, values, f"> {bound:g}{unit}", statistics.fmean(values) > bound, unit)

    def below(self, point: str, values: Sequence[float], bound: float, unit: str = "") -> None:
        """Judge a mean that has to be smaller than `bound`; NaN is short."""
        self.add(point, values, f"< {bound:g}{unit}", statistics.fmean(values) < bound, unit)

    def between(self, point: str, values: Sequence[float], low: float, high: float, unit: str = "") -> None:
        """Judge a mean that has to lie in [low, high]; NaN is short."""
        self.add(point, values, f"{low:g} to {high:g}{unit}", low <= statistics.fmean(values) <= high, unit)

    def inform(self, point: str, values: Sequence[float], unit: str = "") -> None:
        """Print a figure that nothing is asked of."""
        self.add(point, values, "", None, unit)

    def add(self, point: str, values: Sequence[float], target: str, met: bool | None, unit: str = "") -> None:
        """Add a point with a verdict of its own, for a target that is no bound on the mean."""
        self.points.append(Point(point, tuple(float(v) for v in values), target, met, unit))
        print(self.points[-1], flush=True)

    @property
    def exit_status(self) -> int:
        """1 if a point is short or nothing was judged, else 0."""
        judged = [point.met for point in self.points if point.met is not None]
        return 0 if judged and all(judged) else 1

    def write(self, folder: Path = RESULTS) -> Path:
        """Write every repetition of every point to `folder`/NAME.csv, atomically, and return that path."""
        folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["point", "repetition", "value", "unit", "target", "met"])
        for point in self.points:
            met = {True: "ok", False: "short", None: ""}[point.met]
            writer.writerows([point.name, i, repr(v), point.unit.strip(), point.target, met] for i, v in enumerate(point.values))
        path = folder / f"{self.name}.csv"
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        return path


def main(name: str, measure: Callable[[Acceptance, bool], None], description: str) -> None:
    """Run a benchmark from the command line: `measure(acceptance, quick)`, then CSV and exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a few minutes")
    quick = parser.parse_args().quick
    acceptance = Acceptance(f"{name}-quick" if quick else name)
    began = time.perf_counter()
    measure(acceptance, quick)
    path = acceptance.write()
    print(f"{time.perf_counter() - began:.0f} s in all; every repetition is in {path.relative_to(RESULTS.parents[1])}")
    sys.exit(acceptance.exit_status)
