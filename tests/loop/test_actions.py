"""Planners' actions and environments' actions say the same thing."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from point_mass import PointMass, reward
from reference_posteriors import ConjugateRegression

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError
from bayesdyn.loop.actions import actions_of

SPACES = [
    spaces.Box(np.array([-1.0, 0.1], np.float32), np.array([1.0, 0.3], np.float32)),
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 5]),
    spaces.MultiDiscrete([2, 5], start=[3, -2]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_action_a_planner_can_choose_is_one_of_the_environments(space: gymnasium.Space) -> None:
    actions = actions_of(space)
    drawn = actions.space.uniform((200,), torch.Generator().manual_seed(0)).double().numpy()
    translated = [actions.translate(row) for row in drawn]
    assert all(space.contains(action) for action in translated)
    np.testing.assert_allclose([actions.record(action) for action in translated], drawn, rtol=1e-6)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_what_the_environment_was_given_can_be_planned(space: gymnasium.Space) -> None:
    actions = actions_of(space)
    space.seed(0)
    for _ in range(50):
        recorded = torch.as_tensor(actions.record(space.sample()))
        torch.testing.assert_close(actions.space.clip(recorded.to(actions.space.middle)).double(), recorded)


def test_categories_count_from_zero() -> None:
    actions = actions_of(spaces.Discrete(3, start=5))
    assert actions.space.sizes.tolist() == [3.0]
    assert [actions.translate(np.array([float(i)])) for i in range(3)] == [5, 6, 7]


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2, 2)), spaces.MultiBinary(3), spaces.Dict({})], ids=str)
def test_spaces_that_no_planner_searches_are_refused(space: gymnasium.Space) -> None:
    with pytest.raises(ConfigurationError, match="planners act in"):
        actions_of(space)


class Switched(PointMass):
    """The mass pushed left, not at all, or right."""

    def __init__(self) -> None:
        super().__init__(steps=12)
        self.action_space = spaces.Discrete(3, start=-1)

    def step(self, action):
        assert self.action_space.contains(action)
        self.action_space, discrete = spaces.Box(-1.0, 1.0, (1,)), self.action_space
        try:
            return super().step(np.array([action], np.float32))
        finally:
            self.action_space = discrete


DISCRETE = [
    bd.planners.DiscreteCEM(horizon=6, candidates=40, elites=8),
    bd.planners.DiscreteMPPI(horizon=6, candidates=100),
    bd.planners.RandomShooting(horizon=6, candidates=200),
]


@pytest.mark.parametrize("planner", DISCRETE, ids=lambda planner: type(planner).__name__)
@pytest.mark.usefixtures("unchecked_shapes")
def test_discrete_actions_are_learned_and_planned(planner: bd.planners.Planner) -> None:
    model = bd.DynamicsModel(bd.Codec(choices={0: 3}), ConjugateRegression())
    agent = bd.MPC(model, planner, reward, draws=2)
    env = Switched()
    run = bd.learn(env, model, agent, trials=2)
    assert {float(a) for trial in run.trials for a in trial.episode.actions.flatten()} <= {0.0, 1.0, 2.0}
    assert run.trials[-1].metrics["return"] > run.trials[0].metrics["return"]


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_agent_is_reset_for_the_planners_own_space() -> None:
    space = spaces.Box(-1.0, 1.0, (1,))
    agent = bd.MPC(bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s))), bd.planners.ICEM(), reward)
    with pytest.raises(ConfigurationError, match=r"bayesdyn.loop.actions_of\(env.action_space\).space"):
        agent.reset(space)
    agent.reset(bd.loop.actions_of(space).space)
