"""A model-free library learns inside a learned model, and what it learned works outside of it."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_imagined_env import learned

from bayesdyn.imagination import ImaginedEnv

baselines = pytest.importorskip("stable_baselines3", exc_type=ImportError)


def test_its_own_check_passes() -> None:
    from stable_baselines3.common.env_checker import check_env

    model, data = learned()
    env = ImaginedEnv(model, cost, data.state, spaces.Box(-1.0, 1.0, (1,)), 20)
    check_env(env, warn=True, skip_render_check=True)


def cost(state: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return -following.square().sum(-1)


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
@pytest.mark.usefixtures("unchecked_shapes")
def test_it_trains_in_imagined_episodes(algorithm: str) -> None:
    """A few hundred steps run, in whole episodes of the horizon, and give a policy whose actions are in the box."""
    model, data = learned()
    env = ImaginedEnv(model, cost, data.state, spaces.Box(-1.0, 1.0, (1,)), 20)
    settings = {"PPO": {"n_steps": 100, "batch_size": 50}, "SAC": {"learning_starts": 50, "batch_size": 32}}
    agent = getattr(baselines, algorithm)("MlpPolicy", env, seed=0, device="cpu", **settings[algorithm])
    agent.learn(200)
    lengths = {int(episode["l"]) for episode in agent.ep_info_buffer}
    assert lengths == {20}
    action, _ = agent.predict(np.zeros(2, np.float32))
    assert env.action_space.contains(action)
