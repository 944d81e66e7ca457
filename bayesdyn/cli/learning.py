"""`bayesdyn learn`: learn a task from scratch, with one posterior."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bayesdyn import presets
from bayesdyn.cli.options import Debug, Seed, Threads, console, job, where_to_look
from bayesdyn.loop import RichMonitor, Run
from bayesdyn.report import write_report
from bayesdyn.report.scenarios import scenario


@job
def learn(
    environment: Annotated[str, typer.Argument(metavar="ENV_ID", help="The Gymnasium environment.")],
    preset: Annotated[str, typer.Option(help=f"How to plan and train: {', '.join(presets.methods)}.")] = "icem",
    posterior: Annotated[
        str | None, typer.Option(help=f"What learns the dynamics: {', '.join(presets.posteriors)} (default: the preset's).")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in which the model plans; random ones come before (default: the preset's).")
    ] = None,
    replan_every: Annotated[int, typer.Option(min=0, help="Steps between plans; 0 plans once per trial (open loop).")] = 1,
    latency: Annotated[
        float | None, typer.Option(help="Milliseconds that a plan may take; how much it searches then depends on the machine.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run (default: runs/ENV-PRESET-POSTERIOR).", show_default=False)
    ] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    debug: Debug = False,
) -> None:
    """Learn a task from scratch: fit a model to all data, plan with it, act, add the data, repeat.

    A run is a folder. Run the same command again, and it goes on where it stopped; a larger --trials goes further.

    [bold]Examples[/bold]

      bayesdyn learn bayesdyn/CartPoleSwingUp-v0

      bayesdyn learn bayesdyn/CartPoleSwingUp-v0 --posterior ensemble --trials 8 --out runs/swing-up

      bayesdyn learn bayesdyn/PETSCartPole-v0 --preset pets --trials 10

      bayesdyn learn bayesdyn/PETSCartPole-v0 --latency 40
    """
    task = replace(presets.task(environment, preset), replan_every=replan_every or None)
    name = posterior or task.default
    task.agent(task.model(name), latency)  # what cannot be made is refused before anything is said
    folder = out or Path("runs") / f"{environment.rpartition('/')[2]}-{preset}-{name}"
    place = scenario(environment)
    console.print(f"[bold]{name}[/] learns [bold]{place.name}[/]: {place.task}", highlight=False)
    if place.differs:
        console.print(f"The planner's reward is not quite what the environment pays: {place.differs}", highlight=False)
    with RichMonitor(name, place.info, console) as monitor:
        run = task.learn(name, latency=latency, trials=trials, run=folder, seed=seed, monitor=monitor)
    console.print(trial_table(run))
    where_to_look(write_report(folder / "report.html", {name: run}))


def trial_table(run: Run) -> Table:
    """Return a run's trials as a table for the terminal."""
    place = scenario(run.config["environment"])
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2))
    for name in ("trial", "return", place.info_name and "from the goal", "90 % coverage", "plans per second"):
        if name:
            table.add_column(name, justify="right")
    for trial in run.trials:
        distance = place.distance(trial)
        shown = [] if not place.info_name else ["–" if distance is None else f"{distance:.3f} {place.unit}"]
        table.add_row(
            str(trial.index) if trial.controlled else f"{trial.index} (random)",
            f"{trial.metrics['return']:.2f}",
            *shown,
            f"{100 * trial.metrics['coverage90']:.0f} %" if "coverage90" in trial.metrics else "–",
            f"{trial.metrics['plans_per_second']:.1f}" if "plans_per_second" in trial.metrics else "–",
            style="bold green" if place.is_solved(trial) else None,
        )
    return table
