"""Beliefs seen through kernels: the D x D matrices of moment matching, in NumPy for its cheap small operations."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bayesdyn.errors import NumericalError
from bayesdyn.gaussian_processes.moment_factors import BROKEN_BELIEF


@dataclass(frozen=True, eq=False)
class Precisions:
    """P_a of every output and P_a + P_b of every pair (a, b), with what follows from them alone; K = E + pairs."""

    own: np.ndarray  # [E, D]
    left: np.ndarray  # [pairs], a
    right: np.ndarray  # [pairs], b
    scale: np.ndarray  # [K, D], square roots
    outer: np.ndarray  # [K, D, D]

    @classmethod
    def of(cls, lengthscale: np.ndarray, left: np.ndarray, right: np.ndarray) -> "Precisions":
        """Return them for length-scales [E, D]."""
        own = lengthscale**-2
        scale = np.sqrt(np.concatenate([own, own[left] + own[right]]))
        return cls(own, left, right, scale, scale[:, :, None] * scale[:, None, :])


class Smoothing(NamedTuple):
    """The matrices of B beliefs; every difference of two of them that matters is here as a product.

    R = (Σ + Λ)⁻¹, G = (I + PΣ)⁻¹ = RΛ and log|I + PΣ| of every output; of every pair T_ab = (Σ⁻¹ + P_a + P_b)⁻¹,
    G_ab = (I + (P_a + P_b)Σ)⁻¹, F_a = G_a - G_ab = G_a P_b T_ab, M_a = T_a - T_ab = T_a P_b T_ab, F_b and M_b likewise, and
    growth = log |I + T_ab P_a Σ P_b| = log|C_a| + log|C_b| - log|C_ab|.
    """

    spread: np.ndarray  # R [B, E, D, D]
    shrink: np.ndarray  # G [B, E, D, D]
    log_det: np.ndarray  # [B, E]
    both: np.ndarray  # T_ab [B, pairs, D, D]
    shrink_both: np.ndarray  # G_ab [B, pairs, D, D]
    less: tuple[np.ndarray, np.ndarray]  # F_a, F_b [B, pairs, D, D]
    excess: tuple[np.ndarray, np.ndarray]  # M_a, M_b [B, pairs, D, D]
    growth: np.ndarray  # [B, pairs]


def smoothing(cov: np.ndarray, precisions: Precisions) -> Smoothing:
    """Return the matrices of beliefs with covariances [B, D, D] without inverting Σ; raises `NumericalError` for other matrices."""
    own, scale, left, right = precisions.own, precisions.scale, precisions.left, precisions.right
    outputs, size = own.shape
    scaled = cov[:, None] * precisions.outer
    eye = np.eye(size, dtype=cov.dtype)
    total = scaled + eye
    diagonal = cholesky_diagonal(total)
    inverse = np.linalg.inv(total)
    product = inverse @ scaled
    product = 0.5 * (product + product.swapaxes(-1, -2)) / precisions.outer
    shrink = inverse * (scale[:, :, None] / scale[:, None, :])
    own_t, both = product[:, :outputs], product[:, outputs:]
    by_left, by_right = own[left][:, :, None] * both, own[right][:, :, None] * both
    growth = log_det_plus_one(both @ (own[left][:, :, None] * cov[:, None] * own[right][:, None, :]))
    return Smoothing(
        inverse[:, :outputs] * precisions.outer[:outputs],
        shrink[:, :outputs],
        2 * np.log(diagonal[:, :outputs]).sum(-1),
        both,
        shrink[:, outputs:],
        (shrink[:, left] @ by_right, shrink[:, right] @ by_left),
        (own_t[:, left] @ by_right, own_t[:, right] @ by_left),
        growth,
    )


def cholesky_diagonal(matrix: np.ndarray) -> np.ndarray:
    """Return the diagonal of the Cholesky factor; raises `NumericalError` where there is none."""
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError as error:
        raise NumericalError(BROKEN_BELIEF) from error
    diagonal = factor.diagonal(axis1=-2, axis2=-1)
    if not np.isfinite(diagonal.sum()):
        raise NumericalError(BROKEN_BELIEF)
    return diagonal


def log_det_plus_one(matrix: np.ndarray) -> np.ndarray:
    """Return log det(I + X) to the relative precision of X [..., D, D], however small: one elimination with log1p of the pivots.

    For X without negative eigenvalues no pivoting is needed.

    >>> log_det_plus_one(1e-20 * np.eye(2)[None]).tolist()
    [2e-20]
    """
    total = np.log1p(matrix[..., 0, 0])
    for _ in range(matrix.shape[-1] - 1):
        pivot = 1 + matrix[..., :1, :1]
        matrix = matrix[..., 1:, 1:] - matrix[..., 1:, :1] * (matrix[..., :1, 1:] / pivot)
        total = total + np.log1p(matrix[..., 0, 0])
    return total
