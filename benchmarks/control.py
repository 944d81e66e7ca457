"""Learning curves of presets over seeds: run them in parallel processes, resume what was killed, and write every trial as CSV."""

import csv
import io
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from bayesdyn.data import write_atomically
from bayesdyn.loop import Run
from bayesdyn.loop.actions import actions_of
from bayesdyn.model import DynamicsModel
from bayesdyn.presets import Task
from benchmarks.acceptance import RESULTS, Acceptance
from benchmarks.statistics import inform_returns

RUNS = Path(__file__).resolve().parents[1] / "build" / "benchmark_runs"
METRICS = ("return", "steps", "fit_seconds", "fit_nll", "nll", "coverage90", "epistemic_share", "dropped_share")
PROMISE = ("planned_return", "realised_return")
CLOCK = ("plans_per_second", "plan_seconds_p50", "plan_seconds_p99", "slowest_plan_seconds", "late_plans")


@dataclass(frozen=True)
class Study:
    """One preset with one posterior over seeds, `threads` per process; after the last trial it acts from the paired `starts`."""

    name: str
    preset: Callable[[], Task]
    posterior: str
    trials: int
    seeds: Sequence[int]
    latency: float | None = None
    starts: Sequence[int] = ()
    threads: int = 1


@dataclass(frozen=True)
class Curve:
    """The trials of one seed: figures by name, [trials] each; trial 0 is the first random one."""

    study: str
    seed: int
    rows: tuple[dict[str, float], ...]
    wall_seconds: float
    evaluated: tuple[float, ...] = ()

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
    task = study.preset()
    folder = RUNS / name / f"{study.name}-{seed}"
    run = task.learn(study.posterior, latency=study.latency, trials=study.trials, seed=seed, run=folder, keep_fans=False)
    rows = tuple({"trial": t.index, "controlled": float(t.controlled), **t.metrics} for t in run.trials)
    returns = evaluate(task, study, run, seed, folder / f"evaluated-{study.trials}.json") if study.starts else ()
    return Curve(study.name, seed, rows, time.perf_counter() - began, tuple(returns))


def evaluate(task: Task, study: Study, run: Run, seed: int, path: Path) -> list[float]:
    """Fit to all trials of a run and return what the agent then earns from each start, `reset(seed=start)`.

    Returns are kept in `path` as they come in, so that what was killed goes on where it stopped.
    """
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    missing = [start for start in study.starts if str(start) not in known]
    if missing:
        model = task.model(study.posterior)
        model.fit(run.transitions(), generator=torch.Generator().manual_seed(seed))
    for start in missing:
        known[str(start)] = act_from(start, task, study, model)
        text = json.dumps(known).encode()
        write_atomically(path, lambda file, text=text: file.write(text))
    return [known[str(start)] for start in study.starts]


def act_from(start: int, task: Task, study: Study, model: DynamicsModel) -> float:
    """Return what the agent earns with a model from `reset(seed=start)`."""
    env = task.make_env()
    agent, actions = task.agent(model, study.latency), actions_of(env.action_space)
    observation, _ = env.reset(seed=start)
    agent.reset(actions.space, generator=torch.Generator().manual_seed(start))
    total, over = 0.0, False
    while not over:
        action = agent.act(torch.as_tensor(np.asarray(observation, dtype=np.float64)))
        observation, reward, terminated, truncated, _ = env.step(actions.translate(action.double().numpy()))
        total, over = total + float(reward), terminated or truncated
    env.close()
    return total


def inform_clock(acceptance: Acceptance, name: str, curves: Sequence[Curve]) -> None:
    """Print the control rate, the plans' median and p99, and the wall clock, one figure per seed."""
    acceptance.inform(f"{name}: plans per second", [curve.mean("plans_per_second") for curve in curves])
    acceptance.inform(f"{name}: median plan (ms)", [1000 * curve.mean("plan_seconds_p50") for curve in curves])
    acceptance.inform(f"{name}: p99 plan (ms)", [1000 * curve.mean("plan_seconds_p99") for curve in curves])
    acceptance.inform(f"{name}: seconds per fit", [curve.mean("fit_seconds") for curve in curves])
    acceptance.inform(f"{name}: minutes per seed, as far as this call ran it", [curve.wall_seconds / 60 for curve in curves])


def inform_curve(acceptance: Acceptance, name: str, curves: Sequence[Curve], trials: Sequence[int]) -> None:
    """Print the returns of some trials with their means and intervals."""
    for trial in trials:
        inform_returns(acceptance, f"{name}: return of trial {trial}", [curve.at(trial) for curve in curves])


def write_curves(name: str, curves: dict[str, list[Curve]]) -> Path:
    """Write one row per study, seed and trial to benchmarks/results/NAME-curves.csv, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "seed", "trial", "controlled", "total_steps", *METRICS, *PROMISE, *CLOCK])
    for study, seeds in curves.items():
        for curve in seeds:
            total = 0
            for row in curve.rows:
                total += int(row["steps"])
                figures = [f"{row[metric]:.6g}" if metric in row else "" for metric in (*METRICS, *PROMISE, *CLOCK)]
                writer.writerow([study, curve.seed, int(row["trial"]), int(row["controlled"]), total, *figures])
    path = RESULTS / f"{name}-curves.csv"
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
    return path
