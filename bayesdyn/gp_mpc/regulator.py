"""Linear-quadratic models of a belief problem around a sequence of actions: what to change in it, and how to answer deviations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_dynamics import Belief
from bayesdyn.belief_steps import ArrayBelief
from bayesdyn.errors import NumericalError
from bayesdyn.gp_mpc.chance import Multipliers
from bayesdyn.gp_mpc.path import Walk
from bayesdyn.gp_mpc.problem import BeliefProblem
from bayesdyn.planners import Box

# Differences of a gradient are taken over this share of what a coordinate goes through.
_SHARE = 1e-4
_LEAST = 1e-3


class Change(NamedTuple):
    """v = step + gains x in a `LinearQuadraticModel`: the step [H, A], the gains [H, A, S], and by how much J should fall."""

    step: np.ndarray
    gains: np.ndarray
    fall: float


@dataclass(frozen=True, eq=False)
class LinearQuadraticModel:
    r"""J of a problem to second order around a walk: exact to first order, Gauss-Newton in what actions do to the means.

    With x what the mean deviates by, v the action in units of half the box, and A_t, B_t the expected derivatives of a step:

        J ≈ J_0 + Σ_t [q_tᵀx_t + ½ x_tᵀQ_t x_t + r_tᵀv_t + ½ v_tᵀR_t v_t],   x_{t+1} = A_t x_t + B_t v_t

    Q and R are the curvatures of the costs with eigenvalues |λ| and max(λ, 0). q and r are such that Pontryagin's multipliers are
    those of J itself, with all that goes through the covariances.
    """

    value: float
    walk: Walk
    by_state: np.ndarray  # [H, S, S]
    by_action: np.ndarray  # [H, S, A]
    linear: np.ndarray  # [H+1, S]
    curve: np.ndarray  # [H+1, S, S]
    action_linear: np.ndarray  # [H, A]
    action_curve: np.ndarray  # [H, A, A]
    low: np.ndarray  # [H, A]: how far the actions may go
    high: np.ndarray

    def change(self, damping: float) -> Change:
        """Return what lowers the model most, by one backward pass of dynamic programming; `damping` is added to R's diagonal.

        Source: Tassa, Mansard & Todorov, ICRA 2014 (control-limited differential dynamic programming).
        """
        horizon, size, actions = self.by_action.shape
        steps, gains, fall = np.zeros((horizon, actions)), np.zeros((horizon, actions, size)), 0.0
        slope, curve = self.linear[-1], self.curve[-1]
        for t in range(horizon - 1, -1, -1):
            a, b = self.by_state[t], self.by_action[t]
            of_action, of_state = self.action_linear[t] + b.T @ slope, self.linear[t] + a.T @ slope
            uu, ux, xx = self.action_curve[t] + b.T @ curve @ b, b.T @ curve @ a, self.curve[t] + a.T @ curve @ a
            damped = uu + damping * np.eye(actions)
            step, free = _in_box(damped, of_action, self.low[t], self.high[t])
            gain = np.zeros((actions, size))
            if free.any():
                gain[free] = -np.linalg.solve(damped[np.ix_(free, free)], ux[free])
            fall -= float(of_action @ step + 0.5 * step @ uu @ step)
            slope = of_state + gain.T @ (uu @ step + of_action) + ux.T @ step
            curve = xx + gain.T @ uu @ gain + gain.T @ ux + ux.T @ gain
            curve = 0.5 * (curve + curve.T)
            steps[t], gains[t] = step, gain
        return Change(steps, gains, fall)


def modelled(problem: BeliefProblem, walk: Walk, box: Box, multipliers: Multipliers | None = None) -> LinearQuadraticModel:
    """Return the model of J, and of what passing the bounds costs, around a walk."""
    half = 0.5 * box.width.double().numpy()
    mean, cov, taken = (torch.from_numpy(part).requires_grad_() for part in (walk.mean, walk.cov, walk.actions))
    with torch.enable_grad():
        value = problem.worth(taken, Belief(mean, cov), multipliers)
        found = torch.autograd.grad(value, (mean, cov, taken), materialize_grads=True)
    to_mean, to_cov, to_action = (part.numpy() for part in found)
    curve, action_curve = _curvatures(problem, walk, half, multipliers, to_mean, to_action)
    by_mean, by_action = walk.costates(ArrayBelief(to_mean, to_cov))
    state_slope, action_slope = walk.slopes()
    action_slope = action_slope * half
    linear = by_mean.copy()
    linear[:-1] -= (by_mean[1:, None] @ state_slope)[:, 0]
    action_linear = half * (by_action + to_action) - (by_mean[1:, None] @ action_slope)[:, 0]
    scale = np.where(half > 0, half, 1.0)
    low, high = ((bound.double().numpy() - walk.actions) / scale for bound in (box.low, box.high))
    return LinearQuadraticModel(
        float(value.detach()),
        walk,
        state_slope,
        action_slope,
        linear,
        curve,
        action_linear,
        action_curve,
        low * (half > 0),
        high * (half > 0),
    )


def regulator(problem: BeliefProblem, actions: Float[Tensor, "H A"], box: Box) -> Float[Tensor, "H A S"]:
    """Return the gains K_t with which u_t + K_t(s_t - μ_t) keeps to a sequence at the least cost, in units of action per state.

    They are those of the next step of `ILQR`: 0 for an action that this step would take to a bound. Raises `NumericalError` where
    the beliefs are not finite.

    Source: Li & Todorov, ICINCO 2004 (iterative linear-quadratic regulator).
    """
    taken = actions.detach().double().numpy()
    walk = problem.walk(lambda t, mean: taken[t], box, len(actions))
    if not (np.isfinite(walk.mean).all() and np.isfinite(walk.cov).all()):
        raise NumericalError("a regulator wants finite beliefs; they explode under these actions")
    half = 0.5 * box.width.double().numpy()
    return torch.from_numpy(half[:, None] * modelled(problem, walk, box).change(_LEAST).gains)


def _curvatures(
    problem: BeliefProblem,
    walk: Walk,
    half: np.ndarray,
    multipliers: Multipliers | None,
    to_mean: np.ndarray,
    to_action: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return Q [H+1, S, S] and R [H, A, A]: costs are sums over steps, so one batch of moved paths has the differences of all."""
    size, actions = walk.mean.shape[1], walk.actions.shape[1]
    spread = np.ptp(walk.mean, 0) + np.sqrt(np.abs(walk.cov.diagonal(0, 1, 2)).max(0))
    moves, turns = _SHARE * spread + 1e-10 * np.abs(walk.mean).max(0) + 1e-8, _SHARE * np.where(half > 0, half, 1.0)
    mean = torch.from_numpy(walk.mean[:, None] + np.vstack((np.diag(moves), np.zeros((actions, size))))).requires_grad_()
    taken = torch.from_numpy(walk.actions[:, None] + np.vstack((np.zeros((size, actions)), np.diag(turns)))).requires_grad_()
    cov = torch.from_numpy(walk.cov)[:, None].expand(-1, size + actions, -1, -1)
    with torch.enable_grad():
        total = problem.worth(taken, Belief(mean, cov), multipliers).sum()
        by_mean, by_action = (part.numpy() for part in torch.autograd.grad(total, (mean, taken), materialize_grads=True))
    curve = (by_mean[:, :size] - to_mean[:, None]) / moves[:, None]
    action_curve = (by_action[:, size:] - to_action[:, None]) / turns[:, None] * np.outer(half, half)
    return _with_eigenvalues(np.abs, curve), _with_eigenvalues(lambda values: np.maximum(values, 0.0), action_curve)


