"""What planners that search by candidates share: scoring, elites, and the record of the best so far."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.errors import ShapeError
from bayesdyn.planners.base import Evaluate, Iteration, Plan, WarmStart


class Elites(NamedTuple):
    """The k best candidates, best first; mean and population variance are over those with finite scores.

    `found` is false where there are none, or where the environment's search is over: nothing is to be learned from these elites.
    """

    sequences: Float[Tensor, "T B k A"]
    scores: Float[Tensor, "B k"]
    mean: Float[Tensor, "T B A"]
    var: Float[Tensor, "T B A"]
    found: Bool[Tensor, "B"]

    def update(self, old: Float[Tensor, "T B A"], new: Float[Tensor, "T B A"], momentum: float = 0.0) -> Float[Tensor, "T B A"]:
        """Return α old + (1 - α) new with α the momentum, and `old` where no elites were found."""
        return torch.where(self.found[:, None], momentum * old + (1 - momentum) * new, old)


class Search:
    """The record of one plan in the making: candidates scored, what they were worth, the best of each environment."""

    def __init__(self, warm_start: WarmStart) -> None:
        self.warm_start = warm_start
        self.best = warm_start.mean
        self.best_score = torch.full_like(warm_start.mean[0, :, 0], -torch.inf)
        self.elite_score = self.best_score
        self.history: list[Iteration] = []
        self.dropped = self.candidates = 0

    def score(self, evaluate: Evaluate, sequences: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
        """Score candidates, -inf where the score is not finite; raises `ShapeError` unless `evaluate` returns [B, c]."""
        scores = evaluate(sequences)
        if scores.shape != sequences.shape[1:3]:
            raise ShapeError(f"evaluate must return scores [B, c] = {list(sequences.shape[1:3])}; got {list(scores.shape)}")
        finite = scores.isfinite()
        self.candidates += finite.numel()
        self.dropped += int((~finite).sum())
        return torch.where(finite, scores, -torch.inf)

    def rank(
        self, sequences: Float[Tensor, "T B c A"], scores: Float[Tensor, "B c"], k: int, active: Bool[Tensor, "B"] | None = None
    ) -> Elites:
        """Take the k best candidates and keep the best of all; environments that are not `active` keep what they have."""
        top, index = scores.topk(k, 1)
        chosen, finite = pick(sequences, index), top.isfinite()
        found = finite[:, 0] if active is None else finite[:, 0] & active
        summary = summarise(top)
        self.history.append(summary)
        self.elite_score = torch.where(found, summary.elite_mean, self.elite_score)
        better = found & (top[:, 0] > self.best_score)
        self.best = torch.where(better[:, None], chosen[:, :, 0], self.best)
        self.best_score = torch.where(better, top[:, 0], self.best_score)
        mean, var = weighted_moments(chosen, finite)
        return Elites(chosen, top, mean, var, found)

    def plan(self, mean: Float[Tensor, "T B A"], *, execute_best: bool, elites: Tensor | None = None) -> Plan:
        """Return the plan that ends the search at `mean`."""
        # Averages of numbers in the box may leave it by a rounding.
        mean = self.warm_start.box.clip(mean)
        return Plan(
            actions=self.best if execute_best else mean,
            score=self.best_score if execute_best else self.elite_score,
            mean=mean,
            best=self.best,
            best_score=self.best_score,
            warm_start=replace(self.warm_start, mean=mean, elites=elites, stale=0),
            failed=~self.best_score.isfinite(),
            dropped=self.dropped,
            candidates=self.candidates,
            iterations=tuple(self.history),
        )


def pick(sequences: Float[Tensor, "T B c A"], index: Int[Tensor, "B k"]) -> Float[Tensor, "T B k A"]:
    """Gather candidates by index."""
    T, _, _, A = sequences.shape
    return sequences.gather(2, index[None, :, :, None].expand(T, *index.shape, A))


def weighted_moments(
    elites: Float[Tensor, "T B k A"], finite: Bool[Tensor, "B k"]
) -> tuple[Float[Tensor, "T B A"], Float[Tensor, "T B A"]]:
    """Return mean and population variance over the elites with finite scores; zeros where there are none."""
    weight = finite.to(elites.dtype)[None, :, :, None]
    count = weight.sum(2).clamp_min(1.0)
    mean = (elites * weight).sum(2) / count
    return mean, ((elites - mean.unsqueeze(2)).square() * weight).sum(2) / count


def summarise(scores: Float[Tensor, "B k"]) -> Iteration:
    """Describe elite scores, best first, -inf where dropped: all is -inf, with no spread, where none is left."""
    finite = scores.isfinite()
    count = finite.sum(1)
    kept = torch.where(finite, scores, 0.0)
    mean = kept.sum(1) / count.clamp_min(1)
    spread = torch.where(finite, (kept - mean.unsqueeze(1)).square(), 0.0).sum(1) / count.clamp_min(1)
    return Iteration(scores[:, 0], torch.where(count > 0, mean, -torch.inf), spread.sqrt())
