"""PILCO's scenarios as tasks: they are those of the environments, learn and resume; what their policies do is played back."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesdyn import presets
from bayesdyn.errors import ConfigurationError, FileError, UnknownNameError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.loop import Run
from bayesdyn.posteriors import ExactGP
from bayesdyn.presets import Rehearsal, ScenarioTask, real_rollouts, rehearsals, rehearse
from bayesdyn.testing.conformance import shape_checks_off

STEPS = 40


def little(name="pendulum", **changes):
    """PILCO that hardly trains and searches, from one start, with the official widths."""
    task = presets.pilco(name, **{"basis": 5, "searches": 1, "evaluations": 2, **changes})
    return replace(task, posterior=lambda: ExactGP(training=GPTraining.pilco(max_steps=5)), widths=None, restarts=0)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of a random and two controlled trials of the pendulum, its task and its rehearsals."""
    task, folder = little(), tmp_path_factory.mktemp("pilco") / "run"
    with shape_checks_off():
        run = task.learn(trials=2, run=folder)
        return task, run, rehearse(task, run)


@pytest.mark.parametrize("name", presets.scenarios)
def test_a_scenario_is_that_of_its_environment(name):
    task = presets.pilco(name)
    env, scenario = task.make_env(), task.scenario
    mean, cov = env.unwrapped.start_moments()
    torch.testing.assert_close(scenario.start.mean, mean)
    torch.testing.assert_close(scenario.start.cov, cov)
    assert env.action_space.high.tolist() == pytest.approx(list(scenario.limits))
    assert env.spec.max_episode_steps == scenario.horizon
    _, info = env.reset(seed=0)
    assert info[scenario.distance] > scenario.solved_below > 0 or name == "unicycle"  # which starts where it is to stay
    assert isinstance(task, ScenarioTask)
    env.close()


