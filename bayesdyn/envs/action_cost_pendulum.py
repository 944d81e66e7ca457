"""The pendulum whose every push costs: the plant and the environment `bayesdyn/ActionCostPendulum-v0`."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.chain import UPRIGHT, Chain
from bayesdyn.envs.dmc_rewards import tolerance
from bayesdyn.envs.drawing import draw_chain
from bayesdyn.envs.plant import Numbers, Plant, PlantEnv
from bayesdyn.errors import ConfigurationError

ACTION_COST_STEPS = 400
_UPRIGHT = 0.95  # cos θ, below which the reward falls


@dataclass(frozen=True)
class ActionCostPendulumPlant(Plant):
    r"""A point mass on a rod, turned by a torque u (N m) that is held for `dt` seconds and clipped to ±1.

    State: theta (rad, 0 upright, unwrapped), theta_dot (rad/s). With mass m, length l, friction b and I = m l²:

        θ̈ = (g/l) sin θ + u/I - (b/I) θ̇

    Gravity's largest torque, m g l = 1.47 N m, is more than the motor's: the pendulum has to swing.
    Units: kg, m, N m s, m/s², s. Raises `ConfigurationError` for constants without meaning.
    Source: constants of sebascuri/hucrl, `exps/inverted_pendulum`.

    >>> upright = torch.zeros(100, 2).double()
    >>> ActionCostPendulumPlant().step(upright, torch.zeros(1).double()).abs().max().item()
    0.0
    """

    mass: float = 0.3
    length: float = 0.5
    friction: float = 0.005
    gravity: float = 9.81
    dt: float = 1 / 80

    state_names: ClassVar[tuple[str, ...]] = ("theta", "theta_dot")
    action_names: ClassVar[tuple[str, ...]] = ("torque",)
    grid: ClassVar[tuple[int, int]] = (1, 6)

    def __post_init__(self) -> None:
        if not (min(self.mass, self.length, self.dt) > 0 and min(self.friction, self.gravity) >= 0):
            raise ConfigurationError(f"mass, length and dt are positive, friction and gravity not negative; got {self}")

    def derivative(self, state: Float[Tensor, "*batch 2"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 2"]:
        """Return (θ̇, θ̈) for the state (θ, θ̇) and the torque (N m)."""
        theta, theta_dot = state.unbind(-1)
        inertia = self.mass * self.length**2
        torque = action[..., 0].clamp(-1, 1) - self.friction * theta_dot
        return torch.stack((theta_dot, self.gravity / self.length * theta.sin() + torque / inertia), -1)


@dataclass(frozen=True)
class ActionCostReward:
    """r = tol(cos θ; 0.95, 1; 0.1) · tol(θ̇; ±0.5; 0.5) + c (tol(u; ±0.1; 0.1) - 1), on the state and the action of a step.

    Called with state [..., 2] = (θ, θ̇) and action [..., 1], gives [...]: at most 1 where the pendulum stands still upright, and
    -c for a torque beyond 0.1. Source: sebascuri/hucrl, `exps/inverted_pendulum`.

    >>> ActionCostReward()(torch.tensor([math.pi, 0.0]), torch.tensor([1.0]), torch.zeros(2))
    tensor(-0.1000)
    """

    action_cost: float = 0.1

    def __call__(
        self, state: Float[Tensor, "*batch 2"], action: Float[Tensor, "... 1"], next_state: Float[Tensor, "..."]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        upright = tolerance(state[..., 0].cos(), _UPRIGHT, 1.0, 0.1) * tolerance(state[..., 1], -0.5, 0.5, 0.5)
        return upright + self.action_cost * (tolerance(action[..., 0], -0.1, 0.1, 0.1) - 1)


class ActionCostPendulum(PlantEnv):
    """Swing the pendulum up although every push costs: 400 steps of 1/80 s from hanging at rest, torque within ±1 N m.

    An action is held for `action_repeat` steps, whose `ActionCostReward`s are added up, so that returns compare for any repeat. Who
    does nothing earns 0; a swing costs ten or so before it earns anything. Nothing is random but `observation_noise`, a standard
    deviation for θ (rad) and θ̇ (rad/s). `info` holds "state", "action" and "upright", the share of the action's steps that ended
    with cos θ > 0.95. Raises `ConfigurationError` unless 400 is a multiple of `action_repeat`.
    Source: Curi, Berkenkamp & Krause, NeurIPS 2020 (H-UCRL); sebascuri/hucrl, `exps/inverted_pendulum`.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/ActionCostPendulum-v0", action_repeat=4)
    >>> _ = env.reset(seed=0)
    >>> round(env.step(np.array([1.0]))[1], 6)
    -0.4
    """

    def __init__(
        self,
        render_mode: str | None = None,
        action_cost: float = 0.1,
        action_repeat: int = 1,
        observation_noise: Numbers = 0.0,
    ) -> None:
        if action_repeat < 1 or ACTION_COST_STEPS % action_repeat:
            raise ConfigurationError(f"action_repeat divides the {ACTION_COST_STEPS} steps of an episode; got {action_repeat}")
        plant = ActionCostPendulumPlant()
        super().__init__(
            plant,
            ActionCostReward(action_cost),
            action_limit=1.0,
            start_mean=(math.pi, 0.0),
            start_std=0.0,
            observation_noise=observation_noise,
            render_mode=render_mode,
        )
        self.action_repeat = action_repeat
        self.chain = Chain((plant.length,), (0,), up=UPRIGHT)

    @property
    def dt(self) -> float:
        """Seconds per action."""
        return self.plant.dt * self.action_repeat

    def step(self, action: Numbers) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold `action` [1] for `action_repeat` steps and return (observation, summed reward, False, truncated, info)."""
        steps = [super(ActionCostPendulum, self).step(action) for _ in range(self.action_repeat)]
        observation, _, _, _, info = steps[-1]
        info["upright"] = sum(step[-1]["upright"] for step in steps) / len(steps)
        return observation, sum(step[1] for step in steps), False, self._steps >= ACTION_COST_STEPS, info

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return whether the pendulum is upright."""
        return {"upright": float(math.cos(state[0]) > _UPRIGHT)}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        return draw_chain(self.chain.joints(torch.from_numpy(state)), torques=action, largest=1.0, time=time)
