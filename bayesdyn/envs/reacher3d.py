"""Reacher3D of PETS: a seven-joint arm whose hand has to reach a goal in space; `bayesdyn/Reacher3D-v0`."""

from dataclasses import dataclass
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.arm import hand_position
from bayesdyn.envs.mujoco_env import ASSETS, MujocoTask, compile_model

BASE, HAND = -0.188, 0.16828
GOAL_MEAN, GOAL_STD = (0.0, 0.25, 0.0), 0.1
REACHER3D_STEPS = 150


@dataclass(frozen=True)
class Reacher3DReward:
    """r = -‖hand(s') - goal(s')‖² - 0.01 ‖a‖², the hand by forward kinematics of the joint angles.

    Called with state [..., 17], action [..., 7] (N m) and next_state [..., 17], gives [...] in m². Depends on the action and
    `next_state` only. Source: kchua/handful-of-trials, config/reacher.py, env/reacher.py.

    >>> state = torch.zeros(17)
    >>> state[7:10] = hand_position(state, BASE, HAND)  # the goal is where the hand is
    >>> Reacher3DReward()(state, torch.ones(7), state).item()
    -0.07...
    """

    action_cost: float = 0.01

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "*#batch 7"], next_state: Float[Tensor, "*batch 17"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        away = hand_position(next_state, BASE, HAND) - next_state[..., 7:10]
        return -away.square().sum(-1) - self.action_cost * action.square().sum(-1)


class Reacher3D(MujocoTask):
    """Reach the goal (0, 0.25, 0) + N(0, 0.1² I) metres from the outstretched arm: 150 steps of 0.02 s, torques within ±20 N m.

    Observation [17]: seven joint angles (rad), the goal (m), seven joint velocities (rad/s). `info` adds "distance" (m).
    Source: Chua et al. 2018; constants of kchua/handful-of-trials, env/reacher.py and reacher3d.xml.

    >>> import gymnasium, bayesdyn.envs
    >>> gymnasium.make("bayesdyn/Reacher3D-v0").reset(seed=0)[0].shape
    (17,)
    """

    metadata: ClassVar[dict[str, Any]] = {**MujocoTask.metadata, "render_fps": 50}
    camera: ClassVar[dict[str, Any]] = {"trackbodyid": 1, "distance": 2.5, "elevation": -30.0, "azimuth": 270.0}

    def __init__(self, render_mode: str | None = None) -> None:
        text = (ASSETS / "reacher3d.xml").read_text(encoding="utf-8")
        super().__init__(compile_model(ElementTree.fromstring(text)), Reacher3DReward(), frame_skip=2, render_mode=render_mode)

    def start(self) -> np.ndarray:
        """Draw a goal; the arm is stretched out and at rest."""
        goal = self.np_random.normal(GOAL_MEAN, GOAL_STD)
        return np.concatenate((np.zeros(7), goal, np.zeros(10)))

    def observe(self, before: Float[Tensor, "*batch 20"], after: Float[Tensor, "*batch 20"]) -> Float[Tensor, "*batch 17"]:
        """Return all but the goal's velocity, which is zero."""
        return after[..., :17]

    def measure(self, observation: Float[Tensor, "17"], state: Float[Tensor, "20"]) -> dict[str, float]:
        """Return the distance of the hand from the goal in metres."""
        return {"distance": float(torch.dist(hand_position(observation, BASE, HAND), observation[7:10]))}