@pytest.mark.parametrize("name", presets.scenarios)
def test_the_cost_of_a_task_is_one_minus_what_the_environment_pays(name):
    """Without uncertainty the saturating cost with the official widths is 1 - r, at states near and far."""
    task = little(name)
    env = task.make_env()
    state = torch.randn(50, len(task.scenario.start_mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    action = torch.zeros(50, len(task.scenario.limits), dtype=torch.float64)
    agent = task.agent(task.model())
    torch.testing.assert_close(
        -agent.reward(state, action, state), 1 - env.unwrapped.reward(state, action, state), atol=1e-12, rtol=0
    )
    env.close()


@pytest.mark.parametrize("name", presets.scenarios)
def test_policies_act_within_the_limits(name):
    task = little(name, **({"basis": 0} if name == "unicycle" else {}))
    policy = task.policy(task.scenario, torch.Generator().manual_seed(0))
    states = 10 * torch.randn(100, len(task.scenario.start_mean), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert bool((policy(states).abs() <= task.scenario.limit_tensor).all())


def test_a_wrong_name_is_met_with_the_right_one():
    with pytest.raises(UnknownNameError, match="did you mean 'cart-pole'"):
        presets.pilco("cartpole")


def test_each_trial_is_predicted_searched_and_warmly_continued(learned):
    task, run, _ = learned
    assert [trial.controlled for trial in run.trials] == [False, True, True]
    for trial in run.trials[1:]:
        assert trial.predictions["cost_mean"].shape == (STEPS + 1,)
        assert trial.predictions["state_std"].shape == (STEPS + 1, 2)
        assert float(trial.predictions["cost_mean"][1:].sum()) == pytest.approx(trial.metrics["predicted_cost"])
    agents = [task.agent(task.model()) for _ in range(2)]
    for index, agent in enumerate(agents, 1):
        run.load_improvement(index, agent)
    first, second = (agent.memory() for agent in agents)
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_run_goes_on_as_if_it_had_not_stopped(learned, tmp_path):
    task, run, _ = learned
    with shape_checks_off():
        task.learn(trials=1, run=tmp_path)
        again = task.learn(trials=2, run=tmp_path)
    for one, other in zip(run.trials, again.trials, strict=True):
        assert torch.equal(one.episode.states, other.episode.states)


def test_another_policy_in_the_same_folder_is_refused(learned):
    _, run, _ = learned
    with pytest.raises(ConfigurationError, match=r"scenario\.basis: 5 there, 6 now"):
        little(basis=6).learn(trials=2, run=run.folder)


def test_stop_ends_a_run_that_has_solved_its_task(learned, tmp_path):
    task = replace(learned[0], scenario=replace(learned[0].scenario, solved_below=10.0))
    with shape_checks_off():
        run = task.learn(trials=2, run=tmp_path, stop=task.solved)
    assert [task.solved(trial) for trial in run.trials] == [False, True]


def test_rollouts_are_those_of_the_environment():
    """Without noise and from the same start n plants at once go where the environment goes, to the integrator's rounding."""
    env = presets.pilco("cart-pole").make_env(observation_noise=0.0)
    plain = env.unwrapped
    plain.start_std[:] = 0.0

    def act(seen):
        return 20 * torch.sin(7 * seen.sum(-1, keepdim=True)) + 3

    many = real_rollouts(plain, act, STEPS, 3, torch.Generator().manual_seed(0), "tip_distance")
    observation, _ = env.reset(seed=0)
    distances = []
    for t in range(STEPS):
        assert many.states[t].numpy() == pytest.approx(np.tile(observation, (3, 1)), abs=1e-9)
        action = act(torch.from_numpy(observation)).numpy().astype(np.float32)
        observation, _, _, _, info = env.step(np.clip(action, -10, 10))
        assert many.actions[t, 0].item() == pytest.approx(info["action"][0], abs=1e-6)
        distances.append(info["tip_distance"])
    assert many.furthest.numpy() == pytest.approx(np.full(3, max(distances[-10:])), abs=1e-6)
    env.close()


def test_rollouts_start_and_are_observed_as_the_environment_says():
    """Standard deviations of 4000 draws lie within four of their standard errors, σ/√(2n)."""
    env, count, seen = presets.pilco("pendulum").make_env(), 4000, []

    def act(observed):
        seen.append(observed)
        return torch.zeros(len(observed), 1, dtype=torch.float64)

    states = real_rollouts(env.unwrapped, act, 1, count, torch.Generator().manual_seed(0)).states
    noise = (seen[0] - states[0]).std(0)
    for found, wanted in ((states[0].std(0), torch.tensor([0.1, 0.1])), (noise, torch.tensor([0.1, 0.01]))):
        assert bool(((found - wanted).abs() < 4 * wanted / (2 * count) ** 0.5).all())
    env.close()


def test_a_rollout_that_has_ended_is_no_number():
    env = presets.pilco("unicycle").make_env()
    found = real_rollouts(env.unwrapped, lambda o: 50 + 0 * o[:, :2], 12, 4, torch.Generator().manual_seed(0), "top_distance")
    ended = found.states.isnan().any(-1)
    assert ended[-1].all()
    assert not ended[0].any()
    assert bool((ended.int().diff(dim=0) >= 0).all())  # nobody gets up again
    last = found.states[ended.int().argmax(0) - 1, torch.arange(4)]
    assert bool((last[:, [7, 9]].abs().amax(1) > torch.pi / 2).all())
    assert found.furthest.isinf().all()
    env.close()


def test_a_rehearsal_says_what_trials_cost_and_what_other_starts_bring(learned):
    _, run, found = learned
    assert list(found) == [1, 2]
    for index, rehearsal in found.items():
        assert float(rehearsal.cost.sum()) + run.trials[index].metrics["return"] == pytest.approx(STEPS)
        assert rehearsal.states.shape == (STEPS + 1, 10, 2)
        assert rehearsal.costs.shape == (STEPS, 10)
        assert rehearsal.names == ("theta_dot", "theta")
        assert bool(((rehearsal.costs >= 0) & (rehearsal.costs <= 1)).all())


def test_rehearsals_are_kept_and_not_made_twice(learned):
    task, run, found = learned
    files = sorted((run.folder / "rehearsals").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    again = rehearse(task, run)
    assert [file.stat().st_mtime_ns for file in files] == before
    for index, rehearsal in rehearsals(Run.open(run.folder)).items():
        assert torch.equal(rehearsal.states, found[index].states)
        assert torch.equal(rehearsal.cost, again[index].cost)
        assert rehearsal.saturated == found[index].saturated


def test_another_number_of_rollouts_is_another_rehearsal(learned, tmp_path):
    task, run, found = learned
    copied = shutil.copytree(run.folder, tmp_path / "run")
    assert rehearse(task, Run.open(copied), count=3)[1].furthest.shape == (3,)
    assert rehearsals(Run.open(copied))[1].furthest.shape == (3,)
    assert torch.equal(rehearse(task, Run.open(copied), count=10)[1].states, found[1].states)


def test_a_run_without_a_folder_has_its_costs_alone(learned):
    task, run, found = learned
    (only, _) = rehearse(task, Run(None, run.config, run.trials)).values()
    assert torch.equal(only.cost, found[1].cost)
    assert only.furthest.shape == (0,)


def test_a_foreign_file_is_refused(learned, tmp_path):
    _, run, found = learned
    (tmp_path / "rehearsals").mkdir()
    found[1].save(tmp_path / "rehearsals" / "001.safetensors")
    run.trials[1].save(tmp_path / "rehearsals" / "002.safetensors")
    with pytest.raises(FileError):
        rehearsals(Run(tmp_path, run.config, run.trials))


def test_only_a_policy_that_stays_at_its_limits_is_warned_of(learned):
    _, _, found = learned
    assert [w for share in (0.0, 0.4, 0.79) for w in replace(found[1], saturated=share).warnings] == []
    (said,) = replace(found[1], saturated=0.9).warnings
    assert "at their limits in 90 % of its steps" in said
    assert "restarts" in said
    assert "widths" in said


def test_saturation_is_counted_on_the_trial_itself(learned):
    task, run, _ = learned
    trial = run.trials[1]
    actions = torch.zeros_like(trial.episode.actions)
    actions[:30], actions[30:33] = 2.49, -2.5  # 2.475 is 99 % of the limit
    changed = replace(trial, episode=replace(trial.episode, actions=actions))
    assert isinstance(found := rehearse(task, Run(None, run.config, [changed]))[1], Rehearsal)
    assert found.saturated == pytest.approx(33 / STEPS)


def test_a_first_policy_can_look_at_states_all_over_and_as_wide_as_they_are_spread():
    """Centres are features of states: sines and cosines on the circle, speeds with the std asked for, within 5 standard errors."""
    spread = presets.pilco("double-pendulum", basis=4000, basis_std=(4.0, 2.0, 1.5, 1.5)).scenario
    policy = spread.policy(torch.Generator().manual_seed(0)).policy.policy
    centres = policy.centres.detach()
    torch.testing.assert_close(centres[:, 2:4].norm(dim=1), torch.ones(4000, dtype=torch.float64))
    assert centres[:, :2].std(0).tolist() == pytest.approx([4.0, 2.0], rel=5 / 8000**0.5)
    torch.testing.assert_close(policy.lengthscale[0].detach(), torch.tensor([4.0, 2.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "wrong", [{"basis_std": (1.0,)}, {"basis_std": (1.0, -1.0)}, {"basis_std": (1.0, 1.0), "centre_std": (1.0, 1.0)}]
)
def test_centres_want_one_std_for_each_coordinate(wrong):
    with pytest.raises(ConfigurationError, match="a std > 0 for each of 2"):
        presets.pilco("pendulum", **wrong)


def test_a_field_that_a_scenario_lacks_is_named_and_gp_mpc_refuses_changes_of_a_policy():
    with pytest.raises(UnknownNameError, match="there is no field of a scenario 'bases'; did you mean 'basis'"):
        presets.pilco("pendulum", bases=10)
    with pytest.raises(ConfigurationError, match="GP-MPC plans and has no policy, so basis would change nothing"):
        presets.gp_mpc("cart-pole", basis=10)
