"""Moments of a Gaussian process with their whole Jacobian in closed form: the backward pass is then one small product."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bayesdyn.belief_arrays import ArrayMoments, PullBack, Slopes
from bayesdyn.gaussian_processes.moment_factors import GPFactors, Uncertainty, lower_pairs
from bayesdyn.gaussian_processes.moment_kernel import LANES, Compact, installed
from bayesdyn.gaussian_processes.moment_pairs import pair_sums
from bayesdyn.gaussian_processes.moment_point import point_moments
from bayesdyn.gaussian_processes.moment_smoothing import Precisions, Smoothing, smoothing
from bayesdyn.gaussian_processes.moment_taped import exponent_limit


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a map of fixed factors computes once: arrays, pairs (those with a = b first) and W = ββᵀ - A.

    Of W, which is symmetric, only the lower triangle is kept, its diagonal halved: W is that and its transpose together.
    """

    factors: GPFactors
    points: np.ndarray  # [E, N, D]
    beta: np.ndarray  # [E, N]
    log_signal: np.ndarray  # [E]
    precisions: Precisions
    position: np.ndarray  # [E, E], the pair of (a, b)
    weight: Tensor | None  # [E, N', N'], filled up by zeros

    @classmethod
    def of(cls, factors: GPFactors) -> "Prepared":
        """Return it for factors on the CPU."""
        points, lengthscale, signal_var, beta = (tensor.detach() for tensor in factors[:4])
        uncertainty = factors.uncertainty
        outputs = len(beta)
        left, right = (index.numpy() for index in lower_pairs(outputs, torch.device("cpu")))
        position = np.empty((outputs, outputs), np.int64)
        position[left, right] = position[right, left] = np.arange(len(left))
        weight = None
        if uncertainty is not None:
            missing = -beta.shape[1] % LANES
            whole = beta.unsqueeze(-1) * beta.unsqueeze(-2) - uncertainty.precision.detach()
            lower = whole.tril() - 0.5 * torch.diag_embed(whole.diagonal(dim1=-2, dim2=-1))
            weight = functional.pad(lower, (0, missing, 0, missing))
        precisions = Precisions.of(lengthscale.numpy(), left, right)
        return cls(factors, points.numpy(), beta.numpy(), signal_var.log().numpy(), precisions, position, weight)

    @cached_property
    def compact(self) -> Compact:
        """The same for the compiled kernel, with the inverses of L and R.

        L⁻¹q from the inverse of the triangular L is as accurate as a solve; what would lose digits is (LLᵀ)⁻¹.
        """
        count = self.beta.shape[1]
        missing = -count % LANES
        uncertainty = self.factors.uncertainty
        root = None if uncertainty is None else _inverse(uncertainty.root, missing)
        reduction = None if uncertainty is None or uncertainty.reduction is None else _inverse(uncertainty.reduction, missing)
        return Compact(
            np.ascontiguousarray(np.pad(self.points.swapaxes(-1, -2), ((0, 0), (0, 0), (0, missing)))),
            np.ascontiguousarray(np.pad(self.beta, ((0, 0), (0, missing)))),
            np.ascontiguousarray(self.log_signal),
            np.ascontiguousarray(self.factors.signal_var.detach().numpy()),
            np.ascontiguousarray(self.precisions.own),
            None if self.weight is None else np.ascontiguousarray(self.weight.numpy()),
            root,
            reduction,
            count,
        )


def _inverse(factor: Tensor, missing: int) -> np.ndarray:
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor)
    inverse = torch.linalg.solve_triangular(factor.detach(), eye, upper=False)
    return functional.pad(inverse, (0, missing, 0, missing)).contiguous().numpy()


class Linearised(NamedTuple):
    """Moments [B, ...] and, where asked for, their derivatives to (μ, Σ) as rows [B, E + E² + D E, D + D²]."""

    mean: np.ndarray
    cov: np.ndarray
    gain: np.ndarray
    jacobian: np.ndarray | None


