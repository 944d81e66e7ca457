"""What figures show of a comparison, as plain arrays: pooled points, curves, stretches of open loops. Nothing asks a model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from bayesdyn.evaluation.comparison import Comparison
from bayesdyn.evaluation.ranking import sparsification
from bayesdyn.evaluation.scoring import PIT_PERCENT
from bayesdyn.evaluation.table import IN_DISTRIBUTION
from bayesdyn.plots.numbers import Numbers, Query

Array = Float[np.ndarray, "..."]
_POINTS = 101


class Band(NamedTuple):
    """The band of a calibrated model, low and high [P] at `level` [P]."""

    level: Float[np.ndarray, "P"]
    low: Float[np.ndarray, "P"]
    high: Float[np.ndarray, "P"]


class Errors(NamedTuple):
    """Points of all test sets and seeds, in units of the training targets' std: errors and the two parts of their std."""

    error: Float[np.ndarray, "J"]
    epistemic_std: Float[np.ndarray, "J"]
    aleatoric_std: Float[np.ndarray, "J"]


class Sparsified(NamedTuple):
    """RMSE of what remains over that of everything, when a share of the points is removed: by uncertainty, and by the error."""

    share: Float[np.ndarray, "P"]
    remaining: Float[np.ndarray, "P"]
    oracle: Float[np.ndarray, "P"]


class Fan(NamedTuple):
    """An open loop from one start, one output [H + 1]: the truth, the prediction, its `quantiles` at 5, 25, 75 and 95 %.

    `lines` are paths of one θ each. `crps` is that of the stretch, averaged over steps and outputs and over the std of each output.
    """

    truth: Float[np.ndarray, "T"]
    mean: Float[np.ndarray, "T"]
    quantiles: Float[np.ndarray, "4 T"]
    epistemic_std: Float[np.ndarray, "T"]
    aleatoric_std: Float[np.ndarray, "T"]
    lines: Float[np.ndarray, "k T"]
    crps: float


def pooled(comparison: Comparison, name: str, array: str, shift: str = IN_DISTRIBUTION) -> Array | None:
    """Return one array of a posterior, all seeds one after the other, None if no cell has it."""
    key = f"{shift}/{array}"
    found = [cell.arrays[key] for cell in comparison.cells if cell.posterior == name and key in cell.arrays]
    return np.concatenate(found) if found else None


def pit(comparison: Comparison, shift: str = IN_DISTRIBUTION) -> dict[str, Array]:
    """Return each posterior's probability integral transforms, all seeds and outputs together."""
    found = {name: pooled(comparison, name, "pit", shift) for name in comparison.posteriors}
    return {name: values.ravel() for name, values in found.items() if values is not None}


def share_below(u: Array, level: Array) -> Array:
    """Return the share of values at or below each level.

    >>> share_below(np.array([0.2, 0.6]), np.array([0.5, 1.0])).tolist()
    [0.5, 1.0]
    """
    return np.searchsorted(np.sort(u), level, side="right") / len(u)


def calibration_band(numbers: Numbers, name: str, shift: str = IN_DISTRIBUTION) -> Band | None:
    """Return where the calibration curve of a right model would lie, averaged over seeds and outputs."""
    return _band(numbers, name, shift, [f"pit_below_{percent:02d}" for percent in PIT_PERCENT], np.array(PIT_PERCENT) / 100)


def histogram_band(numbers: Numbers, name: str, shift: str = IN_DISTRIBUTION) -> Band | None:
    """Return where the ten shares of the PIT histogram of a right model would lie."""
    return _band(numbers, name, shift, [f"pit_tenth_{k}" for k in range(1, 11)], (np.arange(10) + 0.5) / 10)


def histogram(u: Array) -> Float[np.ndarray, "10"]:
    """Return the shares of ten equal bins of [0, 1].

    >>> float(histogram(np.array([0.05, 0.95]))[0])
    0.5
    """
    return np.histogram(u, 10, (0.0, 1.0))[0] / max(len(u), 1)


