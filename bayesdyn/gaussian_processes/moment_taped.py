"""Moments of a Gaussian process at a Gaussian input, written out for automatic differentiation: the form to read."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import symmetric
from bayesdyn.gaussian_processes.moment_factors import GPFactors, Uncertainty, belief_cholesky, lower_pairs


class Parts(NamedTuple):
    """Moments with the covariance in its two parts: `spread` of the mean function, and `epistemic`, the expected variance of f."""

    mean: Float[Tensor, "B E"]
    spread: Float[Tensor, "B E E"]
    epistemic: Float[Tensor, "B E"]
    gain: Float[Tensor, "B D E"]


class Smoothed(NamedTuple):
    """A belief seen through a kernel of precision P: T = (Σ⁻¹ + P)⁻¹, C⁻¹ with C = I + P^½ΣP^½, and log|C|."""

    product: Float[Tensor, "B K D D"]
    inverse: Float[Tensor, "B K D D"]
    log_det: Float[Tensor, "B K"]


def smooth(cov: Float[Tensor, "B D D"], precision: Float[Tensor, "K D"]) -> Smoothed:
    """Return T(P) for each of K diagonal P without inverting Σ: T = P^-½ C⁻¹H P^-½, H = P^½ΣP^½."""
    scale = precision.sqrt()
    outer = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    scaled = cov.unsqueeze(-3) * outer
    eye = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    factor = belief_cholesky(scaled + eye)
    product = symmetric(torch.cholesky_solve(scaled, factor)) / outer
    inverse = torch.cholesky_solve(eye.expand_as(scaled), factor)
    return Smoothed(product, inverse, 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1))


def exponent_limit(dtype: torch.dtype) -> float:
    """Return where exponents are cut: Δ > 700 only where q_i q_j underflows, so that the cut changes no value (85 in float32)."""
    return 700.0 if dtype == torch.float64 else 85.0


def taped_parts(factors: GPFactors, mean: Float[Tensor, "B D"], cov: Float[Tensor, "B D D"]) -> Parts:
    """Return the moments of f(x), x ~ N(mean, cov), for centred ν_i = x_i - μ, ζ_i = P ν_i and C, T as in `smooth`:

        log q_i = log σf² - ½ log|C| - ½ νᵀω,  ω = P^½ C⁻¹ P^½ ν = (Σ + Λ)⁻¹ ν           q_i = E[k(x_i, x)]
        mean_a = Σ q β,   gain_a = Σ q β ω
        Q_ij = q_i^a q_j^b expm1(Δ_ij),   Δ = log E[k_i k_j] - log q_i - log q_j            cov(k_a(x_i, x), k_b(x_j, x))
        spread_ab = β_aᵀ Q^ab β_b,   epistemic_a = σf² - |L⁻¹q|² + |R⁻¹q|² - Σ A∘Q^aa

    (Deisenroth, Fox & Rasmussen, PAMI 2015, eqs. 14-23, written so that nothing cancels as Σ -> 0 or for long length-scales.)
    Differentiable any number of times, in the factors too. Raises `NumericalError` for a belief that is none.
    """
    points, lengthscale, signal_var, beta, uncertainty = factors
    precision = lengthscale.pow(-2)
    own = smooth(cov, precision)
    nu = points - mean[:, None, None]
    zeta = nu * precision.unsqueeze(-2)
    root = precision.sqrt().unsqueeze(-2)
    omega = (nu * root) @ own.inverse * root
    log_q = signal_var.log()[:, None] - 0.5 * own.log_det.unsqueeze(-1) - 0.5 * (nu * omega).sum(-1)
    q = log_q.exp()
    weighted = q * beta
    gain = (weighted.unsqueeze(-1) * omega).sum(-2).mT

    a, b = lower_pairs(len(beta), mean.device)
    grown = _log_growth(cov, precision, own, zeta, a, b)
    covered = grown.clamp_max(exponent_limit(q.dtype)).expm1()
    values = (weighted[:, a].unsqueeze(-2) @ covered @ weighted[:, b].unsqueeze(-1)).flatten(-3)
    spread = _mirror(values, a, b, len(beta))
    epistemic = torch.zeros_like(weighted[..., 0])
    if uncertainty is not None:
        epistemic = _expected_variance(uncertainty, signal_var, q, covered[:, : len(beta)])
    return Parts(weighted.sum(-1), spread, epistemic, gain)


def _log_growth(cov: Tensor, precision: Tensor, own: Smoothed, zeta: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # Δ [B, pairs, N, N]; T_ab - T_a = -T_a P_b T_ab and |C_a||C_b|/|C_ab| = |I + T_ab P_a Σ P_b| leave nothing to cancel.
    both = smooth(cov, precision[a] + precision[b]).product
    growth = log_det_plus_one(both @ (precision[a].unsqueeze(-1) * cov.unsqueeze(-3) * precision[b].unsqueeze(-2)))
    left = own.product[:, a] @ (precision[b].unsqueeze(-1) * both)
    right = own.product[:, b] @ (precision[a].unsqueeze(-1) * both)
    first, second = zeta[:, a], zeta[:, b]
    rows = 0.25 * growth.unsqueeze(-1) - 0.5 * (first @ left * first).sum(-1)
    columns = 0.25 * growth.unsqueeze(-1) - 0.5 * (second @ right * second).sum(-1)
    return rows.unsqueeze(-1) + columns.unsqueeze(-2) + first @ both @ second.mT


def log_det_plus_one(matrix: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch"]:
    """Return log det(I + X) to the relative precision of X, however small: one elimination with log1p of the pivots.

    For X without negative eigenvalues no pivoting is needed.

    >>> log_det_plus_one(1e-20 * torch.eye(2, dtype=torch.float64)).item()
    2e-20
    """
    total = matrix[..., 0, 0].log1p()
    for _ in range(matrix.shape[-1] - 1):
        pivot = 1 + matrix[..., :1, :1]
        matrix = matrix[..., 1:, 1:] - matrix[..., 1:, :1] * (matrix[..., :1, 1:] / pivot)
        total = total + matrix[..., 0, 0].log1p()
    return total


def _mirror(values: Tensor, a: Tensor, b: Tensor, outputs: int) -> Tensor:
    position = torch.empty(outputs, outputs, dtype=torch.long, device=values.device)
    position[a, b] = position[b, a] = torch.arange(len(a), device=values.device)
    return values[:, position]


def _expected_variance(uncertainty: Uncertainty, signal_var: Tensor, q: Tensor, covered: Tensor) -> Tensor:
    root, precision, reduction = uncertainty
    # A solve: with the explicit inverse a signal-to-noise ratio of 1e4 costs four digits.
    result = signal_var - torch.linalg.solve_triangular(root, q.unsqueeze(-1), upper=False).square().sum((-2, -1))
    if reduction is not None:
        result = result + torch.linalg.solve_triangular(reduction, q.unsqueeze(-1), upper=False).square().sum((-2, -1))
    return result - (q.unsqueeze(-2) @ (precision * covered) @ q.unsqueeze(-1)).flatten(-3)
