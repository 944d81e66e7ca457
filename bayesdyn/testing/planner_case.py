"""What the items of the planner contract are checked on: boxes, objectives with a known best, and plans of several steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.planners import Box, Evaluate, Plan, Planner, WarmStart
from bayesdyn.testing.conformance import generator, global_randomness_untouched

REFERENCES = 4000


@dataclass(frozen=True)
class PlannerCase:
    """One planner class in one dtype, with the properties that its author states."""

    make: Callable[[], Planner]
    dtype: torch.dtype
    better_than: float

    def box(self, low: list[float], high: list[float]) -> Box:
        """Return a box in the case's dtype."""
        return Box.of(low, high, self.dtype)

    @property
    def unit(self) -> Box:
        """The box [-1, 1]²."""
        return self.box([-1.0, -1.0], [1.0, 1.0])

    def plan(self, evaluate: Evaluate, box: Box, *, batch: int = 1, plans: int = 1, seed: int = 0) -> Plan:
        """Return the last of `plans` plans for one situation, each started from what the one before left."""
        planner, stream = self.make(), generator(seed)
        warm_start = planner.start(box, batch)
        for _ in range(plans):
            with global_randomness_untouched("a plan"):
                plan = planner.plan(evaluate, warm_start, stream)
            warm_start = plan.warm_start
        return plan

    def share_beaten(self, evaluate: Evaluate, box: Box, actions: Float[Tensor, "T B A"]) -> Float[Tensor, "B"]:
        """Return the share of uniformly drawn sequences, of those with finite scores, that score less than `actions`."""
        uniform = torch.rand((actions.shape[0], 1, REFERENCES, actions.shape[2]), generator=generator(99), dtype=self.dtype)
        uniform = (box.low + box.width * uniform).expand(-1, actions.shape[1], -1, -1)
        scores, own = evaluate(uniform), evaluate(actions.unsqueeze(2))
        finite = scores.isfinite()
        return ((scores < own) & finite).sum(1) / finite.sum(1).clamp_min(1)


def quadratic(target: Float[Tensor, "B A"]) -> Evaluate:
    """Return -Σ_t |a_t - target|², largest where every action is the environment's target (or the bound next to it)."""
    return lambda actions: -(actions - target[:, None]).square().sum((0, 3))


def poisoned(actions: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
    """Return -10 - (a + 0.5)² of the first action, and NaN where it is above 0.3: the best answer is -0.5."""
    first = actions[0, ..., 0]
    return torch.where(first > 0.3, torch.nan, -10 - (first + 0.5).square())


def inside(actions: Float[Tensor, "T B c A"], box: Box) -> Bool[Tensor, ""]:
    """Whether all actions lie in the box."""
    return ((actions >= box.low) & (actions <= box.high)).all()


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


def same_start(a: WarmStart, b: WarmStart) -> bool:
    """Whether two warm starts hold the same numbers."""
    parts = ((a.mean, b.mean), (a.elites, b.elites), (a.past, b.past), (a.probabilities, b.probabilities))
    return a.stale == b.stale and all(_same(one, other) for one, other in parts)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)
