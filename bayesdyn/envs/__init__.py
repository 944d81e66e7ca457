"""Simulated tasks; importing this package registers them with Gymnasium under the namespace `bayesdyn`."""

import gymnasium

from bayesdyn.envs.action_cost_pendulum import ACTION_COST_STEPS, ActionCostPendulum, ActionCostPendulumPlant, ActionCostReward
from bayesdyn.envs.cart_double_pendulum import CART_DOUBLE_STEPS, CartDoublePendulum, CartDoublePendulumPlant
from bayesdyn.envs.cartpole import STEPS, CartPolePlant, CartPoleSwingUp, swing_up_reward, tip_distance, tip_position
from bayesdyn.envs.cartpole_published import (
    DEEP_PILCO_STEPS,
    MC_PILCO_STEPS,
    DeepPILCOCartPole,
    DeepPILCOCartPolePlant,
    DeepPILCOReward,
    MCPILCOCartPole,
    MCPILCOReward,
)
from bayesdyn.envs.chain import HANGING, UPRIGHT, Chain
from bayesdyn.envs.dmc import DMCCartPole, DMCPendulum, DMCReacher, DMCTask
from bayesdyn.envs.dmc_rewards import (
    DMCCartPoleReward,
    DMCPendulumReward,
    DMCPendulumShapedReward,
    DMCReacherReward,
    DMCReacherShapedReward,
)
from bayesdyn.envs.double_pendulum import DOUBLE_PENDULUM_STEPS, PENDUBOT_STEPS, DoublePendulum, Pendubot
from bayesdyn.envs.drawing import draw_cartpole, draw_chain, save_animation
from bayesdyn.envs.gymnasium_rewards import (
    HalfCheetahV5Reward,
    InvertedDoublePendulumV5Reward,
    InvertedDoublePendulumV5Termination,
    PendulumV1Reward,
    PusherV5Reward,
    ReacherV5Reward,
    pendulum_v1_step,
)
from bayesdyn.envs.half_cheetah import HALF_CHEETAH_STEPS, HalfCheetahReward, PETSHalfCheetah
from bayesdyn.envs.integration import integrate
from bayesdyn.envs.making import make
from bayesdyn.envs.mujoco_env import MujocoTask
from bayesdyn.envs.mujoco_plant import EachObservation, KnownPlant
from bayesdyn.envs.observations import ExtendedObservation, ObservedReward, ObservedTermination
from bayesdyn.envs.pendulum import PENDULUM_STEPS, PendulumPlant, PILCOPendulum
from bayesdyn.envs.pets_cartpole import PETS_STEPS, PETSCartPole, PETSCartPolePlant, PETSCartPoleReward
from bayesdyn.envs.plant import Plant, PlantEnv
from bayesdyn.envs.pusher import PUSHER_STEPS, PETSPusher, PusherPaid, PusherReward
from bayesdyn.envs.pusher_model import fixed_pusher_model
from bayesdyn.envs.reacher3d import REACHER3D_STEPS, Reacher3D, Reacher3DReward
from bayesdyn.envs.saturating import CostRows, TipReward
from bayesdyn.envs.two_links import DoublePendulumPlant, PendubotPlant, TwoLinkPlant
from bayesdyn.envs.unicycle import UNICYCLE_EXPLORATION, UNICYCLE_STEPS, Unicycle, UnicycleReward, UnicycleTermination
from bayesdyn.envs.unicycle_drawing import UnicycleOutline, draw_unicycle, unicycle_outline
from bayesdyn.envs.unicycle_plant import UnicyclePlant

CARTPOLE_ID = "bayesdyn/CartPoleSwingUp-v0"

