"""Draws of whole functions for kernels of GPyTorch: features of any kind for the prior plus an exact update on the data."""

import copy
from typing import NamedTuple

import gpytorch
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.functions import Function
from bayesdyn.kernels.gpytorch_kernel import dense
from bayesdyn.kernels.prior_features import Features

_CHUNK_BYTES = 64 * 2**20


class FeatureDraws(NamedTuple):
    """n prior functions of each output, f_e(x) = φ_e(x)ᵀw_e: the features of each output and their weights [M_e, n]."""

    features: tuple[tuple[Features, ...], ...]
    weights: tuple[Float[Tensor, "_ n"], ...]

    @classmethod
    def draw(cls, features: list[list[Features]], n: int, generator: torch.Generator, like: Float[Tensor, "N D"]) -> "FeatureDraws":
        """Draw weights from N(0, I), with generators on `like`'s device."""
        sizes = [sum(part(like[:1]).shape[-1] for part in parts) for parts in features]
        weights = [torch.randn(size, n, generator=generator, dtype=like.dtype, device=generator.device).to(like) for size in sizes]
        return cls(tuple(tuple(parts) for parts in features), tuple(weights))

    def values(self, output: int, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """Return φ_e(x) of one output."""
        return torch.cat([part(x) for part in self.features[output]], -1)

    def __call__(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "E N n"]:
        """Evaluate every draw at inputs that all draws share."""
        return torch.stack([self.values(output, x) @ weights for output, weights in enumerate(self.weights)])

    def to(self, dtype: torch.dtype | None, device: torch.device | str | None) -> "FeatureDraws":
        """Return the same functions in another precision or on another device."""
        features = tuple(tuple(part.to(dtype=dtype, device=device) for part in parts) for parts in self.features)
        return FeatureDraws(features, tuple(weights.to(dtype=dtype, device=device) for weights in self.weights))


class FeaturePathFunction(Function):
    """n draws f(x) = φ(x)ᵀw + k(x, X) v of E Gaussian processes (Wilson et al. 2020, eq. 11) with kernels of GPyTorch.

    v [E, N, n] is the update (K + σ²I)⁻¹(y - Φw - ε). The variance of a draw is the noise variance σ² [E]; the draw itself is
    noise-free. `kernels` are frozen, and nobody writes into them.
    """

    def __init__(
        self,
        kernels: list[gpytorch.kernels.Kernel],
        prior: FeatureDraws,
        points: Float[Tensor, "N D"],
        update: Float[Tensor, "E N n"],
        noise_var: Float[Tensor, "E"],
    ) -> None:
        self.n, self.inputs, self.outputs = update.shape[-1], points.shape[-1], len(kernels)
        self._kernels, self._prior, self._points, self._noise_var = kernels, prior, points, noise_var.clone()
        self._weights = [torch.cat([w, v]) for w, v in zip(prior.weights, update, strict=True)]

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x `[n or 1, ..., D]`; raises `ShapeError` for another number of draws or features."""
        self.check_inputs(x)
        lead = x.shape[0]
        flat = x.to(self._points.dtype).reshape(lead, -1, self.inputs)
        row_bytes = flat.element_size() * lead * max(len(weights) for weights in self._weights)
        pieces = [self._evaluate(piece) for piece in flat.split(max(1, _CHUNK_BYTES // (2 * row_bytes)), 1)]
        mean = torch.cat(pieces, 1).reshape(self.n, *x.shape[1:-1], self.outputs).to(x.dtype)
        return Gaussian(mean, self._noise_var.to(x.dtype).expand_as(mean))

    def _evaluate(self, x: Float[Tensor, "k c D"]) -> Float[Tensor, "n c E"]:
        rows = x.reshape(-1, self.inputs)
        answers = []
        for output, (kernel, weights) in enumerate(zip(self._kernels, self._weights, strict=True)):
            values = torch.cat([self._prior.values(output, rows), dense(kernel, self._points, rows).mT], -1)
            values = values.view(*x.shape[:2], -1)
            answers.append(
                torch.bmm(values.expand(self.n, -1, -1), weights.mT.unsqueeze(-1)).squeeze(-1)
                if len(x) > 1
                else (values[0] @ weights).mT
            )
        return torch.stack(answers, -1)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "FeaturePathFunction":
        """Return the same draws in another precision or on another device."""
        moved = copy.copy(self)
        moved._kernels = [copy.deepcopy(kernel).to(dtype=dtype, device=device) for kernel in self._kernels]
        moved._prior = self._prior.to(dtype, device)
        moved._points, moved._noise_var = (t.to(dtype=dtype, device=device) for t in (self._points, self._noise_var))
        moved._weights = [weights.to(dtype=dtype, device=device) for weights in self._weights]
        return moved


def reference_points(x: Float[Tensor, "N D"], count: int) -> Float[Tensor, "M D"]:
    """Return up to `count` training inputs, evenly chosen, and `count` points spread normally about them with twice their std."""
    rows = torch.linspace(0, len(x) - 1, min(count, len(x)), dtype=torch.float64, device=x.device).round().long()
    return torch.cat([x[rows], spread_points(x, count)])


def spread_points(x: Float[Tensor, "N D"], count: int, skip: int = 0) -> Float[Tensor, "M D"]:
    """Return points of a Sobol sequence, the same at every call, put through the normal quantiles with twice the data's std."""
    engine = torch.quasirandom.SobolEngine(x.shape[-1], scramble=False)
    # The sequence begins with 0, whose quantile is infinite.
    uniform = engine.fast_forward(1 + skip).draw(count, dtype=torch.float64).to(x)
    return x.mean(0) + 2 * x.std(0, correction=0) * torch.special.ndtri(uniform)
