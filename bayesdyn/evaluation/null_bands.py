"""What a calibrated model would score on these very points: bands of a statistic over simulated replicates of y."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.functions import Function

REPLICATES = 200
_NUMBERS_AT_ONCE = 2**21

Statistic = Callable[[Predictive, Tensor], Tensor]


class Band(NamedTuple):
    """The 5 % and 95 % quantiles over replicates, of the statistic's own shape."""

    low: Float[Tensor, "*shape"]
    high: Float[Tensor, "*shape"]


def joint_replicates(
    function: Function, x: Float[Tensor, "J D"], generator: torch.Generator | None = None
) -> Iterator[Float[Tensor, "J E"]]:
    """Yield y^r = f_r(x) + noise at all points from one draw f_r each, as many as `function` holds.

    All points share the one unknown θ, so the replicates keep the correlation that real test points have.
    """
    moments = function(x.unsqueeze(0))
    for mean, var in zip(moments.mean, moments.var, strict=True):
        yield mean + var.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)


def independent_replicates(
    predictive: Predictive, count: int = REPLICATES, generator: torch.Generator | None = None
) -> Iterator[Float[Tensor, "J E"]]:
    """Yield y^r drawn point by point; right only where noise dominates, since it ignores that all points share one θ."""
    for _ in range(count):
        yield predictive.sample((), generator)


def null_band(statistic: Statistic, predictive: Predictive, replicates: Iterable[Float[Tensor, "J E"]]) -> Band:
    """Return the band of `statistic(predictive, y^r)` over replicates; the predictive stays as it is.

    A statistic scores each output on its own, [..., E]: replicates are shown to it side by side, as further outputs.

    >>> calibrated = Predictive(torch.zeros(1, 400, 1), torch.zeros(1, 400, 1), torch.ones(1, 400, 1))
    >>> draws = independent_replicates(calibrated, generator=torch.Generator().manual_seed(0))
    >>> low, high = null_band(lambda p, y: (y.abs() < 1.6449).double().mean(0), calibrated, draws)
    >>> bool(0.86 < low < 0.9 < high < 0.94)
    True
    """
    at_once = max(_NUMBERS_AT_ONCE // max(predictive.component_mean.numel(), 1), 1)
    drawn, values = iter(replicates), list[Tensor]()
    while portion := list(islice(drawn, at_once)):
        scores = statistic(_SideBySide(predictive, len(portion)), torch.cat(portion, -1))
        values.append(scores.unflatten(-1, (len(portion), -1)).movedim(-2, 0))
    low, high = torch.cat(values).to(torch.float64).nanquantile(torch.tensor([0.05, 0.95], dtype=torch.float64), 0)
    return Band(low, high)


class _SideBySide(Predictive):
    """The predictive of `times` as many outputs, all of them `times` over; moments are those of one, computed once."""

    def __init__(self, one: Predictive, times: int) -> None:
        parts = (one.component_mean, one.component_epistemic_var, one.component_aleatoric_var)
        super().__init__(*(part.repeat(1, 1, times) for part in parts))
        self._moments = [part.repeat(1, times) for part in (one.mean, one.epistemic_variance, one.aleatoric_variance)]

    @property
    def mean(self) -> Float[Tensor, "*batch E"]:
        """E_i μ_i."""
        return self._moments[0]

    @property
    def epistemic_variance(self) -> Float[Tensor, "*batch E"]:
        """Var_i μ_i + E_i e_i."""
        return self._moments[1]

    @property
    def aleatoric_variance(self) -> Float[Tensor, "*batch E"]:
        """E_i a_i."""
        return self._moments[2]
