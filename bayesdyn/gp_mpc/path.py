"""Beliefs along a sequence of actions, as one operation of torch where the dynamics are known on arrays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayFunction, ArrayMap, ArrayMoments, PullBack, Slopes, fit_for_arrays
from bayesdyn.belief_dynamics import Belief, BeliefDynamics, Held
from bayesdyn.belief_steps import ArrayBelief, ArrayStep

Along = Callable[[BeliefDynamics, Belief, Float[Tensor, "H *batch A"]], Belief]
"""From a start [..., S], [..., S, S] and actions to the beliefs at t = 0..H."""


def matched(dynamics: BeliefDynamics, start: Belief, actions: Float[Tensor, "H *batch A"]) -> Belief:
    """Return the beliefs at t = 0..H by moment matching, with all their uncertainty.

    >>> from bayesdyn.moments import Linear
    >>> drift = BeliefDynamics(Linear([[1.0]]), state_size=1, action_size=1, inputs=[1])
    >>> matched(drift, Belief(torch.zeros(1), torch.eye(1)), torch.ones(2, 1)).mean.flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    return _along(dynamics, start, actions, 1.0)


def certainty_equivalent(dynamics: BeliefDynamics, start: Belief, actions: Float[Tensor, "H *batch A"]) -> Belief:
    """Return beliefs that are taken for certain after every step, Σ = 0: the baseline of zero-variance MPC.

    Of a Gaussian process only the mean function is evaluated, so that a step costs what its N rows cost, not their pairs.

    >>> from bayesdyn.moments import Linear
    >>> drift = BeliefDynamics(Linear([[1.0]]), state_size=1, action_size=1, inputs=[1])
    >>> certainty_equivalent(drift, Belief(torch.zeros(1), torch.eye(1)), torch.ones(1, 1)).cov.flatten().tolist()
    [0.0, 0.0]
    """
    return _along(dynamics.certain(), Belief(start.mean, torch.zeros_like(start.cov)), actions, 0.0)


def _along(dynamics: BeliefDynamics, start: Belief, actions: Tensor, kept: float) -> Belief:
    """Return the beliefs of which a share of the covariance is kept after each step."""
    batch, size = actions.shape[1:-1], dynamics.state_size
    mean, cov = start.mean.expand(*batch, size), start.cov.expand(*batch, size, size)
    made = dynamics.on_arrays(_Still(actions.shape[-1])) if fit_for_arrays(mean, cov, actions) else None
    if made is not None:
        flat = actions.reshape(len(actions), -1, actions.shape[-1])
        chain = _Chain(made, flat.detach().numpy(), kept)
        means, covs = ArrayFunction.apply(chain.forward, mean.reshape(-1, size), cov.reshape(-1, size, size), flat)
        return Belief(means.reshape(-1, *batch, size), covs.reshape(-1, *batch, size, size))
    path = [Belief(mean, cov)]
    for action in actions:
        moved = dynamics.step(path[-1], Held(action))
        path.append(Belief(moved.mean, kept * moved.cov))
    means, covs = zip(*path, strict=True)
    return Belief(torch.stack(means), torch.stack(covs))


class _Still(Held):
    """A control of some size, in the place of those that are put in step by step."""

    def __init__(self, size: int) -> None:
        super().__init__(torch.zeros(size, dtype=torch.float64))

    def on_arrays(self) -> ArrayMap:
        """Return the action 0 on arrays."""
        return ArrayMap(_Known(self.action.numpy()).forward)


@dataclass(frozen=True, eq=False)
class _Known:
    """A known action [A] or [B, A] on arrays, differentiable in it."""

    action: np.ndarray

    def forward(self, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
        """Return the action, which is certain and goes with nothing."""
        rows, size = len(mean), self.action.shape[-1]
        nothing = np.zeros((rows, size, size)), np.zeros((rows, mean.shape[-1], size))
        return ArrayMoments(np.broadcast_to(self.action, (rows, size)), *nothing), partial(_to_action, mean, cov)


def _to_action(mean: np.ndarray, cov: np.ndarray, to: ArrayMoments) -> Slopes:
    return Slopes(np.zeros_like(mean), np.zeros_like(cov), (to.mean,))


@dataclass(frozen=True, eq=False)
class _Chain:
    """The steps under actions [H, B, A], of each of which a share of the covariance is kept."""

    step: ArrayStep
    actions: np.ndarray
    kept: float

    def forward(self, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayBelief, Callable[[ArrayBelief], Slopes]]:
        """Return the beliefs at t = 0..H, and the way back."""
        path, backs = [ArrayBelief(mean, cov)], []
        for action in self.actions:
            moved, back = replace(self.step, control=ArrayMap(_Known(action).forward)).step(*path[-1], gradient)
            path.append(ArrayBelief(moved.mean, self.kept * moved.cov))
            backs.append(back)
        means, covs = zip(*path, strict=True)
        return ArrayBelief(np.stack(means), np.stack(covs)), partial(self._back, backs)

    def _back(self, backs: list[Callable[[ArrayBelief], Slopes]], to: ArrayBelief) -> Slopes:
        """Return the gradient to the start and to the actions: Pontryagin's multipliers, from the end to the start."""
        mean, cov, by_action = to.mean[-1], to.cov[-1], []
        for t in range(len(backs) - 1, -1, -1):
            found = backs[t](ArrayBelief(mean, self.kept * cov))
            by_action.append(found.parameters[0])
            mean, cov = found.mean + to.mean[t], found.cov + to.cov[t]
        return Slopes(mean, cov, (np.stack(by_action[::-1]),))
