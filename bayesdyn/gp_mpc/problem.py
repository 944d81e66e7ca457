"""What GP-MPC minimises: the expected cost of the beliefs that a sequence of actions leads to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_dynamics import Belief, BeliefDynamics
from bayesdyn.beliefs import MomentMap
from bayesdyn.errors import NumericalError
from bayesdyn.gp_mpc.chance import ChanceBound, Multipliers
from bayesdyn.gp_mpc.path import Along, Decide, Walk, check_gains, matched
from bayesdyn.moments import Cost
from bayesdyn.planners import Box


@dataclass(frozen=True)
class BeliefProblem:
    r"""J(u_0..u_{H-1}) = Σ_{t=1..H} γ^t [E c(a_t) + c_u(u_{t-1})] + γ^H E c_H(a_H), a_t the lifted state under N(μ_t, Σ_t).

    The beliefs are those `along` the actions from the `start`, [S] and [S, S]: `matched`, or `certainty_equivalent`. With `gains` K
    they are those under u_t + K_t(s_t - μ_t): plans that count on being corrected on the way, as they will be; what corrections
    cost, and that they too have limits, is left aside. `cost` c and
    `final_cost` c_H are moment maps of the lifted state, `action_cost` c_u a cost of the action. `bounds` should hold at t = 1..H.
    Evaluated for sequences [H, ..., A], all batch axes in one pass; differentiable.

    Source: Kamthe & Deisenroth, AISTATS 2018, sections 2-3.

    >>> from bayesdyn.moments import Linear, QuadraticCost
    >>> drift = BeliefDynamics(Linear([[1.0]]), state_size=1, action_size=1, inputs=[1])
    >>> problem = BeliefProblem(drift, QuadraticCost([0.0], [[1.0]]), Belief(torch.ones(1), torch.zeros(1, 1)))
    >>> problem(torch.tensor([[1.0], [-2.0]])).item()
    4.0
    """

    dynamics: BeliefDynamics
    cost: MomentMap
    start: Belief
    discount: float = 1.0
    action_cost: Cost | None = None
    final_cost: MomentMap | None = None
    bounds: tuple[ChanceBound, ...] = ()
    along: Along = matched
    gains: Float[Tensor, "H A S"] | None = None

    def __call__(self, actions: Float[Tensor, "H *batch A"]) -> Float[Tensor, "*batch"]:
        """Return J, the bounds left aside; raises `NumericalError` where a belief explodes."""
        return self.value(actions, self.beliefs(actions))

    def beliefs(self, actions: Float[Tensor, "H *batch A"]) -> Belief:
        """Return the beliefs at t = 0..H, mean [H+1, ..., S] and cov [H+1, ..., S, S]."""
        return self.along(self.dynamics, self.start, actions, self.gains)

    def walk(self, decide: Decide, box: Box, horizon: int) -> Walk:
        """Return the beliefs under actions that are decided on the way, in the box, with all that derivatives need.

        Raises `ShapeError` for gains of another shape.
        """
        low, high, size = box.low.numpy(), box.high.numpy(), self.start.mean.shape[-1]
        check_gains(self.gains, horizon, box.size, size)
        gains = np.zeros((horizon, box.size, size)) if self.gains is None else self.gains.detach().numpy()
        return self.along.walk(self.dynamics, self.start, lambda t, mean: np.clip(decide(t, mean), low, high), gains)

    def kept_to(self, actions: Float[Tensor, "H A"], means: Float[Tensor, "H1 S"], box: Box) -> Float[Tensor, "H A"]:
        """Return the actions that the gains make of these, when the means begin elsewhere and the gains lead back to `means`."""
        if self.gains is None:
            return actions
        wanted, gains = actions.numpy(), self.gains.numpy()

        def decide(t: int, mean: np.ndarray) -> np.ndarray:
            return wanted[t] + gains[t] @ apart(torch.from_numpy(mean), means[t], self.dynamics.angles).numpy()

        return torch.from_numpy(self.walk(decide, box, len(actions)).actions)

    def value(self, actions: Float[Tensor, "H *batch A"], path: Belief) -> Float[Tensor, "*batch"]:
        """Return J of actions that lead along these beliefs."""
        stage, _ = self.stage_costs(path)
        if self.action_cost is not None:
            stage = stage + self.action_cost(actions)
        weight = self.discount ** torch.arange(1, len(actions) + 1, dtype=stage.dtype)
        total = torch.tensordot(weight, stage, 1)
        if self.final_cost is not None:
            lifted = self.dynamics.lift.moments(path.mean[-1], path.cov[-1])
            total = total + weight[-1] * self.final_cost.moments(lifted.mean, lifted.cov).mean[..., 0]
        return total

    def stage_costs(self, path: Belief) -> tuple[Float[Tensor, "H *batch"], Float[Tensor, "H *batch"]]:
        """Return mean and variance of c at t = 1..H, all steps in one call."""
        lifted = self.dynamics.lift.moments(path.mean[1:], path.cov[1:])
        mean, cov, _ = self.cost.moments(lifted.mean, lifted.cov)
        return mean[..., 0], cov[..., 0, 0]

    def excess(self, path: Belief) -> Float[Tensor, "K H *batch"]:
        """Return by how much each bound is passed at t = 1..H; at most 0 where it holds."""
        later = Belief(path.mean[1:], path.cov[1:])
        return torch.stack([bound.excess(later) for bound in self.bounds])

    def scores(self, actions: Float[Tensor, "H c A"], multipliers: Multipliers | None = None) -> Float[Tensor, "c"]:
        """Return J of c sequences, and what their excesses cost, without a gradient; +inf where it is not finite."""
        with torch.no_grad():
            try:
                value = self.penalised(actions, multipliers)
            except NumericalError:
                # One belief that explodes takes its batch with it.
                value = torch.stack([self._alone(sequence, multipliers) for sequence in actions.unbind(1)])
        return torch.where(value.isfinite(), value, torch.inf)

    def penalised(self, actions: Float[Tensor, "H *batch A"], multipliers: Multipliers | None) -> Float[Tensor, "*batch"]:
        """Return J plus what passing the bounds costs; without multipliers J alone."""
        return self.worth(actions, self.beliefs(actions), multipliers)

    def worth(self, actions: Float[Tensor, "H *batch A"], path: Belief, multipliers: Multipliers | None) -> Float[Tensor, "*batch"]:
        """Return J plus what passing the bounds costs, of actions that lead along these beliefs."""
        value = self.value(actions, path)
        return value if multipliers is None else value + multipliers.penalty(self.excess(path))

    def _alone(self, sequence: Float[Tensor, "H A"], multipliers: Multipliers | None) -> Tensor:
        try:
            return self.penalised(sequence, multipliers)
        except NumericalError:
            return sequence.new_tensor(torch.inf)


def apart(state: Float[Tensor, "S"], other: Float[Tensor, "S"], angles: Sequence[int]) -> Float[Tensor, "S"]:
    """Return state - other, angles reduced to [-π, π]: whole turns do not count.

    >>> apart(torch.tensor([3.0]), torch.tensor([-3.0]), angles=[0]).abs() < 0.3
    tensor([True])
    """
    away = state - other
    turns = torch.zeros_like(away)
    turns[list(angles)] = (away[list(angles)] / (2 * math.pi)).round()
    return away - 2 * math.pi * turns
