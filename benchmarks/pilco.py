"""PILCO's scenarios by every method: how many seeds are solved by which trial, what it cost, and whether the model knew.

Solved means: the tip within the scenario's distance of upright over the last ten steps of a trial (Deep PILCO on its own cart-pole:
a mean cost of at most 0.40 per step). Trials are counted without the random ones that come first. Finished trials lie under
build/benchmark_runs/pilco, so a killed benchmark goes on where it stopped, and STUDIES may be given more seeds or trials; remove
that folder after a change of the code. It takes hours; a compiled kernel (`python -m bayesdyn.gaussian_processes.compile_moments`)
shortens them.
"""

import csv
import io
import multiprocessing
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from bayesdyn import presets
from bayesdyn.data import write_atomically
from bayesdyn.loop import Run, Trial
from benchmarks.acceptance import RESULTS, Acceptance, main

RUNS = Path(__file__).resolve().parents[1] / "build" / "benchmark_runs" / "pilco"
WORKERS = 4  # one thread each
METRICS = ("return", "predicted_cost", "predicted_cost_std", "fit_seconds", "policy_seconds", "plans_per_second")


@dataclass(frozen=True)
class Study:
    """A method in a scenario over `seeds`, at most `trials` controlled trials each; `share` is wanted solved by trial `by`.

    The preset was chosen by runs on seeds below `first`. `changes` are those of the scenario; the `note` in its name tells them.
    A trial solves it as the scenario says or, with `cost`, by costing no more than that per step on average.
    """

    method: str
    scenario: str
    seeds: int
    trials: int
    by: int | None = None
    share: float = 0.95
    cost: float | None = None
    first: int = 100
    changes: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        """What the results call it."""
        return ", ".join(part for part in (self.method, self.scenario, self.note) if part)

    @property
    def task(self) -> presets.ScenarioTask:
        """The scenario with the method."""
        return presets.scenario_methods[self.method](self.scenario, **self.changes)

    def solved(self, trial: Trial) -> bool:
        """Whether a trial reached what is wanted."""
        if self.cost is None:
            return self.task.solved(trial)
        return trial.controlled and mean_cost(trial) <= self.cost


STUDIES = (
    Study("pilco", "pendulum", seeds=20, trials=5, by=3, first=500),
    Study("pilco", "cart-pole", seeds=20, trials=6, by=4, first=500),
    Study("pilco", "double-pendulum", seeds=20, trials=10, by=8, first=800),
    Study("pilco", "pendubot", seeds=6, trials=12, first=700),
    Study("gp-mpc", "pendulum", seeds=10, trials=5, by=3, first=500),
    Study("gp-mpc", "cart-pole", seeds=20, trials=4, by=3),
    Study("gp-mpc", "double-pendulum", seeds=20, trials=8, by=8, first=600),
    Study("gp-mpc", "double-pendulum", seeds=20, trials=8, first=300, changes={"relative": {}}, note="links"),
    Study("gp-mpc", "cart-double-pendulum", seeds=2, trials=30),
    Study("gp-mpc", "pendubot", seeds=5, trials=15, first=600),
    Study("mc-pilco", "pendulum", seeds=10, trials=8),
    Study("deep-pilco", "deep-pilco-cart-pole", seeds=4, trials=30, by=30, cost=0.40),
)


def mean_cost(trial: Trial) -> float:
    """Return a trial's cost per step, 1 minus what the environment paid, on average."""
    return 1 - trial.metrics["return"] / len(trial.episode)


@dataclass(frozen=True)
class Outcome:
    """What one seed came to: the trials' figures, in order, and the controlled trial that solved it, infinity for none."""

    study: str
    seed: int
    rows: tuple[dict[str, float], ...]
    solved_in: float


def run_seed(job: tuple[Study, int]) -> Outcome:
    """Learn a scenario with one seed, or go on with what is there, until it is solved."""
    study, seed = job
    torch.set_num_threads(1)
    folder = RUNS / f"{study.name.replace(', ', '-')}-{seed}"
    run = study.task.learn(trials=study.trials, seed=seed, run=folder, stop=study.solved)
    rows = tuple(_figures(study, run, trial) for trial in run.trials)
    solved = [row["number"] for row in rows if row["solved"]]
    return Outcome(study.name, seed, rows, solved[0] if solved else float("inf"))


