"""The table on top of a comparison: posteriors against scores, differences to a reference, the best and what is tied with it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.evaluation.pairs import PairedInterval, paired_interval
from bayesdyn.plots.numbers import OPEN_LOOP, Query
from bayesdyn.report.compared import Compared
from bayesdyn.report.content import Cell, Table
from bayesdyn.report.score_figures import told_from_chance

_FEW_SEEDS = 5
Badness = Callable[[float], float]
_CLOCKS = {"fit (s)": ("fit_seconds", 1, 1.0), "draw (µs)": ("draw_seconds", 0, 1e6), "step (µs)": ("step_seconds", 2, 1e6)}


@dataclass(frozen=True)
class Column:
    """A column: where its figure is found, how it is written, and the smaller `badness`, the better the figure.

    `null` is where the band of a right model is found, if it is not beside the figure itself. `doubt` says that the figure is of
    the epistemic part, which not every model has.
    """

    title: str
    query: Query
    digits: int
    factor: float = 1.0
    badness: Badness | None = None
    null: Query | None = None
    references: bool = True
    doubt: bool = False

    def by_seed(self, of: Compared, name: str) -> dict[int, float]:
        """Return the figure of each seed."""
        if (name in REFERENCES and not self.references) or (self.doubt and not of.doubts(name)):
            return {}
        return {seed: self.factor * value for seed, value in of.numbers.values(self.query).get(name, {}).items()}

    def text(self, value: float, *, signed: bool = False) -> str:
        """Write a figure."""
        rounded = round(value, self.digits) + 0.0  # -0 becomes 0
        return f"{rounded:+.{self.digits}f}" if signed else f"{rounded:.{self.digits}f}"


def ranking_table(of: Compared) -> Table:
    """Return posteriors × scores: means over seeds, below them the difference to the reference or the band of a right model."""
    kept = [column for column in ranking_columns(of) if any(column.by_seed(of, name) for name in of.comparison.posteriors)]
    by_column = [_cells(of, column) for column in kept]
    rows = [[_head(of, name), *(cells[name] for cells in by_column)] for name in of.comparison.posteriors]
    return Table("comparison", ("", *(column.title for column in kept)), rows, _caption(of))


def _head(of: Compared, name: str) -> Cell:
    """Return a model's name, and how many seeds it has if others have more."""
    seeds = of.seeds_of(name)
    return Cell(name, note=f"{seeds} of {of.seeds} seeds" if seeds < of.seeds else "")


def ranking_columns(of: Compared) -> list[Column]:
    """Return the columns that a comparison may have; those without any figure are left out of the table."""
    small, large = float.__pos__, float.__neg__

    def near(value: float) -> float:
        return abs(value - 90.0)

    columns = [Column("NLL (nats)", Query("nll"), 2, badness=small)]
    for horizon in of.ahead:
        skill = Query("skill_ridge-linear", horizon=horizon, propagation=OPEN_LOOP)
        columns.append(Column(f"CRPS skill, {_steps(horizon)}", skill, 2, badness=large))
    columns.append(Column("90 % coverage (%)", Query("coverage90"), 1, 100.0, near))
    for horizon in of.ahead[1:]:
        query = Query("coverage90", horizon=horizon, propagation=OPEN_LOOP)
        null = Query("coverage90_null", horizon=horizon, propagation=OPEN_LOOP)
        columns.append(Column(f"90 % coverage, {_steps(horizon)} (%)", query, 1, 100.0, near, null))
    columns.append(Column("AUSE", Query("ause_epistemic"), 2, badness=small, references=False, doubt=True))
    for shift in of.shifts:
        query = Query("auroc", shift=shift)
        columns.append(Column(f"AUROC, {of.data.shift(shift)}", query, 2, badness=large, references=False, doubt=True))
    columns += _decisions(of)
    return [*columns, *_clocks()]


def _clocks() -> Iterator[Column]:
    for title, (metric, digits, factor) in _CLOCKS.items():
        yield Column(title, Query(metric, horizon=0, propagation="", split="train"), digits, factor, references=False)


