"""PILCO's scenarios as environments: what they pay and show, noise, starts, seeds, ends, pictures."""

import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.envs import (
    UPRIGHT,
    CartDoublePendulum,
    CartPolePlant,
    Chain,
    DeepPILCOCartPolePlant,
    DeepPILCOReward,
    TipReward,
    Unicycle,
    UnicyclePlant,
    UnicycleTermination,
)
from bayesdyn.errors import ConfigurationError, ShapeError

PI = math.pi
# id: steps, seconds, action limits, start mean and std, noise std; the upright state of the plant
SCENARIOS = {
    "PILCOPendulum": (40, 0.1, [2.5], [0, 0], [0.1, 0.1], [0.1, 0.01], [0, PI]),
    "DoublePendulum": (30, 0.1, [2, 2], [0, 0, PI, PI], [0.1, 0.1, 0.01, 0.01], [0.01] * 4, [0] * 4),
    "Pendubot": (60, 0.05, [3.5], [0, 0, PI, PI], [0.1, 0.1, 0.01, 0.01], [0.01] * 4, [0] * 4),
    "CartDoublePendulum": (100, 0.05, [20], [0, 0, 0, 0, PI, PI], [0.1] * 4 + [0.01] * 2, [0.01] * 6, [0] * 6),
    "Unicycle": (67, 0.15, [10, 50], [0] * 12, [0.02] * 5 + [0.1] * 2 + [0.02] * 5, [0.01] * 5 + [0.003] * 7, [0] * 12),
    "DeepPILCOCartPole": (25, 0.1, [10], [0, 0, PI, 0], [0.02] * 4, [0] * 4, [0] * 4),
    "MCPILCOCartPole": (60, 0.05, [10], [0] * 4, [0.01] * 4, [0.01] * 4, [0, 0, 0, PI]),
}
each = pytest.mark.parametrize("name", SCENARIOS)


def make(name, **options):
    return gymnasium.make(f"bayesdyn/{name}-v0", **options)


@each
def test_gymnasium_finds_nothing_but_units_to_remark_on(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(make(name, render_mode="rgb_array").unwrapped)
    # Actions are in newtons, so Gymnasium's advice to scale them to [-1, 1] is the one remark left, as for its own Pendulum-v1.
    assert ["normalized" in str(w.message) for w in caught] == [True]


@each
def test_constants_are_those_of_the_scenario(name):
    steps, seconds, limits, mean, std, noise, _ = SCENARIOS[name]
    env = make(name)
    bare = env.unwrapped
    assert env.spec.max_episode_steps == steps
    assert bare.plant.dt == seconds
    np.testing.assert_array_equal(env.action_space.high, np.float32(limits))
    np.testing.assert_allclose(bare.start_mean, mean)
    np.testing.assert_allclose(bare.start_std, std)
    np.testing.assert_allclose(bare.observation_noise, noise)
    assert env.metadata["render_fps"] == round(1 / seconds)


@each
def test_upright_is_the_goal_and_the_start_is_not(name):
    env = make(name)
    zero = np.zeros(env.action_space.shape, np.float32)
    _, info = env.reset(seed=0, options={"state": SCENARIOS[name][-1]})
    (key,) = {"tip_distance", "top_distance"} & set(info)
    assert info[key] < 1e-15
    # Upright is an equilibrium, which grows rounding by less than a thousand times in one step.
    _, reward, terminated, _, info = env.step(zero)
    assert info[key] < 1e-12
    assert abs(reward - 1) < 1e-12
    assert not terminated
    if name != "Unicycle":
        env.reset(seed=0)
        assert env.step(zero)[1] < 0.4


@each
def test_episode_follows_the_plant_and_pays_on_the_true_state(name):
    env = make(name)
    observation, info = env.reset(seed=3)
    env.action_space.seed(3)
    bare = env.unwrapped
    plant, state = bare.plant, torch.from_numpy(info.get("plant_state", info["state"]))
    for _ in range(3):
        action = 0.2 * env.action_space.sample()
        observation, reward, _, _, info = env.step(action)
        before, state = state, plant.step(state, torch.from_numpy(action).double())
        np.testing.assert_array_equal(info["state"], plant.observe(state).numpy())
        assert reward == bare.reward(plant.observe(before), torch.from_numpy(action).double(), plant.observe(state)).item()
        assert env.observation_space.contains(observation)
        assert np.abs(observation - info["state"]).max() <= 6 * bare.observation_noise.max()


@each
def test_same_seed_same_episode(name):
    def episode(seed):
        env = make(name)
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(0.1 * env.action_space.high)[0] for _ in range(2)]
        return np.stack(observations)

    np.testing.assert_array_equal(episode(5), episode(5))
    assert np.abs(episode(5) - episode(6)).max() > 1e-3


