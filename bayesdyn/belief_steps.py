"""The belief's step of `BeliefDynamics` on arrays, and its chain of T steps as one operation of torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from bayesdyn.belief_arrays import ArrayFunction, ArrayMap, ArrayMoments, Slopes
from bayesdyn.errors import ShapeError


class ArrayBelief(NamedTuple):
    """Beliefs [..., S], [..., S, S], or the gradient of a number with respect to them."""

    mean: np.ndarray
    cov: np.ndarray


class Stepped(NamedTuple):
    """One step: the belief after it, the way back, and what returns E[∂s'/∂s], of shape [B, S, S], and E[∂s'/∂u], [B, S, A]."""

    belief: ArrayBelief
    pull_back: Callable[[ArrayBelief], Slopes]
    slopes: Callable[[], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class ArrayStep:
    """The maps of one step; `chosen` [L + A, D] are the columns of [lifted state, control] that `change` sees, `kept` is P.

    The control sees the first `for_control` coordinates of the lifted state.
    """

    lift: ArrayMap
    control: ArrayMap
    change: ArrayMap
    chosen: np.ndarray
    kept: np.ndarray
    for_control: int

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """What the control can be differentiated in."""
        return self.control.parameters

    def step(self, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> "Stepped":
        """Return beliefs [B, S], [B, S, S] one step later, the way back, and how the mean goes with state and control.

        With b = [a, u] the joint of lifted state and control, x = Cᵀb and δ = f(x): cov(s, δ) = cov(s, b) C gain_f.
        """
        size, chosen, kept = mean.shape[-1], self.chosen, self.kept
        lifted, back_lift = self.lift.forward(mean, cov, gradient)
        by_control = slice(self.for_control)
        decided, back_control = self.control.forward(lifted.mean[:, by_control], lifted.cov[:, by_control, by_control], gradient)
        between, actions = lifted.mean.shape[-1], decided.mean.shape[-1]
        if between + actions != len(chosen):
            raise ShapeError(f"the dynamics want {len(chosen) - between} controls; got {actions}")
        joint = np.empty((len(mean), len(chosen), len(chosen)))
        joint[:, :between, :between], joint[:, between:, between:] = lifted.cov, decided.cov
        cross = joint[:, :between, between:] = lifted.cov[:, :, by_control] @ decided.gain
        joint[:, between:, :between] = cross.swapaxes(-1, -2)
        seen = joint @ chosen
        x_mean = np.concatenate((lifted.mean, decided.mean), -1) @ chosen
        change, back_change = self.change.forward(x_mean, chosen.T @ seen, gradient)
        check_change(change.mean.shape[-1], size)
        with_state = seen[:, :size]
        half = 0.5 * (kept[:, None] * cov * kept + change.cov) + kept[:, None] * (with_state @ change.gain)

        def pull_back(to: ArrayBelief) -> Slopes:
            both = to.cov + to.cov.swapaxes(-1, -2)
            with_change = kept[:, None] * both
            to_x = back_change(ArrayMoments(to.mean, 0.5 * both, with_state.swapaxes(-1, -2) @ with_change))
            to_joint = chosen @ to_x.cov @ chosen.T
            to_joint[:, :size] += with_change @ change.gain.swapaxes(-1, -2) @ chosen.T
            to_mean = to_x.mean @ chosen.T
            to_cross = to_joint[:, :between, between:] + to_joint[:, between:, :between].swapaxes(-1, -2)
            to_gain = lifted.cov[:, by_control] @ to_cross
            to_control = back_control(ArrayMoments(to_mean[:, between:], to_joint[:, between:, between:], to_gain))
            to_lifted = to_joint[:, :between, :between].copy()
            to_lifted[:, :, by_control] += to_cross @ decided.gain.swapaxes(-1, -2)
            to_lifted[:, by_control, by_control] += to_control.cov
            to_seen = to_mean[:, :between].copy()
            to_seen[:, by_control] += to_control.mean
            to_state = back_lift(ArrayMoments(to_seen, to_lifted, np.zeros_like(lifted.gain)))
            own = 0.5 * (kept[:, None] * both * kept)
            return Slopes(kept * to.mean + to_state.mean, own + to_state.cov, to_control.parameters)

        moved = ArrayBelief(kept * mean + change.mean, half + half.swapaxes(-1, -2))
        return Stepped(moved, pull_back, partial(self._slopes, lifted.gain, change.gain))

    def _slopes(self, lifted: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return E[∂s'/∂s] and E[∂s'/∂u], of gains, which are expected derivatives (Stein's lemma)."""
        between = lifted.shape[-1]
        by_state = np.diag(np.broadcast_to(self.kept, lifted.shape[-2])) + lifted @ self.chosen[:between] @ change
        return by_state.swapaxes(-1, -2), (self.chosen[between:] @ change).swapaxes(-1, -2)

    def steps(
        self, mean: np.ndarray, cov: np.ndarray, horizon: int, gradient: bool
    ) -> tuple[ArrayBelief, Callable[[ArrayBelief], Slopes]]:
        """Return the beliefs at t = 0, ..., T, [T+1, B, S] and [T+1, B, S, S], and the way back."""
        path, backs = [ArrayBelief(mean, cov)], []
        for _ in range(horizon):
            belief, back, _ = self.step(*path[-1], gradient)
            path.append(belief)
            if gradient:
                backs.append(back)

        def pull_back(to: ArrayBelief) -> Slopes:
            slopes = Slopes(to.mean[-1], to.cov[-1])
            parameters = [np.zeros(tuple(tensor.shape)) for tensor in self.parameters]
            for t in range(horizon - 1, -1, -1):
                slopes = backs[t](ArrayBelief(slopes.mean, slopes.cov))
                for total, found in zip(parameters, slopes.parameters, strict=True):
                    total += found
                slopes = Slopes(slopes.mean + to.mean[t], slopes.cov + to.cov[t])
            return Slopes(slopes.mean, slopes.cov, tuple(parameters))

        means, covs = zip(*path, strict=True)
        return ArrayBelief(np.stack(means), np.stack(covs)), pull_back

    def propagate(self, mean: Tensor, cov: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Return the beliefs from tensors [..., S], [..., S, S] on, differentiable once in them and in the parameters."""

        def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayBelief, Callable[[ArrayBelief], Slopes]]:
            return self.steps(mean, cov, horizon, gradient)

        size = mean.shape[-1]
        means, covs = ArrayFunction.apply(forward, mean.reshape(-1, size), cov.reshape(-1, size, size), *self.parameters)
        return means.reshape(horizon + 1, *mean.shape), covs.reshape(horizon + 1, *cov.shape)


def check_change(found: int, size: int) -> None:
    """Raise `ShapeError` unless the change has one number for each coordinate of the state: a single one would be added to all.

    >>> check_change(2, 2)
    """
    if found != size:
        raise ShapeError(f"the dynamics want the change of each of {size} coordinates; the map gives {found}")
