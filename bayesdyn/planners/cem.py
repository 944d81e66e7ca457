"""The cross-entropy method, as PETS uses it."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners.base import Evaluate, Iteration, Plan, Planner, WarmStart, check_scores, pick, summarise, weighted_moments


@dataclass(frozen=True)
class CEM(Planner):
    """Cross-entropy method (Chua et al. 2018, appendix; settings of kchua/handful-of-trials `cem.py`).

    With bounds lb, ub, at each iteration v = min(var, ((μ - lb)/2)², ((ub - μ)/2)²), candidates x = μ + √v z with z normal
    truncated to ±2, and from the k best: μ <- αμ + (1-α) mean, var <- α var + (1-α) population variance. It starts from the warm
    start's mean and var = (ub - lb)²/16 and stops early when every var < 1e-3 (ub - lb)²/16. `clip=True` draws plain normals
    around μ and clips them instead, which reaches the bounds. The plan executes the mean of the elites (`execute_best=True`: the
    best candidate seen), because the best sample over-fits a learned model.

    Raises `ConfigurationError` for impossible sizes.
    """

    horizon: int = 25
    candidates: int = 400
    elites: int = 40
    iterations: int = 5
    momentum: float = 0.1
    clip: bool = False
    execute_best: bool = False

    def __post_init__(self) -> None:
        if min(self.horizon, self.candidates, self.elites, self.iterations) < 1 or not 0 <= self.momentum < 1:
            raise ConfigurationError(f"CEM wants horizon, candidates, elites, iterations >= 1 and 0 <= momentum < 1; got {self}")
        if self.elites > self.candidates:
            raise ConfigurationError(f"CEM wants elites <= candidates; got {self.elites} elites of {self.candidates} candidates")

    def plan(self, evaluate: Evaluate, warm_start: WarmStart, generator: torch.Generator | None = None) -> Plan:
        """Iterate sampling and refitting; each environment keeps its plan once its variance has converged."""
        box, mean = warm_start.box, warm_start.mean
        initial = (box.width.square() / 16).expand_as(mean)
        var, best = initial, mean
        best_score = torch.full(mean.shape[1:2], -torch.inf, dtype=mean.dtype)
        history: list[Iteration] = []
        dropped = candidates = 0
        active = torch.ones(mean.shape[1], dtype=torch.bool)
        for _ in range(self.iterations):
            sequences = self._sample(mean, var, warm_start, generator)
            scores = check_scores(evaluate(sequences), sequences)
            dropped += int((~scores.isfinite()).sum())
            candidates += scores.numel()
            top, index = scores.topk(self.elites, 1)
            chosen = pick(sequences, index)
            history.append(summarise(top))
            better = active & (top[:, 0] > best_score)
            best = torch.where(better[None, :, None], chosen[:, :, 0], best)
            best_score = torch.where(better, top[:, 0], best_score)
            new_mean, new_var = weighted_moments(chosen, top.isfinite())
            update = (active & top[:, 0].isfinite())[None, :, None]
            mean = torch.where(update, self.momentum * mean + (1 - self.momentum) * new_mean, mean)
            var = torch.where(update, self.momentum * var + (1 - self.momentum) * new_var, var)
            active = active & (var > 1e-3 * initial).flatten(2).any(-1).any(0)
            if not bool(active.any()):
                break
        failed = ~best_score.isfinite()
        actions = best if self.execute_best else mean
        score = best_score if self.execute_best else history[-1].elite_mean
        return Plan(
            actions, score, mean, best, best_score, replace(warm_start, mean=mean), failed, dropped, candidates, tuple(history)
        )

    def _sample(
        self, mean: Float[Tensor, "T B A"], var: Float[Tensor, "T B A"], warm_start: WarmStart, generator: torch.Generator | None
    ) -> Float[Tensor, "T B c A"]:
        box = warm_start.box
        shape = (self.horizon, 1, self.candidates, mean.shape[-1])
        if self.clip:
            noise = torch.randn(shape, generator=generator, dtype=mean.dtype)
            return box.clip(mean.unsqueeze(2) + var.sqrt().unsqueeze(2) * noise)
        noise = truncated_normal(shape, generator, mean.dtype)
        nearest = torch.minimum(mean - box.low, box.high - mean)
        std = torch.minimum(var.sqrt(), 0.5 * nearest)
        return box.clip(mean.unsqueeze(2) + std.unsqueeze(2) * noise)


def truncated_normal(shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype, bound: float = 2.0) -> Tensor:
    """Draw standard normals truncated to ±bound by inverting the distribution function (variance 0.774 at ±2).

    >>> float(truncated_normal((1000,), torch.Generator().manual_seed(0), torch.float64).abs().max()) <= 2.0
    True
    """
    tail = 0.5 * math.erfc(bound / math.sqrt(2))
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.special.ndtri(tail + (1 - 2 * tail) * uniform).clamp(-bound, bound).to(dtype)
