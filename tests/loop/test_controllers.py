"""First trials by a controller."""

import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from point_mass import PointMass, assert_same_trials, make_agent, make_model, run_loop

from bayesdyn.errors import ConfigurationError
from bayesdyn.loop import Exploration, Given, OrnsteinUhlenbeck, ProportionalDerivative, learn


def drawn(explore: Exploration, env: gymnasium.Env, count: int, seed: int = 0) -> np.ndarray:
    policy = explore(env, torch.Generator().manual_seed(seed))
    return np.stack([policy(np.zeros(2)) for _ in range(count)])


@pytest.mark.parametrize("steps", [1.0, 6.2, 30.0])
def test_the_process_has_the_spread_and_the_memory_that_were_asked_for(steps: float) -> None:
    """N rows of correlation ρ count as N (1 - ρ) / (1 + ρ) for the mean, and as N (1 - ρ²) / (1 + ρ²) for the second moments."""
    rows, std, rho = 40_000, 0.2, math.exp(-1 / steps)
    actions = drawn(OrnsteinUhlenbeck(std, steps), PointMass(low=-3.0, dtype=np.float64), rows)[:, 0]  # middle -1, half width 2
    counted, moments = rows * (1 - rho) / (1 + rho), rows * (1 - rho**2) / (1 + rho**2)
    z = (actions + 1) / (std * 2)
    assert abs(z.mean()) < 4 / counted**0.5
    assert abs(z.var() - 1) < 4 * (2 / moments) ** 0.5
    assert abs((z[1:] * z[:-1]).mean() - rho) < 4 * (2 / moments) ** 0.5


def test_a_spring_pulls_and_a_damper_brakes() -> None:
    explore = ProportionalDerivative(positions=(0,), speeds=(1,), target=(0.5,), proportional=2.0, derivative=1.0, std=0.0)
    policy = explore(PointMass(low=-3.0), torch.Generator())  # middle -1, half width 2
    assert policy(np.array([0.5, 0.0])) == pytest.approx([-1.0])
    assert policy(np.array([0.4, 0.0])) == pytest.approx([-1.0 + 2.0 * 0.2])
    assert policy(np.array([0.5, 0.1])) == pytest.approx([-1.0 - 2.0 * 0.1])
    assert policy(np.array([-9.0, 0.0])) == pytest.approx([1.0])  # at the bound


def test_a_controller_brings_the_mass_to_its_target_where_chance_does_not() -> None:
    explore = ProportionalDerivative(positions=(0,), speeds=(1,), target=(0.0,), proportional=2.0, derivative=2.0)
    env = PointMass(steps=60)
    model = make_model()
    led, drifting = (learn(env, model, make_agent(model), trials=0, explore=e).trials[0] for e in (explore, OrnsteinUhlenbeck()))
    assert float(led.episode.states[-10:, 0].abs().max()) < 0.2
    assert led.metrics["return"] > drifting.metrics["return"]


EXPLORERS = [
    OrnsteinUhlenbeck(std=2.0),
    ProportionalDerivative((0,), (1,), (0.0,), std=2.0),
    Given(lambda observation: -observation[1:]),
]


@pytest.mark.parametrize("explore", EXPLORERS, ids=lambda explore: type(explore).__name__)
def test_actions_are_the_environments_and_follow_from_the_seed(explore: Exploration) -> None:
    env = PointMass()
    actions = drawn(explore, env, 200)
    assert all(env.action_space.contains(action.astype(np.float32)) for action in actions)
    assert np.array_equal(actions, drawn(explore, env, 200))


@pytest.mark.parametrize("explore", EXPLORERS, ids=lambda explore: type(explore).__name__)
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_run_that_explores_so_is_resumed_and_known_by_it(explore: Exploration, tmp_path: Path) -> None:
    explore = Given(lambda observation: np.array([0.1], np.float32)) if isinstance(explore, Given) else explore
    whole = run_loop(tmp_path / "whole", initial=3, trials=1, explore=explore)
    run_loop(tmp_path / "parts", initial=3, trials=0, explore=explore)
    assert_same_trials(whole, run_loop(tmp_path / "parts", initial=3, trials=1, explore=explore))
    with pytest.raises(ConfigurationError, match="explore"):
        run_loop(tmp_path / "parts", initial=3, trials=1)


def test_a_policy_of_ones_own_acts_in_a_discrete_space_too() -> None:
    env = PointMass()
    env.action_space = gymnasium.spaces.Discrete(2)
    assert Given(lambda observation: 1)(env, torch.Generator())(np.zeros(2)) == 1


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="std > 0"):
        OrnsteinUhlenbeck(std=0.0)
    with pytest.raises(ConfigurationError, match="each of the 1 actions, of 2 observed"):
        ProportionalDerivative((0, 1), (1, 0), (0.0, 0.0))(PointMass(), torch.Generator())
    with pytest.raises(ConfigurationError, match="each of the 1 actions, of 2 observed"):
        ProportionalDerivative((2,), (1,), (0.0,))(PointMass(), torch.Generator())
    env = PointMass()
    env.action_space = gymnasium.spaces.Discrete(2)
    for explore in EXPLORERS[:2]:
        with pytest.raises(ConfigurationError, match="use Uniform"):
            explore(env, torch.Generator())
