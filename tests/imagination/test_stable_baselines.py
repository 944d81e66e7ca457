"""A model-free library learns inside a learned model, and what it learns works outside of it."""

from collections.abc import Callable

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


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_it_learns_in_imagination_works_on_the_plant() -> None:
    """SAC, 1,000 imagined steps: from the same starts the true cost falls by more than 3 standard errors."""
    model, data = learned()
    env = ImaginedEnv(model, cost, data.state, spaces.Box(-1.0, 1.0, (1,)), 40)
    agent = baselines.SAC("MlpPolicy", env, seed=0, device="cpu", learning_starts=100)
    agent.learn(1000)

    def earned(act: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        state = torch.randn(40, 2, generator=torch.Generator().manual_seed(7))
        total = torch.zeros(40)
        for _ in range(40):
            action = act(state)
            after = torch.cat([state[:, :1] + 0.2 * state[:, 1:], 0.9 * state[:, 1:] + 0.2 * action], 1)
            total, state = total + cost(state, action, after), after
        return total

    controlled = earned(lambda state: torch.from_numpy(agent.predict(state.numpy(), deterministic=True)[0]))
    gain = controlled - earned(lambda state: torch.zeros(40, 1))
    assert gain.mean() > 3 * gain.std() / 40**0.5
