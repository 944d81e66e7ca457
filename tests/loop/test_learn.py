"""The loop: what a trial holds, the lecture's ways by their knobs, and runs that are the same however often they were killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import gymnasium
import numpy as np
import pytest
import torch
from point_mass import PointMass, assert_same_trials, make_agent, make_model, run_loop
from reference_posteriors import ConjugateRegression

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.loop import Monitor, Run, Trial, acting, learn
from bayesdyn.loop.acting import Pilot
from bayesdyn.networks.training import Training


class KilledError(Exception):
    """Stands for the end of the process at one moment."""


class Killer(Monitor):
    """Raises at the n-th event of a kind."""

    def __init__(self, event: str, number: int) -> None:
        self.event, self.left = event, number

    def happened(self, event: str) -> None:
        if event == self.event:
            self.left -= 1
            if self.left == 0:
                raise KilledError

    def trial_started(self, index: int, trials: int, steps: int | None) -> None:
        self.happened("trial_started")

    def fitting(self, done: int, steps: int, figures: dict[str, float]) -> None:
        self.happened("fitting")

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        self.happened("stepped")

    def trial_finished(self, trial: Trial) -> None:
        self.happened("trial_finished")


class Reporting(ConjugateRegression):
    """The reference posterior, which says that it is being fitted and warns."""

    def fit(self, x, y, *, warm_start=False, generator=None, progress=None):
        if progress is not None:
            progress(1, 1, {"nll": 0.0})
        return replace(super().fit(x, y), warnings=("only a test",))


POSTERIORS = {
    "reference": Reporting,
    "Gaussian process": lambda: bd.posteriors.ExactGP(features=16, training=GPTraining(max_steps=5, restarts=0)),
    "ensemble": lambda: bd.posteriors.BootstrapEnsemble(members=2, hidden=(8,), training=Training(steps=30, warm_steps=10)),
}


def test_a_run_is_random_trials_and_then_controlled_ones() -> None:
    run = run_loop(initial=2, trials=2)
    assert [(trial.index, trial.controlled) for trial in run.trials] == [(0, False), (1, False), (2, True), (3, True)]
    for trial in run.trials:
        assert trial.episode.states.shape == (9, 2)
        assert trial.episode.actions.shape == (8, 1)
        assert trial.metrics["steps"] == 8
        assert trial.metrics["return"] == pytest.approx(float(trial.episode.rewards.sum()))
        torch.testing.assert_close(trial.episode.rewards, -trial.episode.states[1:, 0].square())
    planning = {
        "planned_return",
        "realised_return",
        "plans_per_second",
        "slowest_plan_seconds",
        "plan_seconds_p50",
        "plan_seconds_p99",
        "late_plans",
    }
    scores = {"fit_seconds", "fit_nll", "nll", "coverage90", "rmse", "dropped_share", *planning}
    assert run.trials[1].metrics.keys() == {"return", "steps"}
    assert run.trials[2].metrics.keys() == {"return", "steps"} | scores
    assert len(run.transitions()) == 32


@pytest.mark.usefixtures("unchecked_shapes")
def test_it_learns_to_bring_the_mass_to_rest_nearer_to_the_middle() -> None:
    """On average over seeds: the start differs from trial to trial, so a single run need not improve."""
    runs = [run_loop(trials=3, seed=seed) for seed in range(5)]
    first, last = (median(run.trials[i].metrics["return"] for run in runs) for i in (0, -1))
    assert last > first
    assert median(run.trials[-1].metrics["rmse"] for run in runs) < 1.0


def test_imagined_fans_start_where_the_plan_was_made() -> None:
    trial = run_loop(trials=1, replan_every=3).trials[1]
    assert trial.age.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert trial.imagined.shape == (8, 5, 2, 2)
    for t in range(8):
        made = t - int(trial.age[t])
        torch.testing.assert_close(trial.imagined[t, 0], trial.episode.states[made].float().expand(2, 2))


@pytest.mark.parametrize("replan_every", [1, 3, None])
def test_the_first_plan_is_held_against_what_its_own_steps_earned(replan_every: int | None) -> None:
    trial = run_loop(trials=1, replan_every=replan_every).trials[1]
    # The reward is minus the squared position, and the fan holds every trajectory of a plan of 4 steps.
    expected = -float(trial.imagined[0, 1:, :, 0].square().mean(1).sum())
    assert trial.metrics["planned_return"] == pytest.approx(expected, rel=1e-5)
    assert trial.metrics["realised_return"] == pytest.approx(float(trial.episode.rewards[:4].sum()))


def test_a_plan_longer_than_the_trial_is_judged_by_the_trial_unless_the_episode_ended() -> None:
    pilot = Pilot(make_agent(make_model()), 1)
    pilot.first_plan = [1.0, 2.0, 4.0]
    assert pilot.promise([5.0, 6.0], terminated=False) == {"planned_return": 3.0, "realised_return": 11.0}
    assert pilot.promise([5.0, 6.0], terminated=True) == {"planned_return": 7.0, "realised_return": 11.0}


def test_agents_are_warmed_up_before_each_controlled_trial() -> None:
    seen: list[torch.Tensor] = []
    run = run_loop(trials=2, warm_up=seen.append)
    assert len(seen) == 2
    for observation, trial in zip(seen, run.trials[1:], strict=True):
        torch.testing.assert_close(observation, trial.episode.states[0])
    assert_same_trials(run, run_loop(trials=2))


def plans(**options: object) -> list[int]:
    """Number of plans in each controlled trial."""
    return [int((trial.age == 0).sum()) for trial in run_loop(**options).trials if trial.controlled]


def test_the_lectures_ways_are_knobs() -> None:
    class Long(PointMass):
        """Trials as long as the plan."""

        def __init__(self) -> None:
            super().__init__(steps=4)

    def ways(trials: int, replan_every: int | None) -> list[list[int]]:
        model = make_model()
        run = learn(Long(), model, make_agent(model), trials=trials, replan_every=replan_every)
        return [trial.age.tolist() for trial in run.trials if trial.controlled]

    assert ways(1, None) == [[0, 1, 2, 3]]  # 0.5: one fit, one open-loop plan
    assert ways(3, None) == [[0, 1, 2, 3]] * 3  # 1.0: with aggregated data
    assert ways(2, 1) == [[0, 0, 0, 0]] * 2  # 1.5: MPC
    assert plans(trials=1, replan_every=None) == [2]  # a plan of 4 steps, used up, is made anew


def test_stop_ends_the_run_and_a_finished_run_stays_finished(tmp_path: Path) -> None:
    seen: list[int] = []

    def stop(trial: Trial) -> bool:
        seen.append(trial.index)
        return trial.index == 2

    assert len(run_loop(tmp_path / "run", trials=5, stop=stop).trials) == 3
    assert set(seen) == {1, 2}  # random trials are not asked about
    assert len(run_loop(tmp_path / "run", trials=5, stop=stop).trials) == 3
    assert len(run_loop(tmp_path / "run", trials=3).trials) == 4


def test_the_seed_makes_the_run() -> None:
    assert_same_trials(run_loop(trials=2), run_loop(trials=2))
    first, other = (run_loop(trials=1, seed=seed).trials[0].episode for seed in (0, 1))
    assert not torch.equal(first.states[0], other.states[0])
    assert not torch.equal(first.actions, other.actions)


def test_trials_have_their_own_random_numbers() -> None:
    env = PointMass()
    model = make_model()
    run = learn(env, model, make_agent(model), trials=1, initial=2)
    assert len(set(env.resets)) == 3
    assert not torch.equal(run.trials[0].episode.actions, run.trials[1].episode.actions)


def test_global_random_states_stay_as_they_are() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (the state that must not move)
    run_loop(trials=1)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.fixture(scope="module")
def undisturbed_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


MOMENTS = [("trial_started", 1), ("trial_started", 3), ("fitting", 2), ("stepped", 5), ("stepped", 12), ("trial_finished", 2)]


@pytest.mark.parametrize(
    ("name", "event", "number", "warm_start"),
    [
        *[("reference", event, number, False) for event, number in MOMENTS],
        *[(name, "stepped", step, True) for name in ("Gaussian process", "ensemble") for step in (12, 20)],
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_killed_run_goes_on_to_the_same_end(
    name: str, event: str, number: int, warm_start: bool, tmp_path: Path, undisturbed_runs: Path
) -> None:
    make, options = POSTERIORS[name], {"trials": 2, "warm_start": warm_start}
    undisturbed = run_loop(undisturbed_runs / f"{name}-{warm_start}", posterior=make(), **options)
    with pytest.raises(KilledError):
        run_loop(tmp_path / "run", posterior=make(), monitor=Killer(event, number), **options)
    resumed = run_loop(tmp_path / "run", posterior=make(), **options)
    assert_same_trials(undisturbed, resumed)
    assert_same_trials(undisturbed, Run.open(tmp_path / "run"))


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5, 6])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_run_that_lacks_its_last_writes_goes_on_to_the_same_end(last: int, tmp_path: Path, undisturbed_runs: Path) -> None:
    undisturbed = run_loop(undisturbed_runs / "reference-False", posterior=Reporting(), trials=2)
    shutil.copytree(undisturbed_runs / "reference-False", tmp_path / "run")
    metrics = (tmp_path / "run" / "metrics.csv").read_text()
    writes = ["metrics.csv", "trials/002.safetensors", "models/002.safetensors", "models/002.json", "trials/001.safetensors"]
    writes.append("models/001.safetensors")
    for name in writes[:last]:
        (tmp_path / "run" / name).unlink()
    resumed = run_loop(tmp_path / "run", posterior=Reporting(), trials=2)
    assert_same_trials(undisturbed, resumed)
    assert resumed.trials[2].warnings == ("only a test",)
    if last == 1:
        assert (tmp_path / "run" / "metrics.csv").read_text() == metrics


@pytest.mark.usefixtures("unchecked_shapes")
def test_more_trials_go_further_as_if_asked_for_at_once(tmp_path: Path) -> None:
    model = make_model()
    agent = make_agent(model)
    learn(PointMass(), model, agent, trials=1, run=tmp_path / "run")
    longer = learn(PointMass(), model, agent, trials=3, run=tmp_path / "run")  # the same objects, used
    assert_same_trials(longer, run_loop(tmp_path / "other", trials=3))


_SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = sys.argv[2:]
from point_mass import run_loop
print("ready", flush=True)
run_loop(Path(sys.argv[1]), trials=12)
"""


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_process_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    package = Path(bd.__file__).resolve().parent.parent
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "run"), str(here), str(here.parent), str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "trials" / "001.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(int.from_bytes(os.urandom(1)) / 255 * 0.1)
        process.send_signal(signal.SIGKILL)
    done = len(Run.open(tmp_path / "run").trials)
    assert 2 <= done <= 13
    resumed = run_loop(tmp_path / "run", trials=done - 1)
    assert_same_trials(resumed, run_loop(tmp_path / "other", trials=done - 1))


