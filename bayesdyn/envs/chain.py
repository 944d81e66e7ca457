"""Where the joints and the tip of a chain of rods are, on a cart or on a fixed hinge."""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

HANGING, UPRIGHT = math.pi, 0.0


@dataclass(frozen=True)
class Chain:
    """Rods of `lengths` (m) in a chain; rod k stands upright where coordinate `angles[k]` of the state is `up`, counter-clockwise.

    `up` is `UPRIGHT` (0) or `HANGING` (π: the angle 0 is that of hanging). `cart` is the coordinate (m) of the first hinge along
    the rail, None for a fixed one. The target of the tip is (0, Σ lengths): all rods upright over the origin.
    Raises `ConfigurationError` for lengths that are not positive or not one per angle, or another `up`.

    >>> Chain((0.5, 0.5), angles=(2, 3), up=UPRIGHT, cart=None).tip(torch.zeros(4))
    tensor([0., 1.])
    """

    lengths: tuple[float, ...]
    angles: tuple[int, ...]
    up: float
    cart: int | None = None

    def __post_init__(self) -> None:
        if not (self.lengths and len(self.lengths) == len(self.angles) and min(self.lengths) > 0 and self.up in (HANGING, UPRIGHT)):
            raise ConfigurationError(f"a chain wants one positive length per angle, and up at 0 or π; got {self}")

    @property
    def sign(self) -> float:
        """1 if 0 hangs, -1 if 0 is upright: a rod points to sign·(sin θ, -cos θ)."""
        return 1.0 if self.up == HANGING else -1.0

    def joints(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch K 2"]:
        """Return the first hinge, the joints and the tip in metres; the rail's height is 0."""
        theta = state[..., list(self.angles)]
        rods = self.sign * torch.stack((theta.sin(), -theta.cos()), -1) * state.new_tensor(self.lengths).unsqueeze(-1)
        base = torch.zeros_like(rods[..., :1, :])
        if self.cart is not None:
            base = torch.stack((state[..., self.cart], torch.zeros_like(state[..., 0])), -1).unsqueeze(-2)
        return torch.cat((base, base + rods.cumsum(-2)), -2)

    def tip(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch 2"]:
        """Return the tip in metres."""
        return self.joints(state)[..., -1, :]

    def squared_distance(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch"]:
        """Return the squared distance (m²) of the tip from its target."""
        # Written out, because planners call this in their inner loop, and with cos θ + sign, which is exact near the target.
        rods = [(self.sign * length, length, state[..., index]) for length, index in zip(self.lengths, self.angles, strict=True)]
        sides = [signed * theta.sin() for signed, _, theta in rods]
        across = reduce(torch.add, sides if self.cart is None else [state[..., self.cart], *sides])
        below = reduce(torch.add, [length * (theta.cos() + self.sign) for _, length, theta in rods])
        return across.square() + below.square()

    def distance(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch"]:
        """Return the distance (m) of the tip from its target; for measuring, since its gradient at the target is not finite."""
        return self.squared_distance(state).sqrt()
