"""Sine and cosine of chosen angles, as an exact moment map."""

from collections.abc import Sequence
from functools import lru_cache

from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import Moments
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.moments.lift import Lift
from bayesdyn.moments.points import PointMap


class Trig(PointMap):
    """The map x -> e [sin θ1, cos θ1, sin θ2, ...] of the coordinates `angles` of x [D], radians, to 2k numbers.

    Exact for any variance: an angle that is known no better than up to full turns gives mean 0, variance ½e² and gain 0. The other
    coordinates are not passed on; see `Lift`. Differentiable once. Raises `ConfigurationError` for no angles, repeated or negative
    ones and `ShapeError` for an input that is too short.

    >>> import torch
    >>> Trig([1])(torch.tensor([3.0, 0.0])).tolist()
    [0.0, 1.0]
    >>> Trig([0]).moments(torch.zeros(1), torch.full((1, 1), 1e8)).cov.tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """

    def __init__(self, angles: Sequence[int] | Tensor, amplitude: float = 1.0) -> None:
        self.angles, self.amplitude = tuple(int(a) for a in angles), float(amplitude)
        if not self.angles or min(self.angles) < 0 or len(set(self.angles)) < len(self.angles):
            raise ConfigurationError(f"angles are one or more different indices from 0; got {list(self.angles)}")

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Return the sines and cosines at points."""
        return self.amplitude * self._lift(x)(x)[..., x.shape[-1] :]

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments of the sines and cosines."""
        size, lifted = mean.shape[-1], self._lift(mean).moments(mean, cov)
        return Moments(
            self.amplitude * lifted.mean[..., size:],
            self.amplitude**2 * lifted.cov[..., size:, size:],
            self.amplitude * lifted.gain[..., size:],
        )

    def _lift(self, x: Tensor) -> Lift:
        least = max(self.angles) + 1
        if x.shape[-1] < least:
            raise ShapeError(f"the sine of coordinate {least - 1} wants inputs of {least} numbers or more; got {list(x.shape)}")
        return _lift(x.shape[-1], self.angles)


_lift = lru_cache(maxsize=64)(Lift)
