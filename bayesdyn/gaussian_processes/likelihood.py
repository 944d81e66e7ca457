"""The marginal likelihood of E independent Gaussian processes, with its gradient in closed form."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.kernels import Kernel, rbf_exponent
from bayesdyn.linalg import jittered_cholesky


class _NegativeLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, x: Tensor, y: Tensor, ell: Tensor, s: Tensor, b: Tensor, noise: Tensor) -> Tensor:
        correlation, slope = kernel.correlation_and_slope(rbf_exponent(x, x, ell))
        scale = s[:, None, None]
        gram = correlation * scale
        if kernel.linear:
            gram += b[:, None, None] * (x @ x.mT)
        gram.diagonal(dim1=-2, dim2=-1).add_(noise.unsqueeze(-1))
        factor, _ = jittered_cholesky(gram)
        targets = y.mT.unsqueeze(-1)
        alpha = torch.cholesky_solve(targets, factor)
        log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        nll = 0.5 * (targets * alpha).sum((-2, -1)) + log_determinant + 0.5 * x.shape[0] * math.log(2 * math.pi)
        # dL/dK = ½W, W = K⁻¹ - ααᵀ; every other derivative is a sum over W. W's memory then becomes V's: these N x N passes count.
        w = torch.cholesky_inverse(factor).baddbmm_(alpha, alpha.mT, alpha=-1)
        grad_s = 0.5 * torch.linalg.vecdot(correlation.flatten(1), w.flatten(1))
        grad_b = 0.5 * (x * (w @ x)).sum((-2, -1)) if kernel.linear else torch.zeros_like(b)
        grad_noise = 0.5 * w.diagonal(dim1=-2, dim2=-1).sum(-1)
        z = (x - x.mean(0)) / ell.unsqueeze(-2)
        product = w.mul_(slope) @ torch.cat([z, torch.ones_like(z[..., :1])], -1)
        grad_log_ell = s.unsqueeze(-1) * ((product[..., -1:] * z.square()).sum(-2) - (z * product[..., :-1]).sum(-2))
        ctx.save_for_backward(grad_log_ell / ell, grad_s, grad_b, grad_noise)
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
