"""Sines of Gaussian phases: their mean, slope and covariance, and the gradient of all three in closed form.

The same lines run on NumPy and on torch: maps of this kind act on a handful of numbers at each of many steps, where an operation of
NumPy costs a quarter of torch's or less, and for tensors that are not on the CPU there is only torch.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Array = Any
"""A NumPy array or a torch tensor, according to the `Backend`."""


class Backend(NamedTuple):
    """What to compute with: a module with the functions of NumPy, how to pick along an axis, and the way from tensors and back."""

    xp: ModuleType
    pick: Callable[[Array, Array, int], Array]
    cut: Callable[[Tensor], Array]
    tensor: Callable[[Array], Tensor]


_NUMPY = Backend(np, lambda values, index, axis: values.take(index, axis), lambda t: t.detach().numpy(), torch.from_numpy)
_TORCH = Backend(torch, lambda values, index, axis: values.index_select(axis, index), lambda t: t.detach(), lambda t: t)
_NUMPY_TYPES = (torch.float32, torch.float64)


def backend(tensor: Tensor) -> Backend:
    """Return NumPy for float tensors on the CPU and torch for all others.

    >>> backend(torch.ones(1)).xp.__name__
    'numpy'
    """
    return _NUMPY if tensor.dtype in _NUMPY_TYPES and tensor.device.type == "cpu" else _TORCH


class Waves(NamedTuple):
    """Moments of s = sin(p) for n phases p ~ N(m, W)."""

    mean: Array  # [..., n]: E sin p
    slope: Array  # [..., n]: E cos p, the diagonal of the gain
    cov: Array  # [..., n, n]
    turn: Array  # [..., n, n]: the derivative of cov_ij in m_i is 2 turn_ij on the diagonal, turn_ij beside it
    widen: Array  # [..., n, n]: the derivative of cov_ij in w_ij, the decays e held


class WavesGradient(NamedTuple):
    """The gradient with respect to the mean and the covariance of the phases."""

    mean: Array  # [..., n]
    cov: Array  # [..., n, n]


def waves(xp: ModuleType, sin: Array, cos: Array, cov: Array) -> Waves:
    """Return the moments of s = sin(p), p ~ N(m, W), from sin m, cos m and W.

    With e_i = exp(-½ w_ii), for which E s_i = e_i sin m_i and E cos p_i = e_i cos m_i,

        cov(s_i, s_j) = e_i e_j [ cos m_i cos m_j sinh w_ij + sin m_i sin m_j (cosh w_ij - 1) ]

    This is ½ [h(w_ij) cos(m_i - m_j) - h(-w_ij) cos(m_i + m_j)] with h(x) = e_i e_j (exp x - 1), sorted so that covariances are
    accurate relative to the two standard deviations, however small these are. Its exponents are -½(w_ii + w_jj) + |w_ij| <= 0, so
    that nothing overflows either. For a cosine give cos m and -sin m: it is a sine a quarter turn on. Source: Deisenroth, Fox &
    Rasmussen, PAMI 2015, appendix (Gaussian moments of a sine).
    """
    half = 0.5 * cov.diagonal(0, -2, -1)
    decay = xp.exp(-half)
    slope = decay * cos
    sin_column, cos_column, sin_row, cos_row = sin[..., :, None], cos[..., :, None], sin[..., None, :], cos[..., None, :]
    size = abs(cov)
    fall = xp.expm1(-size)
    top = xp.exp(size - (half[..., :, None] + half[..., None, :])) * (0.5 * fall)
    even = top * fall  # e_i e_j (cosh w - 1)
    odd = xp.copysign(top * (fall + 2.0), cov)  # e_i e_j sinh w
    coscos, sinsin = cos_column * cos_row, sin_column * sin_row
    return Waves(
        mean=decay * sin,
        slope=slope,
        cov=coscos * odd + sinsin * even,
        turn=cos_column * sin_row * even - sin_column * cos_row * odd,
        widen=coscos * even + sinsin * odd + slope[..., :, None] * slope[..., None, :],
    )


def waves_gradient(found: Waves, mean: Array, slope: Array, cov: Array, identity: Array) -> WavesGradient:
    """Return the gradient of a number with respect to m and W, given its gradients in mean, slope and cov; `identity` is [n, n].

    With K the symmetric part of the gradient in cov,

        ∂/∂m_i = slope_i ∂/∂mean_i - mean_i ∂/∂slope_i + 2 Σ_j K_ij turn_ij
        ∂/∂W = K ∘ widen - diag(½ mean ∂/∂mean + ½ slope ∂/∂slope + Σ_j K_ij cov_ij)
    """
    both = 0.5 * (cov + cov.swapaxes(-1, -2))
    decay = 0.5 * (mean * found.mean + slope * found.slope) + (both * found.cov).sum(-1)
    return WavesGradient(
        mean=mean * found.slope - slope * found.mean + 2.0 * (both * found.turn).sum(-1),
        cov=both * found.widen - decay[..., None] * identity,
    )
