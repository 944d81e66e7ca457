"""Which choices of the swing-up's preset matter: each is taken back alone, and the seeds solved are counted again."""

import multiprocessing
import statistics
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.progress import track

from bayesdyn import presets
from bayesdyn.loop import learn
from bayesdyn.model import DynamicsModel
from bayesdyn.planners import ICEM
from bayesdyn.posteriors import BootstrapEnsemble
from benchmarks.acceptance import Acceptance, main
from benchmarks.swingup import ENVIRONMENT, GOALS, WORKERS, solved_at

TASK = presets.task(ENVIRONMENT)


@dataclass(frozen=True)
class Variant:
    """One way to learn: the posterior's name, the task, options of `learn`, and whether members resample their rows."""

    posterior: str
    task: presets.Task = TASK
    online: bool = True
    bootstrap: bool = False

    def model(self) -> DynamicsModel:
        """Make the model."""
        return DynamicsModel(self.task.codec(), BootstrapEnsemble()) if self.bootstrap else self.task.model(self.posterior)


FAR = replace(TASK, planner=ICEM(horizon=20, candidates=64, elites=8, iterations=4), discount=1.0)
VARIANTS = {
    "gp, as preset": Variant("gp"),
    "gp, learning between trials only": Variant("gp", online=False),
    "gp, 20 steps ahead and no discount": Variant("gp", task=FAR),
    "ensemble, as preset": Variant("ensemble"),
    "ensemble, members resample their rows": Variant("ensemble", bootstrap=True),
}


def run_variant(job: tuple[str, int]) -> tuple[str, int, float, float]:
    """Learn with one variant and seed; return the first solved trial and the one-step error before the third controlled trial."""
    name, seed = job
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    model, trials = variant.model(), GOALS[variant.posterior].trials
    options: dict[str, Any] = {"trials": trials, "seed": seed, "stop": variant.task.solved, "online": variant.online}
    run = learn(variant.task.make_env(), model, variant.task.agent(model), **options)
    return name, seed, solved_at(run, trials), run.trials[min(2, len(run.trials) - 1)].metrics["rmse"]


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Run every variant on the same seeds."""
    seeds = range(2 if quick else 5)
    jobs = [(name, seed) for name in VARIANTS for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        done = list(track(pool.imap(run_variant, jobs), "variants", total=len(jobs)))
    for name, variant in VARIANTS.items():
        first = [trial for which, _, trial, _ in done if which == name]
        errors = [error for which, _, _, error in done if which == name]
        goal = GOALS[variant.posterior].trials
        solved = [trial for trial in first if trial < float("inf")]
        acceptance.inform(f"{name}: share of seeds solved by trial {goal}", [float(t < float("inf")) for t in first])
        acceptance.inform(f"{name}: first solved trial, of the solved", solved or [float("nan")])
        acceptance.inform(f"{name}: one-step error in the second controlled trial (whitened)", errors)
    shares = {name: statistics.fmean(t < float("inf") for w, _, t, _ in done if w == name) for name in VARIANTS}
    preset = min(shares["gp, as preset"], shares["ensemble, as preset"])
    acceptance.above("share of seeds that the presets solve", [preset], 0.79)


if __name__ == "__main__":
    main("swingup_ablation", measure, __doc__.splitlines()[0])