class _Sums(NamedTuple):
    """Σ_ij Φ_ij ζ̃_i ζ̃_jᵀ and its like per pair: own side [1, ζ]-moments of the row sums, the other side's, and the cross term."""

    left: np.ndarray  # [B, pairs, 1 + D, 1 + D]
    right: np.ndarray
    cross: np.ndarray


def linearised(prepared: Prepared, mean: np.ndarray, cov: np.ndarray, *, gradient: bool) -> Linearised:
    """Return the moments at B beliefs as `taped_parts` defines them, with `gradient` also their Jacobian.

    With Φ_ij = u_i w_j exp(Δ_ij), u = qβ and ω = Gζ, all derivatives are sums of products of ζ̃ = [1, ζ] over one row or one pair:

        d log q_i/dμ = ω_i,                     d log q_i/dΣ = ½(ω_i ω_iᵀ - R)
        dΔ_ij/dμ = -(F_a ζ_i + F_b ζ_j),        dΔ_ij/dΣ = ½(ω_ij ω_ijᵀ - ω_i ω_iᵀ - ω_j ω_jᵀ + F_a P_a + F_b P_b)
        ω_ij = G_ab (ζ_i + ζ_j)

    where differences are written as products of `Smoothing`, so that they too keep their digits as Σ -> 0.
    """
    size, kernel = mean.shape[-1], installed() if mean.dtype == np.float64 else None
    if kernel is not None:
        return Linearised(*kernel.linearised(prepared.compact, mean, cov, gradient=gradient))
    with np.errstate(under="ignore"):
        small = smoothing(cov, prepared.precisions)
        nu = prepared.points - mean[:, None, None]
        omega = nu @ small.spread
        fall = -0.5 * (small.log_det[..., None] + np.einsum("...d,...d->...", nu, omega))
        q = np.exp(fall + prepared.log_signal[:, None])
        u = q * prepared.beta
        lifted = np.concatenate([np.ones_like(u)[..., None], nu * prepared.precisions.own[:, None]], -1)
        limit = exponent_limit(prepared.factors.points.dtype)
        cut = limit if float(-fall.min()) >= limit else None
        base = (u[..., None] * lifted).swapaxes(-1, -2) @ lifted
        gain = small.shrink @ base[..., 1:, :1]
        sums, values = _pairs(prepared, small, q, u, lifted, cut, gradient=gradient)
        answer = (base[..., 0, 0], values[:, prepared.position], gain[..., 0].swapaxes(-1, -2))
        if not gradient or sums is None:
            return Linearised(*answer, None)
        d_mean, d_gain = _slopes_of_mean(small, base, omega, u)
        d_cov = _slopes_of_cov(small, prepared.precisions, base, sums)
    rows = [d_mean, d_cov[:, prepared.position].reshape(len(mean), -1, size + size**2)]
    rows.append(d_gain.swapaxes(1, 2).reshape(len(mean), -1, size + size**2))
    return Linearised(*answer, np.concatenate(rows, 1))