@each
def test_start_moments_are_those_of_the_starts(name):
    env = make(name)
    env.reset(seed=0)
    resets = 1000
    starts = np.stack([env.reset()[1]["state"] for _ in range(resets)])
    mean, cov = env.unwrapped.start_moments()
    std = cov.diag().sqrt().numpy()
    # Standard errors of mean and mean square of n normals: std/√n and σ²√(2/n); six of each, over 40 coordinates in all.
    assert (np.abs(starts.mean(0) - mean.numpy()) / std).max() < 6 / math.sqrt(resets)
    assert np.abs(starts.var(0) / std**2 - 1).max() < 6 * math.sqrt(2 / resets)


def test_episode_is_truncated_at_its_length_only():
    env = make("DeepPILCOCartPole")
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(25)]
    assert ends == [(False, False)] * 24 + [(False, True)]


def test_unicycle_shows_ten_coordinates_and_keeps_twelve():
    env = make("Unicycle")
    state = 0.1 * np.arange(1, 13)
    observation, info = env.reset(seed=0, options={"state": state})
    assert env.observation_space.shape == observation.shape == info["state"].shape == (10,)
    np.testing.assert_array_equal(info["plant_state"], state)
    np.testing.assert_array_equal(info["state"], UnicyclePlant().observe(torch.from_numpy(state)).numpy())
    with pytest.raises(ShapeError, match="turntable"):
        env.reset(options={"state": np.zeros(10)})
    info["plant_state"][:] = np.nan
    assert np.isfinite(env.step(np.zeros(2, np.float32))[0]).all()


def test_unicycle_noise_is_that_of_the_plants_coordinates():
    env = Unicycle(observation_noise=[0.0] * 5 + [0.1, 0.1] + [0.0] * 5)
    env.reset(seed=0)
    seen = np.stack([np.subtract(*_seen(env.reset())) for _ in range(500)])
    noisy = seen.std(0)
    # The place is turned, so its noise stays round; the other coordinates have none.
    np.testing.assert_array_equal(noisy[[0, 1, 2, 3, 4, 7, 8, 9]], 0.0)
    assert np.abs(noisy[5:7] / 0.1 - 1).max() < 5 / math.sqrt(2 * 500)


def _seen(reset):
    observation, info = reset
    return observation, info["state"]


def test_unicycle_ends_where_it_lies_down():
    env = make("Unicycle")
    env.reset(seed=0, options={"state": [0, 0, 0, 2.0, 0, 0, 0, 0, 0, 0, 1.0, 0]})
    ends = []
    while not (ends and ends[-1][0]):
        *_, terminated, _, info = env.step(np.zeros(2, np.float32))
        ends.append((terminated, abs(info["state"][9]) > PI / 2))
    assert [a for a, _ in ends] == [b for _, b in ends]
    state = torch.zeros(3, 10).double()
    state[1, 7], state[2, 9] = 1.6, -1.6
    assert UnicycleTermination()(state, torch.zeros(2), state).tolist() == [False, True, True]


def test_a_unicycle_that_falls_through_the_floor_ends_just_before():
    # On its side yaw and the wheel's turn are one, and the equations singular: this start gets there within its first step.
    start = [3.0, -3.0, 2.0, -3.0, 0.0, 0.0, 0.0, 1.5, 0.0, 0.0, -0.4, 0.0]
    env = make("Unicycle")
    still = torch.zeros(2).double()
    assert not UnicyclePlant().step(torch.tensor(start).double(), still).abs().max() < 1e6
    env.reset(seed=0, options={"state": start})
    observation, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert terminated
    assert env.observation_space.contains(observation)
    assert 0 <= reward <= 1
    assert abs(info["state"][7]) > 1.4


def test_unicycles_stay_finite_under_any_torques_until_they_lie_down():
    plant, generator = UnicyclePlant(), torch.Generator().manual_seed(0)
    state = 0.1 * torch.randn(40, 12, generator=generator, dtype=torch.float64)
    for _ in range(6):
        torque = torch.tensor([10.0, 50.0]).double() * (2 * torch.rand(len(state), 2, generator=generator).double() - 1)
        moved = plant.step(state, torque)
        assert moved.isfinite().all()
        seen = plant.observe(moved)
        state = moved[~UnicycleTermination()(seen, torque, seen)]


