"""The seam of every planner: one callable, `evaluate(actions [T, B, c, A]) -> scores [B, c]`, and explicit state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError

Evaluate = Callable[[Tensor], Tensor]
"""actions [T, B, c, A] -> scores [B, c], the larger the better; non-finite scores drop their candidate."""


class Box(NamedTuple):
    """Bounds of the actions, [A] each."""

    low: Float[Tensor, "A"]
    high: Float[Tensor, "A"]

    @classmethod
    def of(cls, low: Tensor | list[float], high: Tensor | list[float], dtype: torch.dtype = torch.float32) -> "Box":
        """Check the bounds: finite, low <= high.

        Raises `ConfigurationError` for unbounded or inverted boxes.

        >>> Box.of([-1.0], [1.0]).middle.tolist()
        [0.0]
        """
        box = cls(torch.as_tensor(low, dtype=dtype).reshape(-1), torch.as_tensor(high, dtype=dtype).reshape(-1))
        if box.low.shape != box.high.shape or not bool((box.low <= box.high).all()):
            raise ConfigurationError(f"bounds want low <= high of one length; got low {box.low.tolist()}, high {box.high.tolist()}")
        if not bool((box.low.isfinite() & box.high.isfinite()).all()):
            raise ConfigurationError(
                "planning wants bounded actions; the box is infinite: rescale the actions or give finite bounds"
            )
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
    """What a planner carries from one step to the next: the mean sequence [T, B, A] and, if it keeps any, elites [T, B, k, A].

    `stale` trailing steps of the elites are fill, not plan.
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
    """What a planner decided: `actions` is the sequence to execute, `score` its score as the planner believes it.

    `dropped` counts candidates with non-finite scores; where `failed`, all were, and `actions` repeat the previous plan.
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
    iterations: tuple[Iteration, ...] = field(default=())


class Planner(ABC):
    """Chooses action sequences of `horizon` steps; it knows the world as one callable and keeps no state of its own."""

    horizon: int

    def start(self, box: Box, batch: int = 1) -> WarmStart:
        """Return the state of a new episode for `batch` environments: the middle of the box everywhere."""
        mean = box.middle.expand(self.horizon, batch, len(box.low)).clone()
        return WarmStart(box, mean)

    @abstractmethod
    def plan(self, evaluate: Evaluate, warm_start: WarmStart, generator: torch.Generator | None = None) -> Plan:
        """Search for the best sequence, starting from `warm_start`.

        All random numbers come from `generator` and are shared by the environments, so that a plan does not depend on the batch.
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
        return replace(warm_start, mean=mean, elites=torch.cat([warm_start.elites[steps:], last]), stale=steps)


def check_scores(scores: Tensor, actions: Tensor) -> Tensor:
    """Return the scores with non-finite ones as -inf; raise `ShapeError` unless they are [B, c].

    >>> check_scores(torch.tensor([[1.0, float("nan")]]), torch.zeros(3, 1, 2, 1)).tolist()
    [[1.0, -inf]]
    """
    if scores.shape != actions.shape[1:3]:
        raise ShapeError(f"evaluate must return scores [B, c] = {list(actions.shape[1:3])}; got {list(scores.shape)}")
    return torch.where(scores.isfinite(), scores, torch.full_like(scores, -torch.inf))


def pick(actions: Float[Tensor, "T B c A"], index: Tensor) -> Tensor:
    """Gather candidates: index [B, k] -> [T, B, k, A]."""
    T, _, _, A = actions.shape
    return actions.gather(2, index[None, :, :, None].expand(T, *index.shape, A))


def weighted_moments(
    elites: Float[Tensor, "T B k A"], finite: Bool[Tensor, "B k"]
) -> tuple[Float[Tensor, "T B A"], Float[Tensor, "T B A"]]:
    """Return the mean and population variance over the finite elites; zeros where there are none."""
    weight = finite.to(elites.dtype)[None, :, :, None]
    count = weight.sum(2).clamp_min(1.0)
    mean = (elites * weight).sum(2) / count
    return mean, ((elites - mean.unsqueeze(2)).square() * weight).sum(2) / count


def summarise(scores: Float[Tensor, "B k"]) -> Iteration:
    """Describe the elite scores of one iteration, descending, -inf where dropped."""
    finite = scores.isfinite()
    count = finite.sum(1).clamp_min(1)
    kept = torch.where(finite, scores, torch.zeros_like(scores))
    mean = kept.sum(1) / count
    spread = torch.where(finite, (scores - mean.unsqueeze(1)).square(), torch.zeros_like(scores)).sum(1) / count
    return Iteration(scores[:, 0], mean, spread.sqrt())
