"""What came of plans that were made with a model and carried out: rows of the table, and arrays for figures.

Returns [B, C] are of C plans from each of B starts: plan 0 is the planner's choice, then come random plans, then the planner's
best candidates.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.evaluation.metrics import coverage, mace
from bayesdyn.evaluation.null_bands import Band
from bayesdyn.evaluation.plan_scores import decision_scores, return_pit, return_scale
from bayesdyn.evaluation.seeds import seeded
from bayesdyn.evaluation.table import Row

_ENDS = torch.tensor([0.05, 0.95], dtype=torch.float64)
_PIT = 6  # the purpose of a seed, beside those of `decisions`


@dataclass(frozen=True, eq=False)
class Anchor:
    """What all models of one seed share: random plans, their realised returns, and those of the planner with the true dynamics."""

    random: Float[Tensor, "T B r A"]
    random_returns: Float[Tensor, "B r"]
    best_returns: Float[Tensor, "B"]

    @property
    def scale(self) -> float:
        """The unit of gap and regret."""
        return float(return_scale(self.random_returns))


@dataclass(frozen=True, eq=False)
class Decided:
    """Plans made with one model, objective and propagation, and their returns: [..., C], plan 0 chosen, then random, then elites.

    `imagined` [B] is the mean return that the planner saw for its choice, on the draws that it chose by.
    """

    actions: Float[Tensor, "T B C A"]
    predicted: Float[Tensor, "n p B C"]
    realised: Float[Tensor, "B C"]
    imagined: Float[Tensor, "B"]
    simulated: Float[Tensor, "R B C"]


def rows_of(decided: Decided, fixed: Anchor, random: int, base: Row) -> list[Row]:
    """Return the rows of plans that were made and carried out; see `decision_rows`."""
    usable = decided.predicted.isfinite().all(0).all(0).all(1) & decided.realised.isfinite().all(1)
    base = replace(base, count=int(usable.sum()))
    rows = [replace(base, metric="decision_failures", value=1 - float(usable.double().mean()), count=len(usable))]
    if int(usable.sum()) < 2:
        return rows
    predicted, realised = decided.predicted[:, :, usable], decided.realised[usable]

    def scores(returns: Tensor) -> dict[str, Tensor]:
        return decision_scores(predicted, returns, random, seeded(base.seed, _PIT))

    found, scale = scores(realised), fixed.scale
    simulated = decided.simulated[:, usable]
    null = [_means(scores(truth), scale) for truth in simulated if bool(truth.isfinite().all())]
    for metric, value in _means(found, scale).items():
        low, high = _band([replicate[metric] for replicate in null])
        rows.append(replace(base, metric=metric, value=float(value), null_low=float(low), null_high=float(high)))
    differences = {
        **{name: found[name] for name in ("exploitation_gap", "random_gap", "optimiser_share")},
        "regret": fixed.best_returns[usable] - realised[:, 0],
        "sampling_optimism": decided.imagined[usable] - predicted[..., 0].mean((0, 1)),
    }
    for metric, each in differences.items():
        if metric not in found:
            rows.append(replace(base, metric=metric, value=float(each.mean()) / scale))
        rows.append(replace(base, metric=f"{metric}_se", value=float(each.std()) / math.sqrt(len(each)) / scale))
    rows.append(replace(base, metric="predicted_return", value=float(predicted[..., 0].mean())))
    rows.append(replace(base, metric="realised_return", value=float(realised[:, 0].mean())))
    return rows


def _means(scores: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return one number per score over all starts, gaps in units of `scale`."""
    found = {name: scores[name].mean() / scale for name in ("exploitation_gap", "random_gap", "optimiser_share")}
    # Where all plans earn the same there is nothing to rank.
    found["plan_spearman"] = scores["plan_spearman"].nanmean()
    if "pit" in scores:
        found["return_mace"] = mace(scores["pit"].unsqueeze(1))[0]
        found["return_coverage90"] = coverage(scores["pit"], 0.9)
    return found


def _band(values: list[Tensor]) -> Band:
    if not values:
        nothing = torch.tensor(torch.nan, dtype=torch.float64)
        return Band(nothing, nothing)
    return Band(*torch.stack(values).double().nanquantile(_ENDS, 0))


def arrays_of(decided: Decided, fixed: Anchor, seed: int) -> dict[str, np.ndarray]:
    """Return what figures are drawn from, over B starts and C plans: plan 0 chosen, then random ones, then the best candidates.

    `predicted` and `predicted_std` [B, C], mean and standard deviation over draws and paths; `realised` [B, C]; `best` [B], what
    the planner earns that knows the truth; `pit` [B] of the chosen plans; and `scale` [], the unit of gaps.
    """
    predicted, realised = decided.predicted, decided.realised
    values = {
        "predicted": predicted.mean((0, 1)),
        "predicted_std": predicted.flatten(0, 1).std(0, correction=0),
        "realised": realised,
        "best": fixed.best_returns,
        "pit": return_pit(predicted[..., 0], realised[:, 0], seeded(seed, _PIT)),
        "scale": return_scale(fixed.random_returns),
    }
    return {name: value.numpy() for name, value in values.items()}
