"""Tabular regression on the 20 standard splits: log density and RMSE of every posterior with its default settings.

    python -m benchmarks.uci --data DIR --jobs 4

The data are not part of the repository; without them the command says where they are and how to store them. A run that was killed
goes on where it ended: each fit leaves a row in results/uci-splits.csv, and rows that are there are not computed again (`--fresh`
does compute them again). `--validation` scores on rows kept back from the training parts, for choosing settings; its rows are kept
apart and nothing is judged by them. The bars are for the mean over all 20 splits, which differ much: the verdicts of `--quick` and
`--splits` only show that everything runs.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from bayesdyn.errors import BayesdynError
from bayesdyn.posteriors import BootstrapEnsemble, ConcreteDropout, ExactGP, Laplace, MCDropout, MeanField, Posterior
from benchmarks.acceptance import RESULTS, Acceptance
from benchmarks.tabular import SPLITS, VARIABLE, Score, ScoreTable, load_dataset, score, standard_error

POSTERIORS: dict[str, Callable[[], Posterior]] = {
    "ExactGP": ExactGP,
    "BootstrapEnsemble": BootstrapEnsemble,
    "MeanField": MeanField,
    "MCDropout": MCDropout,
    "ConcreteDropout": ConcreteDropout,
    "Laplace": Laplace,
}
SETS = ("energy", "kin8nm")
QUICK_SPLITS = 2
# An exact GP costs O(N³): hours per split from some thousand rows on.
MOST_ROWS = {"ExactGP": 2500}
# Log density per row in the target's unit, mean over the 20 splits.
BARS = {
    ("ExactGP", "energy"): -0.70,
    ("BootstrapEnsemble", "energy"): -1.10,
    ("BootstrapEnsemble", "kin8nm"): 1.20,
    ("MeanField", "energy"): -0.93,
    ("MeanField", "kin8nm"): 1.03,
    ("MCDropout", "energy"): -1.21,
    ("MCDropout", "kin8nm"): 1.14,
    ("Laplace", "energy"): -0.80,
}
NO_WORSE = ("ConcreteDropout", "MCDropout")

Task = tuple[Path | None, str, str, int, bool]
Scores = dict[tuple[str, str, int], Score]


def run_task(task: Task) -> Score:
    """Fit and score one posterior on one split, on one thread."""
    torch.set_num_threads(1)
    folder, name, posterior, split, validation = task
    return score(POSTERIORS[posterior], load_dataset(folder, name), posterior, split, validation=validation)


def run_tasks(tasks: list[Task], jobs: int) -> Iterator[tuple[Task, Score | BayesdynError]]:
    """Yield what came of each task as it ends, computed in this process or, with several jobs, in as many others."""

    def outcome(call: Callable[[], Score]) -> Score | BayesdynError:
        try:
            return call()
        except BayesdynError as error:
            return error

    if jobs == 1:
        for task in tasks:
            yield task, outcome(lambda task=task: run_task(task))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {pool.submit(run_task, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], outcome(future.result)


def summarise(scores: Scores, posteriors: list[str], sets: list[str]) -> None:
    """Print the table that papers print: mean ± standard error over splits."""
    print(f"\n{'set':<10}{'posterior':<20}{'splits':>6}{'log density':>20}{'RMSE':>20}{'CPU s per fit':>15}")
    for name in sets:
        for posterior in posteriors:
            rows = [row for row in scores.values() if (row.set, row.posterior) == (name, posterior)]
            if rows:
                columns = [[row.log_density for row in rows], [row.rmse for row in rows]]
                texts = [f"{statistics.fmean(values):.4g} ± {standard_error(values):.2g}" for values in columns]
                seconds = statistics.fmean(row.fit_seconds for row in rows)
                print(f"{name:<10}{posterior:<20}{len(rows):>6}{texts[0]:>20}{texts[1]:>20}{seconds:>15.1f}")
    print()


def judge(acceptance: Acceptance, scores: Scores, posteriors: list[str], sets: list[str], splits: int) -> None:
    """Print the acceptance points; one with missing splits is short."""

    def densities(posterior: str, name: str) -> list[float]:
        rows = [scores.get((name, posterior, split)) for split in range(splits)]
        return [row.log_density for row in rows if row is not None]

    for posterior in posteriors:
        for name in sets:
            values, bar = densities(posterior, name), BARS.get((posterior, name))
            point = f"{posterior}, {name}: test log density, {len(values)} of {splits} splits"
            if values and bar is None:
                acceptance.inform(point, values, " nats")
            elif bar is not None:
                met = len(values) == splits and statistics.fmean(values) >= bar
                acceptance.add(point, values or [float("nan")], f">= {bar:g} nats", met, " nats")
    if set(NO_WORSE) <= set(posteriors):
        for name in sets:
            pairs = [densities(posterior, name) for posterior in NO_WORSE]
            whole = all(len(values) == splits for values in pairs)
            differences = [a - b for a, b in zip(*pairs, strict=True)] if whole else [float("nan")]
            point = f"{NO_WORSE[0]} - {NO_WORSE[1]}, {name}: test log density, paired (s.e. {standard_error(differences):.2g})"
            acceptance.add(point, differences, ">= 0 nats", whole and statistics.fmean(differences) >= 0, " nats")


def chosen(text: str | None, known: list[str], what: str) -> list[str]:
    """Return the names in a comma-separated list, all of `known` without one."""
    names = text.split(",") if text else known
    unknown = [name for name in names if known and name not in known]
    if unknown:
        sys.exit(f"no {what} is called {', '.join(unknown)}; known are {', '.join(known)}")
    return names


def options() -> argparse.Namespace:
    """Return what the command line says."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uci", description=lines[0])
    parser.add_argument("--data", type=Path, default=os.environ.get(VARIABLE), help=f"folder of NAME.npz; default: ${VARIABLE}")
    parser.add_argument("--posteriors", help=f"comma-separated, of {', '.join(POSTERIORS)}; default: all")
    parser.add_argument("--sets", help=f"comma-separated names of npz files; default: {','.join(SETS)}")
    parser.add_argument("--splits", type=int, help=f"how many of the {SPLITS} splits, from the first")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SPLITS} splits: some minutes")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with one thread; default: 1")
    parser.add_argument("--validation", action="store_true", help="score on a tenth of the training rows; judges nothing")
    parser.add_argument("--fresh", action="store_true", help="compute rows again that are in the table")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then print the table and the points of all that was asked for."""
    asked = options()
    folder = None if asked.data is None else Path(asked.data)
    posteriors = chosen(asked.posteriors, list(POSTERIORS), "posterior")
    sets = chosen(asked.sets, [], "set") or list(SETS)
    splits = min(SPLITS, asked.splits or (QUICK_SPLITS if asked.quick else SPLITS))
    try:
        rows = {name: len(load_dataset(folder, name).x) for name in sets}
    except BayesdynError as error:
        sys.exit(str(error))
    table = ScoreTable(RESULTS / ("uci-validation.csv" if asked.validation else "uci-splits.csv"))
    wanted = [
        (name, posterior, split)
        for split in range(splits)
        for name in sets
        for posterior in posteriors
        if rows[name] <= MOST_ROWS.get(posterior, rows[name])
    ]
    scores = table.read()
    if asked.fresh:
        scores = {key: row for key, row in scores.items() if key not in wanted}
    if asked.fresh or not table.whole:
        table.rewrite(scores.values())
    tasks: list[Task] = [(folder, *key, asked.validation) for key in wanted if key not in scores]
    failures = 0
    for done, ((_, name, posterior, split, _), outcome) in enumerate(run_tasks(tasks, asked.jobs), 1):
        what = f"[{done}/{len(tasks)}] {name}, {posterior}, split {split}"
        if isinstance(outcome, BayesdynError):
            failures += 1
            print(f"{what}: failed: {outcome}", flush=True)
            continue
        table.append(outcome)
        scores[outcome.key] = outcome
        print(f"{what}: log density {outcome.log_density:.4f}, RMSE {outcome.rmse:.4g}, {outcome.fit_seconds:.1f} s", flush=True)
    asked_for = {key: scores[key] for key in wanted if key in scores}
    summarise(asked_for, posteriors, sets)
    if asked.validation:
        return
    acceptance = Acceptance("uci" if splits == SPLITS else "uci-quick")
    if failures:
        acceptance.add("fits that failed", [failures], "0", False)
    judge(acceptance, asked_for, posteriors, sets, splits)
    acceptance.write()
    sys.exit(acceptance.exit_status)


if __name__ == "__main__":
    main()
