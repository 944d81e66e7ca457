"""DeepMind Control's tasks: dm_control's own trajectories, rewards and observations, and the environments around them."""

import json
import math
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.envs import (
    DMCCartPoleReward,
    DMCPendulum,
    DMCPendulumReward,
    DMCPendulumShapedReward,
    DMCReacherReward,
    DMCReacherShapedReward,
    make,
)
from bayesdyn.errors import ConfigurationError, MissingExtraError, UnknownNameError

GOLDEN = Path(__file__).parents[1] / "golden" / "dmc"
TASKS = {
    "cartpole_swingup": ("bayesdyn/DMCCartPole-v0", {}, DMCCartPoleReward()),
    "pendulum_swingup": ("bayesdyn/DMCPendulum-v0", {}, DMCPendulumReward()),
    "reacher_easy": ("bayesdyn/DMCReacher-v0", {}, DMCReacherReward()),
    "reacher_hard": ("bayesdyn/DMCReacher-v0", {"difficulty": "hard"}, DMCReacherReward(0.015)),
}
EVERY_TASK = pytest.mark.parametrize("name", TASKS)


def cases(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())["cases"]


def start_of(case):
    """Return dm_control's first state in our coordinates, where the reacher's target is part of the state."""
    state, target = case["states"][0], case.get("target", [])
    half = len(state) // 2
    return [*state[:half], *target, *state[half:], *(0.0 for _ in target)]


@EVERY_TASK
def test_trajectories_observations_and_rewards_are_those_of_dm_control(name):
    env_id, options, _ = TASKS[name]
    for case in cases(name):
        env = make(env_id, **options)
        first, _ = env.reset(options={"state": start_of(case)})
        steps = [env.step(action) for action in case["actions"]]
        observations = np.stack([first, *(step[0] for step in steps)])
        # MuJoCo 3.17 there and 4.0 here differ by rounding: 2e-16 for the swing-ups, 1e-14 for the reacher after sixty steps.
        np.testing.assert_allclose(observations, case["observations"], rtol=0, atol=1e-12)
        np.testing.assert_allclose([step[1] for step in steps], case["rewards"], rtol=0, atol=1e-12)
        env.close()


@EVERY_TASK
def test_reward_callables_are_dm_controls_on_flattened_observations(name):
    reward = TASKS[name][2]
    for case in cases(name):
        observations = torch.tensor(case["observations"], dtype=torch.float64)
        actions = torch.tensor(case["actions"], dtype=torch.float64)
        paid = reward(observations[:-1], actions, observations[1:])
        np.testing.assert_allclose(paid.numpy(), case["rewards"], rtol=0, atol=1e-12)
        many = reward(observations[:-1].expand(2, 3, -1, -1), actions, observations[1:].expand(2, 3, -1, -1))
        assert torch.equal(many[1, 2], paid)


def test_golden_trajectories_pay_and_do_not_pay():
    for name in ("pendulum_swingup", "reacher_easy", "reacher_hard"):
        assert {reward for case in cases(name) for reward in case["rewards"]} == {0.0, 1.0}
    # The cart runs into the soft end of its rail at 1.8 m.
    assert max(state[0] for case in cases("cartpole_swingup") for state in case["states"]) > 1.8


