"""`bayesdyn compare`: ask several posteriors what they know of the same data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bayesdyn import presets
from bayesdyn.cli.options import Debug, Seed, Threads, console, job, where_to_look
from bayesdyn.cli.sources import BUILT_IN, INPUTS, LAGS, OUTPUTS, TIME, SourceOptions, find_source
from bayesdyn.evaluation import (
    ActiveLearning,
    CellProgress,
    Comparison,
    DecisionTask,
    Disentanglement,
    InProcess,
    Processes,
    Ray,
    Workers,
    simulated_decisions,
)
from bayesdyn.evaluation import compare as compare_posteriors
from bayesdyn.evaluation.about import About
from bayesdyn.evaluation.data_sets import DataSet
from bayesdyn.evaluation.drone import drone_posteriors
from bayesdyn.evaluation.lineup import line_up
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.evaluation.simulated_sets import EPISODES
from bayesdyn.posteriors import Posterior
from bayesdyn.report import write_report
from bayesdyn.report.comparing import comparison_table
from bayesdyn.report.recordings import few_test_data, recording
from bayesdyn.rollout import Mean, TSInf

DRONE = "quarter-drone"
_STARTS = 50  # of decisions
_FROM_CLASS = {"gp": "ExactGP", "ensemble": "BootstrapEnsemble"}

Makers = Mapping[str, Callable[[], Posterior]]


@job
def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{', '.join(BUILT_IN)}, an environment, a file, minari:NAME.")],
    posterior: Annotated[
        list[str] | None,
        typer.Option(help=f"What to compare, once each: {', '.join(presets.posteriors)}.", show_default="eight of them"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Results (default: runs/compare-DATA).", show_default=False)] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fits per posterior, each with its own random numbers.")] = 1,
    behaviour: Annotated[
        str | None, typer.Option(help="Environment: what collects the data, random, ou or pd.", show_default="random")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=2, help="Environment: how many; of Minari and tosses, at most.", show_default=str(EPISODES))
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Environment: steps per episode, at most.", show_default=False)] = None,
    time: Annotated[
        str | None, typer.Option(help="File: the column of times in seconds; '' for samples without.", show_default=TIME)
    ] = None,
    output: Annotated[list[str] | None, typer.Option(help="File: a measured column, once each.", show_default=OUTPUTS[0])] = None,
    input: Annotated[list[str] | None, typer.Option(help="File: a commanded column, once each.", show_default=INPUTS[0])] = None,
    episode: Annotated[str | None, typer.Option(help="File: the column that numbers recordings.", show_default=False)] = None,
    lags: Annotated[
        int | None, typer.Option(min=1, help="File: how many past samples make the state.", show_default=str(LAGS))
    ] = None,
    angle: Annotated[list[str] | None, typer.Option(help="File, --lags 1: a column of radians.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option(help="File: samples per second to resample to.", show_default=False)] = None,
    shift: Annotated[
        list[Path] | None, typer.Option(help="File: another of the same columns, to test on as a shift.", show_default=False)
    ] = None,
    toy: Annotated[bool, typer.Option("--toy", help="Also fit a toy with known noise: is each kind of variance right?")] = False,
    active_learning: Annotated[
        bool, typer.Option("--active-learning", help="Also learn from few rows that the model asks for: is it worth asking?")
    ] = False,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Environment: also plan with each model. Does a plan earn what it promises?")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Fit again what failed before; else that is kept, too.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Fits at once, each in a process of its own.", show_default="1")] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Compute on a Ray cluster: its address, auto, or local.", show_default=False),
    ] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    debug: Debug = False,
) -> None:
    """Compare posteriors on recorded data: how good are they, and do they know how good?

    Each is trained on the same part and scored on the rest, one step and many steps ahead, beside linear regression and
    persistence; then recalibrated on episodes kept apart, and scored again. Data are cut by episodes, one long recording in time.

    Stop it whenever you like: the same command goes on. What failed is kept as failed; --retry fits it again. With --jobs or --ray
    the numbers are the same, only sooner.

    [bold]Examples[/bold]

      bayesdyn compare quarter-drone

      bayesdyn compare quarter-drone --seeds 3 --jobs 2

      bayesdyn compare pendulum --behaviour ou --episodes 30

      bayesdyn compare cart-pole --decisions --posterior ensemble

      bayesdyn compare arm.csv --time t --output angle --input volt --lags 4 --rate 20
    """
    options = SourceOptions(
        episodes=episodes,
        steps=steps,
        behaviour=behaviour,
        time=time,
        output=output or (),
        input=input or (),
        episode=episode,
        lags=lags,
        rate=rate,
        angle=angle or (),
        shift=shift or (),
        decisions=decisions or None,
        seed=seed,
    )
    line_up(posterior, rows=0)  # a name that there is not is said before data are collected
    found = find_source(data, options)
    console.print(f"{found.name}: {found.note}.", highlight=False, soft_wrap=True)
    warn(few_test_data(recording(found.name), About(tests=found.test_sizes())))
    makers = line_up(posterior, rows=len(found.train), lagged=found.lagged)
    folder = out or Path("runs") / f"compare-{folder_name(found.name)}"
    asked = Asked(
        Disentanglement() if toy else None,
        ActiveLearning() if active_learning else None,
        decisions_of(found) if decisions else None,
        retry,
        workers_of(jobs, ray, threads),
    )
    compared = watched(lambda tell: _compare(found, makers, range(seed, seed + seeds), folder, tell, asked))
    console.print(terminal_table(compared))
    warn(failed(compared))
    where_to_look(write_report(folder / "report.html", {}, compared))


class Asked(NamedTuple):
    """What is asked beside the scores, and where it is computed: options of `bayesdyn.compare`."""

    toy: Disentanglement | None
    active_learning: ActiveLearning | None
    decisions: DecisionTask | None
    retry: bool
    workers: Workers


def workers_of(jobs: int | None, ray: str | None, threads: int) -> Workers:
    """Return where cells are computed: here, unless jobs or a cluster are asked for."""
    if ray is not None:
        return Ray(ray, jobs, threads)
    return InProcess(threads) if jobs is None or jobs == 1 else Processes(jobs, threads)


def decisions_of(data: DataSet) -> DecisionTask:
    """Return decisions in the simulated environment that the data are from, from states that were held out.

    Raises `UnknownNameError` for data of anything else, and `ConfigurationError` for an environment whose plant is not known.
    """
    states = data.in_distribution.state
    spaced = torch.linspace(0, len(states) - 1, min(_STARTS, len(states))).round().long()
    return simulated_decisions(presets.task(data.name), states[spaced])


@dataclass
class Watch:
    """Shows where a comparison stands: one bar that counts fits, and what the one heard of last is at."""

    progress: Progress
    _task: TaskID | None = field(default=None, init=False)

    def __call__(self, state: CellProgress) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self.progress.add_task("compare", total=state.cells)
        ended = {"kept": "was finished before", "done": "done", "failed": "[red]failed[/]"}
        share = 0.6 * (state.stage != "fit") + (0.6 if state.stage == "fit" else 0.4) * state.done / max(state.total, 1)
        what = ended.get(state.stage, "fits" if state.stage == "fit" else "is scored")
        done = state.cell + (1.0 if state.stage in ended else share)
        self.progress.update(self._task, completed=done, description=f"{escape(state.posterior)} {what}")


def watched(run: Callable[[Callable[[CellProgress], None]], Comparison]) -> Comparison:
    """Run a comparison under a progress bar."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        return run(Watch(progress))


