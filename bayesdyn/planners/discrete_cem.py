"""The cross-entropy method over discrete actions."""

import math
from dataclasses import dataclass

import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.discrete import DiscretePlanner, Table
from bayesdyn.planners.search import Search, carry


@dataclass(frozen=True)
class DiscreteCEM(DiscretePlanner):
    """Cross-entropy method over categories (Rubinstein 1999; its shrinking memory of elites is ICEM's).

    Sequences are drawn from categorical probabilities P of each step and factor, and from the k best of them:

        P <- αP + (1-α) elite frequencies,   drawn from as (1-mix) P + mix · uniform

    A plan starts from the warm start's P with a share `reset` of uniform mixed in, as a continuous CEM starts from a fresh
    variance. With probability `stickiness` an action repeats the one before, which takes the place of coloured noise. ⌊keep·k⌋
    elites of the previous step, shifted, and of the iteration before are tried again, and the last iteration tries the most likely
    sequence, which is the plan's mean and what it executes (`execute_best=True`: the best candidate seen).

    Raises `ConfigurationError` for impossible sizes.

    >>> from bayesdyn.planners import Choices
    >>> planner = DiscreteCEM(horizon=3)
    >>> plan = planner.plan(lambda a: -(a - 2).abs().sum((0, 3)), planner.start(Choices.of([4])))
    >>> plan.actions.flatten().tolist()
    [2.0, 2.0, 2.0]
    """

    horizon: int = 25
    candidates: int = 200
    elites: int = 20
    iterations: int = 5
    momentum: float = 0.1
    mix: float = 0.01
    reset: float = 0.5
    stickiness: float = 0.0
    keep: float = 0.3
    execute_best: bool = False
    repeat_last: bool = True

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.elites, self.iterations) < 1 or self.elites > self.candidates:
            raise ConfigurationError(f"DiscreteCEM wants horizon, iterations >= 1 and 1 <= elites <= candidates; got {self}")
        shares = (self.mix, self.reset, self.keep)
        if not 0 <= self.momentum < 1 or not 0 <= self.stickiness < 1 or not all(0 <= share <= 1 for share in shares):
            raise ConfigurationError(f"DiscreteCEM wants 0 <= momentum, stickiness < 1 and mix, reset, keep in [0, 1]; got {self}")

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Iterate sampling and counting, from the shifted previous probabilities."""
        stream, search = private_generator(generator), Search(warm_start, budget)
        table = Table.begin(warm_start, "DiscreteCEM", self.reset)
        reused = math.floor(self.keep * self.elites + 1e-9)
        kept, kept_scores = warm_start.mean.unsqueeze(2)[:, :, :0], warm_start.mean[0, :, :0]
        elites = None
        for i, count in search.rounds([self.candidates] * self.iterations, 2 * self.elites):
            sequences = table.sample(count, self.mix, self.stickiness, stream)
            if i == self.iterations - 1:
                sequences = torch.cat([table.most_likely.unsqueeze(2), sequences[:, :, 1:]], 2)
            if i == 0 and warm_start.elites is not None:
                sequences = torch.cat([carry(warm_start.elites[:, :, :reused], warm_start.stale, sequences), sequences], 2)
            scores = search.score(evaluate, sequences)
            elites = search.rank(torch.cat([sequences, kept], 2), torch.cat([scores, kept_scores], 1), self.elites)
            table = table.learn(elites.sequences, elites.weights, elites.found, self.momentum)
            kept, kept_scores = elites.sequences[:, :, :reused], elites.scores[:, :reused]
        return table.plan(search, execute_best=self.execute_best, elites=elites.sequences if elites else None)
