"""What the page and the terminal say about a comparison: its table, its sections, its appendix."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.evaluation.table import IN_DISTRIBUTION, ONE_STEP
from bayesdyn.report.canvas import Palette
from bayesdyn.report.comparison_pictures import fan_pictures, horizon_pictures, knowledge_pictures
from bayesdyn.report.content import Cell, Section, Table
from bayesdyn.report.recordings import Recording, recording

_OPEN_LOOP = "TSInf"
_EPISTEMIC = "median epistemic std"  # of the points; the table of results holds the root mean square, which a few outliers rule


@dataclass(frozen=True)
class _Column:
    """A column of the table: how its figure is looked up and written, and the smaller `badness`, the better the figure."""

    title: str
    metric: str
    digits: int
    shift: str = IN_DISTRIBUTION
    horizon: int = 1
    propagation: str = ONE_STEP
    factor: float = 1.0
    badness: Callable[[float], float] | None = None
    references: bool = True


def comparison_table(comparison: Comparison) -> Table:
    """Return posteriors × scores, the best of each column marked; with several seeds the figures are means, ± their std."""
    data = recording_of(comparison)
    columns = [column for column in _columns(comparison, data) if _any(comparison, column)]
    values = [{name: _values(comparison, name, column) for name in comparison.posteriors} for column in columns]
    rows = []
    for name in comparison.posteriors:
        cells = [_cell(comparison, name, column, found) for column, found in zip(columns, values, strict=True)]
        rows.append([Cell(name), *cells])
    seeds = len({cell.seed for cell in comparison.cells})
    spread = f"Mean ± standard deviation over {seeds} seeds. " if seeds > 1 else "One seed. "
    return Table(
        "comparison",
        ("", *(column.title for column in columns)),
        rows,
        f"{spread}A dot marks the best of a column. NLL and epistemic std (the median over a recording) are in units of the "
        "training targets' std; the small range below a coverage is where a perfectly calibrated model would land (5 to 95 %).",
    )


def comparison_sections(comparison: Comparison, palette: Palette) -> list[Section]:
    """Return the sections about a comparison."""
    data = recording_of(comparison)
    learned = [name for name in comparison.posteriors if name not in REFERENCES]
    return [
        Section(
            f"On real data: {data.name}",
            f"{data.story} Linear regression and persistence (nothing changes) are the yardsticks in grey.".strip(),
            horizon_pictures(comparison, data, palette),
            [comparison_table(comparison)],
            legend=list(comparison.posteriors),
            wide=True,
        ),
        Section(
            "Does it know what it does not know?",
            "Epistemic uncertainty is the part that more data would remove. It ought to be small on data like the training data, "
            "grow where the data are of a new kind, and be largest where the model is most wrong.",
            knowledge_pictures(comparison, data, palette),
            legend=learned,
            wide=True,
        ),
        Section(
            "Many steps ahead, in open loop",
            "The recorded commands are replayed from a recorded state and nothing is corrected on the way. The dark band is what "
            "the model does not know (epistemic), the pale one adds noise (aleatoric): together they hold 90 % of what it expects.",
            fan_pictures(comparison, data, palette),
        ),
    ]


def comparison_appendix(comparison: Comparison) -> list[Table]:
    """Return every in-distribution figure that is in the table of results, and what went wrong."""
    metrics = dict.fromkeys(
        (row.metric, row.horizon, row.propagation) for row in comparison.rows if row.shift == IN_DISTRIBUTION and row.horizon > 0
    )
    rows = []
    for metric, horizon, propagation in metrics:
        column = _Column(metric, metric, 4, horizon=horizon, propagation=propagation)
        found = [_values(comparison, name, column) for name in comparison.posteriors]
        texts = [Cell(f"{statistics.fmean(v):.4g}" if v else "–") for v in found]
        rows.append([Cell(metric), Cell(str(horizon)), Cell(propagation), *texts])
    data = recording_of(comparison)
    warnings = [f"{c.posterior}, seed {c.seed}: {w}" for c in comparison.cells for w in c.warnings]
    failures = [f"{f.posterior}, seed {f.seed}: {f.message}" for f in comparison.failures]
    return [
        Table(f"{data.name}: every score in distribution", ("score", "horizon", "propagation", *comparison.posteriors), rows),
        Table.of_facts(
            f"{data.name}: seeds, warnings, failures",
            {
                "seeds": ", ".join(str(seed) for seed in dict.fromkeys(cell.seed for cell in comparison.cells)),
                "warnings of the fits": "; ".join(warnings) or "none",
                "failed fits": "; ".join(failures) or "none",
            },
        ),
    ]


def recording_of(comparison: Comparison) -> Recording:
    """Return what is known about the data that a comparison is over."""
    return recording(next((row.data for row in comparison.rows), "data"))


def _columns(comparison: Comparison, data: Recording) -> list[_Column]:
    unit = f" ({data.unit})" if data.unit else ""
    horizons = sorted({row.horizon for row in comparison.rows if row.propagation == _OPEN_LOOP and row.horizon > 1})
    ahead = [h for h in (10, 50) if h in horizons] or horizons[-2:]
    small = float.__pos__
    columns = [
        _Column("NLL (nats)", "nll", 2, badness=small),
        _Column(f"RMSE, one step{unit}", "rmse", 3, badness=small),
        _Column("90 % coverage (%)", "coverage90", 1, factor=100, badness=lambda value: abs(value - 90)),
    ]
    for horizon in ahead:
        title = f"RMSE after {data.time(horizon):g} {data.clock}{unit}"
        columns.append(_Column(title, "rmse", 2, horizon=horizon, propagation=_OPEN_LOOP, badness=small))
    for shift in comparison.shifts:
        title = f"epistemic std, {data.shift(shift)}"
        columns.append(_Column(title, _EPISTEMIC, 3, shift=shift, references=False))
    return [*columns, _Column("fit (s)", "fit_seconds", 1, horizon=0, propagation="", references=False)]


def _any(comparison: Comparison, column: _Column) -> bool:
    return any(_values(comparison, name, column) for name in comparison.posteriors)


def _values(comparison: Comparison, name: str, column: _Column) -> list[float]:
    """Return the column's figure for each seed: over all outputs where there is such a row, else the mean of the outputs."""
    if column.metric == _EPISTEMIC:
        key = f"{column.shift}/epistemic_std"
        return [float(np.median(cell.arrays[key])) for cell in comparison.cells if cell.posterior == name and key in cell.arrays]
    found = comparison.select(
        posterior=name, metric=column.metric, shift=column.shift, horizon=column.horizon, propagation=column.propagation
    )
    overall = [row for row in found if row.output == "all"] or list(found)
    seeds = dict.fromkeys(row.seed for row in overall)
    return [column.factor * statistics.fmean(row.value for row in overall if row.seed == seed) for seed in seeds]


