"""Run folders: what is in them, and that a folder of another run or a damaged one is refused by name."""

import csv
import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from point_mass import PointMass, assert_same_trials, make_agent, make_model, run_loop

import bayesdyn as bd
from bayesdyn.belief_dynamics import Belief
from bayesdyn.data import Episode
from bayesdyn.data.describe import describe, differences
from bayesdyn.errors import ConfigurationError, FileError, UnknownNameError
from bayesdyn.loop import Run, Trial, learn


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run_loop(folder, trials=2)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_the_folder_holds_what_it_says(folder: Path) -> None:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    models = [f"models/00{i}.{kind}" for i in (1, 2) for kind in ("json", "safetensors")]
    assert names == ["config.json", "metrics.csv", *models, *(f"trials/00{i}.safetensors" for i in range(3))]
    assert (folder / "pictures").is_dir()


def test_metrics_are_a_table_of_all_trials(folder: Path) -> None:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    trials = Run.open(folder).trials
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert [row["controlled"] for row in rows] == ["False", "True", "True"]
    assert [float(row["return"]) for row in rows] == [trial.metrics["return"] for trial in trials]
    assert rows[0]["nll"] == ""


def test_a_run_reads_as_it_was(folder: Path) -> None:
    assert_same_trials(Run.open(folder), run_loop(folder.parent / "other", trials=2))


def test_models_are_the_fits_before_each_trial(folder: Path) -> None:
    run, loaded, fitted = Run.open(folder), make_model(), make_model()
    fit = run.load_fit(2, loaded)
    assert fit is not None
    assert fit.nll == run.trials[2].metrics["fit_nll"]
    fitted.fit(bd.Transitions.from_episodes([trial.episode for trial in run.trials[:2]]))
    state, action = torch.tensor([0.3, -0.1]), torch.tensor([0.5])
    torch.testing.assert_close(loaded.predict(state, action).mean, fitted.predict(state, action).mean)
    assert run.load_fit(3, loaded) is None


@pytest.mark.parametrize(
    "options", [{"seed": 1}, {"initial": 2}, {"replan_every": 2}, {"replan_every": None}, {"warm_start": True}]
)
def test_other_settings_want_another_folder(folder: Path, options: dict) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ConfigurationError, match=f"{name}: .* there, {value!r} now"):
        run_loop(folder, **options)


def test_another_agent_or_posterior_wants_another_folder(folder: Path) -> None:
    model = make_model()
    with pytest.raises(ConfigurationError, match=r"agent.draws: 2 there, 3 now"):
        learn(PointMass(), model, make_agent(model, draws=3), trials=1, run=folder)
    gp = make_model(bd.posteriors.ExactGP())
    with pytest.raises(ConfigurationError, match=r"posterior.class: 'ConjugateRegression' there, 'ExactGP' now"):
        learn(PointMass(), gp, make_agent(gp), trials=1, run=folder)


def test_another_wrapper_wants_another_folder(tmp_path: Path) -> None:
    """A wrapper changes what an action does, so a run does not go on under another one, nor under the same with other options."""

    def run(limit: float) -> Run:
        model, env = make_model(), gymnasium.make("Pendulum-v1", max_episode_steps=4)
        bound = np.full(1, limit, np.float32)
        return learn(gymnasium.wrappers.RescaleAction(env, -bound, bound), model, make_agent(model), trials=0, run=tmp_path)

    assert len(run(1.0).trials) == len(run(1.0).trials) == 1
    with pytest.raises(ConfigurationError, match=r"environment_wrappers: .*RescaleAction"):
        run(2.0)


def test_another_wrapper_of_an_unregistered_environment_wants_another_folder(tmp_path: Path) -> None:
    def run(steps: int) -> Run:
        model = make_model()
        env = gymnasium.wrappers.TimeLimit(PointMass(steps=99), steps)
        return learn(env, model, make_agent(model), trials=0, run=tmp_path)

    assert len(run(5).trials) == len(run(5).trials) == 1
    assert run(5).controlled == []
    with pytest.raises(ConfigurationError, match=r"environment_wrappers: .*TimeLimit.*5.* there, .*TimeLimit.*6.* now"):
        run(6)


@pytest.mark.parametrize("name", ["trials/001.safetensors", "trials/002.safetensors"])
def test_damaged_trials_are_named(folder: Path, name: str) -> None:
    damage(folder / name)
    with pytest.raises(FileError, match=name):
        run_loop(folder, trials=2)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "another/1"}', "\xff"])
def test_a_damaged_or_foreign_configuration_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(FileError, match=r"config\.json"):
        run_loop(folder, trials=2)


