"""`QuantileMap`: probabilities of one step put right by how often held-out rows met them; for marginals, not for draws."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, ShapeError


class CalibratedMarginals(NamedTuple):
    """The marginal distributions G_d = R_d∘F_d of the E outputs at [...] inputs: what a `QuantileMap` makes of a predictive.

    Only probabilities and quantiles have been put right. There is no density (R has a corner per row that it was fitted on), no
    split into epistemic and aleatoric, no joint distribution of outputs or of inputs, and no θ whose draw could be followed.
    """

    predictive: Predictive
    map: "QuantileMap"

    def cdf(self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return R(F(y)), [..., E]."""
        return self.map.corrected(self.predictive.cdf(value))

    def icdf(self, probability: float | Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the quantiles F⁻¹(R⁻¹(p)), [..., E]; p lies in (0, 1) and broadcasts against [..., E]."""
        mean = self.predictive.component_mean
        p = torch.as_tensor(probability, dtype=mean.dtype, device=mean.device)
        shape = torch.broadcast_shapes(p.shape, mean.shape[1:])
        return self.predictive.icdf(self.map.claimed(p.expand(shape)))

    def interval(self, coverage: float) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return the central interval of each output that holds `coverage` of the probability."""
        tail = 0.5 * (1.0 - coverage)
        return self.icdf(tail), self.icdf(1.0 - tail)

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
        """Return independent draws, `sample_shape` + [..., E], by inverse CDF: outputs are drawn apart, as marginals have to be."""
        size = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        mean = self.predictive.component_mean
        shape = (*size, *mean.shape[1:])
        return self.icdf(torch.rand(shape, generator=generator, dtype=mean.dtype, device=mean.device))


class QuantileMap:
    r"""R_d: the share of held-out rows whose y lay below the p-quantile that was predicted, for every p, made monotone.

        R(u_(k)) = k/(N + 1),   u_j = F_j(y_j),   R(0) = 0,   R(1) = 1

    linear in between, with the sorted probabilities u_(k) of N held-out rows; equal ones share their mean, which is what isotonic
    regression of k/(N + 1) on u_(k) gives. Calibrated marginals are then `map(predictive)`. Probabilities have no unit, so a map
    that was fitted on whitened targets serves predictives in physical units as well.

    It puts right the shape as well as the width, for one step and one output at a time. It has no meaning for draws of θ: what has
    been put right is the mixture over θ, and no one function in it. Where trajectories are drawn (`TSInf`, `TS1`, planning) use
    `Recalibrated` with a scale, such as `TotalScale()`, whose draws keep their θ.

    `levels` are the sorted u [N, E] of held-out rows; `Recalibrated.quantile_map` makes them and sees that the rows are held out.

    Raises `ShapeError` for anything but [N, E], `ConfigurationError` for numbers that are no probabilities.

    Source: Kuleshov, Fenner, Ermon 2018, algorithm 1.

    >>> said = Predictive(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1))
    >>> timid = QuantileMap(torch.linspace(0.25, 0.75, 199).unsqueeze(1))  # nothing ever fell outside the central half
    >>> [round(bound.item(), 2) for bound in timid(said).interval(0.9)]
    [-0.6, 0.6]
    """

    def __init__(self, levels: Float[Tensor, "N E"]) -> None:
        if levels.dim() != 2 or not len(levels):
            raise ShapeError(f"a QuantileMap wants the probabilities of N held-out rows, [N, E]; got {list(levels.shape)}")
        if not bool(((levels >= 0) & (levels <= 1)).all()):
            raise ConfigurationError("a QuantileMap wants probabilities from 0 to 1, F(y) of held-out rows; got others")
        inside = levels.detach().double().sort(0).values
        ends = torch.zeros_like(inside[:1]), torch.ones_like(inside[:1])
        self.claims = torch.cat([ends[0], inside, ends[1]])
        self.shares = torch.cat([ends[0], _shares(inside), ends[1]])

    def __call__(self, predictive: Predictive) -> CalibratedMarginals:
        """Return the calibrated marginals of a predictive over E outputs; raises `ShapeError` for another number of outputs."""
        outputs = self.claims.shape[1]
        if predictive.event_shape != (outputs,):
            raise ShapeError(f"this QuantileMap is of {outputs} outputs; got a predictive of {predictive.event_shape[0]}")
        return CalibratedMarginals(predictive, self)

    def corrected(self, claimed: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return R(p) of probabilities as predicted, [..., E]."""
        return _interpolate(claimed, self.claims, self.shares)

    def claimed(self, probability: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return R⁻¹(p), the probability to ask the predictive for, [..., E]."""
        return _interpolate(probability, self.shares, self.claims)


def _shares(ordered: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """Return k/(N + 1), with its mean over rows that are equal."""
    rows = len(ordered)
    columns = []
    for column in ordered.unbind(1):
        _, which, counts = column.unique_consecutive(return_inverse=True, return_counts=True)
        rank = counts.cumsum(0).double() - 0.5 * (counts - 1).double()
        columns.append(rank[which] / (rows + 1))
    return torch.stack(columns, 1)


def _interpolate(x: Tensor, knots: Float[Tensor, "K E"], values: Float[Tensor, "K E"]) -> Tensor:
    """Return the piecewise linear function through (knots, values) of each output at x [..., E], in the dtype of x."""
    flat = x.double().reshape(-1, x.shape[-1]).mT.contiguous()
    knots, values = (part.to(x.device).mT.contiguous() for part in (knots, values))
    right = torch.searchsorted(knots, flat, right=True).clamp(1, knots.shape[1] - 1)
    low, high = knots.gather(1, right - 1), knots.gather(1, right)
    start, end = values.gather(1, right - 1), values.gather(1, right)
    share = ((flat - low) / (high - low).clamp_min(torch.finfo(torch.float64).tiny)).clamp(0.0, 1.0)
    return (start + share * (end - start)).mT.reshape(x.shape).to(x.dtype)
