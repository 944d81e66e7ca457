"""Beliefs along a sequence of actions, as one operation of torch where the dynamics are known on arrays."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayFunction, ArrayMap, ArrayMoments, PullBack, Slopes, fit_for_arrays
from bayesdyn.belief_dynamics import Belief, BeliefDynamics, Held
from bayesdyn.belief_steps import ArrayBelief, ArrayStep, Stepped
from bayesdyn.errors import ShapeError

Decide = Callable[[int, np.ndarray], np.ndarray]
"""From t and the mean μ_t [S] to the action [A]."""


@dataclass(frozen=True)
class Along:
    """How beliefs are carried from a start [..., S], [..., S, S] along actions: a share `kept` of the covariance after each step.

    `matched` keeps all of it. `certainty_equivalent` keeps none, the baseline of zero-variance MPC: of a Gaussian process only the
    mean function is evaluated, so that a step costs what its N rows cost, not their pairs.

    >>> from bayesdyn.moments import Linear
    >>> drift = BeliefDynamics(Linear([[1.0]]), state_size=1, action_size=1, inputs=[1])
    >>> path = matched(drift, Belief(torch.zeros(1), torch.eye(1)), torch.ones(2, 1))
    >>> path.mean.flatten().tolist(), path.cov.flatten().tolist()
    ([0.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    >>> certainty_equivalent(drift, Belief(torch.zeros(1), torch.eye(1)), torch.ones(1, 1)).cov.flatten().tolist()
    [0.0, 0.0]
    """

    kept: float

    def __call__(
        self,
        dynamics: BeliefDynamics,
        start: Belief,
        actions: Float[Tensor, "H *batch A"],
        gains: Float[Tensor, "H A S"] | None = None,
    ) -> Belief:
        """Return the beliefs at t = 0..H under the actions, with `gains` K under u_t + K_t(s_t - μ_t).

        Raises `ShapeError` for gains of another shape.
        """
        check_gains(gains, len(actions), actions.shape[-1], dynamics.state_size)
        dynamics, start = self.of(dynamics, start)
        batch, size = actions.shape[1:-1], dynamics.state_size
        mean, cov = start.mean.expand(*batch, size), start.cov.expand(*batch, size, size)
        made = dynamics.on_arrays(_Still(actions.shape[-1])) if fit_for_arrays(mean, cov, actions) else None
        if made is not None:
            flat = actions.reshape(len(actions), -1, actions.shape[-1])
            chain = _Chain(made, flat.detach().numpy(), None if gains is None else gains.detach().numpy(), self.kept)
            means, covs = ArrayFunction.apply(chain.forward, mean.reshape(-1, size), cov.reshape(-1, size, size), flat)
            return Belief(means.reshape(-1, *batch, size), covs.reshape(-1, *batch, size, size))
        path = [Belief(mean, cov)]
        for t, action in enumerate(actions):
            moved = dynamics.step(path[-1], Held(action, None if gains is None else gains[t]))
            path.append(Belief(moved.mean, self.kept * moved.cov))
        means, covs = zip(*path, strict=True)
        return Belief(torch.stack(means), torch.stack(covs))

    def of(self, dynamics: BeliefDynamics, start: Belief) -> tuple[BeliefDynamics, Belief]:
        """Return what beliefs are carried by and from."""
        return (dynamics, start) if self.kept else (dynamics.certain(), Belief(start.mean, torch.zeros_like(start.cov)))

    def walk(
        self,
        dynamics: BeliefDynamics,
        start: Belief,
        decide: Decide,
        gains: Float[np.ndarray, "H A S"],
    ) -> "Walk":
        """Return the beliefs under actions that are decided on the way, with all that derivatives need."""
        dynamics, start = self.of(dynamics, start)
        mean, cov = (part.detach().double().numpy()[None] for part in start)
        made = dynamics.on_arrays(_Still(gains.shape[1]))
        path, steps, actions = [ArrayBelief(mean, cov)], [], []
        with np.errstate(all="ignore"):
            for t, gain in enumerate(gains):
                actions.append(decide(t, path[-1].mean[0]))
                step = _array_step(made, actions[-1], gain) if made else partial(_torch_step, dynamics, actions[-1], gain)
                steps.append(step(*path[-1]))
                path.append(ArrayBelief(steps[-1].belief.mean, self.kept * steps[-1].belief.cov))
        return Walk(np.stack(actions), np.stack([b.mean[0] for b in path]), np.stack([b.cov[0] for b in path]), steps, self.kept)


matched, certainty_equivalent = Along(1.0), Along(0.0)


@dataclass(frozen=True, eq=False)
class Walk:
    """Beliefs at t = 0..H under `actions` [H, A]: `mean` [H+1, S], `cov` [H+1, S, S], and the steps between them."""

    actions: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    steps: list[Stepped]
    kept: float

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the expected derivatives of each step's mean in state and action, [H, S, S] and [H, S, A]."""
        by_state, by_action = zip(*(step.slopes() for step in self.steps), strict=True)
        return np.concatenate(by_state), np.concatenate(by_action)

    def costates(self, to: ArrayBelief) -> tuple[np.ndarray, np.ndarray]:
        """Return dJ/dμ_t [H+1, S] and dJ/du_t [H, A], all later steps included, from the partial ∂J/∂μ_t and ∂J/∂Σ_t."""
        found = list(_backwards([step.pull_back for step in self.steps], ArrayBelief(to.mean[:, None], to.cov[:, None]), self.kept))
        by_mean = [slopes.mean[0] + to.mean[t] for t, slopes in zip(range(len(found) - 1, -1, -1), found, strict=True)]
        return np.stack([*by_mean[::-1], to.mean[-1]]), np.stack([slopes.parameters[0][0] for slopes in found[::-1]])


def _array_step(made: ArrayStep, action: np.ndarray, gain: np.ndarray) -> Callable[[np.ndarray, np.ndarray], Stepped]:
    return partial(replace(made, control=ArrayMap(_Known(action, gain).forward)).step, gradient=True)


def _torch_step(dynamics: BeliefDynamics, action: np.ndarray, gain: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> Stepped:
    """Return the step of dynamics that are not known on arrays; its derivatives are those of the mean at the same covariance."""
    inputs = tuple(torch.from_numpy(part).requires_grad_() for part in (mean, cov, action[None].copy()))
    with torch.enable_grad():
        moved = dynamics.step(Belief(*inputs[:2]), Held(inputs[2], torch.from_numpy(gain)))

    def back(to_mean: Tensor, to_cov: Tensor) -> list[Tensor]:
        total = (moved.mean * to_mean).sum() + (moved.cov * to_cov).sum()
        return list(torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True))

    def pull_back(to: ArrayBelief) -> Slopes:
        found = [part.numpy() for part in back(*(torch.from_numpy(part) for part in to))]
        return Slopes(found[0], found[1], (found[2],))

    def slopes() -> tuple[np.ndarray, np.ndarray]:
        rows = [back(row, torch.zeros_like(moved.cov)) for row in torch.eye(mean.shape[-1], dtype=moved.mean.dtype)]
        return torch.stack([row[0] for row in rows], -2).numpy(), torch.stack([row[2] for row in rows], -2).numpy()

    return Stepped(ArrayBelief(moved.mean.detach().numpy(), moved.cov.detach().numpy()), pull_back, slopes)


def check_gains(gains: Tensor | None, horizon: int, action_size: int, state_size: int) -> None:
    """Raise `ShapeError` for gains that are not [H, A, S]."""
    wanted = (horizon, action_size, state_size)
    if gains is not None and gains.shape != wanted:
        raise ShapeError(f"gains want shape [H, A, S], here {list(wanted)}; got {list(gains.shape)}")


class _Still(Held):
    """A control of some size, in the place of those that are put in step by step."""

    def __init__(self, size: int) -> None:
        super().__init__(torch.zeros(size, dtype=torch.float64))

    def on_arrays(self) -> ArrayMap:
        """Return the action 0 on arrays."""
        return ArrayMap(_Known(self.action.numpy()).forward)


@dataclass(frozen=True, eq=False)
class _Known:
    """A known action [A] or [B, A] on arrays, differentiable in it, with the feedback of a gain [A, S] if there is one."""

    action: np.ndarray
    gain: np.ndarray | None = None

    def forward(self, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
        """Return the action, which is certain and goes with nothing but for the feedback."""
        rows, size = len(mean), self.action.shape[-1]
        action = np.broadcast_to(self.action, (rows, size))
        answer = np.zeros((rows, mean.shape[-1], size))
        if self.gain is None:
            return ArrayMoments(action, np.zeros((rows, size, size)), answer), partial(_to_action, mean, cov, answer)
        answer[:, : self.gain.shape[-1]] = self.gain.T
        return ArrayMoments(action, answer.swapaxes(-1, -2) @ cov @ answer, answer), partial(_to_action, mean, cov, answer)


def _to_action(mean: np.ndarray, cov: np.ndarray, answer: np.ndarray, to: ArrayMoments) -> Slopes:
    return Slopes(np.zeros_like(mean), answer @ to.cov @ answer.swapaxes(-1, -2), (to.mean,))


@dataclass(frozen=True, eq=False)
class _Chain:
    """The steps under actions [H, B, A] and gains [H, A, S], of each of which a share of the covariance is kept."""

    step: ArrayStep
    actions: np.ndarray
    gains: np.ndarray | None
    kept: float

    def forward(self, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayBelief, Callable[[ArrayBelief], Slopes]]:
        """Return the beliefs at t = 0..H, and the way back."""
        path, backs = [ArrayBelief(mean, cov)], []
        for t, action in enumerate(self.actions):
            known = _Known(action, None if self.gains is None else self.gains[t])
            moved, back, _ = replace(self.step, control=ArrayMap(known.forward)).step(*path[-1], gradient)
            path.append(ArrayBelief(moved.mean, self.kept * moved.cov))
            backs.append(back)
        means, covs = zip(*path, strict=True)
        return ArrayBelief(np.stack(means), np.stack(covs)), partial(self._back, backs)

    def _back(self, backs: list[Callable[[ArrayBelief], Slopes]], to: ArrayBelief) -> Slopes:
        """Return the gradient to the start and to the actions."""
        found = list(_backwards(backs, to, self.kept))
        by_action = np.stack([slopes.parameters[0] for slopes in found[::-1]])
        return Slopes(found[-1].mean + to.mean[0], found[-1].cov + to.cov[0], (by_action,))


def _backwards(backs: list[Callable[[ArrayBelief], Slopes]], to: ArrayBelief, kept: float) -> Iterable[Slopes]:
    """Yield each step's gradients, those of the last one first: Pontryagin's multipliers, from the end to the start."""
    mean, cov = to.mean[-1], to.cov[-1]
    for t in range(len(backs) - 1, -1, -1):
        found = backs[t](ArrayBelief(mean, kept * cov))
        yield found
        mean, cov = found.mean + to.mean[t], found.cov + to.cov[t]
