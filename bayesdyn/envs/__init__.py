"""Simulated tasks; importing this package registers them with Gymnasium under the namespace `bayesdyn`."""

import gymnasium

from bayesdyn.envs.cartpole import STEPS, CartPolePlant, CartPoleSwingUp, TipReward, swing_up_reward, tip_distance, tip_position
from bayesdyn.envs.drawing import draw_cartpole, save_animation
from bayesdyn.envs.integration import integrate
from bayesdyn.envs.making import make
from bayesdyn.envs.pets_cartpole import PETS_STEPS, PETSCartPole, PETSCartPolePlant, PETSCartPoleReward
from bayesdyn.envs.plant import Plant, PlantEnv

CARTPOLE_ID = "bayesdyn/CartPoleSwingUp-v0"

# Id: where the class is, and its steps per episode.
_TASKS: dict[str, tuple[str, int]] = {
    CARTPOLE_ID: ("bayesdyn.envs.cartpole:CartPoleSwingUp", STEPS),
    "bayesdyn/PETSCartPole-v0": ("bayesdyn.envs.pets_cartpole:PETSCartPole", PETS_STEPS),
}

for _id, (_entry_point, _steps) in _TASKS.items():
    # Reloading the module must not register a name twice: Gymnasium warns about that.
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point=_entry_point, max_episode_steps=_steps)

__all__ = [
    "CARTPOLE_ID",
    "CartPolePlant",
    "CartPoleSwingUp",
    "PETSCartPole",
    "PETSCartPolePlant",
    "PETSCartPoleReward",
    "Plant",
    "PlantEnv",
    "TipReward",
    "draw_cartpole",
    "integrate",
    "make",
    "save_animation",
    "swing_up_reward",
    "tip_distance",
    "tip_position",
]
