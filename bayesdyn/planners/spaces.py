"""Action spaces: what a planner searches, a box of numbers or choices among categories."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

_FOR_BOXES = "RandomShooting, CEM, ICEM, MPPI, PDDM or GradientPlanner"
_FOR_CHOICES = "RandomShooting, DiscreteCEM or DiscreteMPPI"


class ActionSpace(ABC):
    """The actions that a planner may choose, vectors of A numbers."""

    @property
    @abstractmethod
    def middle(self) -> Float[Tensor, "A"]:
        """The action of a plan that knows nothing yet."""

    @property
    def size(self) -> int:
        """A, the numbers of one action."""
        return len(self.middle)

    @abstractmethod
    def clip(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Return the nearest actions of the space."""

    @abstractmethod
    def uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*shape A"]:
        """Draw actions uniformly."""

    @abstractmethod
    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> "ActionSpace":
        """Return the space with actions in this dtype, and on this device if one is named."""

    @abstractmethod
    def box(self, planner: str) -> "Box":
        """Return the space for a planner that searches boxes; others raise `ConfigurationError` and name planners that fit."""

    @abstractmethod
    def choices(self, planner: str) -> "Choices":
        """Return the space for a planner that searches choices; others raise `ConfigurationError` and name planners that fit."""


@dataclass(frozen=True, eq=False)
class Box(ActionSpace):
    """Continuous actions between bounds, [A] each.

    >>> Box.of([-1.0, 0.0], [1.0, 4.0]).middle.tolist()
    [0.0, 2.0]
    """

    low: Float[Tensor, "A"]
    high: Float[Tensor, "A"]

    @classmethod
    def of(
        cls,
        low: Tensor | list[float],
        high: Tensor | list[float],
        dtype: torch.dtype = torch.float32,
        scale: float | None = None,
    ) -> "Box":
        """Check the bounds: at least one, low <= high, finite.

        `scale` stands in for bounds that are missing: -scale to scale where there is none, 2·scale from the other one where there
        is. Raises `ConfigurationError` for empty and inverted boxes, and for unbounded ones without a scale.

        >>> Box.of([-1.0], [1.0]).middle.tolist()
        [0.0]
        >>> Box.of([0.0], [float("inf")], scale=3.0).high.tolist()
        [6.0]
        """
        low, high = (torch.as_tensor(bound, dtype=dtype).reshape(-1) for bound in (low, high))
        came = f"low {low.tolist()}, high {high.tolist()}"
        if low.shape != high.shape or len(low) == 0 or not bool((low <= high).all()):
            raise ConfigurationError(f"bounds want low <= high of one length, at least 1; got {came}")
        box = cls(low, high)
        if scale is not None:
            if not 0 < scale < torch.inf:
                raise ConfigurationError(f"the scale of unbounded actions is a positive number; got {scale}")
            box = box._bounded(scale)
        # The largest float as a bound means no bound, and overflows when the width is taken.
        if not bool(box.width.isfinite().all()):
            raise ConfigurationError(
                f"planning wants bounded actions; got {came}: rescale the actions, give finite bounds, or a scale= for missing ones"
            )
        return box

    def _bounded(self, scale: float) -> "Box":
        widest = torch.finfo(self.low.dtype).max / 4
        no_low, no_high = self.low < -widest, self.high > widest
        low = torch.where(no_low, torch.where(no_high, -scale, self.high - 2 * scale), self.low)
        return Box(low, torch.where(no_high, low + 2 * scale, self.high))

    @property
    def middle(self) -> Float[Tensor, "A"]:
        """Centre of the box."""
        return 0.5 * (self.low + self.high)

    @property
    def width(self) -> Float[Tensor, "A"]:
        """high - low."""
        return self.high - self.low

    def clip(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Clip actions into the box."""
        return actions.clamp(self.low, self.high)

    def uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*shape A"]:
        """Draw actions uniformly from the box."""
        unit = torch.rand((*shape, self.size), generator=generator, dtype=self.low.dtype, device=generator.device)
        return self.clip(self.low + self.width * unit.to(self.low.device))

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> "Box":
        """Return the box with bounds in this dtype, and on this device if one is named."""
        return Box(self.low.to(dtype=dtype, device=device), self.high.to(dtype=dtype, device=device))

    def box(self, planner: str) -> "Box":
        """Return the box itself."""
        return self

    def choices(self, planner: str) -> "Choices":
        """Raise `ConfigurationError`: continuous actions are not for this planner."""
        raise ConfigurationError(f"{planner} plans discrete actions; got a Box of {self.size} continuous ones: use {_FOR_BOXES}")


@dataclass(frozen=True, eq=False)
class Choices(ActionSpace):
    """Discrete actions: A factors, factor i one of `sizes[i]` categories.

    An action is the numbers 0 .. sizes[i] - 1 of its categories, stored as floats: `sizes` has the dtype of the actions.

    >>> Choices.of([3, 2]).uniform((4,), torch.Generator().manual_seed(0)).shape
    torch.Size([4, 2])
    """

    sizes: Float[Tensor, "A"]

    @classmethod
    def of(cls, sizes: Tensor | list[int], dtype: torch.dtype = torch.float32) -> "Choices":
        """Check the sizes: at least one factor, whole numbers of at least 1; raises `ConfigurationError` otherwise.

        >>> Choices.of([3]).sizes.tolist()
        [3.0]
        """
        choices = cls(torch.as_tensor(sizes, dtype=dtype).reshape(-1))
        whole = (choices.sizes >= 1) & (choices.sizes == choices.sizes.round()) & choices.sizes.isfinite()
        if choices.size == 0 or not bool(whole.all()):
            raise ConfigurationError(f"choices want at least one factor, of at least 1 category each; got sizes {sizes}")
        return choices

    @property
    def middle(self) -> Float[Tensor, "A"]:
        """The first category of every factor."""
        return torch.zeros_like(self.sizes)

    @property
    def most(self) -> int:
        """Categories of the largest factor."""
        return int(self.sizes.max())

    def clip(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Return the nearest category numbers."""
        return torch.minimum(actions.round().clamp_min(0), self.sizes - 1)

    def uniform(self, shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*shape A"]:
        """Draw categories uniformly."""
        unit = torch.rand((*shape, self.size), generator=generator, dtype=self.sizes.dtype, device=generator.device)
        return torch.minimum((unit.to(self.sizes.device) * self.sizes).floor(), self.sizes - 1)

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> "Choices":
        """Return the choices with actions in this dtype, and on this device if one is named."""
        return Choices(self.sizes.to(dtype=dtype, device=device))

    def box(self, planner: str) -> "Box":
        """Raise `ConfigurationError`: discrete actions are not for this planner."""
        raise ConfigurationError(
            f"{planner} plans continuous actions in a Box; got choices of sizes {[int(n) for n in self.sizes]}: use {_FOR_CHOICES}"
        )

    def choices(self, planner: str) -> "Choices":
        """Return the choices themselves."""
        return self


def check_space(space: ActionSpace) -> ActionSpace:
    """Return the space; raises `ConfigurationError` for anything else, such as Gymnasium's own.

    >>> check_space(Choices.of([3])).size
    1
    """
    if not isinstance(space, ActionSpace):
        raise ConfigurationError(
            f"planners search a Box or Choices of bayesdyn.planners; got {space} ({type(space).__module__}): make one with "
            "Box.of(low, high) or Choices.of(sizes), or bayesdyn.loop.actions_of(env.action_space).space from a space of Gymnasium"
        )
    return space
