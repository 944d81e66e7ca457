"""The seam of every planner: one callable, `evaluate(actions [T, B, c, A]) -> scores [B, c]`, and explicit state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.spaces import ActionSpace, check_space

Evaluate = Callable[[Tensor], Tensor]
"""actions [T, B, c, A] -> scores [B, c], the larger the better; non-finite scores drop their candidate."""


@dataclass(frozen=True)
class WarmStart:
    """What a planner carries from one step to the next; all but the mean sequence only where a planner has use for it.

    elites         the best sequences, best first; their `stale` trailing steps are fill, not plan: as many as were executed since
    past           the action before the first of `mean`, None at the start of an episode
    probabilities  of the categories of each discrete action, M of them for the largest factor
    """

    space: ActionSpace
    mean: Float[Tensor, "T B A"]
    elites: Float[Tensor, "T B k A"] | None = None
    stale: int = 0
    past: Float[Tensor, "B A"] | None = None
    probabilities: Float[Tensor, "T B A M"] | None = None


@dataclass(frozen=True)
class Iteration:
    """Scores of one iteration over its finite candidates, [B] each: best, and mean and standard deviation of those learned from.

    Those are the elites, or all candidates by their weights w; `effective` is how many they amount to, 1/Σw².
    """

    best: Float[Tensor, "B"]
    elite_mean: Float[Tensor, "B"]
    elite_std: Float[Tensor, "B"]
    effective: Float[Tensor, "B"]


@dataclass(frozen=True)
class Plan:
    """What a planner decided, for each environment.

    actions      the sequence to execute: the mean of the elites or the best candidate, as the planner's options say
    score        what it expects of them: the elites' mean score, or the best score
    mean, best   both sequences, `best_score` that of `best`
    failed       whether every candidate had a non-finite score; then `actions` repeat the warm start and the scores are -inf
    dropped      how many candidates had one, of all `candidates` scored, over all environments
    iterations   what each iteration found; `seconds` of wall clock they took together
    """

    actions: Float[Tensor, "T B A"]
    score: Float[Tensor, "B"]
    mean: Float[Tensor, "T B A"]
    best: Float[Tensor, "T B A"]
    best_score: Float[Tensor, "B"]
    warm_start: WarmStart
    failed: Bool[Tensor, "B"]
    dropped: int = 0
    candidates: int = 0
    iterations: tuple[Iteration, ...] = ()
    seconds: float = 0.0


class Planner(ABC):
    """Chooses action sequences of `horizon` steps; it knows the world as one callable and keeps no state of its own.

    `repeat_last` says what fills the end of a plan that has moved on: its last action, or the middle of the space.
    """

    horizon: int
    repeat_last: bool = False

    def accept(self, space: ActionSpace) -> None:
        """Raise `ConfigurationError` unless the planner can search this space; by default it has to be a `Box`."""
        space.box(type(self).__name__)

    def start(self, space: ActionSpace, batch: int = 1) -> WarmStart:
        """Return the state of a new episode for `batch` environments: the middle of the space everywhere.

        Raises `ConfigurationError` for a batch below 1, for a space that the planner cannot search, and for a space of Gymnasium.
        """
        self.accept(check_space(space))
        if batch < 1:
            raise ConfigurationError(f"start wants a batch of at least 1 environment; got {batch}")
        return WarmStart(space, space.middle.expand(self.horizon, batch, space.size).clone())

    @abstractmethod
    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Search for the best sequence, starting from `warm_start`, within the `budget` if there is one.

        All random numbers come from a `private_generator` and are shared by the environments, so that the plan of one does not
        depend on the others. Raises `ShapeError` unless `evaluate` returns one score per candidate.
        """

    def shift(self, warm_start: WarmStart, steps: int = 1) -> WarmStart:
        """Return the warm start after `steps` executed actions, its end filled as `repeat_last` says.

        Raises `ConfigurationError` for fewer than one step.
        """
        if steps < 1:
            raise ConfigurationError(f"shift wants steps >= 1; got {steps}")
        steps = min(steps, self.horizon + 1)
        last = warm_start.mean[-1] if self.repeat_last else warm_start.space.middle.expand_as(warm_start.mean[-1])
        mean = follow(warm_start.mean, last, steps)
        moved = replace(warm_start, mean=mean[steps:], past=mean[steps - 1])
        if warm_start.elites is None:
            return moved
        elites = follow(warm_start.elites, warm_start.elites[-1], steps)[steps:]
        return replace(moved, elites=elites, stale=min(warm_start.stale + steps, self.horizon))


def follow(sequence: Float[Tensor, "T *rest"], last: Float[Tensor, "*rest"], steps: int) -> Float[Tensor, "U *rest"]:
    """Append `last` to a sequence `steps` times."""
    return torch.cat([sequence, last.expand(steps, *last.shape)])
