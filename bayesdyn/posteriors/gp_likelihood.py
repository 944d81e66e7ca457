"""The marginal likelihood of E independent Gaussian processes, with its gradient in closed form."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.kernels import Kernel, rbf_exponent
from bayesdyn.linalg import add_diagonal, jittered_cholesky


class _NegativeLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, x: Tensor, y: Tensor, ell: Tensor, s: Tensor, b: Tensor, noise: Tensor) -> Tensor:
        exponent = rbf_exponent(x, x, ell)
        slope = kernel.slope(exponent).mul_(s[:, None, None])
        signal = kernel.correlation(exponent).mul_(s[:, None, None])
        full = signal + b[:, None, None] * (x @ x.mT) if kernel.linear else signal
        factor, _ = jittered_cholesky(add_diagonal(full, noise))
        targets = y.mT.unsqueeze(-1)
        alpha = torch.cholesky_solve(targets, factor)
        size = x.shape[0]
        log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        nll = 0.5 * (targets * alpha).sum((-2, -1)) + log_determinant + 0.5 * size * math.log(2 * math.pi)
        # dL/dK = ½W, W = K⁻¹ - ααᵀ; every other derivative is a sum over W.
        w = torch.baddbmm(torch.cholesky_inverse(factor), alpha, alpha.mT, alpha=-1)
        z = (x - x.mean(0)) / ell.unsqueeze(-2)
        v = slope.mul_(w)
        grad_log_ell = (v.sum(-1, keepdim=True) * z.square()).sum(-2) - (z * (v @ z)).sum(-2)
        grad_log_s = 0.5 * (signal * w).sum((-2, -1))
        grad_b = 0.5 * (x * (w @ x)).sum((-2, -1)) if kernel.linear else torch.zeros_like(b)
        grad_noise = 0.5 * w.diagonal(dim1=-2, dim2=-1).sum(-1)
        ctx.save_for_backward(grad_log_ell / ell, grad_log_s / s, grad_b, grad_noise)
        return nll

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_ell, grad_s, grad_b, grad_noise = ctx.saved_tensors
        g = upstream[0]
        return None, None, None, g.unsqueeze(-1) * grad_ell, g * grad_s, g * grad_b, g * grad_noise


def negative_log_likelihood(
    kernel: Kernel,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    lengthscale: Float[Tensor, "E D"],
    signal_var: Float[Tensor, "E"],
    linear_var: Float[Tensor, "E"],
    noise_var: Float[Tensor, "E"],
) -> Float[Tensor, "E"]:
    """Return -log p(y | X) in nats per output, ½ yᵀK_n⁻¹y + ½ log|K_n| + ½N log 2π with K_n = K + σ²I.

    The gradient to the parameters comes with the value, from V = W∘(s dκ/d(-½r²)), W = K_n⁻¹ - ααᵀ and z = x/ℓ:

        ∂/∂log ℓ_d = Σ_i (V1)_i z_id² - Σ_i z_id (V z_d)_i,   ∂/∂log s = ½ ΣW∘sκ,   ∂/∂b = ½ tr XᵀWX,   ∂/∂σ² = ½ tr W

    (Rasmussen & Williams 2006, eq. 5.9), which needs one inverse and no N x N x D tensor. There is no gradient to x or y.

    Raises `NumericalError` if K_n is not positive definite with any jitter.
    """
    return _NegativeLogLikelihood.apply(kernel, x, y, lengthscale, signal_var, linear_var, noise_var)
