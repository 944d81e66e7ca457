"""Dynamics of Gaussian beliefs: N(μ, Σ) over the state and a control go to N(μ', Σ') one step later, by moment matching."""

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import fit_for_arrays
from bayesdyn.belief_steps import ArrayStep, check_change
from bayesdyn.beliefs import MomentMap, Moments, check_belief
from bayesdyn.codec import check_relative
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.moments.lift import Lift


class Belief(NamedTuple):
    """A Gaussian belief N(mean, cov) over the state, in physical units."""

    mean: Float[Tensor, "*batch S"]
    cov: Float[Tensor, "*batch S S"]


class Held(MomentMap):
    """A control u [..., A] that is known, whatever the state: covariance 0, gain 0. With `feedback` K [A, S] it is u + K(s - μ).

    Then the state's uncertainty is answered: covariance KΣKᵀ, and gain Kᵀ in the rows of the state; the mean stays u.

    >>> Held(torch.ones(1)).moments(torch.zeros(2), torch.eye(2)).gain.tolist()
    [[0.0], [0.0]]
    >>> Held(torch.ones(1), feedback=torch.tensor([[-2.0]])).moments(torch.zeros(1), torch.eye(1)).cov.item()
    4.0
    """

    def __init__(self, action: Float[Tensor, "*batch A"], feedback: Float[Tensor, "A S"] | None = None) -> None:
        self.action, self.feedback = action, feedback

    def moments(self, mean: Float[Tensor, "*batch L"], cov: Float[Tensor, "*batch L L"]) -> Moments:
        """Return the action, and what feedback adds to it; raises `ShapeError` for a feedback that fits neither."""
        action = self.action.expand(*mean.shape[:-1], self.action.shape[-1])
        if self.feedback is None:
            size = action.shape[-1]
            return Moments(action, action.new_zeros(*action.shape, size), action.new_zeros(*mean.shape, size))
        if self.feedback.dim() != 2 or len(self.feedback) != action.shape[-1] or self.feedback.shape[-1] > mean.shape[-1]:
            wanted = f"[{action.shape[-1]}, S], S at most {mean.shape[-1]}"
            raise ShapeError(f"feedback wants shape {wanted}; got {list(self.feedback.shape)}")
        gain = torch.nn.functional.pad(self.feedback, (0, mean.shape[-1] - self.feedback.shape[-1])).mT
        return Moments(action, gain.mT @ cov @ gain, gain.expand(*mean.shape, -1))


