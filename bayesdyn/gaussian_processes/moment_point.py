"""Moments at a point, Σ = 0, of functions that are known for certain: sums over N basis points, none over pairs of them."""

import numpy as np

from bayesdyn.belief_arrays import ArrayMoments, PullBack, Slopes


def point_moments(
    points: np.ndarray, beta: np.ndarray, log_signal: np.ndarray, precision: np.ndarray, mean: np.ndarray
) -> tuple[ArrayMoments, PullBack]:
    r"""Return the moments of m_e(x) = Σ_i c_ei, c_ei = β_ei σf_e² exp(-½ νᵀPν), ν = x_i - x, at `mean` [B, D], and the way back.

    `points` are [E, N, D], `beta` [E, N], `log_signal` log σf² and `precision` the diagonals of P, [E, D]. With ζ = Pν:

        mean_e = Σ_i c_ei,   cov = 0,   gain_e = ∇m_e = Σ_i c_ei ζ_ei

    The derivatives to Σ at 0 are those of the exact moments, d mean_e = ½ tr(H_e dΣ), d cov = gainᵀ dΣ gain and
    d gain_e = ½ T_e dΣ, with the second and third derivatives H_e and T_e of m_e.
    """
    nu = points - mean[:, None, None]
    zeta = nu * precision[:, None]
    c = beta * np.exp(log_signal[:, None] - 0.5 * np.einsum("...d,...d->...", nu, zeta))
    gain = (c[..., None, :] @ zeta)[..., 0, :].swapaxes(-1, -2)
    batch, size, outputs = gain.shape
    total = c.sum(-1)

    def pull_back(to: ArrayMoments) -> Slopes:
        # H_e, of which Σ_e enters with the weights of the mean, and each with those of the gain.
        curve = (c[..., None] * zeta).swapaxes(-1, -2) @ zeta - total[..., None, None] * (precision[:, :, None] * np.eye(size))
        to_mean = (gain @ to.mean[..., None])[..., 0]
        to_cov = 0.5 * np.einsum("be,bejk->bjk", to.mean, curve) + gain @ to.cov @ gain.swapaxes(-1, -2)
        if to.gain.any():
            sides = to.gain.swapaxes(-1, -2)
            to_mean = to_mean + np.einsum("bejk,bek->bj", curve, sides)
            along = c * (zeta @ sides[..., None])[..., 0]
            slope = gain.swapaxes(-1, -2)
            crossed = slope[..., :, None] * (precision * sides)[..., None, :]
            third = (along[..., None] * zeta).swapaxes(-1, -2) @ zeta - crossed - crossed.swapaxes(-1, -2)
            third -= along.sum(-1)[..., None, None] * (precision[:, :, None] * np.eye(size))
            to_cov = to_cov + 0.5 * third.sum(1)
        return Slopes(to_mean, to_cov)

    return ArrayMoments(total, np.zeros((batch, outputs, outputs)), gain), pull_back
