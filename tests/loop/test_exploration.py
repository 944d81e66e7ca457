"""What the first trials do before there is a model."""

import gymnasium
import numpy as np
import pytest
import torch
from point_mass import PointMass, make_agent, make_model

from bayesdyn.errors import ConfigurationError
from bayesdyn.loop import Coloured, Uniform, learn


def drawn(explore: Coloured | Uniform, env: gymnasium.Env, count: int, seed: int = 0) -> np.ndarray:
    policy = explore(env, torch.Generator().manual_seed(seed))
    return np.stack([policy(np.zeros(2)) for _ in range(count)])


def test_coloured_actions_have_the_std_that_was_asked_for() -> None:
    """400 independent stretches of 50 steps, each of unit variance: the variance's relative error is at most √(2/400) = 0.07."""
    env = PointMass(low=-3.0)  # middle -1, half width 2
    actions = drawn(Coloured(std=0.1, beta=2.0, steps=50), env, 20000)
    assert abs(actions.var() / 0.2**2 - 1) < 4 * 0.07
    assert abs(actions.mean() + 1) < 4 * 0.2 / 400**0.5


def test_its_colour_is_how_slowly_it_changes() -> None:
    def correlation(beta: float) -> float:
        stretches = drawn(Coloured(std=0.1, beta=beta, steps=50), PointMass(), 20000).reshape(400, 50)
        return float((stretches[:, 1:] * stretches[:, :-1]).mean() / stretches.var())

    assert abs(correlation(0.0)) < 0.05
    assert correlation(2.0) > 0.8


@pytest.mark.parametrize("explore", [Uniform(), Coloured(std=2.0)])
def test_actions_are_the_environments_and_follow_from_the_seed(explore: Coloured | Uniform) -> None:
    env = PointMass()
    actions = drawn(explore, env, 200)
    assert all(env.action_space.contains(action) for action in actions)
    assert np.array_equal(actions, drawn(explore, env, 200))
    assert not np.array_equal(actions, drawn(explore, env, 200, seed=1))


def test_the_first_trials_explore_as_asked() -> None:
    model = make_model()
    first, _ = learn(PointMass(), model, make_agent(model), trials=1, explore=Coloured(std=0.001)).trials
    assert first.episode.actions.abs().max() < 0.01


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="std > 0"):
        Coloured(std=0.0)
    env = PointMass()
    env.action_space = gymnasium.spaces.Discrete(2)
    with pytest.raises(ConfigurationError, match="use Uniform"):
        Coloured()(env, torch.Generator())
