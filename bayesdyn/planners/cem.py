"""The cross-entropy method, as PETS uses it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.search import Search
from bayesdyn.planners.spaces import Box

# Share of the box below which no std falls because of a near bound: from a mean on the bound, the next plans still move.
_LEAST_STD = 1e-3


@dataclass(frozen=True)
class CEM(Planner):
    """Cross-entropy method (Chua et al. 2018, appendix; settings of kchua/handful-of-trials `cem.py`).

    With bounds lb, ub, each iteration draws candidates x = μ + √v z with z normal truncated to ±2 and
    √v = min(std, max((μ - lb)/2, 0.001 (ub - lb)), max((ub - μ)/2, 0.001 (ub - lb))), and from the k best:

        μ <- αμ + (1-α) mean,   var <- α var + (1-α) population variance

    It starts from the warm start's mean and var = (ub - lb)²/16, and ends early for an environment whose every var is below
    1e-3 (ub - lb)²/16. `clip=True` draws plain normals around μ and clips them to the box instead, which reaches the bounds sooner
    and leaves them sooner. The plan executes the mean of the elites, because the best sample over-fits a learned model
    (`execute_best=True`: the best candidate seen, for a known plant).

    Raises `ConfigurationError` for impossible sizes.

    >>> from bayesdyn.planners import Box
    >>> planner = CEM(horizon=2)
    >>> plan = planner.plan(lambda a: -(a - 0.3).square().sum((0, 3)), planner.start(Box.of([-1.0], [1.0])))
    >>> [round(action, 1) for action in plan.actions.flatten().tolist()]
    [0.3, 0.3]
    """

    horizon: int = 25
    candidates: int = 400
    elites: int = 40
    iterations: int = 5
    momentum: float = 0.1
    clip: bool = False
    execute_best: bool = False
    repeat_last: bool = False

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.elites, self.iterations) < 1 or not 0 <= self.momentum < 1:
            raise ConfigurationError(f"CEM wants horizon, candidates, elites, iterations >= 1 and 0 <= momentum < 1; got {self}")
        if self.elites > self.candidates:
            raise ConfigurationError(f"CEM wants elites <= candidates; got {self.elites} elites of {self.candidates} candidates")

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Iterate sampling and refitting; each environment keeps its plan once its variance has converged."""
        stream, search = private_generator(generator), Search(warm_start, budget)
        box, mean = warm_start.space.box("CEM"), warm_start.mean
        initial = (box.width.square() / 16).expand_as(mean)
        var = initial
        active = torch.ones(mean.shape[1], dtype=torch.bool, device=mean.device)
        for _, count in search.rounds([self.candidates] * self.iterations, 2 * self.elites):
            sequences = self._sample(box, mean, var.sqrt(), count, stream)
            elites = search.rank(sequences, search.score(evaluate, sequences), self.elites, active)
            mean = elites.update(mean, elites.mean, self.momentum)
            var = elites.update(var, elites.var, self.momentum)
            active = active & (var > 1e-3 * initial).any(-1).any(0)
            if not bool(active.any()):
                break
        return search.plan(mean, execute_best=self.execute_best)

    def _sample(
        self, box: Box, mean: Float[Tensor, "T B A"], std: Float[Tensor, "T B A"], count: int, generator: torch.Generator
    ) -> Float[Tensor, "T B c A"]:
        shape = (self.horizon, 1, count, mean.shape[-1])
        if self.clip:
            noise = torch.randn(shape, generator=generator, dtype=mean.dtype, device=generator.device)
        else:
            noise = truncated_normal(shape, generator, mean.dtype)
            nearest = torch.minimum(mean - box.low, box.high - mean)
            std = torch.minimum(std, torch.maximum(nearest / 2, _LEAST_STD * box.width))
        return box.clip(mean.unsqueeze(2) + std.unsqueeze(2) * noise.to(mean.device))


def truncated_normal(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, bound: float = 2.0) -> Tensor:
    """Draw standard normals truncated to ±bound by inverting the distribution function (variance 0.774 at ±2).

    >>> float(truncated_normal((1000,), torch.Generator().manual_seed(0), torch.float64).abs().max()) <= 2.0
    True
    """
    tail = 0.5 * math.erfc(bound / math.sqrt(2))
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return torch.special.ndtri(tail + (1 - 2 * tail) * uniform).clamp(-bound, bound).to(dtype)
