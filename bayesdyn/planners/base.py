"""The seam of every planner: one callable, `evaluate(actions [T, B, c, A]) -> scores [B, c]`, and explicit state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

Evaluate = Callable[[Tensor], Tensor]
"""actions [T, B, c, A] -> scores [B, c], the larger the better; non-finite scores drop their candidate."""


class Box(NamedTuple):
    """Bounds of the actions, [A] each."""

    low: Float[Tensor, "A"]
    high: Float[Tensor, "A"]

    @classmethod
    def of(cls, low: Tensor | list[float], high: Tensor | list[float], dtype: torch.dtype = torch.float32) -> "Box":
        """Check the bounds: at least one, low <= high, finite.

        Raises `ConfigurationError` for empty, inverted and unbounded boxes.

        >>> Box.of([-1.0], [1.0]).middle.tolist()
        [0.0]
        """
        box = cls(torch.as_tensor(low, dtype=dtype).reshape(-1), torch.as_tensor(high, dtype=dtype).reshape(-1))
        came = f"low {box.low.tolist()}, high {box.high.tolist()}"
        if box.low.shape != box.high.shape or len(box.low) == 0 or not bool((box.low <= box.high).all()):
            raise ConfigurationError(f"bounds want low <= high of one length, at least 1; got {came}")
        # The largest float as a bound means no bound, and overflows when the width is taken.
        if not bool(box.width.isfinite().all()):
            raise ConfigurationError(f"planning wants bounded actions; got {came}: rescale the actions or give finite bounds")
        return box

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


@dataclass(frozen=True)
class WarmStart:
    """What a planner carries from one step to the next: the mean sequence and, if it keeps any, elites, best first.

    `stale` trailing steps of the elites are fill, not plan: as many as were executed since they were found.
    """

    box: Box
    mean: Float[Tensor, "T B A"]
    elites: Float[Tensor, "T B k A"] | None = None
    stale: int = 0


@dataclass(frozen=True)
class Iteration:
    """Scores of one iteration over its finite candidates: best, elite mean and elite standard deviation, [B] each."""

    best: Float[Tensor, "B"]
    elite_mean: Float[Tensor, "B"]
    elite_std: Float[Tensor, "B"]


@dataclass(frozen=True)
class Plan:
    """What a planner decided, for each environment.

    actions      the sequence to execute: the mean of the elites or the best candidate, as the planner's options say
    score        what it expects of them: the elites' mean score, or the best score
    mean, best   both sequences, `best_score` that of `best`
    failed       whether every candidate had a non-finite score; then `actions` repeat the warm start and the scores are -inf
    dropped      how many candidates had one, of all `candidates` scored, over all environments
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


class Planner(ABC):
    """Chooses action sequences of `horizon` steps; it knows the world as one callable and keeps no state of its own."""

    horizon: int

    def start(self, box: Box, batch: int = 1) -> WarmStart:
        """Return the state of a new episode for `batch` environments: the middle of the box everywhere.

        Raises `ConfigurationError` for a batch below 1.
        """
        if batch < 1:
            raise ConfigurationError(f"start wants a batch of at least 1 environment; got {batch}")
        mean = box.middle.expand(self.horizon, batch, len(box.low)).clone()
        return WarmStart(box, mean)

    @abstractmethod
    def plan(self, evaluate: Evaluate, warm_start: WarmStart, generator: torch.Generator | None = None) -> Plan:
        """Search for the best sequence, starting from `warm_start`.

        All random numbers come from a `private_generator` and are shared by the environments, so that the plan of one does not
        depend on the others. Raises `ShapeError` unless `evaluate` returns one score per candidate.
        """

    def shift(self, warm_start: WarmStart, steps: int = 1) -> WarmStart:
        """Return the warm start after `steps` executed actions; the end is filled with the middle of the box.

        Raises `ConfigurationError` for fewer than one step.
        """
        if steps < 1:
            raise ConfigurationError(f"shift wants steps >= 1; got {steps}")
        steps = min(steps, self.horizon)
        tail = warm_start.box.middle.expand(steps, *warm_start.mean.shape[1:])
        mean = torch.cat([warm_start.mean[steps:], tail])
        if warm_start.elites is None:
            return replace(warm_start, mean=mean)
        last = warm_start.elites[-1:].expand(steps, *warm_start.elites.shape[1:])
        elites = torch.cat([warm_start.elites[steps:], last])
        return replace(warm_start, mean=mean, elites=elites, stale=min(warm_start.stale + steps, self.horizon))