def _with_eigenvalues(change: Callable[[np.ndarray], np.ndarray], matrices: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(0.5 * (matrices + matrices.swapaxes(-1, -2)))
    return (vectors * change(values)[..., None, :]) @ vectors.swapaxes(-1, -2)


def _in_box(curve: np.ndarray, slope: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the v in the box with the least slopeᵀv + ½ vᵀ curve v, and which of its coordinates are at no bound.

    Projected Newton steps, each of which settles what is at a bound (Bertsekas 1982).
    """
    found = np.clip(np.zeros_like(slope), low, high)
    for _ in range(10 + 2 * len(slope)):
        gradient = slope + curve @ found
        held = ((found <= low) & (gradient >= 0)) | ((found >= high) & (gradient <= 0))
        if held.all() or np.abs(gradient[~held]).max() <= 1e-12 * (1 + np.abs(slope).max()):
            break
        newton = np.zeros_like(slope)
        newton[~held] = -np.linalg.solve(curve[np.ix_(~held, ~held)], gradient[~held])
        share = 1.0
        while share > 1e-6:
            moved = np.clip(found + share * newton, low, high)
            if gradient @ (moved - found) + 0.5 * (moved - found) @ curve @ (moved - found) <= 0:
                break
            share *= 0.5
        found = moved
    return found, (found > low) & (found < high)
