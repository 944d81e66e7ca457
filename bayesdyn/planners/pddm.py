"""PDDM: path-integral control with filtered noise, one pass per step."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.search import Search, weighted_mean
from bayesdyn.planners.spaces import Box
from bayesdyn.planners.weights import softmax_weights


@dataclass(frozen=True)
class PDDM(Planner):
    """Filtered, reward-weighted refinement (Nagabandi et al. 2019, section 4.2; google-research/pddm `policies/mppi.py`).

    From the mean μ of the last plan, shifted, its last action repeated, and from the action x_{-1} that was executed before it:

        x_t = β (μ_t + ε_t) + (1-β) x_{t-1},   ε ~ N(0, σ²),   clipped to the box;   μ <- Σ w x,   w = softmax(κJ)

    σ is in units where the box is ±1; what the filter leaves of it is σ √(β/(2-β)). κ is one over a temperature in the unit of the
    return. There is one pass per plan, so that the plan refines from step to step. The filter acts on the plan as well: at β = 0.7
    each plan turns an impulse of 1 into 0.7, 0.21, 0.06, ..; `filter="noise"` filters ε alone, n_t = β ε_t + (1-β) n_{t-1}, and
    leaves the plan as it was. At the start of an episode x_{-1} is the middle of the box.

    Raises `ConfigurationError` for impossible sizes.

    >>> from bayesdyn.planners import Box
    >>> planner = PDDM(horizon=2, kappa=50.0)
    >>> warm_start = planner.start(Box.of([-1.0], [1.0]))
    >>> for _ in range(10):
    ...     plan = planner.plan(lambda a: -(a - 0.3).square().sum((0, 3)), warm_start)
    ...     warm_start = planner.shift(plan.warm_start)
    >>> [round(action, 1) for action in plan.actions.flatten().tolist()]
    [0.3, 0.3]
    """

    horizon: int = 25
    candidates: int = 700
    kappa: float = 10.0
    sigma: float = 0.9
    beta: float = 0.7
    filter: Literal["plan", "noise"] = "plan"
    repeat_last: bool = True

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates) < 1 or not 0 <= self.beta <= 1:
            raise ConfigurationError(f"PDDM wants horizon and candidates >= 1 and 0 <= beta <= 1; got {self}")
        if not 0 < self.kappa < torch.inf or self.sigma <= 0 or self.filter not in ("plan", "noise"):
            raise ConfigurationError(f'PDDM wants kappa > 0, sigma > 0 and filter "plan" or "noise"; got {self}')

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Sample once around the shifted previous plan and move it to the weighted mean."""
        stream, search = private_generator(generator), Search(warm_start, budget)
        box, mean = warm_start.space.box("PDDM"), warm_start.mean
        past = box.middle.expand_as(mean[0]) if warm_start.past is None else warm_start.past
        for _, count in search.rounds([self.candidates], 1):
            sequences = self._sample(box, mean, past, count, stream)
            scores = search.score(evaluate, sequences)
            weights = softmax_weights(scores, 1 / self.kappa)
            found = search.record(sequences, scores, weights)[:, None]
            mean = torch.where(found, weighted_mean(sequences, weights), mean)
        return search.plan(mean, execute_best=False)

    def _sample(
        self, box: Box, mean: Float[Tensor, "T B A"], past: Float[Tensor, "B A"], count: int, generator: torch.Generator
    ) -> Float[Tensor, "T B c A"]:
        shape = (self.horizon, 1, count, mean.shape[-1])
        noise = torch.randn(shape, generator=generator, dtype=mean.dtype, device=generator.device).to(mean.device)
        noise = self.sigma * box.width / 2 * noise
        if self.filter == "noise":
            return box.clip(mean.unsqueeze(2) + smooth(noise, self.beta, torch.zeros_like(noise[0])))
        return box.clip(smooth(mean.unsqueeze(2) + noise, self.beta, past.unsqueeze(1)))


def smooth(values: Float[Tensor, "T *rest"], beta: float, before: Float[Tensor, "*first"]) -> Float[Tensor, "T *rest"]:
    """Return y_t = β v_t + (1-β) y_{t-1} from y_{-1} = `before`.

    >>> smooth(torch.tensor([[1.0], [0.0], [0.0]]), 0.75, torch.zeros(1)).flatten().tolist()
    [0.75, 0.1875, 0.046875]
    """
    filtered = []
    for value in values:
        before = beta * value + (1 - beta) * before
        filtered.append(before)
    return torch.stack(filtered)
