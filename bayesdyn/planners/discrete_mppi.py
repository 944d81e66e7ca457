"""Path-integral control over discrete actions."""

from dataclasses import dataclass

import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.discrete import DiscretePlanner, Table
from bayesdyn.planners.search import Search
from bayesdyn.planners.weights import Temperature, check_temperature, path_weights


@dataclass(frozen=True)
class DiscreteMPPI(DiscretePlanner):
    """Path-integral control over categories: every candidate counts by the exponential of its score, as in `MPPI`.

        w = softmax((J - max J)/λ),   P <- frequencies weighted by w,   drawn from as (1-mix) P + mix · uniform

    `temperature` is λ in the unit of the return, or "ess": the λ at which the effective sample size 1/Σw² is `elites`. `reset` and
    `stickiness` are those of `DiscreteCEM`. The most likely sequence is the plan's mean and what it executes (`execute_best=True`:
    the best candidate seen).

    Raises `ConfigurationError` for impossible sizes.

    >>> from bayesdyn.planners import Choices
    >>> planner = DiscreteMPPI(horizon=3)
    >>> plan = planner.plan(lambda a: -(a - 2).abs().sum((0, 3)), planner.start(Choices.of([4])))
    >>> plan.actions.flatten().tolist()
    [2.0, 2.0, 2.0]
    """

    horizon: int = 25
    candidates: int = 200
    elites: int = 20
    iterations: int = 5
    temperature: Temperature = "ess"
    mix: float = 0.01
    reset: float = 0.5
    stickiness: float = 0.0
    execute_best: bool = False
    repeat_last: bool = True

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.elites, self.iterations) < 1 or self.elites > self.candidates:
            raise ConfigurationError(f"DiscreteMPPI wants horizon, iterations >= 1 and 1 <= elites <= candidates; got {self}")
        if not (0 <= self.stickiness < 1 and 0 <= self.mix <= 1 and 0 <= self.reset <= 1):
            raise ConfigurationError(f"DiscreteMPPI wants 0 <= stickiness < 1 and mix, reset in [0, 1]; got {self}")
        check_temperature(self.temperature, self)

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Iterate sampling and weighting, from the shifted previous probabilities."""
        stream, search = private_generator(generator), Search(warm_start, budget)
        table = Table.begin(warm_start, "DiscreteMPPI", self.reset)
        for _, count in search.rounds([self.candidates] * self.iterations, 2 * self.elites):
            sequences = table.sample(count, self.mix, self.stickiness, stream)
            scores = search.score(evaluate, sequences)
            weights = path_weights(scores, self.temperature, search.share(self.elites, count))
            table = table.learn(sequences, weights, search.record(sequences, scores, weights))
        return table.plan(search, execute_best=self.execute_best)