def test_trials_without_a_configuration_are_not_taken_up(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(FileError, match=r"no config\.json"):
        run_loop(folder, trials=2)
    with pytest.raises(FileError, match="no run"):
        Run.open(folder)


def test_a_missing_trial_is_noticed(folder: Path) -> None:
    (folder / "trials" / "001.safetensors").unlink()
    with pytest.raises(FileError, match=r"lacks a trial: found \[0, 2\]"):
        run_loop(folder, trials=2)


@pytest.mark.parametrize("content", [None, "{", "{}", "[]"])
def test_a_fit_without_its_facts_is_named(folder: Path, content: str | None) -> None:
    (folder / "trials" / "002.safetensors").unlink()
    path = folder / "models" / "002.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(FileError, match=r"models/002.json"):
        run_loop(folder, trials=2)


def test_a_warm_start_from_a_missing_model_is_refused(tmp_path: Path) -> None:
    run_loop(tmp_path, trials=2, warm_start=True)
    for name in ("trials/002.safetensors", "models/002.safetensors", "models/001.safetensors"):
        (tmp_path / name).unlink()
    with pytest.raises(FileError, match=r"models/001.safetensors"):
        run_loop(tmp_path, trials=2, warm_start=True)


def test_left_over_temporary_files_are_ignored(folder: Path) -> None:
    (folder / "trials" / ".003.safetensors.abc.tmp").write_bytes(b"half a trial")
    assert len(Run.open(folder).trials) == 3


def test_a_thousand_trials_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.start(tmp_path, {})
    episode = Episode.from_arrays([[0.0], [1.0]], [[0.0]])
    monkeypatch.setattr(Trial, "save", lambda trial, path: path.touch())
    monkeypatch.setattr(Trial, "load", lambda path: Trial(int(path.stem), False, episode))
    monkeypatch.setattr(run, "_write_metrics", lambda: None)
    for index in range(1002):
        run.add(Trial(index, False, episode))
    assert [trial.index for trial in Run.open(tmp_path).trials] == list(range(1002))


def test_trials_survive_the_disk(tmp_path: Path) -> None:
    episode = Episode.from_arrays([[0.0], [1.0], [2.0]], [[0.5], [0.25]], [1.0, 2.0], terminated=True)
    metrics = {"return": 3.0, "nll": float("inf")}
    trial = Trial(4, True, episode, {"distance": torch.tensor([2.0, 1.0])}, metrics=metrics, warnings=("careful",))
    trial.save(tmp_path / "trial.safetensors")
    read = Trial.load(tmp_path / "trial.safetensors")
    assert (read.index, read.controlled, read.metrics, read.warnings, read.episode.terminated) == (
        4,
        True,
        metrics,
        ("careful",),
        True,
    )
    assert torch.equal(read.infos["distance"], trial.infos["distance"])
    assert read.last("distance") == 2.0
    assert read.last("distance", steps=1) == 1.0
    with pytest.raises(UnknownNameError, match=r"'height'; known: distance"):
        read.last("height")


def test_descriptions_are_the_same_in_every_process() -> None:
    model = make_model()
    agent = make_agent(model)
    before = json.dumps(describe(agent))
    assert "0x" not in before
    agent.reset(bd.planners.Box.of([-1.0], [1.0]))
    assert json.dumps(describe(agent)) == before
    assert describe(agent)["reward"] == "reward"
    assert describe(lambda s: s) == "test_descriptions_are_the_same_in_every_process.<locals>.<lambda>"


def test_descriptions_hold_what_configures_a_model_and_not_what_it_learned() -> None:
    model = make_model(bd.posteriors.BootstrapEnsemble(members=3))
    told = describe(model)
    assert told["posterior"]["members"] == 3
    assert told["posterior"]["settings"]["class"] == "Training"
    assert differences(told, describe(make_model(bd.posteriors.BootstrapEnsemble(members=4)))) == [
        "posterior.members: 3 there, 4 now"
    ]
    gp = make_model(bd.posteriors.ExactGP(features=16))
    before = describe(gp)
    gp.fit(run_loop(trials=0).transitions())
    assert describe(gp) == before


def test_a_setting_that_is_empty_is_one_that_was_not_there_yet() -> None:
    before = {"codec": {"angles": [1]}, "seed": 0}
    for now in ({"codec": {"angles": [1], "relative": {}}, "seed": 0}, {"codec": {"angles": [1], "lags": []}, "seed": 0}):
        assert differences(before, now) == differences(now, before) == []
    filled = {"codec": {"angles": [1], "relative": {"1": 0}}, "seed": 0}
    assert differences(before, filled) == ["codec.relative: None there, {'1': 0} now"]
    assert differences({"a": []}, {"a": [1]}) == ["a: [] there, [1] now"]


def test_descriptions_tell_costs_apart() -> None:
    """The cost decides what a policy search or GP-MPC does: a run with another one is another run."""
    narrow, wide, shy = (bd.moments.pendulum_cost(*given) for given in ((0.25,), (0.5,), (0.25, 0.1)))
    start = Belief(torch.zeros(2).double(), torch.eye(2).double())
    before, now = (describe(bd.policy_search.MomentMatched(cost, start, 4)) for cost in (narrow, wide))
    assert before == json.loads(json.dumps(before))
    assert all(line.startswith("cost.costs") for line in differences(before, now))
    assert differences(before, now)
    assert differences(describe(narrow), describe(shy)) == ["exploration: 0.0 there, 0.1 now"]
    lift = bd.moments.Lift(2, [1])
    assert describe(lift) == {"class": "Lift", "state_size": 2, "angles": [1], "differences": []}
    lift.moments(*start)
    assert describe(lift) == describe(bd.moments.Lift(2, [1]))
    policy = bd.policies.LinearPolicy([[1.0]], [0.0])
    assert describe(policy) == describe(bd.policies.LinearPolicy([[2.0]], [0.0]))


def test_differences_see_what_is_missing_and_take_nan_for_nan() -> None:
    assert differences({"a": 1}, {"a": 1, "b": 2}) == ["b: None there, 2 now"]
    assert differences({"a": float("nan")}, {"a": float("nan")}) == []