def _pairs(
    prepared: Prepared,
    small: Smoothing,
    q: np.ndarray,
    u: np.ndarray,
    lifted: np.ndarray,
    cut: float | None,
    *,
    gradient: bool,
) -> tuple[_Sums | None, np.ndarray]:
    """Return the moments of every pair of outputs, and the covariances [B, pairs]."""
    a, b = prepared.precisions.left, prepared.precisions.right
    batch, outputs, rows, width = lifted.shape
    first, second = lifted[:, a], lifted[:, b]
    left, right = _exponents(small, first[..., 1:], second[..., 1:])
    uncertainty = prepared.factors.uncertainty
    certain = 0 if uncertainty is None else outputs
    u_a, u_b = u[:, a], u[:, b]
    by_row, by_column = u_b.copy(), u_a.copy()
    by_row[:, :certain] = by_column[:, :certain] = q[:, :certain]
    factors = by_column[..., None] * first if gradient else None
    row_sums = np.empty_like(u_a)
    column_sums = np.empty((batch, len(a), width, rows), u.dtype) if gradient else None
    for chosen, weight in ((slice(0, certain), prepared.weight), (slice(certain, None), None)):
        if left[:, chosen].size == 0:
            continue
        found = pair_sums(
            left[:, chosen].reshape(-1, *left.shape[2:]),
            right[:, chosen].reshape(-1, *right.shape[2:]),
            by_row[:, chosen].reshape(-1, rows),
            None if factors is None else np.ascontiguousarray(factors[:, chosen].reshape(-1, rows, width).swapaxes(-1, -2)),
            weight,
            cut,
        )
        row_sums[:, chosen] = found.rows.reshape(row_sums[:, chosen].shape)
        if column_sums is not None and found.columns is not None:
            column_sums[:, chosen] = found.columns.reshape(column_sums[:, chosen].shape)
    # What was summed over the lower triangles alone is one half; the other is its transpose.
    if column_sums is None:
        row_sums[:, :certain] *= 2
    else:
        row_sums[:, :certain] += column_sums[:, :certain, 0]
    left_mass = by_column * row_sums
    values = left_mass.sum(-1)
    known = None if uncertainty is None else _known(uncertainty, q, lifted, gradient=gradient)
    if known is not None:
        values[:, :outputs] += prepared.factors.signal_var.detach().numpy() - known[1][..., 0, 0]
    if column_sums is None:
        return None, values
    right_mass = by_row * column_sums[:, :, 0]
    right_mass[:, :certain] = left_mass[:, :certain]
    cross = column_sums @ (by_row[..., None] * second)
    cross[:, :certain] += cross[:, :certain].swapaxes(-1, -2).copy()
    if known is not None:
        mass, moments = known
        left_mass[:, :outputs] -= mass
        right_mass[:, :outputs] -= mass
        cross[:, :outputs] -= moments
    sums = _Sums(
        (left_mass[..., None] * first).swapaxes(-1, -2) @ first, (right_mass[..., None] * second).swapaxes(-1, -2) @ second, cross
    )
    return sums, values


