"""How a sequence of actions is searched where open-loop plans fall: by feedback along the way, `ILQR`."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_dynamics import Belief
from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.gp_mpc.chance import Multipliers
from bayesdyn.gp_mpc.path import Decide, Walk
from bayesdyn.gp_mpc.problem import BeliefProblem
from bayesdyn.gp_mpc.regulator import modelled
from bayesdyn.gp_mpc.search import Found, keep_bounds
from bayesdyn.planners import Box

_SHARES = (1.0, 0.4, 0.1)
# Damping goes no lower than this, and no higher than so many times what it began with.
_LEAST, _MOST = 1e-3, 2e4


@dataclass(frozen=True)
class ILQR:
    """At most `evaluations` walks of the iterative linear-quadratic regulator, in the box; with bounds, that many per round.

    Each round of it solves the `LinearQuadraticModel` around the last walk and goes its way with feedback: from the action of the
    last walk a share of the step, and K_t times what the mean is away from the last walk's. So an unstable system stays near the
    walk that the model is true of, where open-loop searches meet it fallen. `damping`, in units of J per (half the box)², is
    where it begins, less after a full step and more after none. It ends early when a step gains less than `tolerance` of the value.
    Bounds are kept as by `BoxSearch`.

    Raises `ConfigurationError` for counts below 1, a negative tolerance or a damping that is not positive.
    Source: Li & Todorov, ICINCO 2004; Tassa, Mansard & Todorov, ICRA 2014 (limits); van den Berg, Patil & Alterovitz, IJRR 2012
    (beliefs).

    >>> ILQR(evaluations=20).damping
    0.05
    """

    evaluations: int = 10
    tolerance: float = 1e-4
    damping: float = 0.05
    rounds: int = 8
    slack: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.evaluations, self.rounds) < 1 or min(self.tolerance, self.slack) < 0 or not self.damping > 0:
            raise ConfigurationError(f"ILQR wants evaluations, rounds >= 1, damping > 0 and no negative tolerance; got {self}")

    def solve(self, problem: BeliefProblem, start: Float[Tensor, "H A"], box: Box, multipliers: Multipliers | None = None) -> Found:
        """Return the best sequence for a problem, from a start; `multipliers` are what is known of its bounds.

        Raises `NumericalError` if the problem fails at the start, `ShapeError` for a start that is no single sequence.
        """
        if start.dim() != 2 or start.shape[-1] != box.size:
            raise ShapeError(f"ILQR wants a start of shape [H, {box.size}]; got {list(start.shape)}")
        return keep_bounds(partial(self._descend, problem, box), problem, start, multipliers, self.rounds, self.slack)

    def _descend(self, problem: BeliefProblem, box: Box, start: Float[Tensor, "H A"], multipliers: Multipliers | None) -> Found:
        half = 0.5 * box.width.numpy()
        best = _Tried.of(problem, box, multipliers, lambda t, mean: start[t].numpy(), len(start))
        if best is None:
            raise NumericalError("the expected cost is not finite at the first sequence of actions: the belief explodes under it")
        evaluations, damping, model = 1, self.damping, modelled(problem, best.walk, box, multipliers)
        while evaluations < self.evaluations and damping <= _MOST * self.damping:
            change = model.change(damping)
            if change.fall < self.tolerance * abs(best.value):
                break
            before, steps, gains = best, half * change.step, half[:, None] * change.gains
            for share in _SHARES[: self.evaluations - evaluations]:
                tried = _Tried.of(problem, box, multipliers, partial(_back_to, before.walk, share * steps, gains), len(start))
                evaluations += 1
                if tried is not None and tried.value < before.value:
                    best, model = tried, modelled(problem, tried.walk, box, multipliers)
                    break
            if best is before:
                damping *= 10
                continue
            if share == 1.0:
                damping = min(damping, max(damping / 4, _LEAST))
            if before.value - best.value < self.tolerance * abs(best.value):
                break
        return Found(torch.from_numpy(best.walk.actions.copy()), best.value, evaluations)


def _back_to(walk: Walk, steps: np.ndarray, gains: np.ndarray, t: int, mean: np.ndarray) -> np.ndarray:
    """Return the action that goes back to a walk, and on by a step."""
    return walk.actions[t] + steps[t] + gains[t] @ (mean - walk.mean[t])


class _Tried(NamedTuple):
    """A walk and what it costs."""

    walk: Walk
    value: float

    @classmethod
    def of(cls, problem: BeliefProblem, box: Box, multipliers: Multipliers | None, decide: Decide, horizon: int) -> "_Tried | None":
        """Return the walk of a way to decide, None where beliefs explode."""
        try:
            walk = problem.walk(decide, box, horizon)
            path = Belief(torch.from_numpy(walk.mean), torch.from_numpy(walk.cov))
            with torch.no_grad():
                value = float(problem.worth(torch.from_numpy(walk.actions), path, multipliers))
        except NumericalError:
            return None
        return cls(walk, value) if math.isfinite(value) else None