def test_official_and_corrected_cart_double_pendulum_pay_for_other_rods():
    state = torch.tensor([[0.1, 0.0, 0.0, 0.0, 0.2, -0.1]]).double()
    for official, length in ((True, 1.0), (False, 0.6)):
        reward = CartDoublePendulum(official=official).reward
        distance = Chain((length, length), angles=(4, 5), up=UPRIGHT, cart=0).distance(state)
        wanted = torch.exp(-(distance**2) / (2 * 0.5**2))
        torch.testing.assert_close(reward(state, torch.zeros(1), state), wanted, rtol=1e-12, atol=0)


def test_double_pendulum_with_links_of_a_metre():
    env = make("DoublePendulum", lengths=(1.0, 1.0))
    assert env.unwrapped.plant.lengths == (1.0, 1.0)
    _, info = env.reset(seed=0, options={"state": [0.0, 0.0, 0.0, PI / 2]})
    assert abs(info["tip_distance"] - math.sqrt(2)) < 1e-12


def test_deep_pilcos_plant_is_one_euler_step_of_pilcos_with_a_longer_pole():
    state = torch.tensor([[0.3, -1.0, 2.5, 4.0], [-0.2, 0.5, -0.4, -3.0]]).double()
    force = torch.tensor([[7.0], [-3.0]]).double()
    moved = DeepPILCOCartPolePlant().step(state, force)
    # The ports' equations, with θ = 0 upright, m = M = 0.5 kg, b = 0.1 N s/m, g = 9.82 m/s².
    for (x, v, theta, omega), (u,), after in zip(state.tolist(), force.tolist(), moved.tolist(), strict=True):
        s, c = math.sin(theta), math.cos(theta)
        acceleration = (-2 * 0.3 * omega**2 * s + 1.5 * 9.82 * s * c + 4 * u - 0.4 * v) / (4 - 1.5 * c**2)
        turning = (-3 * 0.3 * omega**2 * s * c + 6 * 9.82 * s + 6 * (u - 0.1 * v) * c) / (4 * 0.6 - 3 * 0.3 * c**2)
        np.testing.assert_allclose(
            after, [x + 0.1 * v, v + 0.1 * acceleration, theta + 0.1 * omega, omega + 0.1 * turning], rtol=0, atol=1e-12
        )


def test_deep_pilcos_reward_mirrors_the_tip():
    tip = TipReward(0.25, 0.6, angles=(2,), up=UPRIGHT, cart=0)
    state = torch.tensor([[0.1, 0.0, 0.4, 0.0]]).double()
    mirrored = state * torch.tensor([1.0, 1.0, -1.0, 1.0])
    zero = torch.zeros(1)
    torch.testing.assert_close(DeepPILCOReward()(state, zero, state), tip(mirrored, zero, mirrored), rtol=1e-12, atol=0)
    assert (DeepPILCOReward()(state, zero, state) - tip(state, zero, state)).abs() > 0.1


def test_mc_pilcos_cart_pole_is_pilcos_with_its_own_gravity_step_and_reward():
    env = make("MCPILCOCartPole", observation_noise=0.0)
    env.reset(seed=0, options={"state": [0.1, 0.2, 0.3, 0.4]})
    _, reward, _, _, info = env.step(np.array([5.0], np.float32))
    wanted = CartPolePlant(gravity=9.81, dt=0.05).step(torch.tensor([0.1, 0.2, 0.3, 0.4]).double(), torch.tensor([5.0]).double())
    np.testing.assert_allclose(info["state"], wanted.numpy(), rtol=0, atol=1e-7)
    x, theta = info["state"][0], info["state"][3]
    assert abs(reward - math.exp(-(((abs(theta) - PI) / 3) ** 2) - x**2)) < 1e-15


@each
def test_pictures_show_state_and_action(name):
    env = make(name, render_mode="rgb_array")
    env.reset(seed=0, options={"state": SCENARIOS[name][3]})
    before = env.render()
    env.step(env.action_space.high)
    after = env.render()
    assert before.shape == after.shape == (320, 480, 3)
    assert before.dtype == np.uint8
    orange = np.linalg.norm(after.astype(float) - [230, 159, 0], axis=-1) < 40
    assert orange.sum() > 100
    assert not (np.linalg.norm(before.astype(float) - [230, 159, 0], axis=-1) < 40).any()


def test_misuse_is_refused_with_a_reason():
    with pytest.raises(ConfigurationError, match="observation_noise"):
        Unicycle(observation_noise=[0.1] * 10)
    with pytest.raises(ConfigurationError, match="rgb_array"):
        Unicycle(render_mode="human")
    env = make("DoublePendulum")
    env.reset(seed=0)
    with pytest.raises(ShapeError, match="inner_torque"):
        env.unwrapped.step([1.0])
