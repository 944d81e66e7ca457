"""Rewards of DeepMind Control's tasks on flattened observations, and shaped costs for planners where the reward is sparse."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

_UPRIGHT = math.cos(math.radians(8.0))
_FINGER_RADIUS = 0.01
TARGET_RADIUS = {"easy": 0.05, "hard": 0.015}


def tolerance(value: Float[Tensor, "*batch"], low: float, high: float, margin: float) -> Float[Tensor, "*batch"]:
    """Return 1 inside [low, high] and 0.1^((d / margin)²) at distance d outside: dm_control's Gaussian tolerance.

    `margin` is in the units of `value`; 0 gives the indicator. Source: Tassa et al., arXiv:2006.12983, section 4.

    >>> tolerance(torch.tensor([0.0, 2.0]), 0.0, 0.0, 2.0)
    tensor([1.0000, 0.1000])
    """
    outside = (low - value).clamp_min(0) + (value - high).clamp_min(0)
    if margin == 0:
        return (outside == 0).to(value.dtype)
    return (-math.log(10) * (outside / margin).square()).exp()


@dataclass(frozen=True)
class DMCCartPoleReward:
    """r = (1 + cos θ)/2 · (1 + tol(x; 2))/2 · (4 + max(0, 1 - a²))/5 · (1 + tol(θ̇; 5))/2 on the next observation.

    Called with state [..., 5], action [..., 1] and next_state [..., 5] = (x, cos θ, sin θ, ẋ, θ̇), θ = 0 upright, in m, m/s, rad/s;
    gives [...] in [0, 1]. Source: google-deepmind/dm_control, `suite/cartpole.py`, swingup.

    >>> upright = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    >>> DMCCartPoleReward()(upright, torch.zeros(1), upright)
    tensor(1.)
    """

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "... 1"], next_state: Float[Tensor, "*batch 5"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        upright = (1 + next_state[..., 1]) / 2
        centred = (1 + tolerance(next_state[..., 0], 0.0, 0.0, 2.0)) / 2
        gentle = (4 + (1 - action[..., 0].square()).clamp_min(0)) / 5
        slow = (1 + tolerance(next_state[..., 4], 0.0, 0.0, 5.0)) / 2
        return upright * centred * gentle * slow


@dataclass(frozen=True)
class DMCPendulumReward:
    """r = [cos θ >= cos 8°] on the next observation: 1 within 8 degrees of upright, else 0.

    Called with next_state [..., 3] = (cos θ, sin θ, θ̇), gives [...]. A planner finds no slope in it: `DMCPendulumShapedReward`.
    Source: google-deepmind/dm_control, `suite/pendulum.py`, swingup.

    >>> DMCPendulumReward()(torch.zeros(3), torch.zeros(1), torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]]))
    tensor([1., 0.])
    """

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        return tolerance(next_state[..., 0], _UPRIGHT, math.inf, 0.0)


@dataclass(frozen=True)
class DMCPendulumShapedReward:
    """A planner's own reward, not the task's: the height it has or has the energy to reach, and then the task's indicator.

        r = ½ (1 + cos θ)·exp(-(θ̇ / `speed`)²·½(1 + cos θ)) - ½ |E - 1| + [cos θ >= cos 8°],   E = cos θ + θ̇² / (2 · 19.62)

    E is the pendulum's energy in units of m g l, without its sphere's own inertia: 1 at rest upright. Pumping it up costs height at
    first, which a planner with a short horizon would not do for height alone. Called as `DMCPendulumReward`; `speed` in rad/s.
    Figures reached with it are to say that the planner saw this and the score is the task's.

    >>> hanging, upright = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    >>> reward = DMCPendulumShapedReward()
    >>> reward(hanging, torch.zeros(1), hanging).item(), reward(upright, torch.zeros(1), upright).item()
    (-1.0, 2.0)
    """

    speed: float = 3.0

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ConfigurationError(f"speed is positive; got {self.speed}")

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch"]:
        """Return the shaped reward of each step."""
        cosine, speed = next_state[..., 0], next_state[..., 2]
        height = (1 + cosine) / 2
        energy = cosine + speed.square() / (4 * 9.81)
        still = (-((speed / self.speed).square()) * height).exp()
        return height * still - (energy - 1).abs() / 2 + DMCPendulumReward()(state, action, next_state)


@dataclass(frozen=True)
class DMCReacherReward:
    """r = [‖target - finger‖ <= `radius` + 0.01] on the next observation, in metres.

    `radius` is the target's: 0.05 easy, 0.015 hard. Called with next_state [..., 6] = (shoulder, wrist, target - finger (2), their
    two rates), in rad, m and rad/s; gives [...]. A planner finds no slope in it: `DMCReacherShapedReward`.
    Source: google-deepmind/dm_control, `suite/reacher.py`.

    >>> DMCReacherReward()(torch.zeros(6), torch.zeros(2), torch.tensor([0.0, 0.0, 0.03, 0.04, 0.0, 0.0]))
    tensor(1.)
    """

    radius: float = TARGET_RADIUS["easy"]

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 6"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        return tolerance(_target_distance(next_state), -math.inf, self.radius + _FINGER_RADIUS, 0.0)


@dataclass(frozen=True)
class DMCReacherShapedReward:
    """A planner's own reward, not the task's: [d <= `radius` + 0.01] - d / `scale`, d the distance from finger to target.

    Called as `DMCReacherReward`; `radius` and `scale` in metres, the arm being 0.24 m long. Figures reached with it are to
    say that the planner saw this and the score is the task's.

    >>> DMCReacherShapedReward()(torch.zeros(6), torch.zeros(2), torch.tensor([0.0, 0.0, 0.12, 0.0, 0.0, 0.0]))
    tensor(-0.5000)
    """

    radius: float = TARGET_RADIUS["easy"]
    scale: float = 0.24

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigurationError(f"scale is positive; got {self.scale}")

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 6"]
    ) -> Float[Tensor, "*batch"]:
        """Return the shaped reward of each step."""
        distance = _target_distance(next_state)
        return DMCReacherReward(self.radius)(state, action, next_state) - distance / self.scale


def _target_distance(observation: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch"]:
    return torch.linalg.vector_norm(observation[..., 2:4], dim=-1)
