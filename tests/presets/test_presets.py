"""Ready-made settings: each name makes something that works, a wrong one is met with a suggestion."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from bayesdyn import presets
from bayesdyn.data import Episode, Transitions, collect, random_policy
from bayesdyn.errors import UnknownNameError
from bayesdyn.loop import Trial
from bayesdyn.loop.actions import actions_of
from bayesdyn.planners import RandomShooting
from bayesdyn.posteriors import Posterior
from bayesdyn.testing import check_planner


@pytest.mark.parametrize("name", presets.posteriors)
def test_posteriors_are_made_new_and_unfitted(name: str) -> None:
    first, second = presets.posteriors[name](), presets.posteriors[name]()
    assert isinstance(first, Posterior)
    assert first is not second
    assert first.sizes == (0, 0)


@pytest.mark.parametrize("env_id", presets.tasks)
def test_tasks_know_their_environment(env_id: str) -> None:
    task = presets.task(env_id)
    env = task.make_env()
    assert env.spec is not None
    assert env.spec.id == task.env_id == env_id
    assert env.spec.max_episode_steps == task.environment.steps
    actions_of(env.action_space)
    observation, _ = env.reset(seed=0)
    assert all(0 <= angle < len(observation) for angle in task.environment.angles)
    _, _, _, _, info = env.step(env.action_space.sample())
    if task.distance is not None:
        assert float(info[task.distance]) > task.solved_below > 0  # a fresh episode is not solved
    assert {name for name, _ in task.solves} <= set(presets.posteriors)
    env.close()


@pytest.mark.parametrize("env_id", [env_id for env_id, task in presets.tasks.items() if task.distance is not None])
def test_the_planners_reward_falls_with_the_distance_from_solved(env_id: str) -> None:
    task = presets.task(env_id)
    env = task.make_env()
    state, _ = env.reset(seed=0)
    policy, rewards, distances = random_policy(env), [], []
    for _ in range(40):
        action = policy(state)
        following, _, _, _, info = env.step(action)
        rewards.append(
            float(task.reward(*(torch.as_tensor(np.asarray(v, dtype=np.float64)) for v in (state, 0 * action, following))))
        )
        distances.append(float(info[task.distance]))
        state = following
    # Not exactly: the reward sees what was observed, with noise.
    assert stats.spearmanr(rewards, distances).statistic < -0.9


def test_solved_means_near_over_the_last_ten_steps() -> None:
    task = next(iter(presets.tasks.values()))
    task = replace(task, environment=replace(task.environment, distance="gap", solved_below=0.5))
    episode = Episode.from_arrays(np.zeros((21, 1)), np.zeros((20, 1)))
    for last, solved in ((0.4, True), (0.6, False)):
        gap = torch.cat([torch.ones(10), torch.zeros(9), torch.tensor([last])])
        assert task.solved(Trial(0, True, episode, {"gap": gap})) == solved


@pytest.mark.parametrize("env_id", presets.tasks)
def test_an_agent_acts_with_the_tasks_model(env_id: str) -> None:
    task = presets.task(env_id)
    env = task.make_env()
    model = task.model("gp")
    model.fit(Transitions.from_episodes(collect(env, random_policy(env), steps=15)))
    agent = replace(task, planner=RandomShooting(horizon=2, candidates=5), draws=2).agent(model)
    agent.reset(actions_of(env.action_space).space)
    action = agent.act(torch.as_tensor(np.asarray(env.reset(seed=0)[0], dtype=np.float64))).numpy()
    assert env.action_space.contains(action)


@pytest.mark.parametrize("env_id", presets.tasks)
def test_the_tasks_planners_keep_the_contract(env_id: str) -> None:
    check_planner(lambda: presets.task(env_id).planner, dtype=torch.float32)


def test_unknown_names_are_met_with_the_known_ones() -> None:
    env_id = next(iter(presets.tasks))
    with pytest.raises(UnknownNameError, match=f"did you mean '{env_id}'"):
        presets.task(env_id + "x")
    with pytest.raises(UnknownNameError, match="did you mean 'pets'"):
        presets.task(env_id, "petss")
    with pytest.raises(UnknownNameError, match="Known: gp"):
        presets.task(env_id).model("zzz")


def test_a_task_knows_the_settings_that_it_wants() -> None:
    task = replace(next(iter(presets.tasks.values())), settings={"gp": lambda: presets.posteriors["ensemble"]()})
    for name, alike in (("gp", "ensemble"), ("laplace", "laplace")):
        assert isinstance(task.posterior(name), type(presets.posteriors[alike]()))
    with pytest.raises(UnknownNameError, match="did you mean 'laplace'"):
        task.posterior("laplce")