class BeliefDynamics:
    r"""One step of PILCO's moment matching: s' = P s + f(x), where x are columns of b = [s, sin θ_1, cos θ_1, ..., u].

        1. a = [s, sin θ_1, cos θ_1, ...] by `Lift`;   2. u = control(a), cov(a, u) = cov(a) gain;   3. δ = f(x), G = cov(s, x) gain
        4. μ' = P μ + E δ,   Σ' = P Σ P + cov(δ) + P G + Gᵀ P

    `change` is the moment map f [D -> S] in physical units, `inputs` the D columns of b that it sees, in its order, `angles` the
    state coordinates that are angles (they go on past ±π), `absolute` those that f predicts as they are instead of as differences:
    P is the identity without their rows. With `relative` f sees columns of [z, sin ζ_1, cos ζ_1, ..., u] in the place of b, with
    z_i = s_i - s_relative[i]: an angle measured from another angle, a speed from another speed. Each map's moments are exact; that
    [s, t, u] and s' are jointly Gaussian is PILCO's further approximation. A control is any moment map of the lifted state a [L];
    `Held` is one that is known.

    With `observation_noise`, variances v [S], the control sees s + ε, ε ~ N(0, diag v): its input is less certain than the state,
    and of the covariance of sin(θ_i + ε_i) and cos(θ_i + ε_i) with the lifted state the share E cos ε_i = exp(-½ v_i) is left.

    Raises `ConfigurationError` for columns that do not exist or negative variances, `ShapeError` for another number of them.
    Source: Deisenroth, Fox & Rasmussen, PAMI 2015, sections 3.1-3.3.

    >>> from bayesdyn.moments import Linear
    >>> drift = BeliefDynamics(Linear([[1.0]], [0.0]), state_size=1, action_size=1, inputs=[1])
    >>> drift.step(Belief(torch.zeros(1), torch.eye(1)), Held(torch.ones(1)))
    Belief(mean=tensor([1.]), cov=tensor([[1.]]))
    """

    def __init__(
        self,
        change: MomentMap,
        *,
        state_size: int,
        action_size: int,
        inputs: Sequence[int],
        angles: Sequence[int] = (),
        absolute: Sequence[int] = (),
        relative: Mapping[int, int] = MappingProxyType({}),
        observation_noise: Float[Tensor, "S"] | None = None,
    ) -> None:
        lifted = state_size + 2 * len(angles)
        check_relative(relative, state_size, angles)
        for name, columns, size in (("inputs", inputs, lifted + action_size), ("absolute", absolute, state_size)):
            wrong = [column for column in columns if not 0 <= column < size]
            if wrong:
                raise ConfigurationError(f"{name} wants columns from 0 to {size - 1}; got {wrong}")
        self.change, self.state_size, self.action_size = change, state_size, action_size
        self.inputs, self.angles, self.absolute = tuple(inputs), tuple(angles), tuple(absolute)
        self.lift = Lift(state_size, angles)
        self.observation_noise = None if observation_noise is None else _variances(observation_noise, state_size)
        self.relative = dict(relative)
        # The sines and cosines that f alone sees come behind those of the control.
        self._seen = Lift(state_size, angles, [(i, relative[i]) for i in self.angles if i in relative])
        # Products with matrices pick columns: one product each way, which indexing is slower than.
        self._from_state, self._from_action = _choice(self._seen, self.relative, action_size)[:, list(inputs)].split(
            [self._seen.size, action_size]
        )
        self._kept = torch.ones(state_size, dtype=torch.float64)
        self._kept[list(absolute)] = 0.0
        self._left = torch.ones(lifted, dtype=torch.float64)
        if self.observation_noise is not None and angles:
            shrunk = (-0.5 * self.observation_noise[list(angles)]).exp()
            self._left[state_size:] = shrunk.repeat_interleave(2)

    def certain(self) -> "BeliefDynamics":
        """Return the dynamics of the mean function alone, known for certain: under them a known state stays known."""
        known = copy.copy(self)
        known.change = self.change.certain()
        return known

    def step(self, belief: Belief, control: MomentMap) -> Belief:
        """Return the belief one step later; raises `ShapeError` for a control or a change of another size."""
        return self._step(belief, control)[0]

    def moments(self, belief: Belief, control: MomentMap) -> Moments:
        """Return mean and covariance of s' and the gain Σ⁻¹ cov(s, s'); raises `ShapeError` for a control of another size."""
        moved, lifted, decided, change = self._step(belief, control)
        from_state, from_action = self._from_state.to(lifted.cov), self._from_action.to(lifted.cov)
        by_control = self._left.to(lifted.cov)[:, None] * (decided.gain @ from_action)
        seen = lifted.gain @ from_state + lifted.gain[..., : self.lift.size] @ by_control
        return Moments(*moved, torch.diag(self._kept.to(lifted.cov)) + seen @ change.gain)

    def on_arrays(self, control: MomentMap) -> ArrayStep | None:
        """Return the step under a control on arrays; None if a map of it has none, and with `observation_noise`."""
        lift, decide, change = self._seen.on_arrays(), control.on_arrays(), self.change.on_arrays()
        if self.observation_noise is not None or lift is None or decide is None or change is None:
            return None
        chosen = torch.cat((self._from_state, self._from_action)).numpy()
        return ArrayStep(lift, decide, change, chosen, self._kept.numpy(), self.lift.size)

    def _step(self, belief: Belief, control: MomentMap) -> tuple[Belief, Moments, Moments, Moments]:
        """Return the next belief, and the moments of lift, control and change."""
        lifted = self._seen.moments(*belief)
        decided, cross = self._decide(belief, lifted, control)
        from_state, from_action = self._from_state.to(cross), self._from_action.to(cross)
        with_state = lifted.cov @ from_state + cross @ from_action
        with_action = cross.mT @ from_state + decided.cov @ from_action
        x_mean = lifted.mean @ from_state + decided.mean @ from_action
        change = self.change.moments(x_mean, from_state.mT @ with_state + from_action.mT @ with_action)
        check_change(change.mean.shape[-1], self.state_size)
        mean, own, with_change = belief.mean, belief.cov, with_state[..., : self.state_size, :] @ change.gain
        if self.absolute:
            kept = self._kept.to(cross)
            mean, own, with_change = kept * mean, own * torch.outer(kept, kept), with_change * kept[:, None]
        half = 0.5 * (own + change.cov) + with_change
        return Belief(mean + change.mean, half + half.mT), lifted, decided, change

    def _decide(self, belief: Belief, lifted: Moments, control: MomentMap) -> tuple[Moments, Float[Tensor, "*batch L A"]]:
        """Return the control and its covariance with the lifted state."""
        size = self.lift.size
        with_control = lifted.cov[..., :size]
        if self.observation_noise is None:
            decided = control.moments(lifted.mean[..., :size], with_control[..., :size, :])
            cross = with_control @ decided.gain
        else:
            seen = self.lift.moments(belief.mean, belief.cov + torch.diag_embed(self.observation_noise.to(belief.cov)))
            decided = control.moments(seen.mean, seen.cov)
            cross = (with_control * self._left.to(lifted.cov)) @ decided.gain
        if decided.mean.shape[-1] != self.action_size:
            raise ShapeError(f"the dynamics want {self.action_size} controls; got {decided.mean.shape[-1]}")
        return decided, cross


