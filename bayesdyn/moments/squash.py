"""Squashes: smooth periodic functions that keep controls within ± amplitude and have exact Gaussian moments."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap, ArrayMoments, PullBack
from bayesdyn.beliefs import Moments
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.moments.points import PointMap
from bayesdyn.moments.sine import Sine


class Squash(PointMap):
    """A function of each coordinate by itself, bounded by ± amplitude: a number for all coordinates, or one for each, [A]."""

    def __init__(self, amplitude: float | Sequence[float] | Tensor) -> None:
        given = torch.as_tensor(amplitude, dtype=torch.float64)
        if given.dim() > 1 or not bool((given > 0).all()) or not bool(given.isfinite().all()):
            raise ConfigurationError(f"an amplitude is a positive number, or one for each coordinate; got {given.tolist()}")
        self.amplitude = tuple(given.reshape(-1).tolist())

    def __call__(self, x: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Return the squashed points."""
        return self._sine(x.shape)(x)

    def moments(self, mean: Float[Tensor, "*batch A"], cov: Float[Tensor, "*batch A A"]) -> Moments:
        """Return the exact moments of the squashed numbers."""
        return self._sine(mean.shape).moments(mean, cov)

    def on_arrays(self) -> ArrayMap | None:
        """Return the squash on arrays."""

        def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
            return self._sine(mean.shape).forward(mean, cov, gradient)

        return ArrayMap(forward)

    @property
    @abstractmethod
    def harmonics(self) -> tuple[tuple[float, float], ...]:
        """Pairs (frequency, weight): the squash is amplitude · Σ weight · sin(frequency · x)."""

    def _sine(self, shape: tuple[int, ...]) -> Sine:
        if len(self.amplitude) not in (1, shape[-1]):
            raise ShapeError(f"a squash of {len(self.amplitude)} amplitudes wants as many coordinates; got {list(shape)}")
        return _sine(self.amplitude, self.harmonics, shape[-1])


class SquashSin(Squash):
    """The squash e sin(x), with slope e at 0. Source: Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.

    >>> SquashSin(2.0)(torch.tensor([0.0, torch.pi / 2])).tolist()
    [0.0, 2.0]
    """

    @property
    def harmonics(self) -> tuple[tuple[float, float], ...]:
        """One sine."""
        return ((1.0, 1.0),)


class SquashSat(Squash):
    """The squash e (9 sin x + sin 3x)/8, flat at its extremes ± e, with slope 1.5 e at 0.

    Its maximum at π/2 has no second or third derivative, so that a saturated control hardly moves with its input. Source:
    Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.

    >>> SquashSat(2.0)(torch.tensor([0.0, torch.pi / 2])).tolist()
    [0.0, 2.0]
    >>> SquashSat(2.0).moments(torch.zeros(1), torch.zeros(1, 1)).gain.item()
    3.0
    """

    @property
    def harmonics(self) -> tuple[tuple[float, float], ...]:
        """A sine and its third harmonic."""
        return ((1.0, 9 / 8), (3.0, 1 / 8))


@lru_cache(maxsize=64)
def _sine(amplitude: tuple[float, ...], harmonics: tuple[tuple[float, float], ...], size: int) -> Sine:
    identity = torch.eye(size, dtype=torch.float64)
    scale = identity * torch.tensor(amplitude, dtype=torch.float64)
    return Sine(
        torch.cat([frequency * identity for frequency, _ in harmonics]),
        torch.cat([weight * scale for _, weight in harmonics], 1),
    )
