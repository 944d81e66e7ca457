"""Deterministic functions that are known at points and at beliefs, and one after another."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap
from bayesdyn.beliefs import MomentMap, Moments


class PointMap(MomentMap):
    """A deterministic map x [D] -> y [E]: call it at points, ask `moments` of it at beliefs."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Return y at points."""

    def joined(self, after: "PointMap") -> "PointMap":
        """Return after(self(x)): `then`, for points too.

        >>> import torch
        >>> from bayesdyn.moments import Columns, SquashSin
        >>> Columns([1], size=2).joined(SquashSin(1.0))(torch.zeros(2)).tolist()
        [0.0]
        """
        return Joined(self, after)


class Joined(PointMap):
    """One map after another; its moments are those of `then`."""

    def __init__(self, first: PointMap, second: PointMap) -> None:
        self.first, self.second = first, second

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Return second(first(x))."""
        return self.second(self.first(x))

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of the second map's output."""
        return self.first.then(self.second).moments(mean, cov)

    def on_arrays(self) -> ArrayMap | None:
        """Return the arrays of `then`."""
        return self.first.then(self.second).on_arrays()
