"""The rows of a comparison, found by what they say: one number per posterior and seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bayesdyn.evaluation.comparison import Comparison
from bayesdyn.evaluation.pairs import PairedInterval, paired_interval
from bayesdyn.evaluation.table import ALL_OUTPUTS, IN_DISTRIBUTION, ONE_STEP, Row

OPEN_LOOP = "TSInf"
SPLIT = "test"


class Number(NamedTuple):
    """A value and the band in which a calibrated model's would lie; NaN where there is none."""

    value: float
    null_low: float
    null_high: float


@dataclass(frozen=True)
class Query:
    """What a number says: the columns of `Row` apart from posterior, seed and output.

    >>> Query("nll").propagation
    'predictive'
    """

    metric: str
    shift: str = IN_DISTRIBUTION
    horizon: int = 1
    propagation: str = ONE_STEP
    objective: str = ""
    split: str = SPLIT


class Line(NamedTuple):
    """A metric against the horizon, mean over seeds with the ends of its 95 % interval, and the band of a calibrated model."""

    horizons: Float[np.ndarray, "h"]
    mean: Float[np.ndarray, "h"]
    low: Float[np.ndarray, "h"]
    high: Float[np.ndarray, "h"]
    null_low: Float[np.ndarray, "h"]
    null_high: Float[np.ndarray, "h"]


class Numbers:
    """An index over the rows of a comparison; several outputs count as their mean, unless there is a row over all of them.

    >>> from bayesdyn.evaluation.comparison import Cell
    >>> rows = (Row("GP", "toy", "none", 0, "test", "nll", 1, "predictive", value=-1.5),)
    >>> Numbers(Comparison((Cell("GP", 0, rows),))).values(Query("nll"))
    {'GP': {0: -1.5}}
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._rows: dict[Query, dict[str, dict[int, list[Row]]]] = {}
        for row in comparison.rows:
            query = Query(row.metric, row.shift, row.horizon, row.propagation, row.objective, row.split)
            self._rows.setdefault(query, {}).setdefault(row.posterior, {}).setdefault(row.seed, []).append(row)

    def find(self, query: Query) -> dict[str, dict[int, Number]]:
        """Return the number of each posterior and seed, in the order of the table."""
        found = self._rows.get(query, {})
        return {name: {seed: _over_outputs(rows) for seed, rows in found[name].items()} for name in self._order(found)}

    def values(self, query: Query) -> dict[str, dict[int, float]]:
        """Return the finite values of each posterior by seed."""
        found = {
            name: {seed: number.value for seed, number in of.items() if math.isfinite(number.value)}
            for name, of in self.find(query).items()
        }
        return {name: of for name, of in found.items() if of}

    def mean(self, query: Query, name: str) -> float:
        """Return the mean over seeds, NaN if there is none."""
        found = self.values(query).get(name, {})
        return statistics.fmean(found.values()) if found else math.nan

    def null(self, query: Query, name: str) -> tuple[float, float]:
        """Return the ends of the band of a calibrated model, averaged over seeds; NaN if there is none."""
        bands = [(n.null_low, n.null_high) for n in self.find(query).get(name, {}).values() if math.isfinite(n.null_low)]
        return (statistics.fmean(b[0] for b in bands), statistics.fmean(b[1] for b in bands)) if bands else (math.nan, math.nan)

    def differences(self, query: Query, reference: str) -> dict[str, PairedInterval]:
        """Return for each posterior its mean difference to the reference over the seeds that both have, with its 95 % interval."""
        found = self.values(query)
        base = found.get(reference, {})
        pairs = {name: [of[seed] - base[seed] for seed in of if seed in base] for name, of in found.items() if name != reference}
        return {name: paired_interval(each) for name, each in pairs.items() if each}

    def horizons(self, metric: str, shift: str = IN_DISTRIBUTION, propagation: str = OPEN_LOOP, split: str = SPLIT) -> list[int]:
        """Return the horizons at which there is such a number."""
        wanted = (metric, shift, propagation, split)
        return sorted({q.horizon for q in self._rows if (q.metric, q.shift, q.propagation, q.split) == wanted})

    def by_horizon(
        self, metric: str, shift: str = IN_DISTRIBUTION, propagation: str = OPEN_LOOP, split: str = SPLIT
    ) -> dict[str, Line]:
        """Return each posterior's metric against the horizon; its null band is that of the rows `metric`_null if there are any."""
        columns: dict[str, list[tuple[float, ...]]] = {}
        for horizon in self.horizons(metric, shift, propagation, split):
            query = Query(metric, shift, horizon, propagation, split=split)
            simulated = Query(f"{metric}_null", shift, horizon, OPEN_LOOP, split=split)
            for name, of in self.values(query).items():
                over = paired_interval(list(of.values()))
                null = self.null(simulated if simulated in self._rows else query, name)
                columns.setdefault(name, []).append((horizon, over.mean, over.low, over.high, *null))
        return {name: Line(*np.array(columns[name]).T) for name in self._order(columns)}

    def propagations(self) -> list[str]:
        """Return how open loops were taken, in the order of the table."""
        return list(dict.fromkeys(q.propagation for q in self._rows if q.metric == "rmse" and q.propagation != ONE_STEP))

    def outputs(self) -> list[str]:
        """Return the predicted coordinates, in the order of the codec."""
        known = self._rows.get(Query("nrmse"), {})
        return list(dict.fromkeys(row.output for of in known.values() for rows in of.values() for row in rows))

    def select(self, metric: str) -> list[Row]:
        """Return all rows of a metric."""
        return [row for row in self.comparison.rows if row.metric == metric]

    def _order(self, names: Mapping[str, object]) -> Sequence[str]:
        return [name for name in self.comparison.posteriors if name in names]


def _over_outputs(rows: Sequence[Row]) -> Number:
    chosen = [row for row in rows if row.output == ALL_OUTPUTS] or rows
    bands = [(row.null_low, row.null_high) for row in chosen if math.isfinite(row.null_low)]
    low, high = (statistics.fmean(side) for side in zip(*bands, strict=True)) if bands else (math.nan, math.nan)
    return Number(statistics.fmean(row.value for row in chosen), low, high)
