"""HalfCheetah: Gymnasium's own, step by step, with the speed among the observations."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.envs import HalfCheetahReward, PETSHalfCheetah

pytest.importorskip("mujoco")


@pytest.fixture
def env():
    return PETSHalfCheetah()


@pytest.fixture
def official(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo 4 writes a deprecation of Gymnasium's file into the working directory
    return gymnasium.make("HalfCheetah-v5", exclude_current_positions_from_observation=False).unwrapped


def test_sizes_are_the_published_ones(env):
    """kchua/handful-of-trials, env/half_cheetah.py and half_cheetah.xml."""
    assert env.observation_space.shape == (18,)
    np.testing.assert_array_equal(env.action_space.high, np.ones(6, np.float32))
    assert env.dt == pytest.approx(0.05)
    assert env.model.body_mass.sum() == pytest.approx(14)
    assert gymnasium.spec("bayesdyn/PETSHalfCheetah-v0").max_episode_steps == 1000


def test_moves_and_pays_as_gymnasiums_does(env, official):
    """Same model, reward of v5 = forward speed - 0.1 ‖a‖²; its speed is our first coordinate."""
    start, _ = official.reset(seed=5)
    first, _ = env.reset(options={"state": start})
    assert first[0] == 0
    draw = np.random.default_rng(0)
    for _ in range(50):
        action = draw.uniform(-1, 1, 6)
        wanted, pay, _, _, info = official.step(action)
        seen, reward, *_ = env.step(action)
        np.testing.assert_allclose(seen[1:], wanted[1:], rtol=0, atol=1e-8)
        assert seen[0] == pytest.approx(info["x_velocity"], abs=1e-8)
        assert reward == pytest.approx(pay, abs=1e-8)


def test_reward_of_the_environment_and_of_the_planner_agree(env):
    states, paid = [env.reset(seed=1)[0]], []
    actions = np.random.default_rng(0).uniform(-1, 1, (100, 6))
    for action in actions:
        observation, reward, *_ = env.step(action)
        states.append(observation)
        paid.append(reward)
    states = torch.from_numpy(np.stack(states))
    planned = HalfCheetahReward()(states[:-1], torch.from_numpy(actions), states[1:])
    np.testing.assert_allclose(planned, paid, rtol=0, atol=1e-12)


def test_the_speed_adds_up_to_the_way(env):
    env.reset(seed=0)
    begin = env.state[0]
    speeds = [env.step(np.full(6, 0.3))[0][0] for _ in range(40)]
    assert sum(speeds) * 0.05 == pytest.approx(env.state[0] - begin, abs=1e-9)
    assert env.state[0] != begin


def test_starts_are_drawn_as_published(env):
    starts = np.stack([env.reset(seed=seed)[1]["state"] for seed in range(200)])
    assert starts.std() == pytest.approx(0.001, abs=4 * 0.001 / np.sqrt(2 * starts.size))
    assert starts.mean() == pytest.approx(0, abs=4 * 0.001 / np.sqrt(starts.size))


@pytest.mark.parametrize("joint", range(6))
def test_every_torque_of_the_box_has_an_effect_of_its_own(env, joint):
    state = np.zeros(18)
    state[1] = 1.0  # in the air
    speeds = []
    for torque in np.linspace(-1, 1, 9):
        env.reset(options={"state": state})
        speeds.append(env.step(np.eye(6)[joint] * torque)[0][12 + joint])
    assert (np.diff(speeds) > 1e-4).all()


def test_is_a_gymnasium_environment():
    check_env(gymnasium.make("bayesdyn/PETSHalfCheetah-v0").unwrapped, skip_render_check=True)
