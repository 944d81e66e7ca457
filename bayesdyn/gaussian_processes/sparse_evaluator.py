"""The one form in which every sparse posterior ends: inducing points Z and q(v) = N(m_v, S_v), u = L_z v, in closed form."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.gaussian_processes.training import Hyperparameters
from bayesdyn.gaussian_processes.variances import positive_variance
from bayesdyn.kernels import Kernel, KernelParameters, covariance, prior_variance
from bayesdyn.linalg import add_diagonal, jittered_cholesky, triangular_inverse

# A fraction of the mean prior variance, added to K_zz: u is then f(Z) seen with this much noise, so every formula stays exact, and
# the factors keep K_zz's small eigenvalues apart from rounding.
RIDGE = 1e-6
_CHUNK_BYTES = 64 * 2**20

# Maps σ² [E] and the gaps k_nn - q_nn [E, k] to the variance [E, k] with which a row observes the projected process w(x)ᵀv.
RowNoise = Callable[[Tensor, Tensor], Tensor]


class InducingPrior(NamedTuple):
    """Kernel, inducing points [E, M, D], ridge [E] and the factors L_z, L_z⁻¹ [E, M, M] of K_zz + ridge·I."""

    kernel: Kernel
    parameters: KernelParameters
    points: Float[Tensor, "E M D"]
    ridge: Float[Tensor, "E"]
    factor: Float[Tensor, "E M M"]
    inverse: Float[Tensor, "E M M"]


def relative_ridge(parameters: KernelParameters, x: Float[Tensor, "N D"]) -> Float[Tensor, "E"]:
    """Return 1e-6 of the prior variance, averaged over the rows of x."""
    return RIDGE * prior_variance(parameters, x).mean(-1)


def inducing_prior(
    kernel: Kernel, parameters: KernelParameters, points: Float[Tensor, "E M D"], ridge: Float[Tensor, "E"]
) -> InducingPrior:
    """Factorise K_zz + ridge·I; jitter that it takes beyond the ridge is added to the ridge.

    Raises `NumericalError` if the matrix is not positive definite with any jitter.
    """
    factor, jitter = jittered_cholesky(add_diagonal(covariance(kernel, parameters, points, points), ridge))
    return InducingPrior(kernel, parameters, points, ridge + jitter, factor, triangular_inverse(factor))


class Evidence(NamedTuple):
    """What N rows say about v ~ N(0, I): rows y_n = w_nᵀv + N(0, λ_n), w(x) = L_z⁻¹k(Z, x). Sums over rows, so evidence adds up.

    `precision` Σ w wᵀ/λ [E, M, M], `shift` Σ w y/λ [E, M], `squares` Σ y²/λ, `log_noise` Σ log λ, `gap` Σ (k_nn - |w_n|²) [E].
    """

    precision: Float[Tensor, "E M M"]
    shift: Float[Tensor, "E M"]
    squares: Float[Tensor, "E"]
    log_noise: Float[Tensor, "E"]
    gap: Float[Tensor, "E"]


def gather(
    prior: InducingPrior, row_noise: RowNoise, noise_var: Float[Tensor, "E"], x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]
) -> Evidence:
    """Return the evidence of the rows, in chunks of 64 MB: O(E N M²) time."""
    outputs, size = prior.points.shape[:2]
    zeros = x.new_zeros(outputs)
    total = Evidence(x.new_zeros(outputs, size, size), x.new_zeros(outputs, size), zeros, zeros, zeros)
    rows = max(1, _CHUNK_BYTES // (3 * outputs * size * x.element_size()))
    for some_x, some_y in zip(x.split(rows), y.split(rows), strict=True):
        w = prior.inverse @ covariance(prior.kernel, prior.parameters, prior.points, some_x)
        gap = (prior_variance(prior.parameters, some_x) - w.square().sum(-2)).clamp_min(0.0)
        noise, targets = row_noise(noise_var, gap), some_y.mT
        scaled = w / noise.unsqueeze(-2)
        part = Evidence(
            scaled @ w.mT,
            (scaled @ targets.unsqueeze(-1)).squeeze(-1),
            (targets.square() / noise).sum(-1),
            noise.log().sum(-1),
            gap.sum(-1),
        )
        total = Evidence(*(a + b for a, b in zip(total, part, strict=True)))
    return total


def negative_log_evidence(evidence: Evidence, rows: int) -> Float[Tensor, "E"]:
    """Return -log ∫ N(v; 0, I) Π_n N(y_n; w_nᵀv, λ_n) dv = -log N(y; 0, Q + Λ) of the N rows, per output:

    ½(Σ log λ + log|B| + Σ y²/λ - bᵀB⁻¹b + N log 2π) with B = I + precision and b = shift.
    """
    factor = posterior_factor(evidence.precision)
    whitened = torch.linalg.solve_triangular(factor, evidence.shift.unsqueeze(-1), upper=False)
    log_determinant = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    fit = evidence.squares - whitened.square().sum((-2, -1))
    return 0.5 * (evidence.log_noise + log_determinant + fit + rows * math.log(2 * math.pi))


def negative_bound(
    prior: InducingPrior, noise_var: Float[Tensor, "E"], x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]
) -> Float[Tensor, "E"]:
    """Return Titsias' negative collapsed bound, -log N(y; 0, Q + σ²I) + tr(K - Q)/(2σ²), in chunks of rows and without gradient."""
    evidence = gather(prior, lambda noise, gap: noise.unsqueeze(-1).expand_as(gap), noise_var, x, y)
    return negative_log_evidence(evidence, x.shape[0]) + 0.5 * evidence.gap / noise_var


