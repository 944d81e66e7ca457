"""PILCO's cart-pole: the official numbers, physics, the reward, and the environment around them."""

import json
import math
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.envs import CARTPOLE_ID, CartPolePlant, CartPoleSwingUp, TipReward, swing_up_reward, tip_distance, tip_position
from bayesdyn.errors import ConfigurationError, DataError, ShapeError

GOLDEN = Path(__file__).parents[1] / "golden" / "pilco"
UPRIGHT = [0.0, 0.0, 0.0, math.pi]


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())["cases"]


def column(cases, key):
    return torch.tensor([case[key] for case in cases], dtype=torch.float64)


def random_states(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 6.0, 2.0])


def random_forces(rows, seed=1):
    return 20 * torch.rand(rows, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 10


def test_derivative_energy_and_next_state_are_the_official_ones():
    cases, plant = golden("dynamics_step_cartpole"), CartPolePlant()
    state, force = column(cases, "x"), column(cases, "u")
    torch.testing.assert_close(plant.derivative(state, force), column(cases, "dxdt"), rtol=0, atol=1e-12)
    torch.testing.assert_close(plant.energy(state), column(cases, "energy"), rtol=0, atol=1e-12)
    torch.testing.assert_close(plant.step(state, force), column(cases, "x_next"), rtol=0, atol=1e-10)


def test_energy_is_conserved_without_force_and_friction():
    plant = CartPolePlant(friction=0.0)
    start = state = random_states(20)
    for _ in range(40):
        state = plant.step(state, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(plant.energy(state), plant.energy(start), rtol=0, atol=1e-9)
    assert (state - start).abs().amax(-1).min() > 0.1


def test_energy_changes_by_the_power_of_force_and_friction():
    plant = CartPolePlant()
    state, force = random_states(20).requires_grad_(), random_forces(20)
    (slope,) = torch.autograd.grad(plant.energy(state).sum(), state)
    power = (slope * plant.derivative(state, force)).sum(-1)
    x_dot = state[:, 1]
    torch.testing.assert_close(power, (force[:, 0] - plant.friction * x_dot) * x_dot, rtol=0, atol=1e-10)


def test_a_hundred_plants_move_as_each_alone():
    plant = CartPolePlant()
    state, force = random_states(100).reshape(4, 25, 4), random_forces(25)
    together = plant.step(state, force)
    assert together.shape == (4, 25, 4)
    for i, j in ((0, 0), (1, 7), (3, 24)):
        torch.testing.assert_close(together[i, j], plant.step(state[i, j], force[j]), rtol=0, atol=1e-11)


def test_symmetries_of_the_plant():
    plant, state, force = CartPolePlant(), random_states(20), random_forces(20)
    moved = plant.step(state, force)
    torch.testing.assert_close(plant.step(-state, -force), -moved, rtol=0, atol=1e-11)
    shift = torch.tensor([3.0, 0.0, 0.0, 2 * math.pi], dtype=torch.float64)
    torch.testing.assert_close(plant.step(state + shift, force), moved + shift, rtol=0, atol=1e-10)


def test_step_keeps_float32_and_computes_in_float64():
    plant, state, force = CartPolePlant(), random_states(20).float(), random_forces(20).float()
    moved = plant.step(state, force)
    assert moved.dtype == torch.float32
    assert torch.equal(moved, plant.step(state.double(), force.double()).float())


@pytest.mark.parametrize(("state", "action"), [((3, 3), (3, 1)), ((3, 4), (3, 2)), ((3, 4), ())])
def test_plant_refuses_other_sizes(state, action):
    with pytest.raises(ShapeError, match="theta_dot"):
        CartPolePlant().step(torch.zeros(state), torch.zeros(action))


def test_plant_and_reward_refuse_constants_without_meaning():
    with pytest.raises(ConfigurationError, match="positive"):
        CartPolePlant(pole_mass=0.0)
    with pytest.raises(ConfigurationError, match="positive"):
        TipReward(-1.0)


def test_reward_is_one_minus_the_official_cost():
    (case,) = golden("loss_cartpole")
    state = torch.tensor(case["m"], dtype=torch.float64)
    reward = TipReward(case["width"][0], length=case["p"][0])(state, torch.zeros(1), state)
    assert abs(1 - reward.item() - case["L"]) < 1e-12


def test_tip_distance_and_reward_at_known_places():
    states = torch.tensor([[0.0, 9.0, 9.0, 0.0], UPRIGHT, [1.2, 0.0, 0.0, math.pi], [0.5, 0.0, 0.0, math.pi / 2]]).double()
    expected = torch.tensor([1.0, 0.0, 1.2, math.hypot(1.0, 0.5)], dtype=torch.float64)
    torch.testing.assert_close(tip_distance(states), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(tip_position(states[3:]), torch.tensor([[1.0, 0.0]]).double(), rtol=0, atol=1e-6)
    reward = TipReward(0.4)(states, torch.zeros(4, 1).double(), states)
    torch.testing.assert_close(reward, torch.exp(-(expected**2) / (2 * 0.4**2)), rtol=0, atol=1e-6)


def test_reward_has_finite_gradients_at_the_target_and_takes_any_leading_axes():
    state = torch.tensor(UPRIGHT, dtype=torch.float64).requires_grad_()
    swing_up_reward(state, torch.zeros(1).double(), state).backward()
    assert state.grad.isfinite().all()
    many = random_states(24).reshape(2, 3, 4, 4)
    assert swing_up_reward(many, torch.zeros(1, 3, 4, 1), many).shape == (2, 3, 4)


@pytest.fixture
def env():
    return gymnasium.make(CARTPOLE_ID)


def test_gymnasium_finds_nothing_but_newtons_to_remark_on():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gymnasium.make(CARTPOLE_ID, render_mode="rgb_array").unwrapped)
    # Forces are in newtons, so Gymnasium's advice to scale actions to [-1, 1] is the one remark left, as for its own Pendulum-v1.
    assert ["normalized" in str(w.message) for w in caught] == [True]


def test_spaces_are_four_reals_and_ten_newtons(env):
    assert env.observation_space.shape == (4,)
    assert env.action_space == gymnasium.spaces.Box(-10.0, 10.0, (1,), np.float32)


def test_episode_follows_the_plant_and_is_truncated_after_forty_steps(env):
    _, info = env.reset(seed=3)
    env.action_space.seed(3)
    plant, state = CartPolePlant(), torch.from_numpy(info["state"])
    for step in range(40):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        before, state = state, plant.step(state, torch.from_numpy(action).double())
        np.testing.assert_array_equal(info["state"], state.numpy())
        assert reward == swing_up_reward(before, torch.from_numpy(action), state).item()
        assert info["tip_distance"] == tip_distance(state).item()
        assert 0 < np.abs(observation - info["state"]).max() < 0.08
        assert not terminated
        assert truncated == (step == 39)


def test_same_seed_same_episode():
    def episode(seed):
        env = gymnasium.make(CARTPOLE_ID)
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(np.array([force], np.float32))[0] for force in (1.0, -5.0, 8.0)]
        return np.stack(observations)

    np.testing.assert_array_equal(episode(5), episode(5))
    assert np.abs(episode(5) - episode(6)).max() > 1e-3


def test_start_and_noise_have_the_stated_spread(env):
    env.reset(seed=0)
    resets = 1500
    starts, noises = [], []
    for _ in range(resets):
        observation, info = env.reset()
        starts.append(info["state"])
        noises.append(observation - info["state"])
    for values, std in ((np.stack(starts), 0.1), (np.stack(noises), 0.01)):
        # The mean of n normals has standard error std/√n, their mean square σ²√(2/n): five of each, per coordinate.
        assert np.abs(values.mean(0)).max() < 5 * std / math.sqrt(resets)
        assert np.abs((values**2).mean(0) / std**2 - 1).max() < 5 * math.sqrt(2 / resets)


def test_start_state_and_noise_can_be_chosen():
    env = gymnasium.make(CARTPOLE_ID, observation_noise=0.0)
    observation, info = env.reset(seed=0, options={"state": [0.3, 0.0, 0.0, math.pi]})
    np.testing.assert_array_equal(observation, info["state"])
    assert abs(info["tip_distance"] - 0.3) < 1e-12
    noisy = CartPoleSwingUp(observation_noise=[0.0, 0.0, 0.0, 1.0])
    observation, info = noisy.reset(seed=0)
    assert list(observation != info["state"]) == [False, False, False, True]


def test_forces_saturate_at_ten_newtons(env):
    env.reset(seed=0, options={"state": np.zeros(4)})
    *_, info = env.step(np.array([25.0], np.float32))
    assert info["action"] == 10.0
    expected = CartPolePlant().step(torch.zeros(4).double(), torch.tensor([10.0]).double())
    np.testing.assert_array_equal(info["state"], expected.numpy())


def test_what_info_returns_is_a_copy(env):
    _, info = env.reset(seed=0)
    info["state"][:] = np.nan
    assert np.isfinite(env.step(np.zeros(1, np.float32))[0]).all()


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (np.zeros(2), ShapeError, r"the action wants shape \[1\].*force.*got \[2\]"),
        (np.zeros((1, 1)), ShapeError, r"got \[1, 1\]"),
        (0.0, ShapeError, r"got \[\]"),
        (np.array([np.nan]), DataError, "finite"),
        ([math.inf], DataError, "finite"),
    ],
)
def test_broken_actions_are_refused(action, error, words):
    env = CartPoleSwingUp()
    env.reset(seed=0)
    with pytest.raises(error, match=words):
        env.step(action)


def test_misuse_is_refused_with_a_reason():
    env = CartPoleSwingUp()
    with pytest.raises(ConfigurationError, match="call reset"):
        env.step([0.0])
    with pytest.raises(ShapeError, match="start state"):
        env.reset(options={"state": [0.0, 0.0]})
    with pytest.raises(DataError, match="finite"):
        env.reset(options={"state": [0.0, 0.0, 0.0, math.nan]})
    with pytest.raises(ConfigurationError, match="low"):
        env.reset(options={"low": 0.0})
    with pytest.raises(ConfigurationError, match="observation_noise"):
        CartPoleSwingUp(observation_noise=-1.0)
    with pytest.raises(ConfigurationError, match="rgb_array"):
        CartPoleSwingUp(render_mode="human")


def test_picture_shows_the_state():
    env = CartPoleSwingUp(render_mode="rgb_array")
    env.reset(seed=0, options={"state": np.zeros(4)})
    before = env.render()
    env.step([10.0])
    after = env.render()
    assert before.shape == after.shape == (320, 480, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()
    assert CartPoleSwingUp().render() is None
