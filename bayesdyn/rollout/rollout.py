"""Trajectories: sampled θ, sampled noise, summed reward."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.linalg import jittered_cholesky
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout.propagation import Noise, Propagation, SampledDynamics, TSInf

Policy = Callable[[Tensor], Tensor]
"""state [..., S] -> action [..., A]."""

TerminalValue = Callable[[Tensor, Tensor], Tensor]
"""(final state [..., S], alive [...]) -> value [...]."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Trajectories of n draws and p particles: time first, `actions[t]` leads from `states[t]` to `states[t+1]`.

    `path` holds the states of each time, `states` stacks them when asked. `alive[t]` says whether step t still counts; `terminal`
    is the discounted value added at the end. Under `Mean` there is one trajectory, n = p = 1.
    """

    path: tuple[Float[Tensor, "n p *batch S"], ...]
    actions: Float[Tensor, "T *shape A"]
    rewards: Float[Tensor, "T n p *batch"]
    alive: Bool[Tensor, "T+1 n p *batch"]
    terminal: Float[Tensor, "n p *batch"]
    discount: float = 1.0

    @cached_property
    def states(self) -> Float[Tensor, "times n p *batch S"]:
        """States at t = 0, ..., T; a trajectory that has ended stays where it ended."""
        return torch.stack(self.path)

    @cached_property
    def returns(self) -> Float[Tensor, "n p *batch"]:
        """R = Σ_t γ^t m_t r_t + γ^T m_T V(s_T); steps after the end carry what `after_done` gave them."""
        if self.discount == 1.0:
            return self.rewards.sum(0) + self.terminal
        weight = self.discount ** torch.arange(len(self.rewards), dtype=self.rewards.dtype, device=self.rewards.device)
        return torch.einsum("t,t...->...", weight, self.rewards) + self.terminal

    @property
    def finite(self) -> Bool[Tensor, "n p *batch"]:
        """Whether the return and the final state are finite (a bounded reward can hide a state that ran away)."""
        return self.returns.isfinite() & self.path[-1].isfinite().all(-1)


def rollout(
    dynamics: SampledDynamics,
    start: Float[Tensor, "*start S"],
    controls: Tensor | Policy,
    reward: Reward,
    *,
    start_cov: Float[Tensor, "S S"] | None = None,
    horizon: int | None = None,
    particles: int | None = None,
    propagation: Propagation | None = None,
    noise: Noise | None = None,
    generator: torch.Generator | None = None,
    termination: Termination | None = None,
    terminal_value: TerminalValue | None = None,
    discount: float = 1.0,
    after_done: float = 0.0,
) -> Trajectory:
    """Roll n draws of the dynamics out from `start`, [..., S], under an action sequence [T, ..., A] or a policy.

    J(a_1..a_T) = E_θ E_traj Σ_t γ^t m_t r(s_t, a_t, s_{t+1}) + γ^T m_T V(s_T),  m_0 = 1,  m_{t+1} = m_t (1 - done_t)

    With `start_cov` the start is not known: trajectory jk starts at its own draw of N(start, start_cov), part of the noise.
    `start` and `controls` broadcast: candidates are batch axes of the actions, [T, B, c, A], with a start of [B, 1, S]. Every
    candidate meets every draw `particles` times (default 1), with the same noise (common random numbers). `noise` comes from
    `propagation.draw_noise` or is drawn here. A policy needs `horizon`; it, the reward and the termination see states and actions
    with the leading axes [n, p, ...] (a policy at t = 0 sees one state for all, [1, 1, ...]). After a termination a step is worth
    `after_done` and the state stays; the loop never ends early. Differentiable in start, actions and policy.

    Raises `ShapeError` for tensors that do not fit and `ConfigurationError` for options that contradict each other.

    >>> import bayesdyn as bd
    >>> drift = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    >>> t = rollout(drift, torch.zeros(1), torch.ones(3, 1), lambda s, a, s2: s2[..., 0])
    >>> t.returns.shape, t.returns.item()
    (torch.Size([1, 1]), 6.0)
    """
    if after_done and termination is None:
        raise ConfigurationError(f"after_done={after_done} wants a termination: without one no trajectory ends")
    propagation = propagation or TSInf()
    source = _policy(controls, start, horizon) if callable(controls) else _sequence(controls, start, horizon)
    noise = _noise(propagation, dynamics.n, source.steps, particles, start, noise, generator)

    state = start.expand(*source.batch, start.shape[-1])[None, None]
    if start_cov is not None:
        state = state + _spread_start(start_cov, noise, len(source.batch))
    alive = torch.ones((1, 1, *source.batch), dtype=torch.bool, device=start.device)
    path, taken, gains, alives = [state], [], [], [alive]
    for t in range(source.steps):
        action = source.act(t, state)
        sample, carried = propagation.step(dynamics, state, action, noise, t)
        shape = sample.shape[:-1]
        if t == 0:
            state, action = state.expand(sample.shape), action.expand(*shape, action.shape[-1])
        gain = _fit(reward(state, action, sample), shape, "the reward").to(sample.dtype)
        if termination is not None:
            ended = _fit(termination(state, action, sample), shape, "the termination").bool()
            gain = torch.where(alive, gain, after_done)
            carried = propagation.halt(state, carried, alive)
            alive = alive & ~ended
            alives.append(alive)
        state = carried
        path.append(state)
        taken.append(action)
        gains.append(gain)

    path[0] = path[0].expand(state.shape)
    alives = [step.expand(shape) for step in alives]
    return Trajectory(
        path=tuple(path),
        actions=source.record(taken),
        rewards=torch.stack(gains),
        alive=torch.stack(alives) if termination is not None else alives[0].expand(source.steps + 1, *shape),
        terminal=_terminal(terminal_value, state, alives[-1], discount**source.steps),
        discount=discount,
    )


@dataclass(frozen=True)
class _Source:
    """Where actions come from: T, the batch axes, (t, state) -> action, and what the trajectory keeps of the actions taken."""

    steps: int
    batch: torch.Size
    act: Callable[[int, Tensor], Tensor]
    record: Callable[[list[Tensor]], Tensor]


def _sequence(actions: Tensor, start: Tensor, horizon: int | None) -> _Source:
    if actions.dim() < 2 or len(actions) == 0:
        raise ShapeError(f"actions want the shape [T, ..., A] with T >= 1; got {list(actions.shape)}")
    if horizon is not None and horizon != len(actions):
        raise ConfigurationError(f"horizon={horizon} contradicts actions of {len(actions)} steps; leave horizon out")
    try:
        batch = torch.broadcast_shapes(start.shape[:-1], actions.shape[1:-1])
    except RuntimeError as error:
        raise ShapeError(
            f"start [..., S] and actions [T, ..., A] want axes between that broadcast; "
            f"got start {list(start.shape)} and actions {list(actions.shape)}"
        ) from error
    size = actions.shape[-1]
    views: dict[torch.Size, tuple[Tensor, ...]] = {}

    def act(t: int, state: Tensor) -> Tensor:
        lead = state.shape[:2]
        if lead not in views:  # once for the first step and once for all others: views cost time in the inner loop
            padded = actions.reshape(len(actions), 1, 1, *(1,) * (len(batch) + 2 - actions.dim()), *actions.shape[1:])
            views[lead] = padded.expand(len(actions), *lead, *batch, size).unbind(0)
        return views[lead][t]

    return _Source(len(actions), batch, act, record=lambda taken: actions)


def _policy(policy: Policy, start: Tensor, horizon: int | None) -> _Source:
    if horizon is None or horizon < 1:
        raise ConfigurationError(f"a rollout under a policy wants horizon >= 1; got {horizon}")

    def act(t: int, state: Tensor) -> Tensor:
        action = policy(state)
        return _fit(action, torch.Size((*state.shape[:-1], *action.shape[-1:])), "the policy")

    return _Source(horizon, start.shape[:-1], act, record=torch.stack)


def _noise(
    propagation: Propagation,
    n: int,
    steps: int,
    particles: int | None,
    start: Tensor,
    noise: Noise | None,
    generator: torch.Generator | None,
) -> Noise:
    """Draw the noise, or check what was given: T or more steps, n draws, S coordinates."""
    if particles is not None and particles < 1:
        raise ConfigurationError(f"a rollout wants particles >= 1; got {particles}")
    if noise is None:
        noise = propagation.draw_noise(steps, n, particles or 1, start.shape[-1], generator, start.dtype)
    held, draws, p, size = noise.normal.shape
    if held < steps or (draws, p, size) != (n, particles or p, start.shape[-1]):
        raise ShapeError(
            f"noise wants the shape [{steps} or more, {n} draws, {particles or 'p'} particles, {start.shape[-1]} coordinates]; "
            f"got {[held, draws, p, size]}; draw it for this rollout with propagation.draw_noise"
        )
    return noise.to(start.dtype, start.device)


def _spread_start(cov: Tensor, noise: Noise, batch: int) -> Tensor:
    """Return chol(cov) z for the start of each trajectory, [n, p, 1, ..., S]."""
    if noise.start is None or cov.shape != (noise.start.shape[-1],) * 2:
        raise ShapeError(
            f"start_cov wants the shape [S, S] and noise with starts, as propagation.draw_noise draws it; got {list(cov.shape)}"
        )
    n, p, size = noise.start.shape
    # Relative to each coordinate's own std, so that coordinates which are known do no harm to the others.
    std = cov.diagonal().sqrt()
    unit = torch.where(std > 0, std, torch.ones_like(std))
    factor, _ = jittered_cholesky(cov / torch.outer(unit, unit) + torch.diag_embed((std == 0).to(cov)))
    return (std * (noise.start @ factor.mT.to(noise.start))).reshape(n, p, *(1,) * batch, size)


def _fit(values: object, shape: torch.Size, what: str) -> Tensor:
    """Return `values` with exactly this shape; too many axes would otherwise broadcast trajectories against each other."""
    if not isinstance(values, Tensor):
        raise ShapeError(
            f"{what} has to return a tensor of shape {list(shape)}, a number per trajectory and candidate; got {values!r} "
            f"({type(values).__name__}): compute with torch on the tensors that come in, without float() or .item()"
        )
    if values.shape == shape:
        return values
    try:
        return values.expand(shape)
    except RuntimeError as error:
        raise ShapeError(
            f"{what} has to return the shape {list(shape)} or one that expands to it; got {list(values.shape)}; "
            "coordinates are the last axis, as in next_state[..., 0]: all axes before it are trajectories and candidates"
        ) from error


def _terminal(value: TerminalValue | None, state: Tensor, alive: Tensor, weight: float) -> Tensor:
    none = torch.zeros((), dtype=state.dtype, device=state.device)
    if value is None:
        return none.expand(alive.shape)
    return weight * torch.where(alive, _fit(value(state, alive), alive.shape, "the terminal value").to(state.dtype), none)
