"""PILCO's reward, exp(-d² / (2 w²)) of a distance d, and the linear rows by which a belief's cost has a closed form."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.chain import HANGING, Chain
from bayesdyn.errors import ConfigurationError, ShapeError

Widths = float | tuple[float, ...]


class CostRows(NamedTuple):
    """A distance as |F (z - z*)| in z = [s, sin φ₁, cos φ₁, sin φ₂, cos φ₂, ...], φ = B s: `turns` B, `rows` F, `target` z*.

    With F divided by a width, 1 - exp(-½ |F (z - z*)|²) is the saturating cost, whose moments for a Gaussian s are exact.
    """

    turns: Float[Tensor, "k S"]
    rows: Float[Tensor, "r L"]
    target: Float[Tensor, "L"]

    def lift(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch L"]:
        """Return z."""
        angles = state @ self.turns.to(state).mT
        return torch.cat((state, torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)), -1)

    def squared_distance(self, state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch"]:
        """Return |F (z - z*)|²."""
        return ((self.lift(state) - self.target.to(state)) @ self.rows.to(state).mT).square().sum(-1)


def saturate(squared: Float[Tensor, "*batch"], widths: tuple[float, ...]) -> Float[Tensor, "*batch"]:
    """Return E_w exp(-d² / (2 w²)) of squared distances.

    >>> saturate(torch.tensor([0.0, 1.0]), (1.0,))
    tensor([1.0000, 0.6065])
    """
    # One exponential for all widths: this is part of a planner's inner loop.
    scale = squared.new_tensor([-0.5 / width**2 for width in widths])
    return (squared.unsqueeze(-1) * scale).exp_().mean(-1)


def each_width(widths: Widths) -> tuple[float, ...]:
    """Return the widths as a tuple; raises `ConfigurationError` unless there are some, all positive.

    >>> each_width(0.25)
    (0.25,)
    """
    several = widths if isinstance(widths, tuple) else (widths,)
    if not (several and min(several) > 0):
        raise ConfigurationError(f"widths are positive; got {widths}")
    return several


@dataclass(frozen=True)
class TipReward:
    """r = E_w exp(-d² / (2 w²)), one minus PILCO's saturating cost averaged over widths; d is the tip's distance to its target.

    Several widths give a planner a slope far from the target and precision near it (PILCO's cost of several widths).
    The tip is that of a chain of rods (`Chain`): `length` one or one per rod (m), `angles` their coordinates, `up` where they
    stand, `cart` the coordinate of the first hinge or None. The defaults are PILCO's cart-pole.

    Called with state [..., S], action [..., A] and next_state [..., S], gives [...] in (0, 1]; depends on `next_state` only.
    Raises `ConfigurationError` unless widths and lengths are positive.
    Source: Deisenroth, Fox & Rasmussen, PAMI 2015; width of UCL-SML/pilco-matlab.

    >>> state = torch.zeros(3, 4)
    >>> TipReward(1.0)(state, torch.zeros(3, 1), state)
    tensor([0.6065, 0.6065, 0.6065])
    """

    widths: Widths = 0.25
    length: float | tuple[float, ...] = 0.5
    angles: tuple[int, ...] = (3,)
    up: float = HANGING
    cart: int | None = 0

    def __post_init__(self) -> None:
        # Both refuse what has no meaning.
        _ = self.each_width, self.chain

    @property
    def each_width(self) -> tuple[float, ...]:
        """The widths as a tuple."""
        return each_width(self.widths)

    @cached_property
    def chain(self) -> Chain:
        """The rods whose tip is meant."""
        lengths = self.length if isinstance(self.length, tuple) else (self.length,) * len(self.angles)
        return Chain(lengths, self.angles, self.up, self.cart)

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch S"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        return saturate(self.chain.squared_distance(next_state), self.each_width)

    def rows(self, state_size: int) -> CostRows:
        """Return the rows of d for a state of so many coordinates; raises `ShapeError` if it has not those that are named."""
        named = (*self.angles, *(() if self.cart is None else (self.cart,)))
        if not all(0 <= index < state_size for index in named):
            raise ShapeError(f"the tip's coordinates {named} are not all in a state of size {state_size}")
        turns = torch.zeros(len(self.angles), state_size, dtype=torch.float64)
        rows = torch.zeros(2, state_size + 2 * len(self.angles), dtype=torch.float64)
        target = torch.zeros(rows.shape[1], dtype=torch.float64)
        if self.cart is not None:
            rows[0, self.cart] = 1.0
        for k, (index, length) in enumerate(zip(self.angles, self.chain.lengths, strict=True)):
            turns[k, index] = 1.0
            rows[0, state_size + 2 * k], rows[1, state_size + 2 * k + 1] = self.chain.sign * length, length
            target[state_size + 2 * k + 1] = -self.chain.sign
        return CostRows(turns, rows, target)
