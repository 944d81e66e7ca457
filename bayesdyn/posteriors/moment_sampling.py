"""Moments of any posterior at a Gaussian input, by fixed draws of functions and inputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import MomentMap, Moments, check_belief
from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.functions import Function

# Added to Σ, in units of whitened features: keeps the factor differentiable and the gain a slope where Σ is singular or 0.
_FLOOR = {torch.float64: 1e-8}
_SINGLE_FLOOR = 1e-6


class SampledMoments(MomentMap):
    """Moments of y = f_θ(x) over draws of θ and points x_i = m + Lz_i, LLᵀ = Σ + εI, with z fixed: deterministic in (m, Σ).

        mean = ȳ,   cov = mean (y - ȳ)(y - ȳ)ᵀ (+ mean noise variance),   gain = L⁻ᵀ mean z (y - ȳ)ᵀ

    over all pairs of a draw and a point: the law of total covariance, covariances of outputs included. z [p, D] holds standard
    normals of mean 0 and covariance I (`whitened_normals`), so that linear functions are matched exactly. ε is 1e-8 (1e-6 in
    float32), for whitened features: as Σ -> 0 the gain is the mean slope at m. Differentiable as the draws are.

    Raises `ConfigurationError` for points that are not [p, D], p > D.

    >>> from bayesdyn.functions import Function
    >>> points = whitened_normals(32, 1, torch.float64, torch.Generator().manual_seed(0))
    >>> points.square().mean().item()
    1.0
    """

    def __init__(self, function: Function, points: Float[Tensor, "p D"], *, process_noise: bool = False) -> None:
        if points.dim() != 2 or len(points) <= points.shape[1]:
            raise ConfigurationError(f"points want shape [p, D] with p > D; got {list(points.shape)}")
        self.function, self.points, self.process_noise = function, points, process_noise

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of the draws; raises `ShapeError`, or `NumericalError` for a covariance that is none."""
        size = self.points.shape[1]
        check_belief(mean, cov, size, f"a posterior of {size} features")
        z = self.points.to(mean)
        floor = _FLOOR.get(mean.dtype, _SINGLE_FLOOR)
        factor, info = torch.linalg.cholesky_ex(cov + floor * torch.eye(size, dtype=cov.dtype, device=cov.device))
        if bool(info.any()) or not bool(factor.isfinite().all()):
            raise NumericalError("the covariance of a belief is not finite or not positive semi-definite; look one step earlier")
        x = mean.unsqueeze(-2) + z @ factor.mT
        y = self.function(x.unsqueeze(0))
        centre = y.mean.mean((0, -2))
        away = y.mean - centre.unsqueeze(-2)
        spread = (away.mT @ away).mean(0) / len(z)
        cross = (z.mT @ away).mean(0) / len(z)
        if self.process_noise:
            spread = spread + torch.diag_embed(y.var.mean((0, -2)))
        gain = torch.linalg.solve_triangular(factor.mT, cross, upper=True)
        return Moments(centre, spread, gain)


def whitened_normals(count: int, size: int, dtype: torch.dtype, generator: torch.Generator) -> Float[Tensor, "p D"]:
    """Return `count` standard normals in pairs ±z, moved to have the covariance I exactly; odd moments are 0.

    Raises `ConfigurationError` unless `count` is even and more than twice `size`.

    >>> z = whitened_normals(10, 2, torch.float64, torch.Generator().manual_seed(0))
    >>> torch.allclose(z.mT @ z / 10, torch.eye(2, dtype=torch.float64))
    True
    """
    if count % 2 or count <= 2 * size:
        raise ConfigurationError(f"count wants an even number above 2 D = {2 * size}; got {count}")
    half = torch.randn(count // 2, size, generator=generator, dtype=torch.float64, device=generator.device)
    factor = torch.linalg.cholesky(half.mT @ half / len(half))
    half = torch.linalg.solve_triangular(factor.mT, half, upper=True, left=False)
    return torch.cat([half, -half]).to(dtype)