def _cell(comparison: Comparison, name: str, column: _Column, found: dict[str, list[float]]) -> Cell:
    values = found[name]
    if not values or not all(map(math.isfinite, values)) or (name in REFERENCES and not column.references):
        return Cell("–")
    spread = f" ± {statistics.stdev(values):.{column.digits}f}" if len(values) > 1 else ""
    mean = statistics.fmean(values)
    return Cell(f"{mean:.{column.digits}f}{spread}", _is_best(column, mean, list(found.values())), _null(comparison, name, column))


def _is_best(column: _Column, mean: float, everyone: Sequence[list[float]]) -> bool:
    if column.badness is None:
        return False
    rivals = [column.badness(statistics.fmean(values)) for values in everyone if values and all(map(math.isfinite, values))]
    return column.badness(mean) <= min(rivals) + 1e-12


def _null(comparison: Comparison, name: str, column: _Column) -> str:
    """Return where a calibrated model would land, averaged over seeds and outputs, or nothing."""
    rows = comparison.select(
        posterior=name, metric=column.metric, shift=column.shift, horizon=column.horizon, propagation=column.propagation
    )
    bands = [(row.null_low, row.null_high) for row in rows if math.isfinite(row.null_low)]
    if not bands:
        return ""
    low, high = (column.factor * statistics.fmean(side) for side in zip(*bands, strict=True))
    return f"{low:.{column.digits}f} to {high:.{column.digits}f}"
