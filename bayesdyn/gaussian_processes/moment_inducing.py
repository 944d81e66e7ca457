"""Moment matching with inducing points: any posterior N(m, S) of u = f(Z), and FITC with given points."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.gaussian_processes.moment_factors import Uncertainty
from bayesdyn.gaussian_processes.moment_map import GPMoments
from bayesdyn.gaussian_processes.sparse_evaluator import InducingPrior, check_points, gather, inducing_prior, posterior_factor
from bayesdyn.gaussian_processes.sparse_objectives import FITC
from bayesdyn.kernels import RBF, KernelParameters

_RIDGE = 1e-6


def inducing_moments(
    prior: InducingPrior,
    precision: Float[Tensor, "E M M"],
    shift: Float[Tensor, "E M"],
    noise_var: Float[Tensor, "E"] | None = None,
) -> GPMoments:
    """Return the moments under q(u), u = Lv, LLᵀ = K_zz + ridge·I, q(v) ∝ N(v; 0, I) exp(shiftᵀv - ½ vᵀ precision v).

        BBᵀ = I + precision,   β = L⁻ᵀB⁻ᵀB⁻¹ shift,   A = (LLᵀ)⁻¹ - (LB)⁻ᵀ(LB)⁻¹ = K_zz⁻¹ - K_zz⁻¹ S K_zz⁻¹

    Raises `ConfigurationError` for another kernel than `RBF()`.
    """
    # B is lower triangular, and so is the product of two such.
    root, inner = prior.factor, posterior_factor(precision)
    reduction = root @ inner
    eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand_as(root)
    whitening = torch.linalg.solve_triangular(root, eye, upper=False)
    reduced = torch.linalg.solve_triangular(inner, whitening, upper=False)
    whitened = torch.linalg.solve_triangular(inner, shift.unsqueeze(-1), upper=False)
    beta = torch.linalg.solve_triangular(reduction.mT, whitened, upper=True).squeeze(-1)
    inverse = whitening.mT @ whitening - reduced.mT @ reduced
    return GPMoments(
        prior.points,
        prior.parameters.lengthscale,
        prior.parameters.signal_var,
        beta,
        uncertainty=Uncertainty(root, inverse, reduction),
        noise_var=noise_var,
        kernel=prior.kernel,
    )


def fitc_moments(
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    inducing_points: Float[Tensor, "*k M D"],
    lengthscale: Float[Tensor, "E D"],
    signal_var: Float[Tensor, "E"],
    noise_var: Float[Tensor, "E"],
    *,
    ridge: float = _RIDGE,
) -> GPMoments:
    """Return the moments under the FITC posterior of N rows seen through the inducing points, [M, D] or one set per output.

        K_zz + ridge·I = LLᵀ,  V = L⁻¹K_zx,  λ_n = σn² + σf² - |V_n|²,  I + VΛ⁻¹Vᵀ = BBᵀ,  β = L⁻ᵀB⁻ᵀB⁻¹VΛ⁻¹y

    Raises `ShapeError` for inducing points of another shape and `NumericalError` if K_zz cannot be factorised.
    Source: Snelson & Ghahramani 2006, eqs. 8-10.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> sparse = fitc_moments(0 * one[None], one[None], 0 * one[None], one[None], one, one)
    >>> round(sparse.moments(0 * one, 0 * one[None]).mean.item(), 5)
    0.5
    """
    check_points(inducing_points, x.shape[1], y.shape[1])
    parameters = KernelParameters(lengthscale, signal_var, torch.zeros_like(signal_var))
    points = inducing_points.expand(y.shape[1], -1, -1)
    prior = inducing_prior(RBF(), parameters, points, torch.full_like(signal_var, ridge))
    evidence = gather(prior, FITC().row_noise, noise_var, x, y)
    return inducing_moments(prior, evidence.precision, evidence.shift)
