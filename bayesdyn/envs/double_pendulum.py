"""PILCO's double pendulum and pendubot as environments: `bayesdyn/DoublePendulum-v0` and `bayesdyn/Pendubot-v0`."""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from bayesdyn.envs.chain import UPRIGHT
from bayesdyn.envs.drawing import draw_chain
from bayesdyn.envs.plant import Numbers, PlantEnv
from bayesdyn.envs.saturating import TipReward, Widths
from bayesdyn.envs.two_links import DoublePendulumPlant, PendubotPlant, TwoLinkPlant

DOUBLE_PENDULUM_STEPS, PENDUBOT_STEPS = 30, 60
DOUBLE_PENDULUM_LIMIT, PENDUBOT_LIMIT = 2.0, 3.5


class _TwoLinkEnv(PlantEnv):
    """Two rods that start hanging, N((0, 0, π, π), diag(0.1, 0.1, 0.01, 0.01)²), and are to stand upright."""

    def __init__(
        self, plant: TwoLinkPlant, width: Widths, limit: float, observation_noise: Numbers, render_mode: str | None
    ) -> None:
        reward = TipReward(width, plant.lengths, angles=(2, 3), up=UPRIGHT, cart=None)
        self.chain = reward.chain
        super().__init__(
            plant,
            reward,
            action_limit=limit,
            start_mean=[0.0, 0.0, math.pi, math.pi],
            start_std=[0.1, 0.1, 0.01, 0.01],
            observation_noise=observation_noise,
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return the tip's distance to its target in metres."""
        return {"tip_distance": float(self.chain.distance(torch.from_numpy(state)))}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        joints = self.chain.joints(torch.from_numpy(state))
        return draw_chain(joints, torques=action, largest=float(self.action_limit.max()), time=time)


class DoublePendulum(_TwoLinkEnv):
    """PILCO's double pendulum: swing both rods up and hold them, 30 steps of 0.1 s, both torques within ±2 N m.

    Start N((0, 0, π, π), diag(0.1, 0.1, 0.01, 0.01)²), hanging; `observation_noise` is the standard deviation added to each
    coordinate; the reward, `TipReward(width)`, is paid on the true next state; `info` holds "state", "action" and "tip_distance" in
    metres. `lengths=(1.0, 1.0)` is the task of Kamthe & Deisenroth (AISTATS 2018), who count a tip within 0.22 m as there; their
    masses, start and cost are not known here, and are PILCO's.
    Source: double-pendulum scenario of UCL-SML/pilco-matlab.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/DoublePendulum-v0", lengths=(1.0, 1.0))
    >>> round(env.reset(seed=0, options={"state": [0, 0, np.pi, np.pi]})[1]["tip_distance"], 6)
    4.0
    """

    def __init__(
        self,
        render_mode: str | None = None,
        observation_noise: Numbers = 0.01,
        width: Widths = 0.5,
        lengths: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        plant = DoublePendulumPlant(lengths=(lengths[0], lengths[1]))
        super().__init__(plant, width, DOUBLE_PENDULUM_LIMIT, observation_noise, render_mode)


class Pendubot(_TwoLinkEnv):
    """PILCO's pendubot: as the double pendulum, driven at the inner joint only: 60 steps of 0.05 s, torque within ±3.5 N m.

    Start, noise and `info` as `DoublePendulum`; the reward is `TipReward(width)`.
    Source: pendubot scenario of UCL-SML/pilco-matlab.

    >>> import gymnasium, bayesdyn.envs
    >>> gymnasium.make("bayesdyn/Pendubot-v0").action_space.shape
    (1,)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None, observation_noise: Numbers = 0.01, width: Widths = 0.25) -> None:
        super().__init__(PendubotPlant(), width, PENDUBOT_LIMIT, observation_noise, render_mode)
