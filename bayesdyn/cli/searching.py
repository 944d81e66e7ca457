"""`bayesdyn pilco`: learn a scenario of the PILCO papers from seconds of data."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bayesdyn import presets
from bayesdyn.cli.options import Debug, Seed, Threads, console, job, where_to_look
from bayesdyn.loop import RichMonitor, Run, Trial
from bayesdyn.presets import Rehearsal, ScenarioTask
from bayesdyn.report import write_report
from bayesdyn.report.scenarios import scenario as scenario_in_words
from bayesdyn.report.searching import predicted_total, rehearsed


@job
def pilco(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help=f"What to learn: {', '.join(presets.scenarios)}.")],
    method: Annotated[str, typer.Option(help=f"How to learn it: {', '.join(presets.scenario_methods)}.")] = "pilco",
    trials: Annotated[
        int | None, typer.Option(min=1, help="Controlled trials at most; random ones come before (default: the scenario's).")
    ] = None,
    basis: Annotated[
        int | None, typer.Option(min=0, help="Radial basis functions of the policy, 0 for a linear one (default: the scenario's).")
    ] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on to the last trial after it has been solved.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/SCENARIO-METHOD).", show_default=False)] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    debug: Debug = False,
) -> None:
    """Learn a scenario of the PILCO papers: a random trial, then fit, improve a policy on the model, try it, and again.

    It ends when a trial has solved the scenario. A run is a folder: the same command goes on where it stopped.

    [bold]Examples[/bold]

      bayesdyn pilco cart-pole

      bayesdyn pilco pendulum --basis 10 --trials 5

      bayesdyn pilco double-pendulum --seed 1 --out runs/second
    """
    task = scenario_task(scenario, method, {} if basis is None else {"basis": basis})
    folder = out or Path("runs") / f"{scenario}-{method}"
    place = scenario_in_words(task.scenario.env_id)
    console.print(f"[bold]{method}[/] learns [bold]{place.name}[/]: {place.task}", highlight=False)
    with RichMonitor(method, task.scenario.distance, console) as monitor:
        stop = None if keep_going else task.solved
        run = task.learn(trials=trials, run=folder, seed=seed, stop=stop, monitor=monitor)
    found = presets.rehearse(task, run)
    console.print(search_table(task, run, found))
    for warning in (warning for rehearsal in found.values() for warning in rehearsal.warnings):
        console.print(f"[yellow]warning:[/] {warning}", highlight=False)
    _say_what_came_out(task, run)
    where_to_look(write_report(folder / "report.html", {method: run}))


def scenario_task(scenario: str, method: str, changes: dict[str, Any]) -> ScenarioTask:
    """Return a scenario with a way of learning it; raises `UnknownNameError` for names that are none."""
    return presets.find("method", method, presets.scenario_methods)(scenario, **changes)


def search_table(task: ScenarioTask, run: Run, found: dict[int, Rehearsal]) -> Table:
    """Return a run's trials as a table for the terminal, the solved ones in green."""
    place = scenario_in_words(task.scenario.env_id)
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1))
    for name in ("trial", "return", "predicted cost", "real cost", "from the goal", "other starts solved", "fit and search"):
        table.add_column(name, justify="right")
    for trial in run.trials:
        rehearsal = found.get(trial.index)
        table.add_row(
            str(trial.index) if trial.controlled else f"{trial.index} (random)",
            f"{trial.metrics['return']:.2f}",
            f"{predicted_total(trial):.2f}" if "cost_mean" in trial.predictions else "–",
            "–" if rehearsal is None else f"{float(rehearsal.cost.sum()):.2f}",
            f"{trial.last(task.scenario.distance):.3f} m",
            (rehearsal is not None and rehearsed(rehearsal, place)) or "–",
            _seconds(trial),
            style="bold green" if task.solved(trial) else None,
        )
    return table


def _seconds(trial: Trial) -> str:
    spent = [trial.metrics[name] for name in ("fit_seconds", "policy_seconds") if name in trial.metrics]
    return f"{sum(spent):.0f} s" if spent else "–"


def _say_what_came_out(task: ScenarioTask, run: Run) -> None:
    solved = next((trial for trial in run.trials if task.solved(trial)), None)
    goal = f"{task.scenario.solved_below:g} m of the goal over the last ten steps"
    if solved is None:
        console.print(f"[yellow]Not solved yet[/]: no trial stayed within {goal}. A larger --trials goes on.", highlight=False)
        return
    console.print(f"[bold green]Solved in controlled trial {_number(run, solved)}[/]: within {goal}.", highlight=False)


def _number(run: Run, trial: Trial) -> int:
    return sum(other.controlled for other in run.trials if other.index <= trial.index)
