"""Moments of radial basis functions with gradients to centres, weights and length-scales in closed form."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap, ArrayMoments, PullBack, Slopes, fit_for_arrays
from bayesdyn.gaussian_processes.moment_kernel import Compact, Kernel, installed
from bayesdyn.gaussian_processes.moment_pairs import pair_sums
from bayesdyn.gaussian_processes.moment_smoothing import Precisions, Smoothing, smoothing
from bayesdyn.gaussian_processes.moment_taped import exponent_limit


class Evaluated(NamedTuple):
    """What the backward pass needs, of size O(N D): pairs are all ordered (a, b), position a·E + b."""

    beta: np.ndarray  # [E, N]
    lengthscale: np.ndarray  # [E, D]
    precisions: Precisions
    small: Smoothing
    q: np.ndarray  # [B, E, N]
    omega: np.ndarray  # [B, E, N, D]
    lifted: np.ndarray  # ζ̃ = [1, ζ] [B, E, N, 1 + D]
    base: np.ndarray  # Σ u ζ̃ [B, E, 1 + D]
    columns: np.ndarray  # Σ_i u_i ζ̃_i E_ij [B, pairs, N, 1 + D]
    gain: np.ndarray  # [B, E, D]


def evaluate(
    mean: np.ndarray, cov: np.ndarray, centres: np.ndarray, beta: np.ndarray, lengthscale: np.ndarray, *, gradient: bool
) -> tuple[np.ndarray, np.ndarray, Evaluated]:
    """Return mean [B, E], covariance [B, E, E] and the rest, at beliefs [B, D], [B, D, D]; see `taped_parts` for the equations.

    The `columns` are sums only with `gradient`.
    """
    outputs, rows = beta.shape
    batch, size = mean.shape
    a, b = (index.reshape(-1) for index in np.indices((outputs, outputs)))
    with np.errstate(under="ignore"):
        precisions = Precisions.of(lengthscale, a, b)
        small = smoothing(cov, precisions)
        nu = (centres - mean[:, None])[:, None]
        omega = nu @ small.spread
        fall = -0.5 * (small.log_det[..., None] + (nu * omega).sum(-1))
        q = np.exp(fall)
        u = q * beta
        lifted = np.concatenate([np.ones_like(u)[..., None], nu * precisions.own[:, None]], -1)
        base = (u[..., None, :] @ lifted)[..., 0, :]
        first, second = lifted[:, a, :, 1:], lifted[:, b, :, 1:]
        left, right = np.empty((2, batch, len(a), rows, size + 2), q.dtype)
        half = 0.25 * small.growth[..., None]
        left[..., :-2], right[..., :-2] = first @ small.both, second
        left[..., -1] = right[..., -2] = 1
        left[..., -2] = half - 0.5 * (first @ small.excess[0] * first).sum(-1)
        right[..., -1] = half - 0.5 * (second @ small.excess[1] * second).sum(-1)
        limit = exponent_limit(torch.from_numpy(q).dtype)
        factors = np.ascontiguousarray((u[..., None] * lifted)[:, a].reshape(-1, rows, size + 1).swapaxes(-1, -2))
        flat = (-1, rows, size + 2)
        by_row = u[:, b].reshape(-1, rows)
        cut = limit if float(-fall.min()) >= limit else None
        sums = pair_sums(left.reshape(flat), right.reshape(flat), by_row, factors if gradient else None, None, cut)
        values = (sums.rows * factors[:, 0]).sum(-1).reshape(batch, outputs, outputs)
        gain = (small.shrink @ base[..., 1:, None])[..., 0]
    columns = factors if sums.columns is None else sums.columns
    kept = columns.reshape(batch, len(a), size + 1, rows).swapaxes(-1, -2)
    values = 0.5 * (values + values.swapaxes(-1, -2))
    return base[..., 0], values, Evaluated(beta, lengthscale, precisions, small, q, omega, lifted, base, kept, gain)


def pull_back(at: Evaluated, to_mean: np.ndarray, to_cov: np.ndarray, to_gain: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the gradients to mean, covariance, centres, β and ℓ for those of mean [B, E], cov [B, E, E] and gain [B, E, D].

    For each ordered pair, only the b side is worked out: the a side of (a, b) is the b side of (b, a).

        λ_j = u_j (∂mean + ω_jᵀ∂gain + 2 Σ_a ∂cov_ab Σ_i u_i E_ij),     the weight of d log q_j
        τ_j = Σ_i Φ_ij (T_ab ζ_i - M_b ζ_j),     dΔ_ij/dζ_j = T_ab ζ_i - M_b ζ_j
        dx_j = -λ_j ω_j + u_j R ∂gain + 2 Σ_a ∂cov_ab P_b τ_j

    and for dΛ the heat equation of the Gaussian: ∂E[k_i k_j]/∂Λ = ½ (P + ∇_x²) E[k_i k_j].
    """
    small, own = at.small, at.precisions.own
    outputs = len(at.beta)
    batch, _, rows, size = at.omega.shape
    a, b = at.precisions.left, at.precisions.right
    swapped = np.arange(outputs**2).reshape(outputs, outputs).T.reshape(-1)
    u, zeta, w_b = at.q * at.beta, at.lifted[..., 1:], (at.q * at.beta)[:, b, :, None]
    weight = (to_cov + to_cov.swapaxes(-1, -2)).reshape(batch, -1)
    # Φ summed over i: [Σ Φ, Σ Φ ζ_i] for every j.
    sums = w_b * (at.columns + at.base[:, a, None])
    zeta_b = zeta[:, b]
    held = small.excess[1]
    pull = sums[..., 1:] @ small.both - sums[..., :1] * (zeta_b @ held)
    mass = (sums[..., :1] * zeta_b).swapaxes(-1, -2) @ zeta_b
    cross = zeta_b.swapaxes(-1, -2) @ sums[..., 1:]  # Σ Φ ζ_j ζ_iᵀ
    total = sums[..., 0].sum(-1)

    slope = np.einsum("bend,bed->ben", at.omega, to_gain)
    by_pair = (weight[..., None] * at.columns[..., 0]).reshape(batch, outputs, outputs, rows).sum(1)
    outer = to_mean[..., None] + slope + by_pair
    level = u * outer
    turned = (small.spread @ to_gain[..., None])[..., 0]
    pulled = (weight[..., None, None] * pull).reshape(batch, outputs, outputs, rows, size).sum(1) * own[:, None]
    d_nu = pulled - level[..., None] * at.omega + u[..., None] * turned[:, :, None]

    squares = (level[..., None] * at.omega).swapaxes(-1, -2) @ at.omega
    less = small.less[1]
    moved = less @ mass
    side = moved @ (less - 2 * small.shrink[:, b]).swapaxes(-1, -2) + total[..., None, None] * (less * own[b][:, None, :])
    side = side + small.shrink_both @ cross @ small.shrink_both.swapaxes(-1, -2)
    d_cov = 0.5 * (squares - level.sum(-1)[..., None, None] * small.spread).sum(1)
    d_cov = d_cov - (turned[..., :, None] * at.gain[..., None, :]).sum(1) + 0.5 * (weight[..., None, None] * side).sum(1)

    wide = 2 * ((at.omega * pulled).sum(-2))
    held_own = own[b] ** 2
    bent = np.einsum("bpij,bpjk,bpik->bpi", held, mass, held) - 2 * np.einsum("bpij,bpjk,bpki->bpi", held, cross, small.both)
    bent = bent + np.einsum("bpij,bpjk,bpik->bpi", small.both, mass[:, swapped], small.both)
    bent = weight[..., None] * held_own * (bent - total[..., None] * held.diagonal(axis1=-2, axis2=-1))
    narrowed = own - small.spread.diagonal(axis1=-2, axis2=-1)
    d_width = level.sum(-1)[..., None] * narrowed + squares.diagonal(axis1=-2, axis2=-1) - 2 * turned * at.gain - wide
    d_width = (d_width + bent.reshape(batch, outputs, outputs, size).sum(1)).sum(0) * at.lengthscale
    return (
        -d_nu.sum((1, 2)),
        0.5 * (d_cov + d_cov.swapaxes(-1, -2)),
        d_nu.sum((0, 1)),
        (at.q * outer).sum(0),
        d_width,
    )


