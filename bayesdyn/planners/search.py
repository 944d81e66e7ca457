"""What planners that search by candidates share: scoring, elites, and the record of the best so far."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.errors import ShapeError
from bayesdyn.planners.base import Evaluate, Iteration, Plan, WarmStart
from bayesdyn.planners.budget import Budget


class Elites(NamedTuple):
    """The k best candidates, best first; weights, mean and population variance are over those with finite scores.

    `found` is false where there are none, or where the environment's search is over: nothing is to be learned from these elites.
    """

    sequences: Float[Tensor, "T B k A"]
    scores: Float[Tensor, "B k"]
    weights: Float[Tensor, "B k"]
    mean: Float[Tensor, "T B A"]
    var: Float[Tensor, "T B A"]
    found: Bool[Tensor, "B"]

    def update(self, old: Float[Tensor, "T B A"], new: Float[Tensor, "T B A"], momentum: float = 0.0) -> Float[Tensor, "T B A"]:
        """Return α old + (1 - α) new with α the momentum, and `old` where no elites were found."""
        return torch.where(self.found[:, None], momentum * old + (1 - momentum) * new, old)


class Search:
    """The record of one plan in the making: candidates scored, what they were worth, the best of each environment."""

    def __init__(self, warm_start: WarmStart, budget: Budget | None = None) -> None:
        self.warm_start = warm_start
        self.budget = budget or Budget()
        self.budget.begin()
        self._started = self.budget.elapsed
        self.best = warm_start.mean
        self.best_score = torch.full_like(warm_start.mean[0, :, 0], -torch.inf)
        self.elite_score = self.best_score
        self.history: list[Iteration] = []
        self.dropped = self.candidates = self._unscored = 0

    def rounds(self, wanted: Sequence[int], least: int) -> Iterator[tuple[int, int]]:
        """Yield each iteration's index and its number of candidates: as `wanted`, or what the budget leaves of that."""
        for i in range(len(wanted)):
            count = self.budget.allow(wanted[i:], least)
            if count == 0:
                return
            yield i, count

    def score(self, evaluate: Evaluate, sequences: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
        """Score candidates from the first on, -inf where the score is not finite and where the budget left no time for one.

        Raises `ShapeError` unless `evaluate` returns [B, c].
        """
        count = sequences.shape[2]
        parts = [self._score(evaluate, sequences[:, :, part]) for part in self.budget.chunks(count)]
        scores = torch.cat(parts, 1)
        self._unscored = count - scores.shape[1]
        return torch.nn.functional.pad(scores, (0, self._unscored), value=-torch.inf)

    def _score(self, evaluate: Evaluate, sequences: Float[Tensor, "T B c A"]) -> Float[Tensor, "B c"]:
        scores = evaluate(sequences)
        if scores.shape != sequences.shape[1:3]:
            raise ShapeError(f"evaluate must return scores [B, c] = {list(sequences.shape[1:3])}; got {list(scores.shape)}")
        scores = scores.to(sequences.dtype)
        finite = scores.isfinite()
        self.candidates += finite.numel()
        self.dropped += int((~finite).sum())
        return torch.where(finite, scores, -torch.inf)

    def share(self, k: int, count: int) -> int:
        """Return how many of `count` candidates to learn from: k, but half of those that were scored if time ran out."""
        return min(k, max(1, (count - self._unscored) // 2)) if self._unscored else k

    def rank(
        self, sequences: Float[Tensor, "T B c A"], scores: Float[Tensor, "B c"], k: int, active: Bool[Tensor, "B"] | None = None
    ) -> Elites:
        """Take the k best candidates and keep the best of all; environments that are not `active` keep what they have."""
        top, index = scores.topk(k, 1)
        top = torch.where(torch.arange(k, device=top.device) < self.share(k, scores.shape[1]), top, -torch.inf)
        chosen, finite = pick(sequences, index), top.isfinite()
        weights = finite.to(top.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        found = self.record(chosen, top, weights, active)
        mean, var = weighted_moments(chosen, finite)
        return Elites(chosen, top, weights, mean, var, found)

    def record(
        self,
        sequences: Float[Tensor, "T B c A"],
        scores: Float[Tensor, "B c"],
        weights: Float[Tensor, "B c"],
        active: Bool[Tensor, "B"] | None = None,
    ) -> Bool[Tensor, "B"]:
        """Note what an iteration learned from, and the best of all; return where it found anything, among `active` environments."""
        top, index = scores.max(1)
        found = top.isfinite() if active is None else top.isfinite() & active
        summary = summarise(scores, weights)
        self.history.append(summary)
        self.elite_score = torch.where(found, summary.elite_mean, self.elite_score)
        better = found & (top > self.best_score)
        self.best = torch.where(better[:, None], pick(sequences, index[:, None])[:, :, 0], self.best)
        self.best_score = torch.where(better, top, self.best_score)
        return found

    def plan(self, mean: Float[Tensor, "T B A"], *, execute_best: bool, elites: Tensor | None = None) -> Plan:
        """Return the plan that ends the search at `mean`."""
        # Averages of numbers in the box may leave it by a rounding.
        mean = self.warm_start.space.clip(mean)
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
            seconds=self.budget.elapsed - self._started,
        )


def pick(sequences: Float[Tensor, "T B c A"], index: Int[Tensor, "B k"]) -> Float[Tensor, "T B k A"]:
    """Gather candidates by index."""
    T, _, _, A = sequences.shape
    return sequences.gather(2, index[None, :, :, None].expand(T, *index.shape, A))


def carry(elites: Float[Tensor, "T B r A"], stale: int, fresh: Float[Tensor, "T B c A"]) -> Float[Tensor, "T B r A"]:
    """Fill the `stale` last steps of the previous step's elites from fresh sequences."""
    ready = len(elites) - stale
    return torch.cat([elites[:ready], fresh[ready:, :, : elites.shape[2]]])


def weighted_mean(sequences: Float[Tensor, "T B c A"], weights: Float[Tensor, "B c"]) -> Float[Tensor, "T B A"]:
    """Return Σ w x over the candidates."""
    return torch.einsum("bc,tbca->tba", weights, sequences)


def weighted_moments(
    elites: Float[Tensor, "T B k A"], finite: Bool[Tensor, "B k"]
) -> tuple[Float[Tensor, "T B A"], Float[Tensor, "T B A"]]:
    """Return mean and population variance over the elites with finite scores; zeros where there are none."""
    weight = finite.to(elites.dtype)[None, :, :, None]
    count = weight.sum(2).clamp_min(1.0)
    mean = (elites * weight).sum(2) / count
    return mean, ((elites - mean.unsqueeze(2)).square() * weight).sum(2) / count


def summarise(scores: Float[Tensor, "B c"], weights: Float[Tensor, "B c"]) -> Iteration:
    """Describe scores, -inf where dropped, by weights that are zero there: all is -inf, with no spread, where none is left."""
    found = weights.sum(1) > 0
    kept = torch.where(weights > 0, scores, 0.0)
    mean = (weights * kept).sum(1)
    spread = (weights * (kept - mean.unsqueeze(1)).square()).sum(1)
    effective = torch.where(found, 1 / weights.square().sum(1).clamp_min(torch.finfo(weights.dtype).tiny), 0.0)
    return Iteration(scores.amax(1), torch.where(found, mean, -torch.inf), spread.sqrt(), effective)
