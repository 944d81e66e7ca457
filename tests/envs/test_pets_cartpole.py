"""PETS's cart-pole: the published model in MuJoCo, the reward as published, and the environment around the equations."""

import math
import warnings

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.envs import PETSCartPolePlant, PETSCartPoleReward, integrate, make
from bayesdyn.errors import ConfigurationError, ShapeError

ENV_ID = "bayesdyn/PETSCartPole-v0"

# The published constants (kchua/handful-of-trials, env/assets/cartpole.xml): capsules of MuJoCo's default density of 1,000 kg/m³ on
# a slide and a hinge with damping 1, a motor of gear 100, RK4 steps of 0.02 s. Its bodies do not touch each other.
MODEL = """
<mujoco>
  <option gravity="0 0 -9.81" integrator="RK4" timestep="0.02"/>
  <default><joint damping="1"/><geom type="capsule" contype="0" conaffinity="0"/></default>
  <worldbody>
    <body>
      <joint name="slide" type="slide" axis="1 0 0" limited="true" range="-2.5 2.5"/>
      <geom euler="0 90 0" size="0.1 0.1"/>
      <body>
        <joint type="hinge" axis="0 1 0"/>
        <geom fromto="0 0 0 0.001 0 -0.6" size="0.049"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="100" ctrllimited="true" ctrlrange="-3 3"/></actuator>
</mujoco>
"""


def states_and_actions(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.3, 3.0, 1.0, 3.0], dtype=torch.float64)
    state = scale * torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return state, 8 * torch.rand(25, rows, 1, generator=generator, dtype=torch.float64) - 4


def simulate(start, actions):
    """Return MuJoCo's states [T + 1, 4] from `start` [4] under `actions` [T, 1], two steps of its own for each."""
    model = mujoco.MjModel.from_xml_string(MODEL)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start[:2], start[2:]
    path = [start]
    for action in actions:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, 2)
        path.append(np.concatenate((data.qpos, data.qvel)))
    return np.stack(path)


def test_the_equations_are_mujocos_on_the_published_model():
    plant, (start, actions) = PETSCartPolePlant(), states_and_actions(20)
    path = [start]
    for action in actions:
        path.append(plant.step(path[-1], action))
    ours = torch.stack(path)
    theirs = torch.from_numpy(np.stack([simulate(start[i].numpy(), actions[:, i].numpy()) for i in range(20)], 1))
    # The rail's soft ends act from 2.5 m on, within a step too; a path counts as far as it stays away from them.
    inside = (theirs[:, :, 0].abs() < 2.4).cumprod(0).bool()
    assert inside[-1].sum() >= 5
    assert (ours - theirs)[inside].abs().max() < 1e-10
    assert (ours[-1] - start).abs().amax(-1).min() > 0.1


def test_the_constants_are_mujocos_of_the_published_shapes():
    model, plant = mujoco.MjModel.from_xml_string(MODEL), PETSCartPolePlant()
    np.testing.assert_allclose(model.body_mass[1:], [plant.cart_mass, plant.pole_mass], rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(model.body_ipos[2]), plant.centre, rtol=1e-14)
    np.testing.assert_allclose(model.body_inertia[2].max(), plant.inertia, rtol=1e-12)


def test_a_step_is_two_runge_kutta_steps_of_the_derivative():
    plant, (state, actions) = PETSCartPolePlant(), states_and_actions(50)
    action, expected, h = actions[0], state, 0.02
    for _ in range(2):
        k1 = plant.derivative(expected, action)
        k2 = plant.derivative(expected + h / 2 * k1, action)
        k3 = plant.derivative(expected + h / 2 * k2, action)
        k4 = plant.derivative(expected + h * k3, action)
        expected = expected + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    torch.testing.assert_close(plant.step(state, action), expected, rtol=0, atol=1e-12)
    # Fourth order: close to the exact flow, and not the same.
    exact = integrate(lambda s: plant.derivative(s, action), state, plant.dt)
    assert 1e-9 < (exact - expected).abs().max() < 1e-2


