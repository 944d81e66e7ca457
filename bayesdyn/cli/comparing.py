"""`bayesdyn compare`: ask several posteriors what they know of the same data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bayesdyn import presets
from bayesdyn.cli.options import Debug, Seed, Threads, console, job, where_to_look
from bayesdyn.codec import LagCodec
from bayesdyn.data import lagged, load_log, resample
from bayesdyn.errors import ConfigurationError, UnknownNameError
from bayesdyn.evaluation import (
    ActiveLearning,
    CellProgress,
    Comparison,
    Disentanglement,
    InProcess,
    Processes,
    Ray,
    Workers,
    quarter_drone_comparison,
)
from bayesdyn.evaluation import compare as compare_posteriors
from bayesdyn.evaluation.drone import drone_posteriors
from bayesdyn.evaluation.open_loop import HORIZONS, OpenLoop
from bayesdyn.posteriors import Posterior
from bayesdyn.report import write_report
from bayesdyn.report.comparing import comparison_table

DRONE = "quarter-drone"
_TRAINED_SHARE = 0.7
_COMPARED = ("gp", "ensemble")
_FROM_CLASS = {"gp": "ExactGP", "ensemble": "BootstrapEnsemble"}

Makers = Mapping[str, Callable[[], Posterior]]


@job
def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{DRONE}, or a log of your own: a .csv or .npz file.")],
    posterior: Annotated[
        list[str] | None,
        typer.Option(help=f"What to compare, once each: {', '.join(presets.posteriors)}.", show_default=" ".join(_COMPARED)),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Results (default: runs/compare-DATA).", show_default=False)] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fits per posterior, each with its own random numbers.")] = 1,
    time: Annotated[str, typer.Option(help="Your log: the column of times in seconds.")] = "t",
    output: Annotated[list[str] | None, typer.Option(help="Your log: a measured column, once each.", show_default="y")] = None,
    input: Annotated[list[str] | None, typer.Option(help="Your log: a commanded column, once each.", show_default="u")] = None,
    lags: Annotated[int, typer.Option(min=1, help="Your log: how many past samples make the state.")] = 4,
    rate: Annotated[float | None, typer.Option(help="Your log: samples per second to resample to.", show_default=False)] = None,
    toy: Annotated[bool, typer.Option("--toy", help="Also fit a toy with known noise: is each kind of variance right?")] = False,
    active_learning: Annotated[
        bool, typer.Option("--active-learning", help="Also learn from few rows that the model asks for: is it worth asking?")
    ] = False,
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
    persistence. A log of your own is cut in two: the first 70 % to learn from, the rest to be tested on.

    Stop it whenever you like: the same command goes on. With --jobs or --ray the numbers are the same, only sooner.

    [bold]Examples[/bold]

      bayesdyn compare quarter-drone

      bayesdyn compare quarter-drone --seeds 3 --jobs 2

      bayesdyn compare arm.csv --time t --output angle --input volt --lags 4 --rate 20
    """
    makers = lagged_posteriors(posterior)
    numbers = range(seed, seed + seeds)
    folder = out or Path("runs") / f"compare-{Path(data).stem}"
    asked = Asked(Disentanglement() if toy else None, ActiveLearning() if active_learning else None, workers_of(jobs, ray, threads))
    if data == DRONE:
        found = watched(
            lambda tell: quarter_drone_comparison(makers, seeds=numbers, folder=folder, progress=tell, **asked._asdict())
        )
    elif Path(data).suffix:
        columns = Columns(time, output or ["y"], input or ["u"], lags, rate)
        found = watched(lambda tell: _compare_log(Path(data), columns, makers, numbers, folder, tell, asked))
    else:
        raise UnknownNameError(f"there is no data set {data!r}; known is {DRONE}, and any .csv or .npz file of your own")
    console.print(terminal_table(found))
    where_to_look(write_report(folder / "report.html", {}, found))


class Asked(NamedTuple):
    """What is asked beside the scores, and where it is computed: options of `bayesdyn.compare`."""

    toy: Disentanglement | None
    active_learning: ActiveLearning | None
    workers: Workers


def workers_of(jobs: int | None, ray: str | None, threads: int) -> Workers:
    """Return where cells are computed: here, unless jobs or a cluster are asked for."""
    if ray is not None:
        return Ray(ray, jobs, threads)
    return InProcess(threads) if jobs is None or jobs == 1 else Processes(jobs, threads)


@dataclass(frozen=True)
class Columns:
    """Which columns of a user's log are what, and how it becomes a lagged state."""

    time: str
    outputs: Sequence[str]
    inputs: Sequence[str]
    lags: int
    rate: float | None = None


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
        table.add_column(escape(row[0].text), justify="right", no_wrap=True)
    for place, title in list(enumerate(content.columns))[1:]:
        cells = [row[place] for row in content.rows]
        table.add_row(escape(title), *(f"[bold green]{escape(cell.text)}[/]" if cell.best else escape(cell.text) for cell in cells))
    return table


def lagged_posteriors(names: Sequence[str] | None = None) -> Makers:
    """Return the posteriors asked for, or the two usual ones; some have settings of their own for lagged data."""
    own = drone_posteriors()
    chosen = {name: presets.find("posterior", name, presets.posteriors) for name in names or _COMPARED}
    return {name: own.get(_FROM_CLASS.get(name, ""), make) for name, make in chosen.items()}


def _compare_log(
    path: Path,
    columns: Columns,
    makers: Makers,
    seeds: Sequence[int],
    folder: Path,
    tell: Callable[[CellProgress], None],
    asked: "Asked",
) -> Comparison:
    log = load_log(path, outputs=columns.outputs, inputs=columns.inputs, time=columns.time)
    log = log if columns.rate is None else resample(log, columns.rate)
    start, end = float(log.time[0]), float(log.time[-1])
    cut = start + _TRAINED_SHARE * (end - start)
    parts = [log.slice(start, cut), log.slice(cut, end + 1.0)]
    if min(len(part) for part in parts) < columns.lags + 3:
        raise ConfigurationError(
            f"{path} has {len(log)} samples, too few for {columns.lags} lags; lower --lags or bring a longer log"
        )
    train, test = (lagged(part, columns.lags, columns.lags) for part in parts)
    horizons = tuple(h for h in HORIZONS if h <= len(test))
    return compare_posteriors(
        makers,
        train,
        test,
        lambda: LagCodec(columns.lags, columns.lags, channels=len(columns.outputs)),
        data=path.stem,
        seeds=seeds,
        open_loop=OpenLoop(horizons=horizons),
        folder=folder,
        progress=tell,
        **asked._asdict(),
    )
