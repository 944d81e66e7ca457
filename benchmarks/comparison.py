"""`bayesdyn compare quarter-drone`, eight posteriors and three seeds on two processes: how long, and what it finds.

The command itself is run, in a process of its own. Its folder, build/benchmark_runs/comparison, is removed first, so that the time
is that of the whole; `--quick` takes one seed. Figures are those of the page's first table: see docs/benchmarks.md.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.table import IN_DISTRIBUTION, RECALIBRATED
from benchmarks.acceptance import Acceptance, main

FOLDER = Path(__file__).resolve().parents[1] / "build" / "benchmark_runs" / "comparison"
SEEDS, JOBS, MINUTES = 3, 2, 15.0
AHEAD = {"horizon": 10, "propagation": "TSInf"}
SHIFTED = ("steps", "seq")


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Time the command, and say what its table holds."""
    seeds = 1 if quick else SEEDS
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [sys.executable, "-m", "bayesdyn", "compare", "quarter-drone", "--jobs", str(JOBS), "--seeds", str(seeds)]
    began = time.perf_counter()
    subprocess.run([*command, "--out", str(FOLDER)], check=True)
    minutes = (time.perf_counter() - began) / 60
    target = f"<= {MINUTES:g} min" if seeds == SEEDS else ""
    acceptance.add(f"eight posteriors, {seeds} seeds, {JOBS} processes", [minutes], target, minutes <= MINUTES, " min")
    found = Comparison.open(FOLDER)
    acceptance.add("cells that failed", [float(len(found.failures))], "0", not found.failures)
    for name in found.posteriors:
        tell(acceptance, found, name)


def tell(acceptance: Acceptance, found: Comparison, name: str) -> None:
    """Print one posterior's figures, over seeds."""
    figures = {
        "nll": ("nll", {}),
        "crps skill, 10 steps": ("skill_ridge-linear", AHEAD),
        "90 % coverage": ("coverage90", {"propagation": "predictive"}),
        "90 % coverage, 10 steps": ("coverage90", AHEAD),
        "90 % coverage, 10 steps, recalibrated": ("coverage90", {**AHEAD, "split": RECALIBRATED}),
        "ause": ("ause_epistemic", {"horizon": 1, "propagation": "predictive"}),
    }
    for what, (metric, more) in figures.items():
        columns = {"split": "test", "metric": metric, "shift": IN_DISTRIBUTION, **more}
        inform(acceptance, found, f"{name}: {what}", posterior=name, **columns)
    for shift in SHIFTED:
        inform(acceptance, found, f"{name}: auroc, {shift}", metric="auroc", posterior=name, shift=shift)
    inform(acceptance, found, f"{name}: seconds per fit", metric="fit_seconds", posterior=name)


def inform(acceptance: Acceptance, found: Comparison, point: str, **columns: object) -> None:
    """Print a figure of each seed, unless there is none."""
    rows = [row for row in found.select(**columns) if row.output in ("all", "0")]
    # A metric that is there over all outputs and per output is the same here: the drone has one.
    by_seed = {row.seed: row.value for row in rows}
    if by_seed:
        acceptance.inform(point, list(by_seed.values()))


if __name__ == "__main__":
    main("comparison", measure, __doc__.splitlines()[0])
