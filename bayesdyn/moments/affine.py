"""Affine maps and the choice of coordinates, as exact moment maps."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap, ArrayMoments, PullBack, Slopes, fit_for_arrays
from bayesdyn.beliefs import Moments, check_belief
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.moments.points import PointMap


class Linear(PointMap):
    """The map y = W x + b, W [E, D], b [E] (0 by default): mean Wμ + b, cov WΣWᵀ, gain Wᵀ.

    Raises `ShapeError` for sizes that do not fit.

    >>> Linear([[1.0, 1.0]]).moments(torch.ones(2), torch.eye(2)).cov.item()
    2.0
    """

    def __init__(self, weight: Tensor | Sequence[Sequence[float]], offset: Tensor | Sequence[float] | None = None) -> None:
        self.weight = as_tensor(weight)
        self.offset = self.weight.new_zeros(self.weight.shape[:1]) if offset is None else as_tensor(offset)
        if self.weight.dim() != 2 or self.offset.shape != self.weight.shape[:1]:
            raise ShapeError(
                f"Linear wants weight [E, D] and offset [E]; got {list(self.weight.shape)} and {list(self.offset.shape)}"
            )

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Return W x + b."""
        return x @ self.weight.to(x).mT + self.offset.to(x)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments of W x + b."""
        check_belief(mean, cov, self.weight.shape[1], "a linear map")
        weight = self.weight.to(mean)
        return Moments(self(mean), weight @ cov @ weight.mT, weight.mT.expand(*mean.shape, -1))

    def on_arrays(self) -> ArrayMap | None:
        """Return W x + b on arrays, differentiable in W and b."""
        return affine_arrays(self.weight, self.offset)


class Columns(PointMap):
    """The choice of coordinates of x [D], in the order given: mean μ[c], cov Σ[c, c], gain the columns c of I.

    Raises `ConfigurationError` for columns that are no coordinates of x.

    >>> Columns([2, 0], size=3)(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [3.0, 1.0]
    """

    def __init__(self, columns: Sequence[int], size: int) -> None:
        self.columns, self.size = tuple(int(c) for c in columns), size
        if not self.columns or any(not 0 <= c < size for c in self.columns):
            raise ConfigurationError(f"columns are one or more of 0..{size - 1}; got {list(self.columns)}")
        self._index = list(self.columns)
        # Products with a 0/1 matrix: an index would be slower, and its gradient much slower.
        self._chosen = torch.eye(size, dtype=torch.float64)[:, self._index]

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Return the chosen coordinates of points."""
        return x[..., self._index]

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the belief over the chosen coordinates."""
        check_belief(mean, cov, self.size, "a choice of columns")
        chosen = self._chosen.to(mean)
        return Moments(mean @ chosen, chosen.mT @ cov @ chosen, chosen.expand(*mean.shape, -1))

    def on_arrays(self) -> ArrayMap | None:
        """Return the choice on arrays."""
        chosen, index, across = self._chosen.numpy(), np.array(self.columns), np.ix_(self.columns, self.columns)

        def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
            check_belief(mean, cov, self.size, "a choice of columns")
            gain = np.broadcast_to(chosen, (len(mean), *chosen.shape))
            return ArrayMoments(mean[:, index], cov[:, across[0], across[1]], gain), pull_back

        def pull_back(to: ArrayMoments) -> Slopes:
            return Slopes(to.mean @ chosen.T, chosen @ to.cov @ chosen.T)

        return ArrayMap(forward)


def affine_arrays(weight: Float[Tensor, "E D"], offset: Float[Tensor, "E"]) -> ArrayMap | None:
    """Return W x + b on arrays, differentiable in W and b; None unless both are float64 on the CPU."""
    if not fit_for_arrays(weight, offset):
        return None
    w, b = weight.detach().numpy(), offset.detach().numpy()

    def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
        check_belief(mean, cov, w.shape[1], "a linear map")
        seen = w @ cov

        def pull_back(to: ArrayMoments) -> Slopes:
            to_weight = (to.cov + to.cov.swapaxes(-1, -2)) @ seen + to.mean[:, :, None] * mean[:, None] + to.gain.swapaxes(-1, -2)
            return Slopes(to.mean @ w, w.T @ to.cov @ w, (to_weight.sum(0), to.mean.sum(0)))

        return ArrayMoments(mean @ w.T + b, seen @ w.T, np.broadcast_to(w.T, (len(mean), *w.T.shape))), pull_back

    return ArrayMap(forward, (weight, offset))


def as_tensor(values: Tensor | Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """Return a floating-point tensor of numbers, float64 unless they come as a floating-point tensor.

    >>> as_tensor([0.1]).item()
    0.1
    """
    if torch.is_tensor(values) and values.is_floating_point():
        return values
    return torch.as_tensor(values, dtype=torch.float64)
