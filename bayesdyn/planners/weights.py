"""Weights of path-integral planners: candidates count by the exponential of their score."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

Temperature = float | Literal["ess"]
"""λ in the unit of the return, or "ess": whatever makes the effective sample size a given one."""

# Of the temperature over the range of scores: from where only exact ties share a weight to where all candidates have the same.
_LOG_RANGE = (-40.0, 20.0)
# The range is divided by 9 and searched anew, 8 times: λ to one part in a million, for few and small operations.
_SECTIONS, _ROUNDS = 9, 8


def check_temperature(temperature: Temperature, planner: object) -> None:
    """Raise `ConfigurationError` unless the temperature is "ess" or a positive number."""
    if temperature != "ess" and not (isinstance(temperature, int | float) and 0 < temperature < torch.inf):
        raise ConfigurationError(f'temperature is a positive number in the unit of the return, or "ess"; got {planner}')


def path_weights(scores: Float[Tensor, "B c"], temperature: Temperature, size: int) -> Float[Tensor, "B c"]:
    """Return w = softmax(scores / λ) with λ the temperature, or "ess" for the λ at which 1/Σw² = `size`."""
    return effective_weights(scores, size) if temperature == "ess" else softmax_weights(scores, temperature)


def softmax_weights(scores: Float[Tensor, "B c"], temperature: float | Tensor) -> Float[Tensor, "B c"]:
    """Return w_i ∝ exp((J_i - max J)/λ): zero where J is -inf, and everywhere if it is so everywhere.

    The maximum is subtracted first, in float64, so that scores of any size leave weights.

    >>> softmax_weights(torch.tensor([[1e4, 1e4, -float("inf")]]), 0.1).tolist()
    [[0.5, 0.5, 0.0]]
    """
    weights = (-_shortfall(scores) / temperature).exp()
    return (weights / weights.sum(1, keepdim=True).clamp_min(1.0)).to(scores.dtype)


def effective_weights(scores: Float[Tensor, "B c"], size: int) -> Float[Tensor, "B c"]:
    """Return softmax weights at the temperature where 1/Σw² = `size`, found by dividing the range of log λ.

    Such weights do not change with the unit of the scores, nor with a constant added. Where `size` or fewer scores are finite they
    have equal weights, and so have exact ties for the best where there are more of them than `size`.

    >>> weights = effective_weights(torch.linspace(0, 5, 20).reshape(1, 20), 7)
    >>> round(float(1 / weights.square().sum()), 3)
    7.0
    """
    shortfall = _shortfall(scores)
    finite = shortfall.isfinite()
    widest = torch.where(finite, shortfall, 0.0).amax(1, keepdim=True)
    relative = shortfall / torch.where(widest > 0, widest, 1.0)
    low, width = torch.full_like(widest, _LOG_RANGE[0]), _LOG_RANGE[1] - _LOG_RANGE[0]
    inner = torch.arange(1, _SECTIONS, dtype=low.dtype, device=low.device)
    for _ in range(_ROUNDS):
        width /= _SECTIONS
        weights = (-relative.unsqueeze(1) / (low + width * inner).exp().unsqueeze(2)).exp()
        few = weights.sum(2).square() < size * weights.square().sum(2)
        low = low + width * few.sum(1, keepdim=True)
    enough = finite.sum(1, keepdim=True) > size
    weights = torch.where(enough, (-relative / (low + width).exp()).exp(), finite.double())
    return (weights / weights.sum(1, keepdim=True).clamp_min(1.0)).to(scores.dtype)


def _shortfall(scores: Float[Tensor, "B c"]) -> Float[Tensor, "B c"]:
    """max J - J in float64, inf where J is -inf."""
    exact = scores.detach().double()
    best = exact.amax(1, keepdim=True)
    return torch.where(exact.isfinite(), best - exact, torch.inf)
