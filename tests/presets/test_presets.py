"""Ready-made settings: each name makes something that works, a wrong one is met with a suggestion."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from bayesdyn import presets
from bayesdyn.data import Episode, Transitions, collect, random_policy
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import UnknownNameError
from bayesdyn.loop import Coloured, Trial
from bayesdyn.loop.actions import actions_of
from bayesdyn.model import DynamicsModel
from bayesdyn.planners import CEM, ICEM, PDDM, RandomShooting
from bayesdyn.posteriors import ExactGP, GPTraining, Posterior
from bayesdyn.presets.arms import tip_position
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
    assert env.spec.max_episode_steps in (None, task.environment.steps)
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
    model = DynamicsModel(task.codec(), ExactGP(features=32, training=GPTraining(max_steps=3, restarts=0)))
    model.fit(Transitions.from_episodes(collect(env, random_policy(env), steps=15)))
    agent = replace(task, planner=RandomShooting(horizon=2, candidates=5), draws=2).agent(model)
    agent.reset(actions_of(env.action_space).space)
    action = agent.act(torch.as_tensor(np.asarray(env.reset(seed=0)[0], dtype=np.float64))).numpy()
    assert env.action_space.contains(action)


# A search kept narrow because actions cost a lot does not get to a far optimum in one plan, which the contract asks for.
@pytest.mark.parametrize("planner", sorted({replace(presets.icem(env_id).planner, std=0.5) for env_id in presets.tasks}, key=str))
def test_the_tasks_planners_keep_the_contract(planner: ICEM) -> None:
    check_planner(lambda: planner, dtype=torch.float32)


@pytest.mark.parametrize("environment", presets.environments.values(), ids=lambda e: e.env_id)
def test_the_planners_reward_is_the_environments_unless_the_preset_says_how_it_differs(environment: presets.Environment) -> None:
    env = environment.make()
    state, _ = env.reset(seed=0)
    policy, errors, over = random_policy(env), [], False
    while len(errors) < 30 and not over:
        action = policy(state)
        following, paid, over, _, _ = env.step(action)
        transition = (torch.as_tensor(np.asarray(values, dtype=np.float64)) for values in (state, action, following))
        errors.append(abs(paid - float(environment.reward(*transition))))
        if environment.termination is not None:
            arguments = (torch.as_tensor(np.asarray(values, dtype=np.float64)) for values in (state, action, following))
            assert bool(environment.termination(*arguments)) == over
        state = following
    env.close()
    # Gymnasium's double pendulum pays for a tip that lags behind by a stage of its integrator, some 1e-4 m.
    assert (max(errors) < 1e-3) == (environment.differs == "")


@pytest.mark.parametrize("env_id", [e.env_id for e in presets.environments.values() if e.env_id.startswith("bayesdyn/DMC")])
def test_episodes_that_the_environment_ends_itself_have_the_stated_steps(env_id: str) -> None:
    environment = presets.environments[env_id]
    env = environment.make()
    env.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        truncated, steps = env.step(np.zeros(env.action_space.shape))[3], steps + 1
    assert steps == environment.steps
    assert env.unwrapped.dt == pytest.approx(environment.step_seconds)


@pytest.mark.parametrize("method", presets.methods)
@pytest.mark.parametrize("env_id", presets.environments)
def test_every_method_has_settings_for_every_environment(method: str, env_id: str) -> None:
    task = presets.task(env_id, method)
    assert task.env_id == env_id
    assert task.initial >= 1
    assert task.trials >= 1
    agent = task.agent(task.model(), latency=50.0)
    assert (agent.planner, agent.draws, agent.latency) == (task.planner, task.draws, 50.0)


def test_methods_plan_with_the_published_settings() -> None:
    env_id = "bayesdyn/PETSHalfCheetah-v0"
    pets, pddm, mb_mpc = presets.pets(env_id), presets.pddm(env_id), presets.mb_mpc(env_id)
    # kchua/handful-of-trials, dmbrl/config/{default,halfcheetah}.py
    assert pets.planner == CEM(horizon=30, candidates=500, elites=50, iterations=5, momentum=0.1)
    assert (pets.draws * pets.particles, pets.trials, pets.warm_start) == (20, 300, True)
    # google-research/pddm, config/cheetah.txt: 200 random rollouts of 100 steps, then 50 x 30
    assert pddm.planner == PDDM(horizon=20, candidates=700, kappa=1.0, sigma=0.9, beta=0.9)
    assert (pddm.initial * 1000, pddm.trials * 1000, pddm.warm_start) == (20_000, 150_000, False)
    # nagaban2/nn_dynamics, yaml_files/cheetah_forward.yaml: 10 random rollouts of 1,000 steps, then 7 x 10
    assert mb_mpc.planner == RandomShooting(horizon=20, candidates=1000)
    assert (mb_mpc.initial, mb_mpc.trials) == (10, 70)


@pytest.mark.parametrize(("method", "steps"), [("pets", 10), ("pddm", 40), ("mb-mpc", 30)])
def test_training_takes_the_published_epochs(method: str, steps: int) -> None:
    task = presets.task("bayesdyn/PETSCartPole-v0", method)
    posterior = task.posterior()
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    layers = len(posterior.hidden) + 1
    assert posterior.fit(x, x.sin()).steps == steps
    assert len(posterior.widths) == layers + 1


def test_a_task_learns_with_the_options_of_its_method() -> None:
    task = presets.icem("Pendulum-v1")
    task = replace(
        task, planner=RandomShooting(horizon=2, candidates=5), draws=2, initial=2, replan_every=3, explore=Coloured(0.2, 1.0)
    )
    environment = replace(task.environment, options=lambda: {"max_episode_steps": 12})
    run = replace(task, environment=environment).learn("gp", trials=1, seed=3)
    assert [trial.controlled for trial in run.trials] == [False, False, True]
    assert (run.config["seed"], run.config["replan_every"], run.config["warm_start"]) == (3, 3, False)
    assert run.config["posterior"]["class"] == "ExactGP"
    assert run.config["explore"] == {"class": "Coloured", "std": 0.2, "beta": 1.0, "steps": 100}


@pytest.mark.parametrize("env_id", [env_id for env_id, task in presets.tasks.items() if task.mechanism is not None])
def test_what_a_mechanisms_codec_knows_is_so(env_id: str) -> None:
    task = presets.task(env_id)
    env = task.make_env()
    data = Transitions.from_episodes(collect(env, task.explore(env, torch.Generator().manual_seed(0)), episodes=1))
    codec = task.codec()
    codec.fit(data)
    target = codec.target(data.state, data.next_state)
    decoded = codec.decode(data.state, data.action, Gaussian(target[None], torch.zeros_like(target)[None])).mean[0]
    follow = [i for i in range(data.state_size) if i not in codec.outputs]
    error = (decoded - data.next_state)[:, follow]
    # Forces vary little within a step but for joints that run into their limits; measured: up to a tenth of what a joint moves.
    moved = (data.next_state - data.state)[:, follow]
    assert bool((error.square().mean(0) <= 0.15**2 * moved.square().mean(0) + 1e-20).all())
    assert codec.encode(data.state, data.action).isfinite().all()
    env.close()


def test_the_pushers_tip_is_where_the_environment_sees_it() -> None:
    env = presets.environments["bayesdyn/PETSPusher-v0"].make()
    data = Transitions.from_episodes(collect(env, random_policy(env), episodes=1))
    torch.testing.assert_close(tip_position(data.next_state), data.next_state[:, 14:17], rtol=0, atol=1e-12)
    env.close()


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
