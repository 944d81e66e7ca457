"""MPPI: model-predictive path-integral control, every candidate counts by the exponential of its score."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.icem import coloured_noise
from bayesdyn.planners.search import Search, weighted_mean
from bayesdyn.planners.spaces import Box
from bayesdyn.planners.weights import Temperature, check_temperature, path_weights


@dataclass(frozen=True)
class MPPI(Planner):
    """Model-predictive path-integral control (Williams et al. 2017, algorithm 2; repeated and adapted as in TD-MPC2).

    Each iteration draws x = clip(μ + std ∘ ε) and moves the mean to all candidates, weighted by their scores J:

        w = softmax((J - max J)/λ),   μ <- Σ w x,   and with `adapt`  std² <- Σ w (x - μ)²

    `temperature` is λ in the unit of the return, or "ess" (the default): the λ at which the effective sample size 1/Σw² is
    `elites`, so that plans do not depend on the unit of rewards. `std` is in half widths of the box, and so is `least_std`, its
    floor while it adapts; it starts anew with each plan. `beta` colours the noise ε over time as ICEM does (0: white, the paper's).
    nicklashansen/tdmpc2 `_plan`: 6 iterations, 512 candidates, 64 elites, adapted std in [0.05, 2].

    Raises `ConfigurationError` for impossible sizes.

    >>> from bayesdyn.planners import Box
    >>> planner = MPPI(horizon=2, adapt=True)
    >>> plan = planner.plan(lambda a: -(a - 0.3).square().sum((0, 3)), planner.start(Box.of([-1.0], [1.0])))
    >>> [round(action, 1) for action in plan.actions.flatten().tolist()]
    [0.3, 0.3]
    """

    horizon: int = 25
    candidates: int = 400
    elites: int = 40
    iterations: int = 5
    temperature: Temperature = "ess"
    std: float = 0.5
    adapt: bool = False
    least_std: float = 0.05
    beta: float = 0.0
    execute_best: bool = False
    repeat_last: bool = True

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.elites, self.iterations) < 1 or self.elites > self.candidates:
            raise ConfigurationError(f"MPPI wants horizon, iterations >= 1 and 1 <= elites <= candidates; got {self}")
        if self.std <= 0 or not 0 <= self.least_std <= self.std or self.beta < 0:
            raise ConfigurationError(f"MPPI wants std > 0, 0 <= least_std <= std and beta >= 0; got {self}")
        check_temperature(self.temperature, self)

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Iterate sampling and weighting around the shifted previous plan."""
        stream, search = private_generator(generator), Search(warm_start, budget)
        box, mean = warm_start.space.box("MPPI"), warm_start.mean
        widest = (self.std * box.width / 2).expand_as(mean)
        floor = (self.least_std * box.width / 2).expand_as(mean)
        std = widest
        for _, count in search.rounds([self.candidates] * self.iterations, 2 * self.elites):
            sequences = self._sample(box, mean, std, count, stream)
            scores = search.score(evaluate, sequences)
            weights = path_weights(scores, self.temperature, search.share(self.elites, count))
            found = search.record(sequences, scores, weights)[:, None]
            mean = torch.where(found, weighted_mean(sequences, weights), mean)
            if self.adapt:
                spread = weighted_mean((sequences - mean.unsqueeze(2)).square(), weights).sqrt()
                std = torch.where(found, torch.minimum(torch.maximum(spread, floor), widest), std)
        return search.plan(mean, execute_best=self.execute_best)

    def _sample(
        self, box: Box, mean: Float[Tensor, "T B A"], std: Float[Tensor, "T B A"], count: int, generator: torch.Generator
    ) -> Float[Tensor, "T B c A"]:
        noise = coloured_noise(self.horizon, (1, count, mean.shape[-1]), self.beta, generator, mean.dtype)
        return box.clip(mean.unsqueeze(2) + std.unsqueeze(2) * noise.to(mean.device))
