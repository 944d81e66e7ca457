"""Trajectories: sampled θ, sampled noise, summed reward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout.propagation import Noise, Propagation, SampledDynamics, TSInf

Policy = Callable[[Tensor], Tensor]
"""state [..., S] -> action [..., A]."""

TerminalValue = Callable[[Tensor, Tensor], Tensor]
"""(final state [..., S], alive [...]) -> value [...]."""


@dataclass(frozen=True)
class Trajectory:
    """Trajectories of n draws and p particles: time first, `actions[t]` leads from `states[t]` to `states[t+1]`.

    `alive[t]` says whether step t still counts; `terminal` is the value added at the end.
    """

    states: Float[Tensor, "T+1 n p *batch S"]
    actions: Float[Tensor, "T *shape A"]
    rewards: Float[Tensor, "T n p *batch"]
    alive: Bool[Tensor, "T+1 n p *batch"]
    terminal: Float[Tensor, "n p *batch"]
    discount: float = 1.0

    @property
    def returns(self) -> Float[Tensor, "n p *batch"]:
        """R = Σ_t γ^t m_t r_t + terminal; dead steps carry what `after_done` gave them."""
        if self.discount == 1.0:
            return self.rewards.sum(0) + self.terminal
        weight = self.discount ** torch.arange(len(self.rewards), dtype=self.rewards.dtype, device=self.rewards.device)
        return torch.einsum("t,t...->...", weight, self.rewards) + self.terminal

    @property
    def finite(self) -> Bool[Tensor, "n p *batch"]:
        """Whether the return and the final state are finite (a bounded reward can hide a state that ran away)."""
        return self.returns.isfinite() & self.states[-1].isfinite().all(-1)


def rollout(
    dynamics: SampledDynamics,
    start: Float[Tensor, "*start S"],
    controls: Tensor | Policy,
    reward: Reward,
    *,
    horizon: int | None = None,
    particles: int = 1,
    propagation: Propagation | None = None,
    noise: Noise | None = None,
    generator: torch.Generator | None = None,
    termination: Termination | None = None,
    terminal_value: TerminalValue | None = None,
    discount: float = 1.0,
    after_done: float = 0.0,
) -> Trajectory:
    """Roll n draws of the dynamics out from `start`, [..., S], under an action sequence [T, ..., A] or a policy.

    J(a_1..a_T) = E_θ E_traj Σ_t γ^t m_t r(s_t, a_t, s_{t+1}),  m_0 = 1,  m_{t+1} = m_t (1 - done_t)

    `start` and `controls` broadcast: candidates are batch axes of the actions, [T, B, c, A], with a start of [B, 1, S]. Every
    candidate meets every draw `particles` times, with the same noise (common random numbers). `noise` comes from
    `propagation.draw_noise` or is drawn here. A policy needs `horizon`. After a termination a step is worth `after_done`; the loop
    never ends early. Differentiable in start, actions and policy.

    Raises `ShapeError` for actions that do not fit and `ConfigurationError` for options that contradict each other.

    >>> import bayesdyn as bd
    >>> drift = bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    >>> t = rollout(drift, torch.zeros(1), torch.ones(3, 1), lambda s, a, s2: s2[..., 0])
    >>> t.returns.shape, t.returns.item()
    (torch.Size([1, 1]), 6.0)
    """
    propagation = propagation or TSInf()
    steps, actions, act = _controls(controls, horizon)
    batch = start.shape[:-1] if actions is None else torch.broadcast_shapes(start.shape[:-1], actions.shape[1:-1])
    if noise is None:
        noise = propagation.draw_noise(steps, dynamics.n, particles, start.shape[-1], generator, start.dtype)
    elif noise.normal.shape[0] < steps:
        raise ShapeError(f"noise holds {noise.normal.shape[0]} steps, the rollout has {steps}; draw it with horizon={steps}")

    state = start.expand(*batch, start.shape[-1])[None, None]
    alive = torch.ones((1, 1, *batch), dtype=torch.bool, device=start.device)
    states, taken, rewards, alives = [state], [], [], [alive]
    for t in range(steps):
        action = act(state, t)
        step = propagation.step(dynamics, state, action, noise, t)
        gain = reward(state, action, step.sample)
        if termination is not None or after_done:
            gain = torch.where(alive, gain, torch.as_tensor(after_done, dtype=gain.dtype, device=gain.device))
        if termination is not None:
            alive = alive & ~termination(state, action, step.sample)
        state = step.carried
        states.append(state)
        taken.append(action)
        rewards.append(gain)
        alives.append(alive)

    shape = state.shape[:-1]
    terminal = torch.zeros(shape, dtype=state.dtype, device=state.device)
    if terminal_value is not None:
        terminal = discount**steps * torch.where(alive.expand(shape), terminal_value(state, alive), terminal)
    return Trajectory(
        states=torch.stack([s.expand(*shape, s.shape[-1]) for s in states]),
        actions=torch.stack([a.expand(*_common(taken), a.shape[-1]) for a in taken]) if actions is None else actions,
        rewards=torch.stack([r.expand(shape) for r in rewards]),
        alive=torch.stack([a.expand(shape) for a in alives]),
        terminal=terminal,
        discount=discount,
    )


def _controls(controls: Tensor | Policy, horizon: int | None) -> tuple[int, Tensor | None, Callable[[Tensor, int], Tensor]]:
    """Return (T, action tensor if given, (state, t) -> action with leading [n, p] axes)."""
    if isinstance(controls, Tensor):
        if controls.dim() < 2 or len(controls) == 0:
            raise ShapeError(f"actions want the shape [T, ..., A] with T >= 1; got {list(controls.shape)}")
        if horizon is not None and horizon != len(controls):
            raise ConfigurationError(f"horizon={horizon} contradicts actions of {len(controls)} steps; leave horizon out")
        return len(controls), controls, lambda state, t: controls[t][None, None]
    if horizon is None or horizon < 1:
        raise ConfigurationError(f"a rollout under a policy wants horizon >= 1; got {horizon}")
    return horizon, None, lambda state, t: controls(state)


def _common(actions: list[Tensor]) -> torch.Size:
    return torch.broadcast_shapes(*(a.shape[:-1] for a in actions))