def posterior_factor(precision: Float[Tensor, "E M M"]) -> Float[Tensor, "E M M"]:
    """Return C with CCᵀ = I + precision = S_v⁻¹."""
    return jittered_cholesky(add_diagonal(precision, precision.new_ones(precision.shape[0])))[0]


class SparseFactors(NamedTuple):
    """The hot path, for q(v) = N(m_v, RRᵀ), R = C⁻ᵀ: mean = k(x, Z)β, var f = k(x, x) - |L⁻¹k(Z, x)|² + |RᵀL⁻¹k(Z, x)|².

    `mean` m_v and `weights` β = L⁻ᵀm_v [E, M]; `root` R, `whitening` L⁻¹ and `reduction` RᵀL⁻¹ [E, M, M].
    """

    mean: Float[Tensor, "E M"]
    root: Float[Tensor, "E M M"]
    weights: Float[Tensor, "E M"]
    whitening: Float[Tensor, "E M M"]
    reduction: Float[Tensor, "E M M"]


def sparse_factors(prior: InducingPrior, precision: Float[Tensor, "E M M"], shift: Float[Tensor, "E M"]) -> SparseFactors:
    """Return q(v) ∝ N(v; 0, I) exp(shiftᵀv - ½ vᵀ precision v) as factors: S_v = (I + precision)⁻¹, m_v = S_v shift."""
    inverse = triangular_inverse(posterior_factor(precision))
    mean = inverse.mT @ (inverse @ shift.unsqueeze(-1))
    return SparseFactors(
        mean.squeeze(-1), inverse.mT.contiguous(), (prior.inverse.mT @ mean).squeeze(-1), prior.inverse, inverse @ prior.inverse
    )


def sparse_moments(
    kernel: Kernel,
    parameters: KernelParameters,
    points: Float[Tensor, "E M D"],
    factors: SparseFactors,
    x: Float[Tensor, "N D"],
) -> Gaussian:
    """Return mean and variance of f at x, both [N, E]; differentiable in x.

    Raises `NumericalError` if a variance comes out negative beyond rounding.
    """
    cross = covariance(kernel, parameters, points, x)
    mean = (factors.weights.unsqueeze(-2) @ cross).squeeze(-2)
    prior = prior_variance(parameters, x)
    var = prior - (factors.whitening @ cross).square().sum(-2) + (factors.reduction @ cross).square().sum(-2)
    tolerance = 1e-8 if x.dtype == torch.float64 else 1e-2
    cause = "K_zz is nearly singular. Raise the ridge or take fewer inducing points"
    return Gaussian(mean.mT, positive_variance(var, prior, tolerance, cause).mT)


def check_parameters(values: Hyperparameters, ridge: Tensor | None, inputs: int, outputs: int, linear: bool) -> None:
    """Raise `ShapeError` or `ConfigurationError` unless all are positive, ℓ is [E, D] and the rest [E]."""
    given = {**values.kernel._asdict(), "noise_var": values.noise_var, "ridge": values.noise_var if ridge is None else ridge}
    for name, value in given.items():
        wanted = (outputs, inputs) if name == "lengthscale" else (outputs,)
        if tuple(value.shape) != wanted:
            raise ShapeError(f"{name} wants shape {list(wanted)} for D = {inputs} and E = {outputs}; got {list(value.shape)}")
        if not bool((value.isfinite() & (value > 0)).all()) and (name != "linear_var" or linear):
            raise ConfigurationError(f"{name} wants positive finite numbers; got {value.tolist()}")


def check_points(points: Tensor, inputs: int, outputs: int) -> None:
    """Raise `ShapeError` unless the inducing points are [M, D] or [E, M, D] with M >= 1."""
    if points.dim() not in (2, 3) or points.shape[-1] != inputs or points.shape[:-2] not in ((), (outputs,)) or points.numel() == 0:
        raise ShapeError(f"inducing_points want shape [M, {inputs}] or [{outputs}, M, {inputs}]; got {list(points.shape)}")