def _exponents(small: Smoothing, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return [A, r, 1] and [B, 1, c] with Δ_ij = r_i + c_j + A_i·B_j."""
    shape = (*first.shape[:-1], first.shape[-1] + 2)
    left, right = np.empty(shape, first.dtype), np.empty(shape, first.dtype)
    half = 0.25 * small.growth[..., None]
    left[..., :-2], right[..., :-2] = first @ small.both, second
    left[..., -1] = right[..., -2] = 1
    left[..., -2] = half - 0.5 * np.einsum("...d,...d->...", first @ small.excess[0], first)
    right[..., -1] = half - 0.5 * np.einsum("...d,...d->...", second @ small.excess[1], second)
    return left, right


def _known(uncertainty: Uncertainty, q: np.ndarray, lifted: np.ndarray, *, gradient: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return q∘Aq [B, E, N] and Σ_ij A_ij q_i q_j ζ̃_i ζ̃_jᵀ [B, E, 1 + D, 1 + D], by solves; without `gradient` only qᵀAq."""
    columns = (q[..., None] * lifted) if gradient else q[..., None]
    batch, outputs, rows, width = columns.shape
    sides = torch.from_numpy(np.ascontiguousarray(columns.transpose(1, 2, 0, 3).reshape(outputs, rows, batch * width)))
    mass, moments = np.zeros_like(q), np.zeros((batch, outputs, width, width), q.dtype)
    for factor, sign in ((uncertainty.root, 1), (uncertainty.reduction, -1)):
        if factor is None:
            continue
        solved = torch.linalg.solve_triangular(factor, sides, upper=False)
        whitened = solved.numpy().reshape(outputs, rows, batch, width).transpose(2, 0, 1, 3)
        moments += sign * (whitened.swapaxes(-1, -2) @ whitened)
        if gradient:
            back = torch.linalg.solve_triangular(factor.mT, solved[..., ::width], upper=True)
            mass += sign * q * back.numpy().transpose(2, 0, 1)
    return mass, moments


def _slopes_of_mean(small: Smoothing, base: np.ndarray, omega: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return derivatives of the mean [B, E, D + D²] and of the gain [B, E, D, D + D²]."""
    batch, outputs, rows, size = omega.shape
    spread, shrink = small.spread, small.shrink
    slope = (shrink @ base[..., 1:, :1])[..., 0]
    curve = shrink @ base[..., 1:, 1:] @ shrink.swapaxes(-1, -2) - base[..., :1, :1] * spread
    squares = (omega[..., :, None] * omega[..., None, :]).reshape(batch, outputs, rows, size**2)
    third = ((u[..., None] * omega).swapaxes(-1, -2) @ squares).reshape(batch, outputs, size, size, size)
    third -= spread[..., None] * slope[..., None, None, :]
    third -= spread[..., :, None, :] * slope[..., None, :, None]
    third -= spread[..., None, :, :] * slope[..., :, None, None]
    flat = (batch, outputs, size, size**2)
    d_mean = np.concatenate([slope, 0.5 * curve.reshape(batch, outputs, size**2)], -1)
    return d_mean, np.concatenate([curve, 0.5 * third.reshape(flat)], -1)


def _slopes_of_cov(small: Smoothing, precisions: Precisions, base: np.ndarray, sums: _Sums) -> np.ndarray:
    """Return derivatives of the covariances [B, pairs, D + D²]."""
    a, b = precisions.left, precisions.right
    base_a, base_b = base[:, a], base[:, b]
    all_cross = sums.cross + base_a[..., :, :1] * base_b[..., :1, :]
    to_mean, to_cov = np.zeros(()), np.zeros(())
    sides = ((a, sums.left, base_a, base_b, small.less[0]), (b, sums.right, base_b, base_a, small.less[1]))
    for output, mass, own, other, less in sides:
        everything = mass + other[..., :1, :1] * own
        shrink = small.shrink[:, output]
        moved = less @ everything[..., 1:, :]
        to_mean = to_mean + (shrink @ mass[..., 1:, :1] - moved[..., :1])[..., 0]
        to_cov = to_cov + (
            shrink @ mass[..., 1:, 1:] @ shrink.swapaxes(-1, -2)
            - sums.cross[..., :1, :1] * small.spread[:, output]
            + moved[..., 1:] @ (less - 2 * shrink).swapaxes(-1, -2)
            + all_cross[..., :1, :1] * (less * precisions.own[output][:, None, :])
        )
    to_cov = to_cov + 2 * (small.shrink_both @ all_cross[..., 1:, 1:] @ small.shrink_both.swapaxes(-1, -2))
    symmetric = 0.25 * (to_cov + to_cov.swapaxes(-1, -2))
    return np.concatenate([to_mean, symmetric.reshape(*to_mean.shape[:-1], -1)], -1)


def jacobian_moments(prepared: Prepared, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
    """Return the moments at arrays, the Jacobian found beside them, and the products with it.

    Kept are (E + E² + DE)(D + D²) numbers per belief and nothing of the size of the data. Where neither the beliefs nor the
    function are uncertain, no pairs are summed.
    """
    if prepared.weight is None and not cov.any():
        return point_moments(prepared.points, prepared.beta, prepared.log_signal, prepared.precisions.own, mean)
    found = linearised(prepared, mean, cov, gradient=gradient)

    def pull_back(to: ArrayMoments) -> Slopes:
        size, rows = mean.shape[-1], np.concatenate([part.reshape(len(part), -1) for part in to], 1)
        product = (rows[:, None] @ found.jacobian)[:, 0]
        return Slopes(product[:, :size], product[:, size:].reshape(-1, size, size))

    return ArrayMoments(found.mean, found.cov, found.gain), pull_back
