"""Simulated tasks; importing this package registers `bayesdyn/CartPoleSwingUp-v0` with Gymnasium."""

import gymnasium

from bayesdyn.envs.cartpole import STEPS, CartPolePlant, CartPoleSwingUp, TipReward, swing_up_reward, tip_distance, tip_position
from bayesdyn.envs.drawing import draw_cartpole, save_animation
from bayesdyn.envs.integration import integrate
from bayesdyn.envs.making import make
from bayesdyn.envs.plant import Plant, PlantEnv

CARTPOLE_ID = "bayesdyn/CartPoleSwingUp-v0"

# Reloading the module must not register the name twice: Gymnasium warns about that.
if CARTPOLE_ID not in gymnasium.registry:
    gymnasium.register(CARTPOLE_ID, entry_point="bayesdyn.envs.cartpole:CartPoleSwingUp", max_episode_steps=STEPS)

__all__ = [
    "CARTPOLE_ID",
    "CartPolePlant",
    "CartPoleSwingUp",
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
