"""What the items of the planner contract are checked on: spaces, objectives with a known best, and plans of several steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.planners import ActionSpace, Box, Choices, Evaluate, Plan, Planner, WarmStart
from bayesdyn.testing.conformance import generator, global_randomness_untouched

REFERENCES = 4000
_FAR = 1e6


@dataclass(frozen=True)
class PlannerCase(ABC):
    """One planner class in one dtype, with the properties that its author states and the spaces that it is for."""

    make: Callable[[], Planner]
    dtype: torch.dtype
    better_than: float

    @property
    @abstractmethod
    def unit(self) -> ActionSpace:
        """A space of two actions of one kind."""

    @property
    @abstractmethod
    def line(self) -> ActionSpace:
        """A space of one action."""

    @property
    @abstractmethod
    def lopsided(self) -> ActionSpace:
        """A space of two actions that differ in all that they can."""

    @property
    @abstractmethod
    def odd(self) -> tuple[ActionSpace, ...]:
        """Spaces that are hard to stay in."""

    def at(self, space: ActionSpace, share: Tensor | list[list[float]]) -> Float[Tensor, "B A"]:
        """Return the points this share of the way from the lowest to the highest action."""
        low, high = extremes(space)
        return low + torch.as_tensor(share, dtype=self.dtype) * (high - low)

    def quadratic(self, space: ActionSpace, share: Tensor | list[list[float]]) -> Evaluate:
        """Return -Σ_t |a_t - target|², largest where every action is the one next to the environment's target."""
        target = self.at(space, share)
        return lambda actions: -(actions - target[:, None]).square().sum((0, 3))

    def plan(self, evaluate: Evaluate, space: ActionSpace, *, batch: int = 1, plans: int = 1, seed: int = 0) -> Plan:
        """Return the last of `plans` plans for one situation, each started from what the one before left."""
        planner, stream = self.make(), generator(seed)
        warm_start = planner.start(space, batch)
        for _ in range(plans):
            with global_randomness_untouched("a plan"):
                plan = planner.plan(evaluate, warm_start, stream)
            warm_start = plan.warm_start
        return plan

    def share_beaten(self, evaluate: Evaluate, space: ActionSpace, actions: Float[Tensor, "T B A"]) -> Float[Tensor, "B"]:
        """Return the share of uniformly drawn sequences, of those with finite scores, that score no more than `actions`."""
        uniform = space.uniform((actions.shape[0], 1, REFERENCES), generator(99)).expand(-1, actions.shape[1], -1, -1)
        scores, own = evaluate(uniform), evaluate(actions.unsqueeze(2))
        finite = scores.isfinite()
        return ((scores <= own) & finite).sum(1) / finite.sum(1).clamp_min(1)


class BoxCase(PlannerCase):
    """The spaces of a planner of continuous actions."""

    @property
    def unit(self) -> Box:
        """The box [-1, 1]²."""
        return Box.of([-1.0, -1.0], [1.0, 1.0], self.dtype)

    @property
    def line(self) -> Box:
        """The box [-1, 1]."""
        return Box.of([-1.0], [1.0], self.dtype)

    @property
    def lopsided(self) -> Box:
        """A box of two widths without 0."""
        return Box.of([0.5, -4.0], [3.0, -2.0], self.dtype)

    @property
    def odd(self) -> tuple[Box, ...]:
        """Boxes with a bound that rounds (0.3 - (-0.1): low + width lies above high) and a degenerate one."""
        wide = Box.of([-0.1, -40.0, 2.0], [0.3, 1.0, 2.0], self.dtype)
        return self.line, Box.of([0.5], [3.0], self.dtype), wide


class ChoicesCase(PlannerCase):
    """The spaces of a planner of discrete actions."""

    @property
    def unit(self) -> Choices:
        """Five categories, twice."""
        return Choices.of([5, 5], self.dtype)

    @property
    def line(self) -> Choices:
        """Five categories."""
        return Choices.of([5], self.dtype)

    @property
    def lopsided(self) -> Choices:
        """Six categories and three."""
        return Choices.of([6, 3], self.dtype)

    @property
    def odd(self) -> tuple[Choices, ...]:
        """Factors of different sizes, one without a choice."""
        return self.line, Choices.of([2], self.dtype), Choices.of([3, 7, 1], self.dtype)


def extremes(space: ActionSpace) -> tuple[Float[Tensor, "A"], Float[Tensor, "A"]]:
    """Return the lowest and the highest action."""
    return space.clip(torch.full_like(space.middle, -_FAR)), space.clip(torch.full_like(space.middle, _FAR))


def share_of(space: ActionSpace, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
    """Return how far actions are on the way from the lowest to the highest, in [0, 1]."""
    low, high = extremes(space)
    return (actions - low) / (high - low)


def poisoned(space: ActionSpace) -> Evaluate:
    """Return -10 - (2u - 0.5)², u the first action's share of the way through the space, and NaN above 0.65: best at 0.25."""

    def evaluate(actions: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
        share = share_of(space, actions)[0, ..., 0]
        return torch.where(share > 0.65, torch.nan, -10 - (2 * share - 0.5).square())

    return evaluate


def inside(actions: Float[Tensor, "T B c A"], space: ActionSpace) -> Bool[Tensor, ""]:
    """Whether all actions belong to the space."""
    return (space.clip(actions) == actions).all()


class Spy:
    """An objective that keeps the candidates it was asked about and what it answered."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self.asked: list[Tensor] = []
        self.answered: list[Tensor] = []

    def __call__(self, actions: Tensor) -> Tensor:
        scores = self.evaluate(actions)
        self.asked.append(actions.detach().clone())
        self.answered.append(scores.detach().clone())
        return scores


class Slow(Spy):
    """An objective that takes a second per candidate, on a clock of its own."""

    def __init__(self, evaluate: Evaluate) -> None:
        super().__init__(evaluate)
        self.now = self.begun = 0.0

    def __call__(self, actions: Tensor) -> Tensor:
        self.begun = self.now
        self.now += actions.shape[2]
        return super().__call__(actions)

    def clock(self) -> float:
        """Return the time."""
        return self.now


def same_start(a: WarmStart, b: WarmStart) -> bool:
    """Whether two warm starts hold the same numbers."""
    parts = ((a.mean, b.mean), (a.elites, b.elites), (a.past, b.past), (a.probabilities, b.probabilities))
    return a.stale == b.stale and all(_same(one, other) for one, other in parts)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)
