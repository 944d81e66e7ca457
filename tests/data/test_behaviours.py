"""Behaviours: a stationary process of the promised spread and memory, a linear controller, both within the bounds."""

import gymnasium
import numpy as np
import pytest
import torch

from bayesdyn.data import collect, ou_policy, pd_policy
from bayesdyn.errors import ConfigurationError, ShapeError


@pytest.fixture
def env():
    with gymnasium.make("Pendulum-v1") as made:  # torque within ±2
        yield made


def test_a_wandering_action_has_its_std_and_forgets_at_its_pace(env):
    policy = ou_policy(env, torch.Generator().manual_seed(0), std=0.2, memory=0.8)
    x = np.array([policy(np.zeros(3)).item() for _ in range(20_000)]) / 2.0
    # Of an autoregression with coefficient ρ, the variance of N samples has a relative std of √(2(1 + ρ²)/((1 - ρ²)N)) = 2.1 %, so
    # the std one of 1.1 %; the first autocorrelation one of √((1 - ρ²)/N) = 0.0042. At std 0.2 the bounds are five std away.
    assert x.std() == pytest.approx(0.2, rel=4 * 0.011)
    assert np.corrcoef(x[1:], x[:-1])[0, 1] == pytest.approx(0.8, abs=4 * 0.0042)


def test_actions_stay_in_the_box_and_come_in_its_dtype(env):
    wandering, steering = ou_policy(env, std=3.0), pd_policy(env, [[0.0, 100.0, 0.0]], noise=1.0)
    for policy in (wandering, steering):
        actions = np.array([policy(np.ones(3)) for _ in range(50)])
        assert env.action_space.contains(policy(np.ones(3)))
        assert np.abs(actions).max() == 2.0
        assert actions.dtype == np.float32


def test_a_controller_pushes_against_what_it_sees(env):
    policy = pd_policy(env, [[0.0, 1.0, 0.25]], target=[1.0, 0.5, 0.0], noise=0.0)
    assert policy(np.array([9.0, 0.0, 4.0])).tolist() == pytest.approx([-0.5])


@pytest.mark.parametrize("make", [lambda env, g: ou_policy(env, g), lambda env, g: pd_policy(env, [[0.0, 9.0, 2.0]], g)])
def test_one_seed_gives_one_recording(env, make):
    first, again, other = (collect(env, make(env, torch.Generator().manual_seed(seed)), steps=30)[0].actions for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_makes_no_sense_is_refused(env):
    with gymnasium.make("CartPole-v1") as discrete, pytest.raises(ConfigurationError, match=r"'ou' wants a bounded box.*'random'"):
        ou_policy(discrete)
    with pytest.raises(ConfigurationError, match="memory"):
        ou_policy(env, memory=1.0)
    with pytest.raises(ConfigurationError, match="noise >= 0"):
        pd_policy(env, [[0.0, 1.0, 1.0]], noise=-1.0)
    with pytest.raises(ShapeError, match=r"\[1, 3\]; got \[1, 2\]"):
        pd_policy(env, [[1.0, 1.0]])
