"""HalfCheetah of PETS: run forward, with the speed among the observations; `bayesdyn/PETSHalfCheetah-v0`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.mujoco_env import MujocoTask, compile_model, find, gymnasium_model, load_mujoco

if TYPE_CHECKING:
    import mujoco

FRAME_SKIP = 5
HALF_CHEETAH_STEPS = 1000


@dataclass(frozen=True)
class HalfCheetahReward:
    """r = v - 0.1 ‖a‖² with v the forward speed over the step (m/s), the first coordinate of s'.

    Called with state [..., 18], action [..., 6] and next_state [..., 18], gives [...]. Depends on the action and `next_state` only.
    Source: kchua/handful-of-trials, config/halfcheetah.py, env/half_cheetah.py.

    >>> HalfCheetahReward()(torch.zeros(18), torch.zeros(6), torch.full((18,), 2.0)).item()
    2.0
    """

    action_cost: float = 0.1

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "*#batch 6"], next_state: Float[Tensor, "*batch 18"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        return next_state[..., 0] - self.action_cost * action.square().sum(-1)


class PETSHalfCheetah(MujocoTask):
    """Run forward: 1,000 steps of 0.05 s, six torques within ±1 (times the gears); start N(0, 0.001² I) about standing.

    Observation [18]: the speed (x' - x)/0.05 s over the last step (m/s; 0 at the start), then height and angles (m, rad), then all
    nine velocities (m/s, rad/s). `info` adds "x_position" (m). The model is Gymnasium's `half_cheetah.xml`, whose dynamics are
    those of PETS's. Source: Chua et al. 2018; kchua/handful-of-trials, env/half_cheetah.py.

    >>> import gymnasium, bayesdyn.envs
    >>> gymnasium.make("bayesdyn/PETSHalfCheetah-v0").reset(seed=0)[0].shape
    (18,)
    """

    metadata: ClassVar[dict[str, Any]] = {**MujocoTask.metadata, "render_fps": 20}
    camera: ClassVar[dict[str, Any]] = {"distance": 4.0}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(_model(), HalfCheetahReward(), frame_skip=FRAME_SKIP, render_mode=render_mode)

    def start(self) -> np.ndarray:
        """Draw positions and velocities around standing still."""
        return self.np_random.normal(0.0, 0.001, self.model.nq + self.model.nv)

    def observe(self, before: Float[Tensor, "*batch 18"], after: Float[Tensor, "*batch 18"]) -> Float[Tensor, "*batch 18"]:
        """Return the speed and everything but the place."""
        return torch.cat(((after[..., :1] - before[..., :1]) / self.dt, after[..., 1:]), -1)

    def measure(self, observation: Float[Tensor, "18"], state: Float[Tensor, "18"]) -> dict[str, float]:
        """Return how far the cheetah has come, in metres."""
        return {"x_position": float(state[0])}


def _model() -> "mujoco.MjModel":
    """Compile Gymnasium's model; the total mass that its file asks the compiler for is set afterwards, as MuJoCo 4 prefers."""
    root = gymnasium_model("half_cheetah")
    total = float(find(root, "compiler").attrib.pop("settotalmass"))
    model = compile_model(root)
    engine = load_mujoco()
    engine.mj_setTotalmass(model, total)
    engine.mj_setConst(model, engine.MjData(model))
    return model