def errors(comparison: Comparison, name: str) -> Errors | None:
    """Return a posterior's errors and stds over all test sets and seeds, outputs one after the other."""
    parts = []
    for array in Errors._fields:
        found = [pooled(comparison, name, array, shift) for shift in comparison.shifts]
        known = [values.ravel() for values in found if values is not None]
        if not known:
            return None
        parts.append(np.concatenate(known))
    return Errors(*parts)


def sparsified(comparison: Comparison, name: str, shift: str = IN_DISTRIBUTION) -> Sparsified | None:
    """Return the sparsification curve by epistemic std and that of the oracle, averaged over outputs and seeds."""
    share = np.linspace(0.0, 0.98, _POINTS)
    curves = []
    for cell in comparison.cells:
        if cell.posterior == name and f"{shift}/error" in cell.arrays:
            size = torch.from_numpy(np.abs(cell.arrays[f"{shift}/error"]))
            score = torch.tensor(cell.arrays[f"{shift}/epistemic_std"])  # a copy: what comes from a cluster is read-only
            both = torch.stack([sparsification(score, size), sparsification(size, size)]).numpy()
            relative = (both / np.maximum(both[:, :1], 1e-300)).mean(-1)
            curves.append(relative[:, np.minimum((share * len(size)).astype(int), len(size) - 1)])
    return Sparsified(share, *np.mean(curves, 0)) if curves else None


def roc(comparison: Comparison, name: str, shift: str) -> tuple[Array, Array] | None:
    """Return the false and the true positive rate of the shift score at up to 201 thresholds, all seeds together.

    Points of equal score cross a threshold together, so that a score that says nothing makes the diagonal.
    """
    inside, there = (pooled(comparison, name, "shift_score", kind) for kind in (IN_DISTRIBUTION, shift))
    if inside is None or there is None:
        return None
    thresholds = np.unique(np.concatenate([inside, there]))[::-1]
    rates = [1 - np.searchsorted(np.sort(values), thresholds, side="left") / len(values) for values in (inside, there)]
    false, true = (np.concatenate([[0.0], rate]) for rate in rates)
    few = np.unique(np.linspace(0, len(false) - 1, min(len(false), 2 * _POINTS - 1)).round().astype(int))
    return false[few], true[few]


def fan_starts(comparison: Comparison, shift: str = IN_DISTRIBUTION, each: int = 4) -> list[int]:
    """Return the start states to show, those that all models found easiest first: the best, median and worst `each` by CRPS.

    Every posterior's CRPS is taken over its own mean first, so that all have a say.
    """
    scores = [cell.arrays[f"{shift}/fan_crps"] for cell in comparison.cells if f"{shift}/fan_crps" in cell.arrays]
    relative = [score / score.mean() for score in scores if np.isfinite(score).all() and score.mean() > 0]
    if not relative:
        return list(range(len(scores[0]))) if scores else []
    order = np.argsort(np.mean(relative, 0), kind="stable").tolist()
    return order if len(order) <= 3 * each else [*order[:each], *_middle(order, each), *order[-each:]]


def fan(comparison: Comparison, name: str, start: int, shift: str = IN_DISTRIBUTION, output: int = 0) -> Fan | None:
    """Return the open loop of a posterior's first seed from one start."""
    cells = [cell for cell in comparison.cells if cell.posterior == name and f"{shift}/fan_truth" in cell.arrays]
    if not cells:
        return None
    arrays = cells[0].arrays
    parts = {part: arrays[f"{shift}/fan_{part}"][..., start, output] for part in Fan._fields if part != "crps"}
    return Fan(**parts, crps=float(arrays[f"{shift}/fan_crps"][start]))


def _middle(order: Sequence[int], count: int) -> Sequence[int]:
    first = (len(order) - count) // 2
    return order[first : first + count]


def _band(numbers: Numbers, name: str, shift: str, metrics: Sequence[str], level: Array) -> Band | None:
    ends = np.array([numbers.null(Query(metric, shift), name) for metric in metrics])
    return None if np.isnan(ends).any() else Band(level, ends[:, 0], ends[:, 1])