def radial_arrays(centres: Tensor, beta: Tensor, lengthscale: Tensor) -> ArrayMap:
    """Return the moments on arrays, with gradients to centres [nc, D], weights [E, nc] and length-scales [E, D] on the CPU."""
    tensors = (centres, beta, lengthscale)
    arrays = [tensor.detach().numpy() for tensor in tensors]
    kernel = installed() if fit_for_arrays(*tensors) else None
    if kernel is not None:
        return ArrayMap(partial(_compiled, kernel, Compact.certain(*arrays)), tensors)

    def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
        centre, spread, at = evaluate(mean, cov, *arrays, gradient=gradient)
        return ArrayMoments(centre, spread, at.gain.swapaxes(-1, -2)), partial(_slopes, at)

    return ArrayMap(forward, tensors)


def _compiled(kernel: Kernel, compact: Compact, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
    *found, _ = kernel.linearised(compact, mean, cov, gradient=False)

    def pull_back(to: ArrayMoments) -> Slopes:
        to_mean, to_cov, *to_parameters = kernel.radial_back(compact, mean, cov, to)
        return Slopes(to_mean, to_cov, tuple(to_parameters))

    return ArrayMoments(*found), pull_back


def _slopes(at: Evaluated, to: ArrayMoments) -> Slopes:
    to_mean, to_cov, *to_parameters = pull_back(at, to.mean, to.cov, to.gain.swapaxes(-1, -2))
    return Slopes(to_mean, to_cov, tuple(to_parameters))