def terminal_table(comparison: Comparison) -> Table:
    """Return the comparison's scores for the terminal, one line each, the best in green."""
    content = comparison_table(comparison)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
    table.add_column("")
    for row in content.rows:
        table.add_column("\n".join(filter(None, [escape(row[0].text), row[0].note])), justify="right", no_wrap=True)
    for place, title in list(enumerate(content.columns))[1:]:
        cells = [row[place] for row in content.rows]
        table.add_row(escape(title), *(f"[bold green]{escape(cell.text)}[/]" if cell.best else escape(cell.text) for cell in cells))
    return table


def failed(comparison: Comparison) -> str:
    """Say what failed and how to fit it again, nothing where nothing did."""
    each = "; ".join(f"{failure.posterior} (seed {failure.seed}), {failure.message}" for failure in comparison.failures)
    return each and f"Failed: {each}. That is kept like the rest; the same command with --retry fits it again."


def warn(text: str) -> None:
    """Say what a reader of the table has to know, if there is something."""
    if text:
        console.print(f"[yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)


def lagged_posteriors() -> Makers:
    """Return the two posteriors that the demo compares on lagged data, by the names of the command line."""
    own = drone_posteriors()
    return {name: own[of_class] for name, of_class in _FROM_CLASS.items()}


def folder_name(name: str) -> str:
    """Return a data set's name as one folder's.

    >>> folder_name("bayesdyn/Pendulum-v0")
    'bayesdyn-Pendulum-v0'
    """
    return name.replace("/", "-")


def _compare(
    found: DataSet, makers: Makers, seeds: Sequence[int], folder: Path, tell: Callable[[CellProgress], None], asked: "Asked"
) -> Comparison:
    return compare_posteriors(
        makers,
        found.train,
        found.in_distribution,
        found.codec,
        shifted=found.shifted,
        data=found.name,
        note=found.note,
        step_seconds=found.step_seconds,
        seeds=seeds,
        open_loop=OpenLoop(horizons=found.horizons(), propagations={"TSInf": TSInf(), "Mean": Mean()}),
        calibration=found.calibration,
        folder=folder,
        progress=tell,
        **asked._asdict(),
    )
