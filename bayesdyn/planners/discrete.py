"""What planners of discrete actions share: categorical distributions over sequences, drawn from and learned from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.planners.base import Plan, Planner, WarmStart, follow
from bayesdyn.planners.search import Search
from bayesdyn.planners.spaces import ActionSpace, Choices


class DiscretePlanner(Planner):
    """A planner that carries category probabilities P [T, B, A, M] from step to step; its mean sequence is the most likely one."""

    def accept(self, space: ActionSpace) -> None:
        """Raise `ConfigurationError` unless the space is `Choices`."""
        space.choices(type(self).__name__)

    def start(self, space: ActionSpace, batch: int = 1) -> WarmStart:
        """Return the state of a new episode: all categories equally likely."""
        blank = super().start(space, batch)
        uniform = uniform_probabilities(space.choices(type(self).__name__))
        return replace(blank, probabilities=uniform.expand(self.horizon, batch, *uniform.shape).clone())

    def shift(self, warm_start: WarmStart, steps: int = 1) -> WarmStart:
        """Return the warm start after `steps` executed actions, its end filled as `repeat_last` says."""
        moved = super().shift(warm_start, steps)
        choices = warm_start.space.choices(type(self).__name__)
        table = _probabilities(warm_start, choices)
        last = table[-1] if self.repeat_last else uniform_probabilities(choices).expand_as(table[-1])
        return replace(moved, probabilities=follow(table, last, min(steps, self.horizon))[min(steps, self.horizon) :])


@dataclass(frozen=True)
class Table:
    """Category probabilities in the making of one plan; the environments that learned nothing keep what they had."""

    choices: Choices
    probabilities: Float[Tensor, "T B A M"]

    @classmethod
    def begin(cls, warm_start: WarmStart, planner: str, reset: float) -> "Table":
        """Start from the warm start with a share `reset` of uniform mixed in."""
        choices = warm_start.space.choices(planner)
        return cls(choices, _mixed(_probabilities(warm_start, choices), choices, reset))

    @property
    def most_likely(self) -> Float[Tensor, "T B A"]:
        """The sequence of the most likely categories."""
        return self.probabilities.argmax(-1).to(self.probabilities.dtype)

    def sample(self, count: int, mix: float, stickiness: float, generator: torch.Generator) -> Float[Tensor, "T B c A"]:
        """Draw sequences, a share `mix` of each action uniformly."""
        return sample_choices(_mixed(self.probabilities, self.choices, mix), count, stickiness, self.choices, generator)

    def learn(
        self, sequences: Float[Tensor, "T B c A"], weights: Float[Tensor, "B c"], found: Bool[Tensor, "B"], momentum: float = 0.0
    ) -> "Table":
        """Return P <- αP + (1-α) weighted frequencies, with α the momentum."""
        new = frequencies(sequences, weights, self.choices.most)
        new = momentum * self.probabilities + (1 - momentum) * new
        return replace(self, probabilities=torch.where(found[:, None, None], new, self.probabilities))

    def plan(self, search: Search, *, execute_best: bool, elites: Float[Tensor, "T B k A"] | None = None) -> Plan:
        """Return the plan that ends the search here; where nothing was found, of the warm start as it was."""
        before, failed = search.warm_start, ~search.best_score.isfinite()
        mean = torch.where(failed[:, None], before.mean, self.most_likely)
        kept = torch.where(failed[:, None, None], _probabilities(before, self.choices), self.probabilities)
        plan = search.plan(mean, execute_best=execute_best, elites=elites)
        return replace(plan, warm_start=replace(plan.warm_start, probabilities=kept))


def _probabilities(warm_start: WarmStart, choices: Choices) -> Float[Tensor, "T B A M"]:
    if warm_start.probabilities is not None:
        return warm_start.probabilities
    uniform = uniform_probabilities(choices)
    return uniform.expand(*warm_start.mean.shape[:2], *uniform.shape)


def _mixed(probabilities: Float[Tensor, "T B A M"], choices: Choices, share: float) -> Float[Tensor, "T B A M"]:
    return (1 - share) * probabilities + share * uniform_probabilities(choices)


def uniform_probabilities(choices: Choices) -> Float[Tensor, "A M"]:
    """Return 1/size for the categories that a factor has, 0 for the rest of the table.

    >>> uniform_probabilities(Choices.of([2, 4])).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]
    """
    there = torch.arange(choices.most, device=choices.sizes.device) < choices.sizes[:, None]
    return there / choices.sizes[:, None]


def sample_choices(
    probabilities: Float[Tensor, "T B A M"], count: int, stickiness: float, choices: Choices, generator: torch.Generator
) -> Float[Tensor, "T B c A"]:
    """Draw sequences by inverting the distribution function; each action repeats the one before it with probability `stickiness`.

    All environments share the uniform numbers, so that the sequences of one do not depend on the others.
    """
    horizon, _, factors, _ = probabilities.shape
    unit = torch.rand((2, horizon, 1, count, factors), generator=generator, dtype=torch.float64, device=generator.device)
    unit = unit.to(probabilities.device)
    levels = probabilities.double().cumsum(-1).unsqueeze(2)
    drawn = choices.clip((unit[0].unsqueeze(-1) * levels[..., -1:] >= levels).sum(-1).to(probabilities.dtype))
    fresh = unit[1] >= stickiness
    fresh[0] = True
    steps = torch.arange(horizon, device=fresh.device)[:, None, None, None]
    source = torch.where(fresh, steps, 0).cummax(0).values
    return drawn.gather(0, source.expand_as(drawn))


def frequencies(sequences: Float[Tensor, "T B c A"], weights: Float[Tensor, "B c"], most: int) -> Float[Tensor, "T B A M"]:
    """Return the weighted frequency of each category, Σ_i w_i [x_i = m].

    >>> frequencies(torch.tensor([[[[0.0], [2.0]]]]), torch.tensor([[0.25, 0.75]]), 3).flatten().tolist()
    [0.25, 0.0, 0.75]
    """
    shape = (*sequences.shape[:2], sequences.shape[3], most)
    index = sequences.movedim(2, -1).long()
    spread = weights[None, :, None, :].expand(index.shape)
    return torch.zeros(shape, dtype=weights.dtype, device=weights.device).scatter_add(-1, index, spread)
