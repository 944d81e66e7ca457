"""Data whose truth is known: a noisy sine with a gap in its inputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_NEAR, _FAR, _AMPLITUDE = 1.0, 4.0, 7.0
_X_SCALE, _Y_SCALE = 7**0.5, 5.0  # std of x, and about that of y
_CENTRAL = 0.7  # of the gap's half width


def varying_noise(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return σ(x) = √(0.01 + 9 cos²(x/2)).

    >>> varying_noise(torch.tensor([0.0, torch.pi]))
    tensor([3.0017, 0.1000])
    """
    return (0.01 + 9 * (x / 2).cos().square()).sqrt()


def constant_noise(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return σ = 1.5, which is about the root mean square of `varying_noise` where there are data."""
    return torch.full_like(x, 1.5)


@dataclass(frozen=True)
class NoisySine:
    """y = 7 sin x + σ(x) ε with x uniform on [-4, 4] without (-1, 1); all methods take and return whitened values, x/√7 and y/5.

    In the gap a model has to be less sure of the function than beside it, and beside it as sure as its data and their noise say.

    >>> x, y = NoisySine().draw(5, torch.Generator().manual_seed(0))
    >>> x.shape, y.shape
    (torch.Size([5, 1]), torch.Size([5, 1]))
    """

    noise: Callable[[Tensor], Tensor] = varying_noise

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 1"]]:
        """Return x and y in float64."""
        x = _NEAR + (_FAR - _NEAR) * torch.rand(rows, 1, generator=generator, dtype=torch.float64)
        x = x * (2 * torch.randint(2, (rows, 1), generator=generator) - 1) / _X_SCALE
        noise = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
        return x, self.mean(x) + self.std(x) * noise

    def mean(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 7 sin x, whitened."""
        return _AMPLITUDE * (x * _X_SCALE).sin() / _Y_SCALE

    def std(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return σ(x), whitened."""
        return self.noise(x * _X_SCALE) / _Y_SCALE

    def support(self, points: int = 60) -> Float[Tensor, "points 1"]:
        """Return inputs evenly spread over [-4, -1] and [1, 4], half of `points` each."""
        side = torch.linspace(_NEAR, _FAR, points // 2, dtype=torch.float64) / _X_SCALE
        return torch.cat([-side.flip(0), side]).unsqueeze(1)

    def gap(self, points: int = 50) -> Float[Tensor, "points 1"]:
        """Return inputs evenly spread over the middle of the gap, [-0.7, 0.7]."""
        return torch.linspace(-_CENTRAL, _CENTRAL, points, dtype=torch.float64).unsqueeze(1) / _X_SCALE