def test_infos_are_recorded_where_they_are_numbers_at_every_step() -> None:
    trial = run_loop(trials=0).trials[0]
    assert {name: list(values.shape) for name, values in trial.infos.items()} == {"distance": [8], "centre": [8, 2], "moving": [8]}
    torch.testing.assert_close(trial.infos["distance"], trial.episode.states[1:, 0].abs())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recorded_actions_are_the_executed_ones(dtype: type) -> None:
    # -0.1 rounds to a float32 below it, outside a float64 space.
    env = PointMass(low=-0.1, dtype=dtype)
    model = make_model()
    run = learn(env, model, make_agent(model), trials=1)
    recorded = torch.cat([trial.episode.actions for trial in run.trials])
    assert torch.equal(recorded, torch.as_tensor(np.stack(env.executed)).double())


def test_a_model_that_breaks_down_is_reported_with_the_trial() -> None:
    model = make_model()

    def broken(state: torch.Tensor, action: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return following[..., 0] * torch.nan

    agent = bd.MPC(model, bd.planners.ICEM(horizon=3, candidates=10, elites=2), broken, draws=1)
    trial = learn(PointMass(), model, agent, trials=1).trials[1]
    assert len(trial.warnings) == 1
    assert "8 of 8 plans failed" in trial.warnings[0]
    assert trial.episode.actions.abs().max() == 0


class Discrete(PointMass):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(2)


class Unbounded(PointMass):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))


