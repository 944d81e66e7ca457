"""The pusher of PETS: a seven-joint arm pushes a cylinder over a table to a goal; `bayesdyn/PETSPusher-v0`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.arm import hand_position
from bayesdyn.envs.mujoco_env import MujocoTask, compile_model, find, gymnasium_model

if TYPE_CHECKING:
    import mujoco

BASE = -0.6
GOAL = (0.45, -0.05, -0.323)
OBJECT = (0.45, -0.05, -0.275)
PUSHER_STEPS = 150


@dataclass(frozen=True)
class PusherReward:
    """r = -0.5 ‖tip - object‖₁ - 1.25 ‖goal - object‖₁ - 0.1 ‖a‖², both positions of s': what PETS plans with.

    Called with state [..., 20], action [..., 7] (N m) and next_state [..., 20], gives [...]. Depends on the action and `next_state`
    only. The environment itself pays on the state *before* the step (`PusherPaid`), so a trial's reward lags behind by one step.
    Source: kchua/handful-of-trials, config/pusher.py.

    >>> state = torch.tensor([[0.0] * 14 + [*GOAL] + [*GOAL]])
    >>> PusherReward()(state, torch.ones(1, 7), state)
    tensor([-0.7000])
    """

    tip_weight: float = 0.5
    goal_weight: float = 1.25
    action_cost: float = 0.1

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "*#batch 7"], next_state: Float[Tensor, "*batch 20"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        tip, cylinder = next_state[..., 14:17], next_state[..., 17:20]
        near = (tip - cylinder).abs().sum(-1)
        far = (cylinder - next_state.new_tensor(GOAL)).abs().sum(-1)
        return -self.tip_weight * near - self.goal_weight * far - self.action_cost * action.square().sum(-1)


@dataclass(frozen=True)
class PusherPaid:
    """The environment's reward: `PusherReward` with the positions of s, before the step, in the place of those of s'.

    Source: kchua/handful-of-trials, env/pusher.py.

    >>> state, moved = torch.zeros(20), torch.ones(20)
    >>> torch.equal(PusherPaid()(state, torch.zeros(7), moved), PusherReward()(state, torch.zeros(7), state))
    True
    """

    reward: PusherReward = PusherReward()

    def __call__(
        self, state: Float[Tensor, "*batch 20"], action: Float[Tensor, "*#batch 7"], next_state: Float[Tensor, "..."]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        return self.reward(state, action, state)


class PETSPusher(MujocoTask):
    """Push the cylinder to the goal (0.45, -0.05) on the table: 150 steps of 0.04 s, torques within ±2 N m.

    Observation [20]: seven joint angles (rad) and velocities (rad/s), the tip and the cylinder (m). The cylinder starts at
    (0.6, -0.3) + N(0, 0.025² I). The reward paid is `PusherPaid`; planners take `PusherReward`. `info` adds "distance", of the
    cylinder from the goal (m).

    Two things differ between simulators, so figures name the variant:

    * `tip_offset` (m from the wrist along the hand): the tip is the centre of mass of the finger-tips, 0.1, as in the gym that PETS
      used; Gymnasium's `get_body_com` gives the body's origin, 0.
    * The cylinder weighs 1e-8 kg in the original and lives by its joints' armature of 0.04, which MuJoCo 3 and later no longer
      count in contacts: fingers pass through it. Here it weighs 0.04 kg without armature, which is the same mass matrix and moves.

    Otherwise the model is that of Gymnasium's `pusher.xml`, which PETS's equals but for the pan joint's upper limit, 2.0 here as
    there. Positions are those of the present joint angles; in the original they lag behind by one step of the simulator.
    Source: Chua et al. 2018; kchua/handful-of-trials, env/pusher.py and pusher.xml.

    >>> import gymnasium, bayesdyn.envs
    >>> gymnasium.make("bayesdyn/PETSPusher-v0").reset(seed=0)[0].shape
    (20,)
    """

    metadata: ClassVar[dict[str, Any]] = {**MujocoTask.metadata, "render_fps": 25}
    camera: ClassVar[dict[str, Any]] = {"trackbodyid": -1, "distance": 4.0}

    def __init__(self, render_mode: str | None = None, tip_offset: float = 0.1) -> None:
        self.tip_offset = tip_offset
        super().__init__(_model(), PusherPaid(), frame_skip=4, render_mode=render_mode)

    def start(self) -> np.ndarray:
        """Draw the cylinder's place and small joint velocities; the arm is stretched out."""
        cylinder = self.np_random.normal((-0.25, 0.15), 0.025)  # along y, along x
        velocity = self.np_random.uniform(-0.005, 0.005, 7)
        return np.concatenate((np.zeros(7), cylinder, np.zeros(2), velocity, np.zeros(4)))

    def observe(self, before: Float[Tensor, "*batch 22"], after: Float[Tensor, "*batch 22"]) -> Float[Tensor, "*batch 20"]:
        """Return joint angles, joint velocities, tip and cylinder."""
        joints = after[..., :7]
        cylinder = torch.stack((after[..., 8], after[..., 7], torch.zeros_like(after[..., 7])), -1) + after.new_tensor(OBJECT)
        return torch.cat((joints, after[..., 11:18], hand_position(joints, BASE, self.tip_offset), cylinder), -1)

    def measure(self, observation: Float[Tensor, "20"], state: Float[Tensor, "22"]) -> dict[str, float]:
        """Return the distance of the cylinder from the goal over the table, in metres."""
        return {"distance": float(torch.dist(observation[17:19], observation.new_tensor(GOAL[:2])))}


def _model() -> "mujoco.MjModel":
    root = gymnasium_model("pusher")
    find(root, ".//joint[@name='r_shoulder_pan_joint']").set("range", "-2.2854 2.0")
    cylinder = find(root, ".//body[@name='object']/geom[@type='cylinder']")
    del cylinder.attrib["density"]
    cylinder.set("mass", "0.04")
    for name in ("obj_slidex", "obj_slidey"):
        find(root, f".//joint[@name='{name}']").set("armature", "0")
    return compile_model(root)
