"""What sparse training maximises, with closed gradients: Titsias' collapsed bound and the FITC likelihood."""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.linalg import jittered_cholesky, triangular_inverse


class _Factors(NamedTuple):
    """What both objectives share, for row noise λ: V = L⁻¹K_uf, B = I + VΛ⁻¹Vᵀ = CCᵀ, m = B⁻¹VΛ⁻¹y."""

    inverse: Tensor  # L⁻¹ [M, M]
    v: Tensor  # [M, N]
    gap: Tensor  # k_nn - |V_n|², [N]


def _project(gram: Tensor, cross: Tensor, prior: Tensor) -> _Factors:
    inverse = triangular_inverse(jittered_cholesky(gram)[0])
    v = inverse @ cross
    return _Factors(inverse, v, prior - torch.linalg.vecdot(v, v, dim=0))


def _solve(precision: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return B⁻¹, m = B⁻¹b and log|B|."""
    factor = jittered_cholesky(precision)[0]
    mean = torch.cholesky_solve(shift.unsqueeze(-1), factor).squeeze(-1)
    return torch.cholesky_inverse(factor), mean, 2 * factor.diagonal().log().sum()


class _Collapsed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gram: Tensor, cross: Tensor, prior: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        inverse, v, gap = _project(gram, cross, prior)
        identity = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
        precision = identity + v @ v.mT / noise
        shift = v @ y / noise
        covariance, mean, log_determinant = _solve(precision, shift)
        rows, fit, slack = y.shape[0], y @ y / noise - shift @ mean, gap.sum() / noise
        value = 0.5 * (rows * (2 * math.pi * noise).log() + log_determinant + fit + slack)
        # dL/dV = ((B⁻¹ + mmᵀ - I)V - myᵀ)/σ²; L is invariant under rotations of V, so (dL/dV)Vᵀ = 2I - B⁻¹ - B - mmᵀ is symmetric.
        outer = torch.outer(mean, mean)
        grad_cross = (inverse.mT @ (covariance + outer - identity) / noise) @ v
        grad_cross.addr_(inverse.mT @ mean, y, alpha=-1 / float(noise))
        grad_gram = -0.5 * inverse.mT @ (2 * identity - covariance - precision - outer) @ inverse
        # λ enters through log|Λ|, B and yᵀΛ⁻¹y; its sum over rows needs only traces: tr B⁻¹(B - I) = M - tr B⁻¹.
        trace = gram.shape[0] - covariance.trace()
        misfit = y @ y / noise - 2 * shift @ mean + mean @ (precision @ mean) - mean @ mean
        grad_noise = 0.5 * (rows - trace - misfit - slack) / noise
        ctx.save_for_backward(grad_gram, grad_cross, (0.5 / noise).expand(rows), grad_noise)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_gram, grad_cross, grad_prior, grad_noise = ctx.saved_tensors
        g = upstream[0]
        return g * grad_gram, g * grad_cross, g * grad_prior, None, g * grad_noise


class _FITC(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gram: Tensor, cross: Tensor, prior: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        inverse, v, gap = _project(gram, cross, prior)
        identity = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
        total = noise + gap
        scaled = v / total
        precision, shift = identity + scaled @ v.mT, scaled @ y
        covariance, mean, log_determinant = _solve(precision, shift)
        fit = y.square() @ total.reciprocal() - shift @ mean
        value = 0.5 * ((2 * math.pi * total).log().sum() + log_determinant + fit)
        # dL/dλ_n = ½(λ_n - v_nᵀB⁻¹v_n - (y_n - mᵀv_n)²)/λ_n², and λ_n = σ² + k_nn - |v_n|² carries it to σ², k_nn and V.
        spread, residual = covariance @ v, y - mean @ v
        grad_total = 0.5 * (total - torch.linalg.vecdot(spread, v, dim=0) - residual.square()) / total.square()
        weighted = v * (2 * grad_total)
        grad_v = spread.div_(total).addr_(mean, residual / total, alpha=-1).sub_(weighted)
        grad_gram = -0.5 * inverse.mT @ (identity - covariance - torch.outer(mean, mean) - weighted @ v.mT) @ inverse
        ctx.save_for_backward(grad_gram, inverse.mT @ grad_v, grad_total, grad_total.sum())
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_gram, grad_cross, grad_prior, grad_noise = ctx.saved_tensors
        g = upstream[0]
        return g * grad_gram, g * grad_cross, g * grad_prior, None, g * grad_noise


def collapsed_loss(
    gram: Float[Tensor, "M M"],
    cross: Float[Tensor, "M N"],
    prior: Float[Tensor, "N"],
    y: Float[Tensor, "N"],
    noise_var: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the negative collapsed bound of one output in nats, -log N(y; 0, Q + σ²I) + tr(K - Q)/(2σ²) >= -log p(y | X).

    `gram` is K_zz, `cross` K_zn, `prior` the diagonal of K; Q = K_nz K_zz⁻¹ K_zn (Titsias 2009, eq. 9). With V = L⁻¹K_zn,
    B = I + VVᵀ/σ² and m = B⁻¹Vy/σ², the gradients, which come with the value, are

        ∂/∂K_zn = L⁻ᵀ((B⁻¹ + mmᵀ - I)V - myᵀ)/σ²,   ∂/∂K_zz = -½ L⁻ᵀ(2I - B⁻¹ - B - mmᵀ)L⁻¹,   ∂/∂k_nn = 1/(2σ²)

    so that one value with its gradient takes three products of 2NM² flops and two M x N matrices. There is no gradient to y.

    Raises `NumericalError` if K_zz or B is not positive definite with any jitter.
    """
    return _Collapsed.apply(gram, cross, prior, y, noise_var)


def fitc_loss(
    gram: Float[Tensor, "M M"],
    cross: Float[Tensor, "M N"],
    prior: Float[Tensor, "N"],
    y: Float[Tensor, "N"],
    noise_var: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return -log N(y; 0, Q + Λ) of one output in nats, Λ = diag(K - Q) + σ²I (Snelson & Ghahramani 2006, eq. 9).

    Arguments as of `collapsed_loss`; no bound on -log p(y | X). The gradients, which come with the value, are those of Λ and of
    V = L⁻¹K_zn: ∂/∂λ_n = ½(λ_n - v_nᵀB⁻¹v_n - (y_n - mᵀv_n)²)/λ_n² with B = I + VΛ⁻¹Vᵀ, m = B⁻¹VΛ⁻¹y.

    Raises `NumericalError` if K_zz or B is not positive definite with any jitter.
    """
    return _FITC.apply(gram, cross, prior, y, noise_var)
