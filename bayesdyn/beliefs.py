"""Gaussian beliefs and the maps that push them forward: `Moments`, `MomentMap` and how maps chain."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap
from bayesdyn.errors import ConfigurationError, ShapeError

_REAL = {torch.float64, torch.float32, np.dtype(np.float64), np.dtype(np.float32)}


class Moments(NamedTuple):
    """Mean and covariance of y = f(x) for x ~ N(m, Σ), and the gain Σ⁻¹ cov(x, y), so that cov(x, y) = Σ @ gain.

    The gain is finite and differentiable at Σ = 0, where it is the mean slope of f, and the gain of a chain x -> y -> z is the
    product of the gains. Source: Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.
    """

    mean: Float[Tensor, "*batch E"]
    cov: Float[Tensor, "*batch E E"]
    gain: Float[Tensor, "*batch D E"]


class MomentMap(ABC):
    """A function of a Gaussian input, known by the moments of its output; batched over leading axes.

    >>> class Double(MomentMap):
    ...     def moments(self, mean, cov):
    ...         return Moments(2 * mean, 4 * cov, 2 * torch.eye(mean.shape[-1]).expand_as(cov))
    >>> Double().moments(torch.ones(1), torch.eye(1)).cov.item()
    4.0
    """

    @abstractmethod
    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return mean [..., E], covariance [..., E, E] and gain [..., D, E] of the output for x ~ N(mean, cov)."""

    def on_arrays(self) -> ArrayMap | None:
        """Return the same map of float64 arrays with a reverse mode of its own, on the CPU; None if it has none."""
        return None

    def certain(self) -> "MomentMap":
        """Return the map with the same mean and gain at Σ = 0 whose function is known for certain, or itself where it has none."""
        return self

    def then(self, after: "MomentMap") -> "MomentMap":
        """Return the map z = after(self(x)), whose input-output covariance treats x, y and z as jointly Gaussian."""
        return Chain(self, after)

    def rescaled(
        self,
        x_mean: Float[Tensor, "D"],
        x_std: Float[Tensor, "D"],
        y_mean: Float[Tensor, "E"],
        y_std: Float[Tensor, "E"],
    ) -> "MomentMap":
        """Return the map in other units, y_mean + y_std · self((x - x_mean) / x_std), the whitening of a codec undone."""
        return Rescaled(self, x_mean, x_std, y_mean, y_std)


class Chain(MomentMap):
    """One map after another: the moments of the second at those of the first, and the product of the gains."""

    def __init__(self, first: MomentMap, second: MomentMap) -> None:
        self.first, self.second = first, second

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of the second map's output."""
        between = self.first.moments(mean, cov)
        after = self.second.moments(between.mean, between.cov)
        return Moments(after.mean, after.cov, between.gain @ after.gain)

    def on_arrays(self) -> ArrayMap | None:
        """Return one after the other, if both have arrays."""
        first, second = self.first.on_arrays(), self.second.on_arrays()
        return None if first is None or second is None else first.then(second)


class Rescaled(MomentMap):
    """A map between whitened quantities, in the units that they have outside."""

    def __init__(
        self,
        inner: MomentMap,
        x_mean: Float[Tensor, "D"],
        x_std: Float[Tensor, "D"],
        y_mean: Float[Tensor, "E"],
        y_std: Float[Tensor, "E"],
    ) -> None:
        self.inner, self.x_mean, self.inverse, self.y_mean, self.y_std = inner, x_mean, x_std.reciprocal(), y_mean, y_std

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of the rescaled output."""
        inner = self.inner.moments((mean - self.x_mean) * self.inverse, cov * torch.outer(self.inverse, self.inverse))
        return Moments(
            self.y_mean + self.y_std * inner.mean,
            inner.cov * torch.outer(self.y_std, self.y_std),
            inner.gain * torch.outer(self.inverse, self.y_std),
        )


def check_belief(mean: Tensor | np.ndarray, cov: Tensor | np.ndarray, size: int, what: str) -> None:
    """Raise `ShapeError` unless mean is [..., size] and cov [..., size, size] with the same leading axes.

    Raises `ConfigurationError` unless both are float64 or both float32: means of whole numbers would be rounded on the way.

    >>> check_belief(torch.zeros(3), torch.zeros(2, 2), 3, "a policy of 3 inputs")
    Traceback (most recent call last):
    ...
    bayesdyn.errors.ShapeError: a policy of 3 inputs wants mean [..., 3] and cov [..., 3, 3]; got [3] and [2, 2]
    """
    if mean.shape[-1:] != (size,) or cov.shape != (*mean.shape, size):
        raise ShapeError(
            f"{what} wants mean [..., {size}] and cov [..., {size}, {size}]; got {list(mean.shape)} and {list(cov.shape)}"
        )
    if mean.dtype != cov.dtype or mean.dtype not in _REAL:
        raise ConfigurationError(f"{what} wants mean and cov both float64 or both float32; got {mean.dtype} and {cov.dtype}")


def check_points(x: Tensor, size: int, what: str) -> None:
    """Raise `ShapeError` unless points are [..., size].

    >>> check_points(torch.zeros(4, 2), 3, "a policy of 3 inputs")
    Traceback (most recent call last):
    ...
    bayesdyn.errors.ShapeError: a policy of 3 inputs wants points [..., 3]; got [4, 2]
    """
    if x.shape[-1:] != (size,):
        raise ShapeError(f"{what} wants points [..., {size}]; got {list(x.shape)}")


def symmetric(matrix: Float[Tensor, "*batch S S"]) -> Float[Tensor, "*batch S S"]:
    """Return ½(A + Aᵀ).

    >>> symmetric(torch.tensor([[1.0, 2.0], [0.0, 1.0]])).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return 0.5 * (matrix + matrix.mT)
