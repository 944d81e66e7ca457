"""Random shooting: uniform sequences, the best one wins."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners.base import Evaluate, Plan, Planner, WarmStart, check_scores, pick, summarise


@dataclass(frozen=True)
class RandomShooting(Planner):
    """argmax over `candidates` sequences drawn uniformly from the box (Nagabandi et al. 2018, section IV-C).

    `hold` repeats each sampled action for that many steps.

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

    def plan(self, evaluate: Evaluate, warm_start: WarmStart, generator: torch.Generator | None = None) -> Plan:
        """Score the candidates and return the best."""
        box, batch = warm_start.box, warm_start.mean.shape[1]
        knots = -(-self.horizon // self.hold)
        uniform = torch.rand(knots, 1, self.candidates, len(box.low), generator=generator, dtype=box.low.dtype)
        sequences = (box.low + box.width * uniform).repeat_interleave(self.hold, 0)[: self.horizon]
        sequences = sequences.expand(-1, batch, -1, -1)
        scores = check_scores(evaluate(sequences), sequences)
        best_score, index = scores.max(1)
        best = pick(sequences, index.unsqueeze(1)).squeeze(2)
        failed = ~best_score.isfinite()
        actions = torch.where(failed[None, :, None], warm_start.mean, best)
        return Plan(
            actions=actions,
            score=best_score,
            mean=actions,
            best=actions,
            best_score=best_score,
            warm_start=replace(warm_start, mean=actions),
            failed=failed,
            dropped=int((~scores.isfinite()).sum()),
            candidates=scores.numel(),
            iterations=(summarise(_top(scores, max(1, self.candidates // 10))),),
        )


def _top(scores: Tensor, k: int) -> Tensor:
    return scores.topk(k, 1).values
