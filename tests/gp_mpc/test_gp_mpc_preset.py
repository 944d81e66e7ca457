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


@pytest.mark.parametrize(
    ("name", "state", "widths"),
    [
        ("kamthe-double-pendulum", [0.1, -0.2, 0.3, -0.4], (0.2, 0.5, 2.0)),
        ("double-pendulum", [0.1, -0.2, 0.3, -0.4], (0.2, 0.5, 2.0)),
        ("cart-double-pendulum", [0.2, 0.1, -0.2, 0.3, 0.3, -0.4], (0.1, 0.25, 0.5, 2.0)),
    ],
)
def test_the_tip_is_the_one_that_the_environment_measures(name: str, state: list[float], widths: tuple[float, ...]) -> None:
    """The cost is the mean of 1 - exp(-½ d²/w²) over the widths w, d the distance that the environment reports."""
    task = gp_mpc(name)
    env = task.make_env()
    env.reset(seed=0, options={"state": state})
    _, _, _, _, info = env.step(env.action_space.low)
    following = torch.as_tensor(info["state"])
    mine = task.agent(task.model()).reward(following, torch.as_tensor(env.action_space.low), following)
    distance = float(info["tip_distance"])
    known = [1 - math.exp(-0.5 * (distance / width) ** 2) for width in widths]
    assert float(-mine) == pytest.approx(sum(known) / len(known), rel=1e-6)
    env.close()


@pytest.mark.parametrize(
    ("name", "relative"), [("double-pendulum", {1: 0, 3: 2}), ("cart-double-pendulum", {3: 2, 5: 4}), ("pendulum", {})]
)
def test_dynamics_see_what_lies_between_links(name: str, relative: dict[int, int]) -> None:
    assert gp_mpc(name).model().codec.relative == relative
    assert gp_mpc(name, relative={}).model().codec.relative == {}


def test_what_a_task_says_of_the_search_is_what_its_agent_does() -> None:
    task = replace(gp_mpc("pendulum"), scouts=5, starts=2, observation_var=(0.1, 0.2), process_noise=True, feedback=True)
    agent = task.agent(task.model())
    assert (agent.scouts, agent.starts, agent.observation_var, agent.process_noise, agent.feedback) == (
        5,
        2,
        (0.1, 0.2),
        True,
        True,
    )


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
