"""Planning by gradient ascent through the rollout, from several starts at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import private_generator
from bayesdyn.planners.base import Evaluate, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.search import Search, pick
from bayesdyn.planners.spaces import Box

# A start closer to a bound than this share of half the width is moved away from it, where tanh has next to no slope.
_FROM_BOUND = 0.01
_DECAYS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class GradientPlanner(Planner):
    """Adam on the actions of `starts` sequences, a = middle + half width · tanh(u), through the gradient of their scores.

    The starts are the warm start, the best of a random-shooting pass over `shooting` sequences, and random ones. The gradient of
    each start is clipped to a norm of `clip_norm`; one whose score or gradient is not finite goes back to where it was and stays
    there. The plan is the best sequence that was scored, the warm start among them. Scores have to carry a gradient: `MPC` sees to
    it for differentiable models and rewards. Fixed noise, as `MPC` has it, makes ascent meaningful (Adam: Kingma and Ba 2015,
    algorithm 1; one start, 5 steps and a rate of 0.01 in sebascuri/rllib `gradient_based_solver.py`).

    Raises `ConfigurationError` for impossible sizes.

    >>> from bayesdyn.planners import Box
    >>> planner = GradientPlanner(horizon=2, iterations=60)
    >>> plan = planner.plan(lambda a: -(a - 0.3).square().sum((0, 3)), planner.start(Box.of([-1.0], [1.0])))
    >>> [round(action, 2) for action in plan.actions.flatten().tolist()]
    [0.3, 0.3]
    """

    horizon: int = 25
    starts: int = 16
    iterations: int = 20
    rate: float = 0.05
    clip_norm: float = 1.0
    shooting: int = 64
    repeat_last: bool = True

    def __post_init__(self) -> None:
        if min(self.horizon, self.starts, self.iterations) < 1 or self.shooting < 0:
            raise ConfigurationError(f"GradientPlanner wants horizon, starts, iterations >= 1 and shooting >= 0; got {self}")
        if self.rate <= 0 or self.clip_norm <= 0:
            raise ConfigurationError(f"GradientPlanner wants a positive rate and clip_norm; got {self}")

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Score random sequences, then climb from the best, the warm start and others; the clock is looked at between steps.

        Raises `ConfigurationError` if the scores carry no gradient.
        """
        stream, search = private_generator(generator), Search(warm_start, budget)
        box = warm_start.space.box("GradientPlanner")
        climb = Climb(unsquash(self._starts(evaluate, search, box, stream), box))
        for i, _ in search.rounds([self.starts] * (self.iterations + 1), self.starts):
            climbing = i < self.iterations
            with torch.set_grad_enabled(climbing):
                at = climb.at.detach().requires_grad_()
                sequences = squash(at, box)
                scores = search.score(evaluate, sequences)
                slope = gradient(scores, at) if climbing else at
            search.rank(sequences.detach(), scores.detach(), 1)
            if climbing:
                climb.step(scores.detach(), slope, self.rate, self.clip_norm)
        return search.plan(search.best, execute_best=True)

    def _starts(self, evaluate: Evaluate, search: Search, box: Box, generator: torch.Generator) -> Float[Tensor, "T B s A"]:
        """Draw the starts, and score the warm start with the random sequences: if time is short the plan is not worse than it."""
        warm = search.warm_start.mean.unsqueeze(2)
        random = box.uniform((self.horizon, 1, self.shooting + self.starts), generator)
        random = random.expand(-1, warm.shape[1], -1, -1)
        starts = torch.cat([warm, random[:, :, self.shooting :]], 2)
        for _, count in search.rounds([1 + self.shooting] if self.shooting else [], 1):
            with torch.no_grad():
                sequences = torch.cat([warm, random[:, :, : count - 1]], 2)
                scores = search.score(evaluate, sequences)
            search.rank(sequences, scores, 1)
            best = pick(sequences, scores[:, -max(1, count - 1) :].argmax(1, keepdim=True) + min(1, count - 1))
            starts = torch.cat([warm, best, starts[:, :, 1:]], 2)
        return starts[:, :, : self.starts]


class Climb:
    """Adam over the starts of one plan: `at` [T, B, s, A] is where they are."""

    def __init__(self, at: Float[Tensor, "T B s A"]) -> None:
        self.at = self._before = at
        self._first = self._second = torch.zeros_like(at)
        self._going: Bool[Tensor, "B s"] = torch.ones(at.shape[1:3], dtype=torch.bool, device=at.device)
        self._steps = 0

    def step(self, scores: Float[Tensor, "B s"], slope: Float[Tensor, "T B s A"], rate: float, clip_norm: float) -> None:
        """Move uphill; where the score or its gradient is not finite, go back by one step for good."""
        sound = scores.isfinite() & slope.isfinite().all(-1).all(0)
        back = self._going & ~sound
        self._going = self._going & sound
        slope = torch.where(self._going[:, :, None], slope, 0.0)
        slope = slope * (clip_norm / slope.square().sum((0, 3)).sqrt().clamp_min(clip_norm))[:, :, None]
        self._steps += 1
        early, late = _DECAYS
        self._first = early * self._first + (1 - early) * slope
        self._second = late * self._second + (1 - late) * slope.square()
        mean = self._first / (1 - early**self._steps)
        size = (self._second / (1 - late**self._steps)).sqrt()
        ahead = torch.where(self._going[:, :, None], self.at + rate * mean / (size + _EPSILON), self.at)
        self.at, self._before = torch.where(back[:, :, None], self._before, ahead), self.at


def gradient(scores: Float[Tensor, "B s"], at: Float[Tensor, "T B s A"]) -> Float[Tensor, "T B s A"]:
    """Return the gradient of each score with respect to its own sequence; raises `ConfigurationError` where there is none."""
    slope = None
    if scores.requires_grad:
        (slope,) = torch.autograd.grad(torch.where(scores.isfinite(), scores, 0.0).sum(), at, allow_unused=True)
    if slope is None:
        raise ConfigurationError(
            "GradientPlanner wants scores that carry a gradient with respect to the actions; got scores without one: evaluate must "
            "not run under torch.no_grad or detach, and rewards must not be made of comparisons alone; else use CEM, ICEM or MPPI"
        )
    return slope


def squash(unbounded: Float[Tensor, "*batch A"], box: Box) -> Float[Tensor, "*batch A"]:
    """Return a = middle + half width · tanh(u).

    >>> squash(torch.tensor([0.0, 100.0]), Box.of([-1.0, -1.0], [3.0, 3.0])).tolist()
    [1.0, 3.0]
    """
    return box.clip(box.middle + box.width / 2 * unbounded.tanh())


def unsquash(actions: Float[Tensor, "*batch A"], box: Box) -> Float[Tensor, "*batch A"]:
    """Return the u of actions, of those 1 % away from the bounds where they are closer."""
    half = box.width / 2
    inner = torch.where(half > 0, (actions - box.middle) / torch.where(half > 0, half, 1.0), 0.0)
    return inner.clamp(_FROM_BOUND - 1, 1 - _FROM_BOUND).atanh()