class Pixels(PointMass):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 255, (4, 4), np.uint8)


@pytest.mark.parametrize(
    ("env", "message"), [(Discrete, "plans continuous actions in a Box; got choices"), (Unbounded, "bounded"), (Pixels, "Flatten")]
)
def test_environments_that_cannot_be_planned_in_are_refused(env: type[PointMass], message: str, tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(ConfigurationError, match=message):
        learn(env(), model, make_agent(model), trials=1, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_episode_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a time limit the first trial would go on for ever and say nothing."""
    monkeypatch.setattr(acting, "_ENDLESS", 20)
    model = make_model()
    with pytest.raises(ConfigurationError, match=r"not ended after 20 steps.*TimeLimit"):
        learn(PointMass(steps=21), model, make_agent(model), trials=0)
    assert len(learn(PointMass(steps=20), model, make_agent(model), trials=0).trials[0].episode) == 20
    limited = gymnasium.wrappers.OrderEnforcing(gymnasium.wrappers.TimeLimit(PointMass(steps=99), 30))
    assert len(learn(limited, model, make_agent(model), trials=0).trials[0].episode) == 30


@pytest.mark.parametrize("options", [{"trials": -1}, {"initial": 0}, {"replan_every": 0}, {"seed": -1}])
def test_settings_without_meaning_are_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError, match="learn wants"):
        run_loop(**{"trials": 1, **options})


def test_online_learning_conditions_on_each_step_and_is_forgotten_after_the_trial() -> None:
    """The posterior holds all rows so far at every step; afterwards it is the fitted one again, which has not seen the trial."""
    posterior = POSTERIORS["Gaussian process"]()
    rows: list[int] = []

    class Rows(Monitor):
        def stepped(self, step: int, figures: dict[str, float]) -> None:
            rows.append(len(posterior.x))

    run = run_loop(posterior=posterior, trials=1, online=True, monitor=Rows())
    steps = len(run.trials[0].episode)
    assert rows[steps:] == [steps + 1 + t for t in range(len(run.trials[1].episode))]
    assert len(posterior.x) == steps


def test_what_is_ignorance_and_what_is_noise_is_said_where_it_can_be_told() -> None:
    model = make_model()
    (_, trial) = learn(PointMass(), model, make_agent(model, draws=4, particles=3), trials=1).trials
    assert 0.0 <= trial.metrics["epistemic_share"] <= 1.0
