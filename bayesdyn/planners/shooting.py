"""Random shooting: uniform sequences, the best one wins."""

from dataclasses import dataclass

import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.search import Search
from bayesdyn.planners.spaces import ActionSpace


@dataclass(frozen=True)
class RandomShooting(Planner):
    """argmax over `candidates` sequences drawn uniformly from the action space (Nagabandi et al. 2018, section IV-C).

    `hold` repeats each sampled action for that many steps. The warm start is only what a failed plan repeats.

    Raises `ConfigurationError` for sizes below 1.

    >>> planner = RandomShooting(horizon=2, candidates=100)
    >>> from bayesdyn.planners import Box
    >>> plan = planner.plan(lambda a: a.sum((0, 3)), planner.start(Box.of([-1.0], [1.0])), torch.Generator().manual_seed(0))
    >>> bool(plan.actions.min() > 0)
    True
    """

    horizon: int = 25
    candidates: int = 2000
    hold: int = 1

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.hold) < 1:
            raise ConfigurationError(f"RandomShooting wants horizon, candidates and hold >= 1; got {self}")

    def accept(self, space: ActionSpace) -> None:
        """Take any space: what can be drawn from uniformly can be searched."""

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Score the candidates and return the best."""
        stream, search = private_generator(generator), Search(warm_start, budget)
        elites = max(1, self.candidates // 10)
        for _, count in search.rounds([self.candidates], 2 * elites):
            knots = warm_start.space.uniform((-(-self.horizon // self.hold), 1, count), stream)
            sequences = knots.repeat_interleave(self.hold, 0)[: self.horizon]
            sequences = sequences.expand(-1, warm_start.mean.shape[1], -1, -1)
            search.rank(sequences, search.score(evaluate, sequences), elites)
        return search.plan(search.best, execute_best=True)
