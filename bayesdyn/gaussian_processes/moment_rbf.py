"""Radial basis functions as a deterministic Gaussian process: their moments at a Gaussian input, and weights from targets."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap, ArrayMoments, PullBack, fit_for_arrays
from bayesdyn.beliefs import Moments, check_belief
from bayesdyn.errors import NumericalError
from bayesdyn.gaussian_processes.moment_factors import GPFactors
from bayesdyn.gaussian_processes.moment_radial import radial_arrays
from bayesdyn.gaussian_processes.moment_taped import taped_parts


def rbf_moments(
    mean: Float[Tensor, "*batch D"],
    cov: Float[Tensor, "*batch D D"],
    centres: Float[Tensor, "nc D"],
    beta: Float[Tensor, "E nc"],
    lengthscale: Float[Tensor, "E D"],
    jitter: float = 1e-6,
) -> Moments:
    """Return the moments of f_e(x) = Σ_i β_ei exp(-½ Σ_d (x - c_i)_d²/ℓ_ed²) at x ~ N(mean, cov), with `jitter` added to var f.

    Differentiable once in all tensors. Raises `ShapeError`, and `NumericalError` for a covariance that is none.
    Source: Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.5.2.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> rbf_moments(0 * one, 0 * one[None], 0 * one[None], one[None], one[None]).mean.item()
    1.0
    """
    if centres.device.type != "cpu":
        return taped_rbf_moments(mean, cov, centres, beta, lengthscale, jitter)
    size, outputs, batch = centres.shape[-1], len(beta), mean.shape[:-1]
    check_belief(mean, cov, size, f"radial basis functions of {size} inputs")
    centre, spread, gain = radial_arrays(centres, beta, lengthscale).at(mean.reshape(-1, size), cov.reshape(-1, size, size))
    added = jitter * torch.eye(outputs, dtype=spread.dtype)
    return Moments(
        centre.reshape(*batch, outputs), (spread + added).reshape(*batch, outputs, outputs), gain.reshape(*batch, size, outputs)
    )


def rbf_arrays(
    centres: Float[Tensor, "nc D"], beta: Float[Tensor, "E nc"], lengthscale: Float[Tensor, "E D"], jitter: float = 1e-6
) -> ArrayMap | None:
    """Return `rbf_moments` on arrays; None unless all tensors are float64 on the CPU."""
    if not fit_for_arrays(centres, beta, lengthscale):
        return None
    inner, added = radial_arrays(centres, beta, lengthscale), jitter * np.eye(len(beta))

    def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
        check_belief(mean, cov, centres.shape[1], f"radial basis functions of {centres.shape[1]} inputs")
        found, pull_back = inner.forward(mean, cov, gradient)
        return found._replace(cov=found.cov + added), pull_back

    return ArrayMap(forward, inner.parameters)


def taped_rbf_moments(
    mean: Float[Tensor, "*batch D"],
    cov: Float[Tensor, "*batch D D"],
    centres: Float[Tensor, "nc D"],
    beta: Float[Tensor, "E nc"],
    lengthscale: Float[Tensor, "E D"],
    jitter: float = 1e-6,
) -> Moments:
    """Return the same as `rbf_moments` as plain operations of torch: slower, with derivatives of any order, on any device."""
    size = centres.shape[-1]
    check_belief(mean, cov, size, f"radial basis functions of {size} inputs")
    outputs = len(beta)
    factors = GPFactors(centres.expand(outputs, -1, -1), lengthscale, torch.ones_like(beta[:, 0]), beta)
    parts = taped_parts(factors, mean.reshape(-1, size), cov.reshape(-1, size, size))
    batch = mean.shape[:-1]
    own = torch.diag_embed(parts.epistemic + jitter)
    return Moments(
        parts.mean.reshape(*batch, outputs),
        (parts.spread + own).reshape(*batch, outputs, outputs),
        parts.gain.reshape(*batch, size, outputs),
    )


def rbf_weights(
    centres: Float[Tensor, "nc D"],
    targets: Float[Tensor, "nc A"],
    lengthscale: Float[Tensor, "A D"],
    noise_std: float | Float[Tensor, "A"] = 0.01,
) -> Float[Tensor, "A nc"]:
    """Return β = (K + σn²I)⁻¹ targets for K_ij = exp(-½ Σ_d (c_i - c_j)_d²/ℓ_d²) of each output; differentiable.

    Raises `NumericalError` if K + σn²I is not finite or cannot be factorised.

    >>> rbf_weights(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1), noise_std=1.0)
    tensor([[0.5000]])
    """
    scaled = (centres - centres.mean(0)) / lengthscale.unsqueeze(-2)
    half = 0.5 * scaled.square().sum(-1)
    gram = (scaled @ scaled.mT - half.unsqueeze(-1) - half.unsqueeze(-2)).clamp_max(0.0).exp()
    noise = torch.as_tensor(noise_std, dtype=centres.dtype, device=centres.device).expand(len(lengthscale))
    factor, info = torch.linalg.cholesky_ex(gram + torch.diag_embed(noise.square().unsqueeze(-1).expand(-1, len(centres))))
    if bool(info.any()) or not bool(factor.isfinite().all()):
        raise NumericalError(
            "K + σn²I of the radial basis functions cannot be factorised: centres or length-scales are not finite, or "
            "out of range. The last step of the parameters was too long: take a shorter one"
        )
    return torch.cholesky_solve(targets.mT.unsqueeze(-1), factor).squeeze(-1)
