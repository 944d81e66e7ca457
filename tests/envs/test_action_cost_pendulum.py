"""The pendulum whose every push costs: its equation against another integrator, what it pays, and held actions."""

import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from scipy.integrate import solve_ivp

import bayesdyn as bd
from bayesdyn.envs import ActionCostPendulumPlant, ActionCostReward
from bayesdyn.errors import ConfigurationError

ENV = "bayesdyn/ActionCostPendulum-v0"


def test_gymnasium_has_nothing_to_remark_on() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENV, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("torque", [0.7, -3.0])
def test_a_step_is_that_of_the_published_equation(torque: float) -> None:
    """Against scipy's integrator to 1e-10; a torque beyond 1 N m is clipped."""
    push = max(-1.0, min(1.0, torque))

    def rates(_: float, s: np.ndarray) -> list[float]:
        inertia = 0.3 * 0.5**2
        return [s[1], 9.81 / 0.5 * math.sin(s[0]) + push / inertia - 0.005 / inertia * s[1]]

    exact = solve_ivp(rates, (0, 1 / 80), [0.4, -3.0], rtol=1e-12, atol=1e-12).y[:, -1]
    step = ActionCostPendulumPlant().step(torch.tensor([0.4, -3.0]).double(), torch.tensor([torque]).double())
    np.testing.assert_allclose(step.numpy(), exact, atol=1e-10)


def test_the_motor_is_too_weak_to_lift_the_pendulum() -> None:
    """m g l is more than the largest torque: without a swing it stays below."""
    plant = ActionCostPendulumPlant()
    assert plant.mass * plant.gravity * plant.length > 1.0


def test_rewards_have_the_published_corners() -> None:
    """1 for standing still upright, 0 for hanging, -c for a hard push, 0.1 at each margin."""
    reward, still = ActionCostReward(), torch.zeros(1)
    upright, hanging, margin = torch.tensor([0.0, 0.0]), torch.tensor([math.pi, 0.0]), torch.tensor([math.acos(0.85), 0.0])
    assert reward(upright, still, upright) == 1
    assert reward(hanging, still, hanging) == pytest.approx(0, abs=1e-30)
    assert reward(margin, still, margin) == pytest.approx(0.1, rel=1e-5)
    assert reward(torch.tensor([0.0, 1.0]), still, upright) == pytest.approx(0.1)
    assert reward(upright, torch.tensor([0.2]), upright) == pytest.approx(0.91)
    assert reward(upright, torch.tensor([1.0]), upright) == pytest.approx(0.9)


@pytest.mark.parametrize("repeat", [1, 4, 8])
def test_an_episode_has_400_steps_and_the_same_return_however_long_actions_are_held(repeat: int) -> None:
    env = bd.envs.make(ENV, action_repeat=repeat)
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation, [math.pi, 0.0])
    total, steps, over = 0.0, 0, False
    while not over:
        _, reward, terminated, over, info = env.step(np.array([0.5], np.float32))
        assert not terminated
        total, steps = total + reward, steps + 1
    assert steps * repeat == 400
    assert total == pytest.approx(-40.0, abs=0.01)  # the pendulum never gets up, and each of 400 pushes costs 0.1
    assert info["upright"] == 0.0


def test_upright_is_the_share_of_the_steps_that_an_action_was_held_for() -> None:
    """Let go at an angle, the pendulum leaves the upright position in the middle of the action."""
    env = bd.envs.make(ENV, action_repeat=8).unwrapped
    env.reset(options={"state": [0.25, 0.0]})
    before = [env.step(np.zeros(1))[-1]["upright"] for _ in range(5)]
    assert before[0] == 1
    assert any(0 < share < 1 for share in before)
    assert before[-1] == 0


def test_a_repeat_divides_the_episode() -> None:
    with pytest.raises(ConfigurationError, match="divides the 400 steps"):
        bd.envs.make(ENV, action_repeat=3)