def _choice(seen: Lift, relative: Mapping[int, int], action_size: int) -> Float[Tensor, "lifted columns"]:
    """Return the columns of [z, sin ζ_1, cos ζ_1, ..., u] in those of the lifted state and the control."""
    size, waves = seen.size + action_size, seen.state_size + 2 * len(seen.angles)
    own = torch.eye(size, dtype=torch.float64)
    columns = [own[i] - own[relative[i]] if i in relative else own[i] for i in range(seen.state_size)]
    behind = waves
    for place, angle in enumerate(seen.angles):
        at = seen.state_size + 2 * place
        if angle in relative:
            at, behind = behind, behind + 2
        columns += [own[at], own[at + 1]]
    return torch.stack([*columns, *own[seen.size :]], -1)


def _variances(noise: Tensor, size: int) -> Float[Tensor, "S"]:
    if noise.shape != (size,):
        raise ShapeError(f"observation_noise wants one variance for each of {size} coordinates; got {list(noise.shape)}")
    if not bool((noise >= 0).all()):
        raise ConfigurationError(f"observation_noise wants variances of at least 0; got {noise.tolist()}")
    return noise.detach().double()


def propagate(dynamics: BeliefDynamics, control: MomentMap, start: Belief, horizon: int) -> Belief:
    """Return the beliefs at t = 0, ..., T under a policy, mean [T+1, ..., S] and cov [T+1, ..., S, S]; differentiable.

    Raises `ShapeError` for a start, control or change of another size and `ConfigurationError` for a negative horizon; beliefs that
    are not finite are returned as they are.
    """
    check_belief(*start, dynamics.state_size, "the start of a propagation")
    if horizon < 0:
        raise ConfigurationError(f"a propagation wants horizon >= 0; got {horizon}")
    step = dynamics.on_arrays(control) if fit_for_arrays(*start) else None
    if step is not None:
        return Belief(*step.propagate(*start, horizon))
    path = [start]
    for _ in range(horizon):
        path.append(dynamics.step(path[-1], control))
    means, covs = zip(*path, strict=True)
    return Belief(torch.stack(means), torch.stack(covs))
