"""How a sequence of actions is searched: L-BFGS-B in the box, and an augmented Lagrangian around it where there are bounds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.gp_mpc.chance import Multipliers
from bayesdyn.gp_mpc.problem import BeliefProblem
from bayesdyn.planners import Box

Objective = Callable[[Tensor], Tensor]
"""actions [H, A] -> a scalar with a gradient."""

_LINE_SEARCH = 10
# A round that leaves more than this share of the gap makes passing a bound dearer.
_PROGRESS, _DEARER = 0.25, 4.0


class Found(NamedTuple):
    """The best sequence met, its J, how often that was evaluated, and by how much it passes a bound, whose multipliers it keeps."""

    actions: Float[Tensor, "H A"]
    value: float
    evaluations: int
    violation: float = 0.0
    multipliers: Multipliers | None = None


@runtime_checkable
class Search(Protocol):
    """How sequences are searched: `BoxSearch` or `ILQR`. Bounds may be passed by `slack`."""

    @property
    def slack(self) -> float:
        """By how much."""

    def solve(self, problem: BeliefProblem, start: Float[Tensor, "H A"], box: Box, multipliers: Multipliers | None = None) -> Found:
        """Return the best sequence for a problem, from a start; raises `NumericalError` if the problem fails there."""


@dataclass(frozen=True)
class BoxSearch:
    """At most about `evaluations` values and gradients of L-BFGS-B, in units of half the box; with bounds, that many per round.

    It ends early when a step gains less than `tolerance` of the value, or no projected gradient exceeds `slope`. Where the
    objective fails, a hill sends the line search back. With bounds an augmented Lagrangian is minimised, at most `rounds` times,
    until none is passed by more than `slack`.

    Raises `ConfigurationError` for counts below 1 or a negative tolerance. Source: Byrd, Lu, Nocedal & Zhu 1995.

    >>> found = BoxSearch().minimise(lambda u: (u - 2.0).square().sum(), torch.zeros(3, 1).double(), Box.of([-1.0], [1.0]))
    >>> found.actions.flatten().tolist()
    [1.0, 1.0, 1.0]
    """

    evaluations: int = 25
    tolerance: float = 1e-6
    slope: float = 1e-6
    rounds: int = 8
    slack: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.evaluations, self.rounds) < 1 or min(self.tolerance, self.slope, self.slack) < 0:
            raise ConfigurationError(f"BoxSearch wants evaluations, rounds >= 1 and no negative tolerance; got {self}")

    def solve(self, problem: BeliefProblem, start: Float[Tensor, "H A"], box: Box, multipliers: Multipliers | None = None) -> Found:
        """Return the best sequence for a problem, from a start; `multipliers` are what is known of its bounds.

        Raises `NumericalError` if the problem fails at the start.
        """

        def descend(start: Tensor, known: Multipliers | None) -> Found:
            return self.minimise(partial(problem.penalised, multipliers=known), start, box)

        return keep_bounds(descend, problem, start, multipliers, self.rounds, self.slack)

    def minimise(self, objective: Objective, start: Float[Tensor, "H A"], box: Box) -> Found:
        """Return the best sequence met, never worse than the start, which is clipped into the box.

        Raises `NumericalError` if the objective fails at the start.
        """
        middle, half = (bound.to(start) for bound in (box.middle, 0.5 * box.width))
        scale = torch.where(half > 0, half, 1.0)
        limit = torch.where(half > 0, 1.0, 0.0).expand(start.shape).flatten().tolist()

        def place(point: np.ndarray) -> Tensor:
            return middle + scale * torch.from_numpy(point).reshape(start.shape)

        def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
            actions = place(point).requires_grad_()
            with torch.enable_grad():
                value = objective(actions)
                (slope,) = torch.autograd.grad(value, actions)
            return float(value.detach()), (slope * scale).flatten().numpy()

        hill = _Hill(evaluate, ((box.clip(start) - middle) / scale).flatten().numpy())
        options = {"maxfun": self.evaluations, "maxls": _LINE_SEARCH, "ftol": self.tolerance, "gtol": self.slope}
        # Threads of the linear algebra behind SciPy only get in the way: its steps are tiny.
        with threadpool_limits(limits=1, user_api="blas"):
            minimize(hill, hill.point, jac=True, method="L-BFGS-B", bounds=[(-b, b) for b in limit], options=options)
        return Found(box.clip(place(hill.point)), hill.value, hill.evaluations)


def keep_bounds(
    descend: Callable[[Tensor, Multipliers | None], Found],
    problem: BeliefProblem,
    start: Float[Tensor, "H A"],
    multipliers: Multipliers | None,
    rounds: int,
    slack: float,
) -> Found:
    """Return what `descend` finds or, where there are bounds, what rounds of it do under ever better multipliers.

    Raises what `descend` does.
    """
    if not problem.bounds:
        return descend(start, None)
    known = multipliers or Multipliers.none(len(problem.bounds), len(start))
    evaluations, gap = 0, math.inf
    for _ in range(rounds):
        found = descend(start, known)
        start, evaluations = found.actions, evaluations + found.evaluations
        with torch.no_grad():
            path = problem.beliefs(start)
            excess, value = problem.excess(path), float(problem.value(start, path))
        # 0 where the bounds hold and only those that are met with equality have a multiplier.
        before, gap = gap, float(torch.maximum(excess, -known.values / known.weight).abs().max())
        known = known.updated(excess, 1.0 if gap < _PROGRESS * before else _DEARER)
        if gap <= slack:
            break
    return Found(start, value, evaluations, float(excess.max()), known)


class _Hill:
    """An objective that remembers its best point and rises away from it wherever it fails.

    At best + d, with slope m = gᵀd at the best point, a failure is worth f + |m| with gradient |m| d/|d|²: a line search then goes
    back to about d/4.
    """

    def __init__(self, objective: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> None:
        self.objective, self.evaluations, self.point = objective, 0, start
        found = self._try(start)
        if found is None:
            raise NumericalError("the expected cost is not finite at the first sequence of actions: the belief explodes under it")
        self.value, self.gradient = found

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        if np.array_equal(point, self.point):
            return self.value, self.gradient.copy()
        found = self._try(point)
        if found is None:
            step = point - self.point
            rise = abs(float(self.gradient @ step))
            return self.value + rise, rise * step / (step @ step)
        if found[0] < self.value:
            self.point, (self.value, self.gradient) = point.copy(), found
        return found

    def _try(self, point: np.ndarray) -> tuple[float, np.ndarray] | None:
        self.evaluations += 1
        try:
            value, gradient = self.objective(point.copy())
        except NumericalError:
            return None
        return (value, gradient) if math.isfinite(value) and bool(np.isfinite(gradient).all()) else None
