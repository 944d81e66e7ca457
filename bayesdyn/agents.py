"""The seam between the loop and what acts in it: `Agent`, what it thinks at a step, and what it makes of a fresh fit."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bayesdyn.objectives import ReturnVariance
from bayesdyn.planners import ActionSpace
from bayesdyn.progress import Progress
from bayesdyn.rollout import Trajectory


@runtime_checkable
class Thought(Protocol):
    """What stands behind an action: trajectories imagined, how their return's variance splits, and what a person should know.

    `late` says whether it took longer than it might, `dropped` how many of `candidates` had to be left out.
    """

    @property
    def imagined(self) -> Trajectory:
        """What is expected to happen, states [T+1, n, p, B, S]."""

    @property
    def variance(self) -> ReturnVariance:
        """The variance of the imagined return and its epistemic share, [B]."""

    @property
    def late(self) -> bool:
        """Whether it came too late."""

    @property
    def dropped(self) -> int:
        """Candidates without a finite return."""

    @property
    def candidates(self) -> int:
        """Candidates that were looked at."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know."""


@dataclass(frozen=True)
class Improvement:
    """What an agent made of a fresh fit, before it acts with it.

    metrics       figures to keep beside the trial's own
    predictions   what it expects of the trial, one tensor [T+1, ...] per name, such as the mean cost at each step
    """

    metrics: dict[str, float] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Agent(ABC):
    """What `learn` asks of an agent: `MPC` is one that plans, `PolicyAgent` one that improves a policy after each fit.

    `decision` is what it thought last, None if nothing.

    >>> class Idle(Agent):
    ...     def reset(self, space, batch=1, generator=None): ...
    ...     def act(self, observation, *, replan=True):
    ...         return torch.zeros(1)
    >>> Idle().improve().metrics
    {}
    """

    decision: Thought | None = None

    @abstractmethod
    def reset(self, space: ActionSpace, batch: int = 1, generator: torch.Generator | None = None) -> None:
        """Start an episode."""

    @abstractmethod
    def act(self, observation: Tensor, *, replan: bool = True) -> Tensor:
        """Return the next action [A] for an observation [S]."""

    def improve(self, generator: torch.Generator | None = None, progress: Progress | None = None) -> Improvement:
        """Learn from the model as it has just been fitted; an agent that plans has nothing to learn."""
        return Improvement()

    def memory(self) -> dict[str, Tensor]:
        """Return all that it has learned, by name; `recall` takes it back."""
        return {}

    def recall(self, memory: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Go back to what `memory` returned; an empty one means to start anew."""
