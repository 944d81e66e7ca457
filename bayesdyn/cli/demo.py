"""`bayesdyn demo`: all of it in a few minutes, with a page to look at in the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import gymnasium
import torch
import typer

from bayesdyn import loop, presets
from bayesdyn.cli.comparing import DRONE, Makers, lagged_posteriors, terminal_table, watched
from bayesdyn.cli.learning import trial_table
from bayesdyn.cli.options import Debug, Seed, Threads, console, job, where_to_look
from bayesdyn.codec import LagCodec
from bayesdyn.envs import CARTPOLE_ID
from bayesdyn.evaluation import Comparison, compare, quarter_drone_comparison
from bayesdyn.evaluation.compare import ComparisonProgress
from bayesdyn.evaluation.drone import LAGS, quarter_drone_data
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.loop import RichMonitor, Run
from bayesdyn.model import DynamicsModel
from bayesdyn.networks.training import Training
from bayesdyn.planners import ICEM
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP
from bayesdyn.presets import Task
from bayesdyn.report import write_report
from bayesdyn.report.scenarios import scenario


@dataclass(frozen=True)
class Size:
    """How much the demo does: posteriors, trials of each, steps of a trial (None: the task's own), what is compared."""

    task: Task
    posteriors: Makers
    trials: Mapping[str, int]
    compare: Callable[[int, Path, ComparisonProgress], Comparison]
    steps: int | None = None

    def make_env(self) -> gymnasium.Env:
        """Make the environment."""
        return self.task.make_env(**({} if self.steps is None else {"max_episode_steps": self.steps}))


@job
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Only see that all works: tiny models, which learn nothing.")] = False,
    seed: Seed = 0,
    threads: Threads = 1,
    debug: Debug = False,
) -> None:
    """See what the library does, in a few minutes: two kinds of model, real data, a task learned from scratch.

    First, a Gaussian process and an ensemble of networks are compared on recordings of a drone's arm. Then each learns to swing
    up a pole on a cart, from nothing but its own trials. Stop it whenever you like: the same command goes on.

    [bold]Examples[/bold]

      bayesdyn demo

      bayesdyn demo --seed 1 --out runs/second
    """
    size = _quick() if quick else _full()
    place = scenario(size.task.env_id)
    console.rule("[bold]1 · What do models know of real data?[/]", align="left")
    compared = watched(lambda tell: size.compare(seed, out / "quarter-drone", tell))
    console.print(terminal_table(compared))
    runs: dict[str, Run] = {}
    for number, (name, trials) in enumerate(size.trials.items(), 2):
        console.rule(f"[bold]{number} · Learn {place.name} with {name}[/]", align="left")
        runs[name] = _learn(size, name, trials, out / name, seed)
        console.print(trial_table(runs[name]))
        _say_what_came_out(name, runs[name])
    _finish(out, runs, compared)


def _learn(size: Size, name: str, trials: int, folder: Path, seed: int) -> Run:
    place = scenario(size.task.env_id)
    model = DynamicsModel(size.task.codec(), size.posteriors[name]())
    with RichMonitor(name, place.info, console) as monitor:
        return loop.learn(
            size.make_env(),
            model,
            size.task.agent(model),
            trials=trials,
            run=folder,
            seed=seed,
            stop=place.is_solved,
            monitor=monitor,
        )


def _say_what_came_out(name: str, run: Run) -> None:
    place = scenario(run.config["environment"])
    solved = place.solved_at(run)
    if solved is None:
        console.print(
            f"[yellow]{name} has not solved it yet[/]: {place.info_name} below {place.solved:g} {place.unit} was the goal."
        )
        return
    seconds = sum(len(trial.episode) for trial in run.trials[: solved.index]) * (place.step_seconds or 0.0)
    console.print(f"[bold green]{name} solved it in trial {solved.index}[/], after {seconds:.3g} s of experience.", highlight=False)


def _finish(out: Path, runs: Mapping[str, Run], compared: Comparison) -> None:
    page = write_report(out / "report.html", runs, compared, results=out / "quarter-drone" / "results.csv")
    console.rule(align="left")
    for name, run in runs.items():
        picture = out / name / "pictures" / f"trial-{run.trials[-1].index:03d}.gif"
        console.print(f"{name}'s last trial as a moving picture: {picture}", highlight=False, soft_wrap=True)
    console.print(f"every number of the comparison: {out / 'quarter-drone' / 'results.csv'}", highlight=False, soft_wrap=True)
    where_to_look(page)


def _full() -> Size:
    task = presets.task(CARTPOLE_ID)
    trials = dict(task.solves)
    return Size(task, {name: partial(task.posterior, name) for name in trials}, trials, _compare)


def _compare(seed: int, folder: Path, tell: ComparisonProgress) -> Comparison:
    few = OpenLoop(starts=60, particles=60)
    return quarter_drone_comparison(lagged_posteriors(), seeds=(seed,), open_loop=few, folder=folder, progress=tell)


def _quick() -> Size:
    task = presets.task(CARTPOLE_ID)
    small = replace(task, planner=ICEM(horizon=5, candidates=20, elites=5, iterations=2), draws=4)
    return Size(small, _TINY, dict.fromkeys(_TINY, 1), _compare_little, steps=12)


def _compare_little(seed: int, folder: Path, tell: ComparisonProgress) -> Comparison:
    data = quarter_drone_data()
    return compare(
        {"ensemble": _TINY["ensemble"]},
        data.train.select(torch.arange(300)),
        data.in_distribution,
        lambda: LagCodec(LAGS, LAGS),
        shifted={"steps": data.shifted["steps"].select(torch.arange(300))},
        data=DRONE,
        seeds=(seed,),
        open_loop=OpenLoop(horizons=(1, 5), starts=20, particles=10),
        replicates=10,
        folder=folder,
        progress=tell,
    )


_TINY: Makers = {
    "gp": lambda: ExactGP(features=64, training=GPTraining(max_steps=5, restarts=0)),
    "ensemble": lambda: BootstrapEnsemble(members=3, training=Training(steps=40)),
}