def test_rows_of_any_shape_move_as_each_alone_in_either_precision():
    plant, (state, actions) = PETSCartPolePlant(), states_and_actions(100)
    together = plant.step(state.reshape(4, 25, 4), actions[0, :25])
    assert together.shape == (4, 25, 4)
    torch.testing.assert_close(together[2, 3], plant.step(state[53], actions[0, 3]), rtol=0, atol=1e-12)
    single = plant.step(state.float(), actions[0])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), plant.step(state, actions[0]), rtol=1e-4, atol=1e-4)


def test_actions_beyond_three_count_as_three_and_gradients_flow():
    plant, (state, _) = PETSCartPolePlant(), states_and_actions(5)
    assert torch.equal(plant.step(state, torch.full((1,), 7.0).double()), plant.step(state, torch.full((1,), 3.0).double()))
    action = torch.zeros(5, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(plant.step, (state.requires_grad_(), action))


def test_mirrored_around_the_hanging_pole():
    plant, (state, actions) = PETSCartPolePlant(), states_and_actions(20)
    lean = torch.tensor([0.0, math.atan2(0.001, 0.6), 0.0, 0.0], dtype=torch.float64)
    moved = plant.step(state + lean, actions[0]) - lean
    torch.testing.assert_close(plant.step(lean - state, -actions[0]) - lean, -moved, rtol=0, atol=1e-12)


def test_reward_as_published():
    state, actions = states_and_actions(100)
    x, theta, a = state[:, 0].numpy(), state[:, 1].numpy(), actions[0, :, 0].numpy()
    ends = np.stack((x - 0.6 * np.sin(theta), -0.6 * np.cos(theta)), -1)
    expected = np.exp(-np.sum((ends - [0.0, 0.6]) ** 2, -1) / 0.36) - 0.01 * a**2
    rewards = PETSCartPoleReward()(torch.zeros(1, 4).double(), actions[0], state)
    np.testing.assert_allclose(rewards.numpy(), expected, rtol=0, atol=1e-12)


def test_refuses_sizes_and_constants_without_meaning():
    with pytest.raises(ShapeError, match="theta_dot"):
        PETSCartPolePlant().step(torch.zeros(3, 5), torch.zeros(1))
    with pytest.raises(ConfigurationError, match="positive"):
        PETSCartPolePlant(inertia=0.0)


def test_the_environment_pays_the_callable_on_the_next_state_for_two_hundred_steps():
    env = make(ENV_ID)
    state, _ = env.reset(seed=1)
    env.action_space.seed(1)
    plant, reward = PETSCartPolePlant(), PETSCartPoleReward()
    for step in range(200):
        action = env.action_space.sample()
        next_state, paid, terminated, truncated, _ = env.step(action)
        before, after, applied = (torch.from_numpy(v).double() for v in (state, next_state, action))
        assert torch.equal(plant.step(before, applied), after)
        assert paid == reward(before, applied, after).item()
        assert (terminated, truncated) == (False, step == 199)
        state = next_state


def test_starts_are_normal_around_hanging_with_std_a_tenth():
    env = make(ENV_ID)
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(400)])
    # Standard errors of a mean and of a std of 400 normals: 0.1/20 and 0.1/sqrt(800); five of each.
    assert np.abs(starts.mean(0)).max() < 5 * 0.1 / 20
    assert np.abs(starts.std(0) - 0.1).max() < 5 * 0.1 / math.sqrt(800)


def test_gymnasium_finds_nothing_to_remark_on_but_the_action_scale():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gymnasium.make(ENV_ID, render_mode="rgb_array").unwrapped)
    assert ["normalized" in str(w.message) for w in caught] == [True]


def test_the_picture_shows_the_pole_on_the_side_of_its_end():
    env = make(ENV_ID, render_mode="rgb_array")
    env.reset(options={"state": [0.0, math.pi / 2, 0.0, 0.0]})
    picture = env.render()
    vermillion = np.abs(picture.astype(int) - [0xD5, 0x5E, 0x00]).sum(-1) < 40
    assert np.nonzero(vermillion)[1].mean() < picture.shape[1] / 2