def _decisions(of: Compared) -> list[Column]:
    """Return the exploitation gap of the first objective and propagation, if plans were made."""
    row = next(iter(of.numbers.select("exploitation_gap")), None)
    if row is None:
        return []
    query = Query(row.metric, horizon=row.horizon, propagation=row.propagation, objective=row.objective)
    return [Column("exploitation gap", query, 2, badness=abs)]


def _cells(of: Compared, column: Column) -> dict[str, Cell]:
    values = {name: column.by_seed(of, name) for name in of.comparison.posteriors}
    scored = {name: {s: column.badness(v) for s, v in found.items()} for name, found in values.items() if column.badness and found}
    best, ties = _ranked(scored)
    differences = of.numbers.differences(column.query, of.reference) if column.badness is not None else {}
    cells = {}
    for name, found in values.items():
        if not found:
            broken = column.query.metric == "nll" and any(failure.posterior == name for failure in of.comparison.failures)
            cells[name] = Cell("failed" if broken else "–")
            continue
        mean = sum(found.values()) / len(found)
        note = _null(of, column, name) or _difference(column, differences.get(name))
        cells[name] = Cell(column.text(mean), name in best, note, name in ties)
    return cells


def _ranked(scored: Mapping[str, Mapping[int, float]]) -> tuple[set[str], set[str]]:
    """Return the names with the smallest mean, and those whose difference to it may be chance.

    References are bars to be beaten, not rivals.
    """
    rivals = {name: each for name, each in scored.items() if name not in REFERENCES}
    # A mean over other seeds is no mean to be compared.
    most = max((len(each) for each in rivals.values()), default=0)
    means = {name: sum(each.values()) / len(each) for name, each in rivals.items() if len(each) == most}
    if len(means) < 2:
        return set(), set()
    least = min(means.values())
    best = {name for name, mean in means.items() if mean <= least + 1e-12}
    first = scored[next(iter(best))]
    ties = set()
    for name in means.keys() - best:
        pairs = [value - first[seed] for seed, value in scored[name].items() if seed in first]
        if len(pairs) > 1 and paired_interval(pairs).tied:
            ties.add(name)
    return best, ties


def _difference(column: Column, found: PairedInterval | None) -> str:
    if found is None:
        return ""
    mean = column.text(column.factor * found.mean, signed=True)
    if not math.isfinite(found.low):
        return f"Δ {mean}"
    return f"Δ {mean}\n± {column.text(0.5 * column.factor * (found.high - found.low))}"


def _null(of: Compared, column: Column, name: str) -> str:
    if name in REFERENCES and not column.query.metric.startswith("coverage"):
        return ""
    if not column.query.metric.startswith("coverage"):
        return ""
    low, high = of.numbers.null(column.null or column.query, name)
    return f"{column.text(column.factor * low)} to {column.text(column.factor * high)}" if math.isfinite(low) else ""


def _caption(of: Compared) -> str:
    if of.seeds > 1:
        seeds = f"Means over {of.seeds} seeds. Δ: difference to {of.reference} on the same seeds, ± half its 95 % interval."
        marks = "● best of a column, ○ not told from the best by these seeds"
        marks += f": {told_from_chance(of.seeds)}." if of.seeds < _FEW_SEEDS else "."
    else:
        seeds = f"One seed: nothing here is known against chance. Δ: difference to {of.reference}."
        marks = "● best of a column."
    return (
        f"{seeds} {marks} Linear regression and persistence are bars to be beaten and take no part in the ranking. Below a "
        "coverage: "
        "where a right model would land (5 to 95 %). NLL and AUSE are one step ahead, CRPS skill is against linear regression. "
        "A draw is one θ of 16, a step one state of 16 x 64, where the comparison ran. –: not to be had, such as AUSE and AUROC "
        "without an epistemic part."
    )


def _steps(horizon: int) -> str:
    return "1 step" if horizon == 1 else f"{horizon} steps"
