"""Scales that make a posterior as wide as its errors: how they are found, and what they do to predictives and to draws."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.functions import Function
from bayesdyn.posteriors.mean_functions import MeanFunction

_LEAST = 1e-3
_GRID = 5
_CLOSE = 1e-3


class Scales(NamedTuple):
    """Factors of standard deviations, [E] each: of what is unknown about f, and of the noise."""

    epistemic: Float[Tensor, "E"]
    aleatoric: Float[Tensor, "E"]

    def predictive(self, said: Predictive) -> Predictive:
        """Return the mixture with each component scaled about the mean m = E_i μ_i, which stays where it is.

        μ_i → m + s_epi (μ_i - m),   e_i → s_epi² e_i,   a_i → s_ale² a_i
        """
        epistemic, aleatoric = (part.to(said.component_mean) for part in self)
        mean = said.mean
        return Predictive(
            mean + epistemic * (said.component_mean - mean),
            epistemic.square() * said.component_epistemic_var,
            aleatoric.square() * said.component_aleatoric_var,
        )


class Scaling(ABC):
    """How scales are found from what was predicted of held-out rows."""

    @abstractmethod
    def learn(self, said: Predictive, y: Float[Tensor, "N E"]) -> Scales:
        """Return the scales for predictives of N rows, in float64, and what these rows turned out to be."""

    def warnings(self, scales: Scales) -> tuple[str, ...]:
        """Return what is to be said of such scales; nothing by default."""
        return ()


@dataclass(frozen=True)
class TotalScale(Scaling):
    """One factor per output for both parts: s_d² = mean z², z = (y - m)/√variance, the Gaussian maximum-likelihood scale.

    Never below 1/1000. It cannot mend the split, `TwoScales` may, and a few large errors decide it, which `CoverageScale` ignores.

    Source: Levi, Gispan, Giladi, Fetaya 2022.

    >>> said = Predictive(torch.zeros(1, 4, 1), torch.zeros(1, 4, 1), torch.ones(1, 4, 1))
    >>> TotalScale().learn(said, torch.tensor([[2.0], [-2.0], [2.0], [-2.0]])).aleatoric.tolist()
    [2.0]
    """

    def learn(self, said: Predictive, y: Float[Tensor, "N E"]) -> Scales:
        """Return √(mean z²) for both."""
        scale = ((y - said.mean).square() / said.variance).mean(0).sqrt().clamp_min(_LEAST)
        return Scales(scale, scale)


@dataclass(frozen=True)
class CoverageScale(Scaling):
    """One factor per output for both parts, such that the central `level` interval holds that share of the held-out rows.

    s_d = the ⌈(N + 1) level⌉-th smallest of |y_j - m_j| / |q_j - m_j|, with q_j the interval's end on the side of y_j

    On rows exchangeable with the held-out ones it holds `level` of them, whatever the distribution. A few errors far beyond all
    others, which mean z² is made of, do not move it. Never below 1/1000.

    Raises `ConfigurationError` unless 0 < level < 1.

    Source: Lei, G'Sell, Rinaldo, Tibshirani, Wasserman 2018, section 5.2.

    >>> said = Predictive(*(torch.full((1, 200, 1), value, dtype=torch.float64) for value in (0.0, 0.0, 1.0)))
    >>> y = 3 * torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> y[:5] = 1e6
    >>> bool((CoverageScale().learn(said, y).aleatoric - 3).abs() < 0.6)
    True
    """

    level: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ConfigurationError(f"CoverageScale wants a level between 0 and 1; got {self.level}")

    def learn(self, said: Predictive, y: Float[Tensor, "N E"]) -> Scales:
        """Return the factor for both."""
        mean, (low, high) = said.mean, said.interval(self.level)
        # A skewed mixture may have its mean outside: no factor would then move the interval over y.
        reach = torch.where(y < mean, mean - low, high - mean).clamp_min(torch.finfo(y.dtype).tiny)
        wanted = ((y - mean).abs() / reach).sort(0).values
        rank = min(math.ceil((len(y) + 1) * self.level), len(y))
        scale = wanted[rank - 1].clamp_min(_LEAST)
        return Scales(scale, scale)


@dataclass(frozen=True)
class TwoScales(Scaling):
    r"""One factor per output for what is unknown about f and one for the noise, both within [1/bound, bound].

    (s_epi, s_ale)_d = argmin -Σ_j log (1/m) Σ_i N(y_jd | m_jd + s_epi (μ_ijd - m_jd), s_epi² e_ijd + s_ale² a_ijd)
                              + ½ log²(s_epi/s_ale)

    The last term is half a nat, all rows together, where the factors are e apart: it decides where the data cannot. They tell the
    two apart only as far as the ratio of the two variances differs from row to row.

    Raises `ConfigurationError` unless bound > 1.

    >>> noise = torch.linspace(1, 9, 400, dtype=torch.float64).reshape(1, 400, 1)
    >>> said = Predictive(torch.zeros_like(noise), torch.ones_like(noise), noise)
    >>> y = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (1 + 4 * noise[0]).sqrt()
    >>> bool((TwoScales().learn(said, y).aleatoric - 2).abs() < 0.2)
    True
    """

    bound: float = 10.0

    def __post_init__(self) -> None:
        if not self.bound > 1:
            raise ConfigurationError(f"TwoScales wants a bound above 1, for factors from 1/bound to bound; got {self.bound}")

    def learn(self, said: Predictive, y: Float[Tensor, "N E"]) -> Scales:
        """Return the minimum, searched for from the best of 25 starts; raises `NumericalError` where the likelihood breaks down."""
        found = [self._one(said, y, output) for output in range(y.shape[-1])]
        both = torch.tensor(np.exp(found), dtype=torch.float64, device=y.device)
        return Scales(both[:, 0], both[:, 1])

    def warnings(self, scales: Scales) -> tuple[str, ...]:
        """Name the factors at their bounds: held-out rows hardly tell them, or another model is wanted."""
        return tuple(
            f"the {name} factor of output {output} is at its bound, {factor:.3g}"
            for name, factors in scales._asdict().items()
            for output, factor in enumerate(factors.tolist())
            if abs(math.log(factor)) > math.log(self.bound) - _CLOSE
        )

    def _one(self, said: Predictive, y: Tensor, output: int) -> np.ndarray:
        """Return log s_epi and log s_ale of one output."""
        column = slice(output, output + 1)
        parts = (said.component_mean, said.component_epistemic_var, said.component_aleatoric_var)
        alone, truth = Predictive(*(part[..., column].detach() for part in parts)), y[..., column].detach()

        def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
            point = torch.tensor(logs, dtype=torch.float64, requires_grad=True)
            with torch.enable_grad():
                scales = Scales(*point.to(y).exp().split(1))
                nll = -scales.predictive(alone).marginal_log_prob(truth).mean()
                value = nll.cpu() + 0.5 * (point[0] - point[1]).square() / len(truth)
                (gradient,) = torch.autograd.grad(value, point)
            return float(value.detach()), gradient.numpy()

        limit = math.log(self.bound)
        ticks = np.linspace(-limit, limit, _GRID)
        starts = [np.array([epistemic, aleatoric]) for epistemic in ticks for aleatoric in ticks]
        start = min(starts, key=lambda point: loss(point)[0])
        with threadpool_limits(limits=1, user_api="blas"):
            options = {"ftol": 1e-14, "gtol": 1e-9}
            best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-limit, limit)] * 2, options=options)
        if not np.isfinite(best.fun):
            raise NumericalError(
                f"the likelihood of the held-out rows of output {output} is not finite; look for targets or variances out of range"
            )
        return best.x


class ScaledFunction(Function):
    """Draws f̄ + s_epi (f_i - f̄) with noise variance s_ale² var_i: a draw keeps its θ, and f̄ is the same for all.

    `centre` is f̄, None where s_epi is 1 and it makes no difference.
    """

    def __init__(self, draws: Function, centre: MeanFunction | None, scales: Scales) -> None:
        self.n, self.inputs, self.outputs = draws.n, draws.inputs, draws.outputs
        self.draws, self.centre, self.scales = draws, centre, scales

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x [n or 1, ..., D]; raises `ShapeError` for another number of draws or features."""
        self.check_inputs(x)
        answer = self.draws(x)
        var = answer.var * self.scales.aleatoric.to(answer.var).square()
        if self.centre is None:
            return Gaussian(answer.mean, var)
        centre = self.centre(x)
        return Gaussian(centre + self.scales.epistemic.to(centre) * (answer.mean - centre), var)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "ScaledFunction":
        """Return the same draws cast or moved; the scales stay in float64."""
        centre = None if self.centre is None else self.centre.to(dtype=dtype, device=device)
        return ScaledFunction(self.draws.to(dtype=dtype, device=device), centre, Scales(*(part.to(device) for part in self.scales)))

    def for_many_rows(self) -> "ScaledFunction":
        """Return the same draws in the form that answers many rows per draw fastest."""
        return ScaledFunction(self.draws.for_many_rows(), self.centre, self.scales)

    def with_precision(self, precision: torch.dtype) -> "ScaledFunction":
        """Return the same draws computed in `precision` where they can take it; their mean function keeps its own."""
        return ScaledFunction(self.draws.with_precision(precision), self.centre, self.scales)
