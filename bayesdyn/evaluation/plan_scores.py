"""Scores of plans: predicted returns [n, p, ...] (draws of θ, paths) against realised ones [...]; pure functions of tensors."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.evaluation.metrics import spearman
from bayesdyn.evaluation.samples import rank_pit


def exploitation_gap(predicted: Float[Tensor, "n p *plans"], realised: Float[Tensor, "*plans"]) -> Float[Tensor, "*plans"]:
    """Return the mean predicted return less the realised one: positive where the model promises too much.

    >>> exploitation_gap(torch.tensor([[[3.0]], [[5.0]]]), torch.tensor([1.0])).item()
    3.0
    """
    return predicted.mean((0, 1)) - realised


def return_pit(
    predicted: Float[Tensor, "n p *plans"], realised: Float[Tensor, "*plans"], generator: torch.Generator
) -> Float[Tensor, "*plans"]:
    """Return the rank of the realised return among the predicted ones, in (0, 1); uniform for a calibrated model if p = 1.

    With p > 1 paths of one θ go together and the realised return is alone with its own, so the ranks are uniform only as n grows.
    """
    return rank_pit(predicted.flatten(0, 1), realised, generator)


def return_scale(random: Float[Tensor, "B r"]) -> Float[Tensor, ""]:
    """Return √mean_b Var_r of the realised returns of r random plans: what a plan decides about, the unit of gap and regret.

    >>> round(return_scale(torch.tensor([[0.0, 2.0], [10.0, 12.0]])).item(), 4)
    1.4142
    """
    return random.var(1).mean().sqrt()


def plan_spearman(predicted: Float[Tensor, "B C"], realised: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """Return for each start the rank correlation of predicted and realised returns over its plans.

    >>> plan_spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.1, 0.3, 0.2]])).item()
    0.5
    """
    return spearman(predicted.mT, realised.mT)


def decision_scores(
    predicted: Float[Tensor, "n p B C"], realised: Float[Tensor, "B C"], random: int, generator: torch.Generator
) -> dict[str, Float[Tensor, "B"]]:
    """Return for each start what plan 0, `random` plans and further ones say; gaps are in the unit of the return.

    `exploitation_gap` of plan 0; `random_gap`, the mean gap of the random plans; `optimiser_share`, their difference: how far the
    planner sought out the model's errors; `plan_spearman` over all plans but plan 0; and, where there are several predictions, the
    `pit` of plan 0's realised return.
    """
    gaps = exploitation_gap(predicted, realised)
    by_chance = gaps[:, 1 : 1 + random].mean(1)
    scores = {
        "exploitation_gap": gaps[:, 0],
        "random_gap": by_chance,
        "optimiser_share": gaps[:, 0] - by_chance,
        "plan_spearman": plan_spearman(predicted.mean((0, 1))[:, 1:], realised[:, 1:]),
    }
    if predicted.shape[:2].numel() > 1:
        scores["pit"] = return_pit(predicted[..., 0], realised[:, 0], generator)
    return scores
