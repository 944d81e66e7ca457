"""Rewards and terminations of Gymnasium's own tasks as callables on observations, checked against what `env.step` pays."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

_TORQUE_LIMIT = 2.0
_SPEED_LIMIT = 8.0
_LINK = 0.6


@dataclass(frozen=True)
class PendulumV1Reward:
    """r = -(θ² + 0.1 θ̇² + 0.001 u²) of `Pendulum-v1`: on the state *before* the step, θ wrapped to ±π, u the action clipped to ±2.

    Called with state [..., 3] = (cos θ, sin θ, θ̇), action [..., 1] (N m) and next_state, gives [...]. Equal to the environment's up
    to the float32 of its observations. Source: Gymnasium, `classic_control/pendulum.py`.

    >>> PendulumV1Reward()(torch.tensor([1.0, 0.0, 1.0]), torch.zeros(1), torch.zeros(3))
    tensor(-0.1000)
    """

    def __call__(
        self, state: Float[Tensor, "*batch 3"], action: Float[Tensor, "... 1"], next_state: Float[Tensor, "..."]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        angle, speed = torch.atan2(state[..., 1], state[..., 0]), state[..., 2]
        torque = action[..., 0].clamp(-_TORQUE_LIMIT, _TORQUE_LIMIT)
        return -(angle.square() + 0.1 * speed.square() + 0.001 * torque.square())


def pendulum_v1_step(state: Float[Tensor, "*batch 3"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 3"]:
    """Return the next (cos θ, sin θ, θ̇) of `Pendulum-v1`.

        θ̇' = clip(θ̇ + 0.05 (15 sin θ + 3 clip(u, ±2)), ±8),   θ' = θ + 0.05 θ̇'

    Its known plant, for ceilings: `PlainDynamics` makes a planner's dynamics of it.
    Source: Gymnasium, `classic_control/pendulum.py`.

    >>> pendulum_v1_step(torch.tensor([1.0, 0.0, 0.0]), torch.zeros(1))
    tensor([1., 0., 0.])
    """
    torque = action[..., 0].clamp(-_TORQUE_LIMIT, _TORQUE_LIMIT)
    speed = (state[..., 2] + 0.05 * (15 * state[..., 1] + 3 * torque)).clamp(-_SPEED_LIMIT, _SPEED_LIMIT)
    angle = torch.atan2(state[..., 1], state[..., 0]) + 0.05 * speed
    return torch.stack((angle.cos(), angle.sin(), speed), -1)


@dataclass(frozen=True)
class ReacherV5Reward:
    """r = -‖finger - target‖ - ‖a‖² of `Reacher-v5`, the vector being coordinates 8 and 9 of the next observation, in metres.

    Called with next_state [..., 10] and action [..., 2], gives [...]. Source: Gymnasium, `mujoco/reacher_v5.py`.

    >>> ReacherV5Reward()(torch.zeros(10), torch.zeros(2), torch.tensor([0.0] * 8 + [0.3, 0.4]))
    tensor(-0.5000)
    """

    distance_weight: float = 1.0
    action_weight: float = 1.0

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "... 2"], next_state: Float[Tensor, "*batch 10"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        distance = torch.linalg.vector_norm(next_state[..., 8:10], dim=-1)
        return -self.distance_weight * distance - self.action_weight * action.square().sum(-1)


@dataclass(frozen=True)
class PusherV5Reward:
    """r = -‖object - goal‖ - 0.5 ‖object - tip‖ - 0.1 ‖a‖² of `Pusher-v5`, places in the next observation, in metres.

    Called with next_state [..., 23] (14:17 tip, 17:20 object, 20:23 goal) and action [..., 7], gives [...]. The installed model's
    object lets the fingers through: `fixed_pusher_model`. Source: Gymnasium, `mujoco/pusher_v5.py`.

    >>> PusherV5Reward()(torch.zeros(23), torch.zeros(7), torch.tensor([0.0] * 20 + [0.3, 0.4, 0.0]))
    tensor(-0.5000)
    """

    goal_weight: float = 1.0
    tip_weight: float = 0.5
    action_weight: float = 0.1

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "... 7"], next_state: Float[Tensor, "*batch 23"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        tip, cylinder, goal = next_state[..., 14:17], next_state[..., 17:20], next_state[..., 20:23]
        far, near = (torch.linalg.vector_norm(cylinder - place, dim=-1) for place in (goal, tip))
        return -self.goal_weight * far - self.tip_weight * near - self.action_weight * action.square().sum(-1)


@dataclass(frozen=True)
class InvertedDoublePendulumV5Termination:
    """done = [y <= 1] of `InvertedDoublePendulum-v5`, y = 0.6 (cos θ₁ + cos(θ₁ + θ₂)) the tip's height (m) in s'.

    Called with next_state [..., 9] (x, sin θ₁, sin θ₂, cos θ₁, cos θ₂, rates, force), gives [...]. The environment's own y lags
    behind by a stage of its integrator, some 1e-4 m. Source: Gymnasium, `mujoco/inverted_double_pendulum_v5.py`.

    >>> upright = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    >>> InvertedDoublePendulumV5Termination()(upright, torch.zeros(1), upright)
    tensor(False)
    """

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 9"]
    ) -> Bool[Tensor, "*batch"]:
        """Return whether the episode ends with each step."""
        return _double_pendulum_tip(next_state)[1] <= 1


@dataclass(frozen=True)
class InvertedDoublePendulumV5Reward:
    """r = 10 [y > 1] - 0.01 x² - (y - 2)² - 0.001 θ̇₁² - 0.005 θ̇₂² of `InvertedDoublePendulum-v5`, (x, y) the tip, in s'.

    Called with next_state [..., 9], gives [...]. The environment's tip lags behind by a stage of its integrator, which makes some
    1e-4; its observation clips rates at ±10 rad/s, its reward does not, so beyond that this one is too high.
    Source: Gymnasium, `mujoco/inverted_double_pendulum_v5.py`.

    >>> upright = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    >>> round(InvertedDoublePendulumV5Reward()(upright, torch.zeros(1), upright).item(), 4)
    9.36
    """

    healthy_reward: float = 10.0

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 9"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        x, y = _double_pendulum_tip(next_state)
        place = 0.01 * x.square() + (y - 2).square()
        rates = 0.001 * next_state[..., 6].square() + 0.005 * next_state[..., 7].square()
        return self.healthy_reward * (y > 1).to(y.dtype) - place - rates


@dataclass(frozen=True)
class HalfCheetahV5Reward:
    """r = v - 0.1 ‖a‖² of `HalfCheetah-v5`, v = (x' - x) / 0.05 s the mean forward speed over the step, in m/s.

    v is no part of the environment's observation, whose coordinate 8 is the speed at the end of the step and is off by up to 0.6:
    make the environment with `make("HalfCheetah-v5", observe_infos=("x_velocity",))` and v is coordinate `speed` of the next
    observation. Called with next_state [..., > speed] and action [..., 6], gives [...]; raises `ConfigurationError` for shorter
    states.
    Source: Gymnasium, `mujoco/half_cheetah_v5.py`.

    >>> HalfCheetahV5Reward()(torch.zeros(18), torch.ones(6), torch.tensor([0.0] * 17 + [2.0])).item()
    1.399999976158142
    """

    speed: int = 17
    forward_weight: float = 1.0
    action_weight: float = 0.1

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "... 6"], next_state: Float[Tensor, "*batch S"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        if next_state.shape[-1] <= self.speed:
            raise ConfigurationError(
                f"HalfCheetahV5Reward reads the speed in coordinate {self.speed}; got states of {next_state.shape[-1]}: learn in "
                'make("HalfCheetah-v5", observe_infos=("x_velocity",)), and give a KnownPlant an observer that appends it'
            )
        return self.forward_weight * next_state[..., self.speed] - self.action_weight * action.square().sum(-1)


def _double_pendulum_tip(observation: Float[Tensor, "*batch 9"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    x, sin1, sin2, cos1, cos2 = observation[..., :5].unbind(-1)
    across, up = sin1 + sin1 * cos2 + cos1 * sin2, cos1 + cos1 * cos2 - sin1 * sin2
    return x + _LINK * across, _LINK * up