def _figures(study: Study, run: Run, trial: Trial) -> dict[str, float]:
    known = {name: trial.metrics[name] for name in METRICS if name in trial.metrics}
    return {
        "number": float(sum(other.controlled for other in run.trials[: trial.index + 1])),
        "solved": float(study.solved(trial)),
        "steps": float(len(trial.episode)),
        "distance": trial.last(study.task.scenario.distance),
        "mean_cost": mean_cost(trial),
        **known,
    }


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Run every study and judge how many seeds it solved."""
    jobs = [(study, study.first + i) for study in STUDIES for i in range(2 if quick else study.seeds)]
    with multiprocessing.get_context("spawn").Pool(WORKERS, maxtasksperchild=1) as pool:
        done: Iterable[Outcome] = track(pool.imap_unordered(run_seed, jobs), "pilco", total=len(jobs))
        outcomes = sorted(done, key=lambda outcome: outcome.seed)
    write_trials(f"{acceptance.name}-trials", outcomes)
    for study in STUDIES:
        judge(acceptance, study, [outcome for outcome in outcomes if outcome.study == study.name])


def judge(acceptance: Acceptance, study: Study, outcomes: Sequence[Outcome]) -> None:
    """Print how many seeds were solved by which trial, what it cost and how costs were foreseen."""
    trials = [outcome.solved_in for outcome in outcomes]
    if study.by is not None:
        solved = [float(trial <= study.by) for trial in trials]
        share = statistics.fmean(solved)
        wanted = f">= {study.share:g} of {len(trials)} seeds"
        acceptance.add(f"{study.name}: solved by trial {study.by}", solved, wanted, share >= study.share)
    acceptance.inform(f"{study.name}: solved within {study.trials} trials", [float(trial <= study.trials) for trial in trials])
    acceptance.inform(f"{study.name}: solved in trial, of the solved", [t for t in trials if t <= study.trials] or [float("nan")])
    acceptance.inform(f"{study.name}: distance in the last trial (m)", [outcome.rows[-1]["distance"] for outcome in outcomes])
    acceptance.inform(f"{study.name}: mean cost of a step, last trial", [outcome.rows[-1]["mean_cost"] for outcome in outcomes])
    acceptance.inform(f"{study.name}: minutes per seed to fit, search and plan", [thinking(outcome) / 60 for outcome in outcomes])
    for name, what in (("fit_seconds", "seconds per fit"), ("policy_seconds", "seconds per policy search")):
        spent = [[row[name] for row in outcome.rows if name in row] for outcome in outcomes]
        if all(spent):
            acceptance.inform(f"{study.name}: {what}", [statistics.fmean(seconds) for seconds in spent])


def thinking(outcome: Outcome) -> float:
    """Return the wall clock in seconds that all fits, policy searches and plans of a seed took."""
    between = sum(row.get("fit_seconds", 0.0) + row.get("policy_seconds", 0.0) for row in outcome.rows)
    return between + sum(row["steps"] / row["plans_per_second"] for row in outcome.rows if "plans_per_second" in row)


def write_trials(name: str, outcomes: Sequence[Outcome]) -> Path:
    """Write one row per study, seed and trial to benchmarks/results/NAME.csv, atomically."""
    columns = ("number", "solved", "steps", "distance", "mean_cost", *METRICS)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "seed", "trial", *columns])
    for outcome in sorted(outcomes, key=lambda o: (o.study, o.seed)):
        for trial, row in enumerate(outcome.rows):
            writer.writerow([outcome.study, outcome.seed, trial, *(f"{row[c]:.6g}" if c in row else "" for c in columns)])
    path = RESULTS / f"{name}.csv"
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
    return path


if __name__ == "__main__":
    main("pilco", measure, __doc__.splitlines()[0])
