"""Learning curves of presets over seeds: run them in parallel processes, resume what was killed, and write every trial as CSV."""

import csv
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track

from bayesdyn.data import write_atomically
from bayesdyn.loop import Run
from benchmarks.acceptance import RESULTS

RUNS = Path(__file__).resolve().parents[1] / "build" / "benchmark_runs"
METRICS = ("return", "steps", "fit_seconds", "fit_nll", "nll", "coverage90", "predicted_return", "epistemic_share", "dropped_share")
CLOCK = ("plans_per_second", "plan_seconds_p50", "plan_seconds_p99", "slowest_plan_seconds", "late_plans")


@dataclass(frozen=True)
class Study:
    """One method on one task: `learn(seed, folder)` runs it, `seeds` times; `threads` per process."""

    name: str
    learn: Callable[[int, Path], Run]
    seeds: Sequence[int]
    threads: int = 1


@dataclass(frozen=True)
class Curve:
    """The trials of one seed: figures by name, [trials] each; trial 0 is the first random one."""

    study: str
    seed: int
    rows: tuple[dict[str, float], ...]
    wall_seconds: float

    def at(self, trial: int, metric: str = "return") -> float:
        """Return a figure of one trial."""
        return self.rows[trial][metric]

    def mean(self, metric: str) -> float:
        """Return the mean of a figure over the controlled trials."""
        return statistics.fmean(row[metric] for row in self.rows if row["controlled"] and metric in row)


def run_studies(name: str, studies: Sequence[Study], workers: int) -> dict[str, list[Curve]]:
    """Run every seed of every study, `workers` at a time, and return their curves by study.

    Finished trials lie under build/benchmark_runs/NAME, so a killed benchmark goes on where it stopped; remove that folder after a
    change of the code.
    """
    jobs = [(name, study, seed) for study in studies for seed in study.seeds]
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        curves: Iterable[Curve] = track(pool.imap_unordered(_run, jobs), name, total=len(jobs))
        found = sorted(curves, key=lambda curve: curve.seed)
    return {study.name: [curve for curve in found if curve.study == study.name] for study in studies}


def _run(job: tuple[str, Study, int]) -> Curve:
    name, study, seed = job
    torch.set_num_threads(study.threads)
    began = time.perf_counter()
    run = study.learn(seed, RUNS / name / f"{study.name}-{seed}")
    rows = tuple({"trial": t.index, "controlled": float(t.controlled), **t.metrics} for t in run.trials)
    return Curve(study.name, seed, rows, time.perf_counter() - began)


def write_curves(name: str, curves: dict[str, list[Curve]]) -> Path:
    """Write one row per study, seed and trial to benchmarks/results/NAME-curves.csv, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "seed", "trial", "controlled", "total_steps", *METRICS, *CLOCK])
    for study, seeds in curves.items():
        for curve in seeds:
            total = 0
            for row in curve.rows:
                total += int(row["steps"])
                figures = [f"{row[metric]:.6g}" if metric in row else "" for metric in (*METRICS, *CLOCK)]
                writer.writerow([study, curve.seed, int(row["trial"]), int(row["controlled"]), total, *figures])
    path = RESULTS / f"{name}-curves.csv"
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
    return path
