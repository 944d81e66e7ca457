"""A policy that is a small fully connected network; its moments are those of fixed, whitened samples."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.beliefs import Moments, check_belief
from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.moments import PointMap
from bayesdyn.policies.base import Policy

# Added to Σ: keeps the square root differentiable, and the gain a slope, where Σ is singular or 0.
_FLOOR = {torch.float64: 1e-8}
_SINGLE_FLOOR = 1e-6

Activation = Callable[[Tensor], Tensor]


class MLPPolicy(Policy):
    """The policy u = W_L h(... h(W_1 x + b_1) ...) + b_L with layer `widths` D, ..., A and activation h.

    W_l starts as normals of variance 1/fan_in, the last layer a tenth of that, b_l as 0. For x ~ N(μ, Σ) the network is asked at
    x_i = μ + L z_i, LLᵀ = Σ + εI, with `samples` fixed normals z_i in pairs ± whose covariance is I exactly:

        mean = ū,   cov = mean (u - ū)(u - ū)ᵀ,   gain = L⁻ᵀ mean z (u - ū)ᵀ

    so that a linear network's moments are exact, and any network's gain is its slope as Σ -> 0 (ε = 1e-8, 1e-6 in float32, for
    inputs of size about 1). The error falls as 1/√samples. Raises `ConfigurationError` for widths below 1, and for `samples` that
    are odd or no more than 2D.

    >>> policy = MLPPolicy([3, 16, 1], torch.Generator().manual_seed(0))
    >>> policy.moments(torch.zeros(3).double(), torch.eye(3).double()).gain.shape
    torch.Size([3, 1])
    """

    points: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        generator: torch.Generator,
        activation: Activation = torch.tanh,
        samples: int = 128,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1 or samples % 2 or samples <= 2 * widths[0]:
            raise ConfigurationError(
                "MLPPolicy wants two or more widths of at least 1 and an even number of samples above twice the first width; "
                f"got widths {list(widths)}, samples {samples}"
            )
        self.activation = activation
        pairs = list(pairwise(widths))
        weights = [torch.randn(o, i, generator=generator, dtype=torch.float64) / i**0.5 for i, o in pairs]
        weights[-1] = 0.1 * weights[-1]
        self.weights = nn.ParameterList([nn.Parameter(w.to(dtype)) for w in weights])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(o, dtype=dtype)) for _, o in pairs])
        self.register_buffer("points", _whitened(samples, widths[0], generator).to(dtype))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return the actions at points."""
        return self.prepared()(x)

    def prepared(self) -> PointMap:
        """Return the network of this moment; there is nothing to factorise."""
        return MLPMap([w.clone() for w in self.weights], [b.clone() for b in self.biases], self.activation, self.points)


class MLPMap(PointMap):
    """A network, and the points [samples, D] at which its moments are taken."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor], activation: Activation, points: Tensor) -> None:
        self.weights, self.biases, self.activation, self.points = weights, biases, activation, points

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch A"]:
        """Return the outputs at points."""
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = nn.functional.linear(x, weight, bias)
            x = x if layer == last else self.activation(x)
        return x

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments over the points; raises `NumericalError` for a covariance that is none."""
        size = self.points.shape[1]
        check_belief(mean, cov, size, "a network policy")
        floor = _FLOOR.get(mean.dtype, _SINGLE_FLOOR) * torch.eye(size, dtype=cov.dtype, device=cov.device)
        factor, info = torch.linalg.cholesky_ex(cov + floor)
        if bool(info.any()) or not bool(factor.isfinite().all()):
            raise NumericalError("the covariance of a belief is not finite or not positive semi-definite; look one step earlier")
        action = self(mean.unsqueeze(-2) + self.points @ factor.mT)
        centre = action.mean(-2)
        away = action - centre.unsqueeze(-2)
        gain = torch.linalg.solve_triangular(factor.mT, self.points.mT @ away / len(self.points), upper=True)
        return Moments(centre, away.mT @ away / len(self.points), gain)


def _whitened(count: int, size: int, generator: torch.Generator) -> Float[Tensor, "count D"]:
    """Return normals in pairs ±z with covariance I exactly."""
    half = torch.randn(count // 2, size, generator=generator, dtype=torch.float64)
    factor = torch.linalg.cholesky(half.mT @ half / len(half))
    half = torch.linalg.solve_triangular(factor.mT, half, upper=True, left=False)
    return torch.cat([half, -half])
