"""The examples of the lecture over ten seeds: does each produce its effect?

python -m benchmarks.lecture NAME [--seeds 10], with NAME one of the keys of STUDIES, or `all`; with --side what the pages say
beside the effect, of those that have such figures.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch

from benchmarks.acceptance import RESULTS, Acceptance
from benchmarks.lecture_side import SIDES
from examples.lecture.command import numbers

SHARE = 0.9  # of the seeds
SEEDS = 10
FIRST_SEED = 100  # the examples were made on seeds below, which would flatter them


@dataclass(frozen=True)
class Study:
    """One example: its module, what has to come out of it in words and as a predicate, by default its result's `shown`."""

    module: str
    claim: str
    effect: Callable[[Any], bool] = attrgetter("shown")


STUDIES: dict[str, Study] = {
    "exploiting_the_model": Study(
        "examples.lecture.exploiting_the_model",
        "one network promises too much, an average of ten at most a third of that excess, and gets more",
    ),
    "steering_error": Study(
        "examples.lecture.steering_error",
        "a blind plan leaves the lane ever faster, the more often it is renewed the nearer it stays",
    ),
    "distribution_mismatch": Study(
        "examples.lecture.distribution_mismatch",
        "0.5 imagines a climb and falls, 1.0 recovers by its third trial, 1.5 stays up in its first",
    ),
    "performance_gap": Study(
        "examples.lecture.performance_gap",
        "one network stops short of the ensemble, and SAC passes the one network, but with as many steps is far below the ensemble",
    ),
    "cliff_edge": Study(
        "examples.lecture.cliff_edge",
        "ignorance keeps a distance from the edge that the mean model and more data do not; pessimism adds, optimism takes away",
    ),
    "output_entropy": Study(
        "examples.lecture.output_entropy",
        "one network is sure and wrong without data; ten say where the noise is, and apart from it where the data are not",
    ),
    "four_steps": Study(
        "examples.lecture.four_steps",
        "TS1 is too narrow by the root of T to a tenth, and only moment matching puts balls between the valleys",
    ),
    "bayesian_networks": Study(
        "examples.lecture.bayesian_networks",
        "the ensemble knows the gap, mean field is too wide at the data, dropout sees no gap; five members do; resampling matters",
    ),
    "caveats": Study(
        "examples.lecture.caveats",
        "optimism swings up in three episodes, expectation stays below; pessimism earns less in a trip and more in fifty",
    ),
}


def measure(name: str, seeds: range) -> int:
    """Run one example on the seeds, print and write its points, and return the exit status."""
    study, acceptance = STUDIES[name], Acceptance(f"lecture-{name}")
    results, seconds = [], []
    for seed in seeds:
        began = time.perf_counter()
        results.append(importlib.import_module(study.module).experiment(seed))
        seconds.append(time.perf_counter() - began)
    shown = [float(study.effect(result)) for result in results]
    acceptance.add(f"{name}: {study.claim}", shown, f">= {SHARE:g} of {len(shown)} seeds", sum(shown) >= SHARE * len(shown))
    for label in numbers(results[0]):
        acceptance.inform(f"{name}: {label.replace('_', ' ')}", [numbers(result)[label] for result in results])
    acceptance.inform(f"{name}: seconds per seed, one thread", seconds)
    if len(seeds) >= SEEDS:
        print(f"every seed is in {acceptance.write().relative_to(RESULTS.parents[1])}")
    return acceptance.exit_status


def measure_side(name: str, count: int | None) -> int:
    """Run what the page of an example says beside the effect, print and write it; nothing is asked of these figures."""
    side, acceptance = SIDES[name], Acceptance(f"lecture-{name}-side")
    seeds = range(side.first, side.first + (count or side.seeds))
    found = []
    for seed in seeds:
        found.append(side.figures(seed))
        print(seed, *(f"{figure:.4g}" for figure in found[-1].values()), flush=True)
    for label in found[0]:
        acceptance.inform(label, [figures[label] for figures in found])
    if len(seeds) >= side.seeds:
        print(f"every seed is in {acceptance.write().relative_to(RESULTS.parents[1])}")
    return 0


def main() -> None:
    """Measure the examples that are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lecture", description=__doc__)
    parser.add_argument("name", choices=[*STUDIES, "all"])
    parser.add_argument("--seeds", type=int, help="how many, from 100 on; results of fewer than the default are not written (10)")
    parser.add_argument("--side", action="store_true", help=f"further settings instead: {', '.join(SIDES)}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    studies = SIDES if options.side else STUDIES
    if options.name not in ("all", *studies):
        parser.error(f"the pages have figures beside the effect for {', '.join(studies)}; got {options.name}")
    names = list(studies) if options.name == "all" else [options.name]
    if options.side:
        sys.exit(max([measure_side(name, options.seeds) for name in names]))
    sys.exit(max([measure(name, range(FIRST_SEED, FIRST_SEED + (options.seeds or SEEDS))) for name in names]))


if __name__ == "__main__":
    main()
