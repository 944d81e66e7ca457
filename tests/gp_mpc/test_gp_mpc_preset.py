"""GP-MPC's settings in the scenarios: each fits its environment, and the cart-pole is learned."""

import math
from dataclasses import replace

import pytest
import torch

from bayesdyn.errors import UnknownNameError
from bayesdyn.loop import actions_of
from bayesdyn.presets.gp_mpc import gp_mpc
from bayesdyn.presets.pilco_scenarios import scenarios

NAMES = [*scenarios, "kamthe-double-pendulum"]


@pytest.mark.parametrize("name", NAMES)
def test_a_task_fits_its_environment(name: str) -> None:
    """The agent takes the actions, and its effort is a share of their limits: 0.02 at all limits of one action, and so on."""
    task = gp_mpc(name)
    env, model = task.make_env(), task.model()
    agent = task.agent(model)
    space = actions_of(env.action_space).space
    agent.reset(space)
    torch.testing.assert_close(agent.action_cost(space.box("test").high), torch.tensor(0.02 * space.size, dtype=torch.float64))
    state, _ = env.reset(seed=0)
    observed = torch.as_tensor(state)
    assert 0 < float(-agent.reward(observed, torch.zeros(space.size), observed)) <= 1 + 1e-12
    _, _, _, _, info = env.step(env.action_space.low)
    assert info[task.scenario.distance] > 0
    env.close()


def test_the_tip_of_long_links_is_what_the_environment_measures() -> None:
    """The cost is the mean of 1 - exp(-½ d²/w²) over three widths w, d the distance that the environment reports."""
    task = gp_mpc("kamthe-double-pendulum")
    env = task.make_env()
    env.reset(seed=0, options={"state": [0.1, -0.2, 0.3, -0.4]})
    _, _, _, _, info = env.step(env.action_space.low)
    following = torch.as_tensor(info["state"])
    mine = task.agent(task.model()).reward(following, torch.zeros(2), following)
    distance = float(info["tip_distance"])
    known = [1 - math.exp(-0.5 * (distance / width) ** 2) for width in (0.2, 0.5, 2.0)]
    assert float(-mine) == pytest.approx(sum(known) / 3, rel=1e-6)
    env.close()


def test_what_a_task_says_of_the_search_is_what_its_agent_does() -> None:
    task = replace(gp_mpc("pendulum"), scouts=5, starts=2, observation_var=(0.1, 0.2), process_noise=True)
    agent = task.agent(task.model())
    assert (agent.scouts, agent.starts, agent.observation_var, agent.process_noise) == (5, 2, (0.1, 0.2), True)


def test_changes_are_those_of_the_scenario() -> None:
    assert gp_mpc("cart-pole", initial=2).scenario.initial == 2
    with pytest.raises(UnknownNameError, match="cart-pole"):
        gp_mpc("cart-poles")


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_the_cart_pole_is_solved_by_the_third_trial() -> None:
    task = gp_mpc("cart-pole")
    run = task.learn(trials=2, seed=0, stop=task.solved)
    assert task.solved(run.trials[-1])
