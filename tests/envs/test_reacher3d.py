"""Reacher3D: the published sizes and masses, the hand where the simulator has it, the reward, and the environment around them."""

import os
import subprocess
import sys
from ctypes.util import find_library

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.envs import Reacher3D, Reacher3DReward
from bayesdyn.envs.arm import hand_position
from bayesdyn.envs.reacher3d import BASE, HAND
from bayesdyn.errors import ConfigurationError, DataError, ShapeError

mujoco = pytest.importorskip("mujoco")
STEPS = 150


@pytest.fixture
def env():
    return Reacher3D()


def random_joints(rows, seed=0):
    return 3 * torch.randn(rows, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sizes_masses_and_ranges_are_the_published_ones(env):
    """kchua/handful-of-trials, reacher3d.xml and env/reacher.py; a peer's pets_reacher loads the pusher's model instead."""
    model = env.model
    assert (model.nq, model.nv, model.nu) == (10, 10, 7)
    assert env.observation_space.shape == (17,)
    np.testing.assert_array_equal(env.action_space.high, np.full(7, 20, np.float32))
    np.testing.assert_array_equal(env.action_space.low, -env.action_space.high)
    assert env.dt == pytest.approx(0.02)
    assert gymnasium.spec("bayesdyn/Reacher3D-v0").max_episode_steps == STEPS
    assert model.body_mass.sum() == pytest.approx(46.3665, abs=5e-5)
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert not model.opt.gravity.any()
    assert not model.geom_contype.any()
    assert not model.geom_conaffinity.any()
    np.testing.assert_array_equal(model.dof_damping, [10, 10, 0.1, 1, 0.1, 0.1, 0.1, 0, 0, 0])
    np.testing.assert_array_equal(model.dof_armature, [0.04] * 7 + [0] * 3)
    ranges = [(-2.2854, 1.714602), (-0.5236, 1.3963), (-3.9, 0.8), (-2.3213, 0), None, (-2.094, 0), None]
    for joint, wanted in enumerate(ranges):
        assert bool(model.jnt_limited[joint]) == (wanted is not None)
        if wanted is not None:
            np.testing.assert_allclose(model.jnt_range[joint], wanted)


def test_the_hand_is_midway_between_the_simulators_finger_tips(env):
    joints = random_joints(50)
    ours = hand_position(joints, BASE, HAND)
    for row, hand in zip(joints.numpy(), ours.numpy(), strict=True):
        env.data.qpos[:7] = row
        mujoco.mj_kinematics(env.model, env.data)
        midway = (env.data.site("left_tip").xpos + env.data.site("right_tip").xpos) / 2
        np.testing.assert_allclose(hand, midway, rtol=0, atol=1e-12)


def test_reward_of_the_environment_and_of_the_planner_agree(env):
    reward, actions = Reacher3DReward(), np.random.default_rng(0).uniform(-20, 20, (100, 7))
    observation, _ = env.reset(seed=1)
    states, paid = [observation], []
    for action in actions:
        observation, earned, *_ = env.step(action)
        states.append(observation)
        paid.append(earned)
    states, actions = torch.from_numpy(np.stack(states)), torch.from_numpy(actions)
    planned = reward(states[:-1], actions, states[1:])
    np.testing.assert_allclose(planned, paid, rtol=0, atol=1e-10)
    folded = reward(states[:-1].reshape(4, 5, 5, 17), actions.reshape(4, 5, 5, 7), states[1:].reshape(4, 5, 5, 17))
    torch.testing.assert_close(folded, planned.reshape(4, 5, 5))


def test_without_torque_the_arm_rests_and_the_return_is_the_distance(env):
    observation, _ = env.reset(seed=3)
    away = torch.tensor([0.1 + 0.4 + 0.321 + 0.16828, -0.188, 0.0], dtype=torch.float64) - torch.from_numpy(observation[7:10])
    earned = sum(env.step(np.zeros(7))[1] for _ in range(STEPS))
    assert earned == pytest.approx(-STEPS * float(away.square().sum()), rel=1e-9)


@pytest.mark.parametrize("joint", range(7))
def test_every_torque_of_the_box_has_an_effect_of_its_own(env, joint):
    """A peer whitens and clips actions, so that the outer 42 % of the box become one."""
    state = np.zeros(20)
    state[[3, 5]] = -0.7  # away from the joint limits
    speeds = []
    for torque in np.linspace(-20, 20, 9):
        env.reset(options={"state": state})
        speeds.append(env.step(np.eye(7)[joint] * torque)[0][10 + joint])
    assert (np.diff(speeds) > 1e-4).all()


def test_goals_are_drawn_around_the_published_place(env):
    goals = np.stack([env.reset(seed=seed)[0][7:10] for seed in range(400)])
    error = 4 * 0.1 / np.sqrt(400)
    np.testing.assert_allclose(goals.mean(0), [0, 0.25, 0], rtol=0, atol=error)
    np.testing.assert_allclose(goals.std(0), 0.1, rtol=0, atol=error / np.sqrt(2))


def test_starts_from_a_given_state_and_repeats(env):
    env.reset(seed=0)
    for _ in range(3):
        info = env.step(np.full(7, 4.0))[-1]
    first = env.step(np.full(7, -3.0))
    env.reset(options={"state": info["state"]})
    again = env.step(np.full(7, -3.0))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    np.testing.assert_array_equal(first[-1]["action"], np.full(7, -3.0))


def test_torques_beyond_the_bounds_saturate(env):
    env.reset(seed=0)
    beyond = env.step(np.full(7, 100.0))
    env.reset(seed=0)
    at = env.step(np.full(7, 20.0))
    np.testing.assert_array_equal(beyond[0], at[0])
    assert beyond[1] == at[1]


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
def test_is_a_gymnasium_environment():
    check_env(gymnasium.make("bayesdyn/Reacher3D-v0").unwrapped, skip_render_check=True)


PICTURE = """
import gymnasium, bayesdyn.envs
env = gymnasium.make("bayesdyn/Reacher3D-v0", render_mode="rgb_array")
env.reset(seed=0)
picture = env.render()
env.close()
print(picture.shape, picture.dtype, picture.std() > 1)
"""


def draw(backend):
    environment = {**os.environ, "MUJOCO_GL": backend}
    return subprocess.run([sys.executable, "-c", PICTURE], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(find_library("EGL") is None, reason="no EGL on this machine")
def test_draws_without_a_screen():
    done = draw("egl")
    assert done.stdout.strip() == "(480, 480, 3) uint8 True", done.stderr


@pytest.mark.slow
def test_without_opengl_it_says_what_to_set():
    done = draw("disabled")
    assert done.returncode == 1
    assert "ConfigurationError: no OpenGL" in done.stderr, done.stderr


def test_says_what_is_wrong(env):
    env.reset(seed=0)
    with pytest.raises(ShapeError, match=r"action wants shape \[7\]"):
        env.step(np.zeros(6))
    with pytest.raises(DataError, match="finite"):
        env.step(np.full(7, np.nan))
    with pytest.raises(ShapeError, match=r"start state wants shape \[20\]"):
        env.reset(options={"state": np.zeros(17)})
    with pytest.raises(ConfigurationError, match="goal"):
        env.reset(options={"goal": np.zeros(3)})
    with pytest.raises(ConfigurationError, match="render_mode"):
        Reacher3D(render_mode="ascii")
