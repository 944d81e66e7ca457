"""PILCO's pendulum: the plant and the environment `bayesdyn/PILCOPendulum-v0`."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.chain import HANGING
from bayesdyn.envs.drawing import draw_chain
from bayesdyn.envs.plant import Numbers, Plant, PlantEnv
from bayesdyn.envs.saturating import TipReward, Widths
from bayesdyn.errors import ConfigurationError

PENDULUM_STEPS = 40
PENDULUM_LIMIT = 2.5


@dataclass(frozen=True)
class PendulumPlant(Plant):
    r"""A uniform rod hinged at one end, turned by a torque u (N m) that is held for `dt` seconds.

    State: theta_dot (rad/s), theta (rad, 0 hanging, counter-clockwise, unwrapped). With mass m, length l and friction b:

        ⅓ m l² θ̈ = u - b θ̇ - ½ m g l sin θ

    Units: kg, m, N m s, m/s², s. Raises `ConfigurationError` for constants without meaning.
    Source: pendulum scenario of PILCO; constants of UCL-SML/pilco-matlab.

    >>> hanging = torch.zeros(100, 2).double()
    >>> PendulumPlant().step(hanging, torch.zeros(1).double()).abs().max().item()
    0.0
    """

    mass: float = 1.0
    length: float = 1.0
    friction: float = 0.01
    gravity: float = 9.82
    dt: float = 0.1

    state_names: ClassVar[tuple[str, ...]] = ("theta_dot", "theta")
    action_names: ClassVar[tuple[str, ...]] = ("torque",)

    def __post_init__(self) -> None:
        if not (min(self.mass, self.length, self.dt) > 0 and min(self.friction, self.gravity) >= 0):
            raise ConfigurationError(f"mass, length and dt are positive, friction and gravity not negative; got {self}")

    def derivative(self, state: Float[Tensor, "*batch 2"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 2"]:
        """Return (θ̈, θ̇) for the state (θ̇, θ) and the torque (N m)."""
        theta_dot, theta = state.unbind(-1)
        weight = 0.5 * self.mass * self.gravity * self.length * theta.sin()
        torque = action[..., 0] - self.friction * theta_dot - weight
        return torch.stack((torque / (self.mass * self.length**2 / 3), theta_dot), -1)

    def energy(self, state: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Return ⅙ml²θ̇² - ½mgl cos θ in joules; constant without torque and friction."""
        theta_dot, theta = state.unbind(-1)
        return self.mass * self.length * (self.length * theta_dot**2 / 6 - 0.5 * self.gravity * theta.cos())


class PILCOPendulum(PlantEnv):
    """PILCO's pendulum: swing the rod up and hold it, 40 steps of 0.1 s from hanging, torque within ±2.5 N m.

    Start N(0, 0.1² I); `observation_noise` is the standard deviation added to θ̇ (rad/s) and θ (rad). The reward is the tip's,
    `TipReward`, on the true next state; `info` holds "state", "action" and "tip_distance" in metres.
    Source: pendulum scenario of UCL-SML/pilco-matlab.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/PILCOPendulum-v0")
    >>> env.reset(seed=0, options={"state": [0.0, np.pi]})[1]["tip_distance"] < 1e-15
    True
    """

    def __init__(self, render_mode: str | None = None, observation_noise: Numbers = (0.1, 0.01), width: Widths = 0.5) -> None:
        plant = PendulumPlant()
        reward = TipReward(width, plant.length, angles=(1,), up=HANGING, cart=None)
        self.chain = reward.chain
        super().__init__(
            plant,
            reward,
            action_limit=PENDULUM_LIMIT,
            start_mean=0.0,
            start_std=0.1,
            observation_noise=observation_noise,
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return the tip's distance to its target in metres."""
        return {"tip_distance": float(self.chain.distance(torch.from_numpy(state)))}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        return draw_chain(self.chain.joints(torch.from_numpy(state)), torques=action, largest=PENDULUM_LIMIT, time=time)