@EVERY_TASK
def test_gymnasium_accepts_the_environment(name):
    env_id, options, _ = TASKS[name]
    env = gymnasium.make(env_id, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_an_action_is_held_and_its_rewards_are_added_up():
    once, twice = make("bayesdyn/DMCCartPole-v0"), make("bayesdyn/DMCCartPole-v0", action_repeat=2)
    state = [0.1, 0.5, 0.3, -1.0]
    once.reset(options={"state": state})
    twice.reset(options={"state": state})
    for action in ([0.7], [-2.0], [0.1]):
        first, second, both = once.step(action), once.step(action), twice.step(action)
        np.testing.assert_array_equal(both[0], second[0])
        assert both[1] == first[1] + second[1]
    assert twice.unwrapped.dt == 2 * once.unwrapped.dt == 0.02


@pytest.mark.parametrize("repeat", [20, 50])
def test_an_episode_is_a_thousand_simulator_steps_and_starts_anew(repeat):
    env = make("bayesdyn/DMCPendulum-v0", action_repeat=repeat)
    for seed in (0, 1):
        env.reset(seed=seed)
        ends = [env.step([0.5])[2:4] for _ in range(1000 // repeat)]
        assert ends == [(False, False)] * (1000 // repeat - 1) + [(False, True)]


@pytest.mark.parametrize("repeat", [0, 3])
def test_a_repeat_has_to_divide_the_episode(repeat):
    with pytest.raises(ConfigurationError, match="1000"):
        make("bayesdyn/DMCCartPole-v0", action_repeat=repeat)


def test_the_known_plant_sees_what_the_environment_does():
    env = make("bayesdyn/DMCReacher-v0", action_repeat=4)
    env.reset(seed=3)
    actions = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 1, 1, 2)
    shaped = DMCReacherShapedReward()
    score = env.unwrapped.known_plant(shaped)(actions)
    observation, total = torch.from_numpy(env.unwrapped.present().numpy()), 0.0
    for action in actions[:, 0, 0]:
        following = torch.from_numpy(env.step(action.numpy())[0])
        total += shaped(observation, action, following).item()
        observation = following
    assert abs(score.item() - total) < 1e-9


def test_starts_have_the_published_spread():
    cartpole, pendulum, reacher = (make(f"bayesdyn/DMC{task}-v0") for task in ("CartPole", "Pendulum", "Reacher"))
    starts = [np.stack([env.reset(seed=seed)[1]["state"] for seed in range(400)]) for env in (cartpole, pendulum, reacher)]
    offsets = starts[0] - [0.0, math.pi, 0.0, 0.0]
    assert np.abs(offsets.std(0) - 0.01).max() < 5 * 0.01 / math.sqrt(800)
    # A uniform on ±w has standard deviation w/√3, whose relative standard error of 400 draws is √(0.8 / 1600), as kurtosis is 1.8.
    for draws, width in ((starts[1][:, 0], math.pi), (starts[2][:, 0], math.pi), (starts[2][:, 1], math.radians(160))):
        assert np.abs(draws).max() < width
        assert abs(draws.std() / (width / math.sqrt(3)) - 1) < 5 * math.sqrt(0.8 / 1600)
    distance = np.linalg.norm(starts[2][:, 2:4], axis=-1)
    assert 0.05 <= distance.min() < distance.max() <= 0.20
    assert not starts[1][:, 1].any()
    assert not starts[2][:, 4:].any()


def test_without_mujoco_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for construct in (DMCPendulum, lambda: make("bayesdyn/DMCPendulum-v0")):
        with pytest.raises(MissingExtraError, match=r"bayesdyn\[mujoco\]"):
            construct()


def test_an_unknown_difficulty_is_named():
    with pytest.raises(UnknownNameError, match="hard"):
        make("bayesdyn/DMCReacher-v0", difficulty="medium")


def test_shaped_rewards_slope_where_the_tasks_do_not():
    hanging = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64).requires_grad_()
    DMCPendulumShapedReward()(hanging, torch.zeros(1), hanging).backward()
    assert hanging.grad[2] > 0  # swinging faster through the bottom earns more
    far = torch.tensor([0.0, 0.0, 0.2, 0.0, 0.0, 0.0], dtype=torch.float64).requires_grad_()
    DMCReacherShapedReward()(far, torch.zeros(2), far).backward()
    assert far.grad[2] < 0  # a greater distance earns less


def test_shaped_rewards_refuse_scales_without_meaning():
    with pytest.raises(ConfigurationError, match="positive"):
        DMCReacherShapedReward(scale=0.0)
    with pytest.raises(ConfigurationError, match="positive"):
        DMCPendulumShapedReward(speed=-1.0)