# Id: where the class is, and its steps per episode (None: the class ends its episodes itself).
_TASKS: dict[str, tuple[str, int | None]] = {
    CARTPOLE_ID: ("bayesdyn.envs.cartpole:CartPoleSwingUp", STEPS),
    "bayesdyn/PILCOPendulum-v0": ("bayesdyn.envs.pendulum:PILCOPendulum", PENDULUM_STEPS),
    "bayesdyn/ActionCostPendulum-v0": ("bayesdyn.envs.action_cost_pendulum:ActionCostPendulum", None),
    "bayesdyn/DoublePendulum-v0": ("bayesdyn.envs.double_pendulum:DoublePendulum", DOUBLE_PENDULUM_STEPS),
    "bayesdyn/Pendubot-v0": ("bayesdyn.envs.double_pendulum:Pendubot", PENDUBOT_STEPS),
    "bayesdyn/CartDoublePendulum-v0": ("bayesdyn.envs.cart_double_pendulum:CartDoublePendulum", CART_DOUBLE_STEPS),
    "bayesdyn/Unicycle-v0": ("bayesdyn.envs.unicycle:Unicycle", UNICYCLE_STEPS),
    "bayesdyn/DeepPILCOCartPole-v0": ("bayesdyn.envs.cartpole_published:DeepPILCOCartPole", DEEP_PILCO_STEPS),
    "bayesdyn/MCPILCOCartPole-v0": ("bayesdyn.envs.cartpole_published:MCPILCOCartPole", MC_PILCO_STEPS),
    "bayesdyn/PETSCartPole-v0": ("bayesdyn.envs.pets_cartpole:PETSCartPole", PETS_STEPS),
    "bayesdyn/Reacher3D-v0": ("bayesdyn.envs.reacher3d:Reacher3D", REACHER3D_STEPS),
    "bayesdyn/PETSPusher-v0": ("bayesdyn.envs.pusher:PETSPusher", PUSHER_STEPS),
    "bayesdyn/PETSHalfCheetah-v0": ("bayesdyn.envs.half_cheetah:PETSHalfCheetah", HALF_CHEETAH_STEPS),
    "bayesdyn/DMCCartPole-v0": ("bayesdyn.envs.dmc:DMCCartPole", None),
    "bayesdyn/DMCPendulum-v0": ("bayesdyn.envs.dmc:DMCPendulum", None),
    "bayesdyn/DMCReacher-v0": ("bayesdyn.envs.dmc:DMCReacher", None),
}

for _id, (_entry_point, _steps) in _TASKS.items():
    # Reloading the module must not register a name twice: Gymnasium warns about that.
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point=_entry_point, max_episode_steps=_steps)

__all__ = [
    "ACTION_COST_STEPS",
    "CARTPOLE_ID",
    "HANGING",
    "UNICYCLE_EXPLORATION",
    "UPRIGHT",
    "ActionCostPendulum",
    "ActionCostPendulumPlant",
    "ActionCostReward",
    "CartDoublePendulum",
    "CartDoublePendulumPlant",
    "CartPolePlant",
    "CartPoleSwingUp",
    "Chain",
    "CostRows",
    "DMCCartPole",
    "DMCCartPoleReward",
    "DMCPendulum",
    "DMCPendulumReward",
    "DMCPendulumShapedReward",
    "DMCReacher",
    "DMCReacherReward",
    "DMCReacherShapedReward",
    "DMCTask",
    "DeepPILCOCartPole",
    "DeepPILCOCartPolePlant",
    "DeepPILCOReward",
    "DoublePendulum",
    "DoublePendulumPlant",
    "EachObservation",
    "ExtendedObservation",
    "HalfCheetahReward",
    "HalfCheetahV5Reward",
    "InvertedDoublePendulumV5Reward",
    "InvertedDoublePendulumV5Termination",
    "KnownPlant",
    "MCPILCOCartPole",
    "MCPILCOReward",
    "MujocoTask",
    "ObservedReward",
    "ObservedTermination",
    "PETSCartPole",
    "PETSCartPolePlant",
    "PETSCartPoleReward",
    "PETSHalfCheetah",
    "PETSPusher",
    "PILCOPendulum",
    "Pendubot",
    "PendubotPlant",
    "PendulumPlant",
    "PendulumV1Reward",
    "Plant",
    "PlantEnv",
    "PusherPaid",
    "PusherReward",
    "PusherV5Reward",
    "Reacher3D",
    "Reacher3DReward",
    "ReacherV5Reward",
    "TipReward",
    "TwoLinkPlant",
    "Unicycle",
    "UnicycleOutline",
    "UnicyclePlant",
    "UnicycleReward",
    "UnicycleTermination",
    "draw_cartpole",
    "draw_chain",
    "draw_unicycle",
    "fixed_pusher_model",
    "integrate",
    "make",
    "pendulum_v1_step",
    "save_animation",
    "swing_up_reward",
    "tip_distance",
    "tip_position",
    "unicycle_outline",
]
