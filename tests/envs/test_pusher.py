"""The pusher: published sizes, tip and cylinder where the simulator has them, a cylinder that moves, a reward that lags."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.envs import PETSPusher, PusherPaid, PusherReward

mujoco = pytest.importorskip("mujoco")


@pytest.fixture
def env():
    return PETSPusher()


def test_sizes_and_ranges_are_the_published_ones(env):
    """kchua/handful-of-trials, env/pusher.py and pusher.xml."""
    model = env.model
    assert (model.nq, model.nv, model.nu) == (11, 11, 7)
    assert env.observation_space.shape == (20,)
    np.testing.assert_array_equal(env.action_space.high, np.full(7, 2, np.float32))
    assert env.dt == pytest.approx(0.04)
    assert gymnasium.spec("bayesdyn/PETSPusher-v0").max_episode_steps == 150
    np.testing.assert_allclose(model.joint("r_shoulder_pan_joint").range, [-2.2854, 2.0])


def test_the_cylinder_has_the_published_inertia_and_a_contact_that_feels_it(env):
    """0.04 kg per slide, which is the original's armature, and its inverse in `dof_invweight0`, which scales contacts."""
    matrix = np.zeros((11, 11))
    env.reset(seed=0)
    mujoco.mj_fullM(env.model, env.data, matrix)
    np.testing.assert_allclose(np.diag(matrix)[7:9], 0.04, rtol=1e-5)
    np.testing.assert_allclose(env.model.dof_invweight0[7:9], 25, rtol=1e-5)


def test_tip_and_cylinder_are_where_the_simulator_has_them(env):
    draw = np.random.default_rng(0)
    behind = PETSPusher(tip_offset=0.0)
    for _ in range(20):
        state = np.concatenate((2 * draw.standard_normal(7), 0.2 * draw.standard_normal(2), np.zeros(13)))
        seen, _ = env.reset(options={"state": state})
        tips = env.model.body("tips_arm").id
        np.testing.assert_allclose(seen[14:17], env.data.subtree_com[tips], rtol=0, atol=1e-12)
        np.testing.assert_allclose(seen[17:20], env.data.body("object").xpos, rtol=0, atol=1e-12)
        origin = behind.reset(options={"state": state})[0][14:17]
        np.testing.assert_allclose(origin, env.data.body("tips_arm").xpos, rtol=0, atol=1e-12)


def sweep(env):
    """Lower the arm beside the cylinder and pan through it; return tip and cylinder before and after."""
    state = np.zeros(22)
    state[[1, 3]] = 0.42, -0.25  # the fingers are a little above the table
    state[7:9] = 0.05, 0.15  # the cylinder in the fingers' way
    first, _ = env.reset(options={"state": state})
    for _ in range(30):
        last = env.step(np.array([2.0, 0.35, 0, 0, 0, 0, 0]))[0]
    return first[14:], last[14:]


def test_the_cylinder_moves_when_it_is_swept(env):
    first, last = sweep(env)
    tip, cylinder = last[:3] - first[:3], last[3:] - first[3:]
    assert np.linalg.norm(tip) > 0.15, "the arm did not sweep"
    assert np.linalg.norm(cylinder[:2]) > 0.1
    assert float(cylinder @ tip) > 0
    assert cylinder[2] == 0


def test_the_environment_pays_on_the_positions_before_the_step(env):
    """The planner's callable sees those after it; one step later the environment pays for the same positions."""
    plan, paid = PusherReward(action_cost=0.0), PusherPaid()
    draw = np.random.default_rng(0)
    before, _ = env.reset(seed=2)
    planned = None
    for _ in range(100):
        action = draw.uniform(-2, 2, 7)
        after, reward, *_ = env.step(action)
        state, held, next_state = torch.from_numpy(before), torch.from_numpy(action), torch.from_numpy(after)
        assert reward == pytest.approx(float(paid(state, held, next_state)), abs=1e-12)
        if planned is not None:
            assert reward == pytest.approx(planned - 0.1 * float(np.square(action).sum()), abs=1e-12)
        planned = float(plan(state, held, next_state))
        before = after


def test_reward_formula():
    state = torch.zeros(2, 3, 20)
    state[..., 14:17] = torch.tensor([1.0, 0.0, 0.0])  # tip
    state[..., 17:20] = torch.tensor([0.45, -0.05, 0.677])  # cylinder, one metre above the goal
    reward = PusherReward()(torch.zeros(2, 3, 20), torch.full((2, 3, 7), 2.0), state)
    torch.testing.assert_close(reward, torch.full((2, 3), -0.5 * (0.55 + 0.05 + 0.677) - 1.25 - 0.1 * 28))


def test_starts_are_drawn_around_the_published_place(env):
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(400)])
    error = 4 * 0.025 / np.sqrt(400)
    np.testing.assert_allclose(starts[:, 17:].mean(0), [0.6, -0.3, -0.275], rtol=0, atol=error)
    np.testing.assert_allclose(starts[:, 17:19].std(0), 0.025, rtol=0, atol=error / np.sqrt(2))
    assert (starts[:, :7] == 0).all()
    assert np.abs(starts[:, 7:14]).max() <= 0.005


@pytest.mark.parametrize("joint", range(7))
def test_every_torque_of_the_box_has_an_effect_of_its_own(env, joint):
    state = np.zeros(22)
    state[[3, 5]] = -0.5
    state[7:9] = 1.0  # out of reach
    speeds = []
    for torque in np.linspace(-2, 2, 9):
        env.reset(options={"state": state})
        speeds.append(env.step(np.eye(7)[joint] * torque)[0][7 + joint])
    assert (np.diff(speeds) > 1e-4).all()


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
def test_is_a_gymnasium_environment():
    check_env(gymnasium.make("bayesdyn/PETSPusher-v0").unwrapped, skip_render_check=True)


def test_what_is_returned_belongs_to_the_caller(env):
    """The reward is of the positions before the step: writing into the observation must not move them."""

    def paid(spoil):
        seen, _ = env.reset(seed=0)
        rewards = []
        for _ in range(2):
            if spoil:
                seen += 1.0
            seen, reward, *_ = env.step(np.zeros(7))
            rewards.append(reward)
        return rewards

    assert paid(spoil=True) == paid(spoil=False)
