"""The command line: help for newcomers, exit codes, mistakes in one line, runs that go on, and the demo from end to end."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bayesdyn
from bayesdyn import loop, presets
from bayesdyn.cli import app
from bayesdyn.cli.comparing import failed
from bayesdyn.envs import CARTPOLE_ID
from bayesdyn.errors import DataError, NumericalError
from bayesdyn.evaluation import Comparison, InProcess, Processes, Ray
from bayesdyn.evaluation.comparison import Cell
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.loop import Run
from bayesdyn.policies import LinearPolicy, OnFeatures
from bayesdyn.policy_search import Adam
from bayesdyn.posteriors import ExactGP
from bayesdyn.presets import rehearsals
from bayesdyn.testing.conformance import shape_checks_off

COMMANDS = ("demo", "learn", "pilco", "compare", "report")


def run(*arguments):
    """Run the command line as its users do, without shape checks, in a wide terminal, in which no line is broken."""
    with shape_checks_off():
        return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def words(text):
    return " ".join(text.split())


def test_help_names_every_command_and_says_where_to_start():
    result = run("--help")
    assert result.exit_code == 0
    assert all(command in result.output for command in COMMANDS)
    assert "New here?" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example_of_it(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"bayesdyn {command}" in words(result.output).split("Examples")[1]
    assert all(option in result.output for option in ("--out", "--threads", "--debug"))


def test_version():
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("bayesdyn ")
    assert result.output.split()[1][0].isdigit()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("learn", "bayesdyn/CartPoleSwingup-v0"), f"did you mean '{CARTPOLE_ID}'?"),
        (("learn", CARTPOLE_ID, "--posterior", "ensembel"), "did you mean 'ensemble'? Known: gp, sparse-gp, ensemble"),
        (("learn", CARTPOLE_ID, "--latency", "0"), "latency of more than 0"),
        (("pilco", "cartpole"), "did you mean 'cart-pole'?"),
        (("pilco", "pendulum", "--method", "pilko"), "there is no method 'pilko'; did you mean 'pilco'?"),
        (("compare", "quarter-dron"), "did you mean 'quarter-drone'?"),
        (("compare", "minari:nothing/here-v0"), "nothing is downloaded here: minari download nothing/here-v0"),
        (("compare", "pendulum", "--behaviour", "randm"), "did you mean 'random'? Known: random, ou, pd"),
        (("compare", "double-pendulum", "--behaviour", "pd"), "has no behaviour 'pd'; it has random, ou"),
        (("compare", "quarter-drone", "--posterior", "gpp"), "did you mean 'gp'?"),
        (("compare", "quarter-drone", "--rate", "5"), "quarter-drone is a log of the package, and --rate would change nothing"),
        (("compare", "pendulum", "--time", ""), "and --time would change nothing"),
        (("compare", "quarter-drone", "--decisions"), "that is for an environment"),
        (("compare", "nowhere.csv"), "nowhere.csv"),
        (("report", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_a_mistake_is_one_line_that_helps(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert result.stdout.strip() == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("learn",),
        ("pilco",),
        ("pilco", "pendulum", "--trials", "0"),
        ("learn", CARTPOLE_ID, "--trials", "none"),
        ("demo", "--seed", "-1"),
        ("dmeo",),
    ],
)
def test_options_without_meaning_are_mistakes_too(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_debug_shows_where_an_error_came_from(tmp_path):
    result = run("report", tmp_path, "--debug")
    assert isinstance(result.exception, bayesdyn.errors.FileError)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (NumericalError("the kernel matrix is singular"), 1, "error: the kernel matrix is singular"),
        (DataError("the data hold NaN"), 2, "error: the data hold NaN"),
        (KeyboardInterrupt(), 130, "To go on, run the same command again"),
    ],
)
def test_exit_code_says_how_a_job_ended(raised, code, said, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(loop, "learn", fail)
    result = run("learn", CARTPOLE_ID, "--out", tmp_path)
    assert result.exit_code == code
    assert said in result.stderr


@pytest.mark.parametrize(("given", "milliseconds"), [((), None), (("--latency", 40), 40.0)])
def test_a_latency_reaches_the_agent_which_then_warms_up(given, milliseconds, tmp_path, monkeypatch):
    seen = []

    def record(env, model, agent, **options):
        seen.append((agent, options["warm_up"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "learn", record)
    run("learn", CARTPOLE_ID, "--out", tmp_path, *given)
    ((agent, warm_up),) = seen
    assert agent.latency == milliseconds
    assert warm_up == (agent.warm_up if given else None)


def test_learn_says_where_the_planners_reward_is_not_what_is_paid(tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "learn", stop)
    said = " ".join(run("learn", CARTPOLE_ID, "--out", tmp_path).stdout.split())  # wherever the terminal breaks its lines
    assert "averaged over three widths" in said
    assert "environment pays" not in run("learn", "bayesdyn/PETSCartPole-v0", "--out", tmp_path).stdout


def little_pilco(name, **changes):
    """PILCO that hardly trains and searches, of five basis functions unless asked otherwise."""
    task = presets.pilco(name, **{"basis": 5, "searches": 1, "evaluations": 2, **changes})
    return replace(task, posterior=lambda: ExactGP(training=GPTraining.pilco(max_steps=5)), restarts=0)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run of PILCO that hardly searches, one controlled trial and then, by the same command, a second; what was said last."""
    folder, tried = tmp_path_factory.mktemp("searched") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.scenario_methods, "pilco", little_pilco)
        for trials in (1, 2):
            tried.append(run("pilco", "pendulum", "--trials", trials, "--out", folder))
            tried.append({path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")})
    return folder, tried


def test_pilco_goes_on_where_it_stopped(searched):
    _, (first, kept, second, later) = searched
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert {path.parent.name for path in kept} == {"trials", "models", "agents", "rehearsals"}
    assert {path: later[path] for path in kept} == kept
    assert len(later) > len(kept)


def test_pilco_says_what_came_of_each_trial(searched):
    folder, (_, _, result, _) = searched
    lines = result.output.splitlines()
    rows = [line for line in lines if re.match(r" *\d+ .* m .*", line)]  # titles may be broken over lines, rows fit any terminal
    played = rehearsals(Run.open(folder))
    for row, trial in zip(rows, Run.open(folder).trials, strict=True):
        assert row.split()[0] == str(trial.index)
        assert f"{trial.metrics['return']:.2f}" in row
        assert f"{trial.last('tip_distance'):.3f} m" in row
        if trial.controlled:
            assert f"{trial.metrics['predicted_cost']:.2f}" in row
            assert f"{float(played[trial.index].cost.sum()):.2f}" in row
    assert "Not solved yet" in result.output
    assert str(folder / "report.html") in lines[-1]
    assert "Was the model exploited?" in (folder / "report.html").read_text(encoding="utf-8")


def test_another_policy_for_the_same_folder_is_a_mistake(searched, monkeypatch):
    monkeypatch.setitem(presets.scenario_methods, "pilco", little_pilco)
    other = run("pilco", "pendulum", "--trials", 1, "--basis", 6, "--out", searched[0])
    assert other.exit_code == 2
    assert "basis: 5 there, 6 now" in other.stderr
    assert "choose another folder" in other.stderr


@pytest.fixture
def unwritten(monkeypatch):
    """No pages, which take longer than the rest."""
    monkeypatch.setattr("bayesdyn.cli.searching.write_report", lambda path, runs: path)


@pytest.mark.usefixtures("unwritten")
def test_pilco_stops_when_it_has_solved_the_task_unless_told_to_keep_going(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.scenario_methods, "pilco", lambda name: little_pilco(name, solved_below=10.0))
    solved = run("pilco", "pendulum", "--trials", 2, "--out", tmp_path)
    assert "Solved in controlled trial 1" in solved.output
    assert len(Run.open(tmp_path).trials) == 2
    assert run("pilco", "pendulum", "--trials", 2, "--keep-going", "--out", tmp_path).exit_code == 0
    assert len(Run.open(tmp_path).trials) == 3


def test_pilco_makes_the_policy_that_was_asked_for(tmp_path, monkeypatch):
    asked = []

    def record(name, **changes):
        asked.append((name, changes))
        raise KeyboardInterrupt

    monkeypatch.setitem(presets.scenario_methods, "mine", record)
    assert run("pilco", "cart-pole", "--method", "mine", "--out", tmp_path).exit_code == 130
    run("pilco", "unicycle", "--method", "mine", "--basis", 7, "--out", tmp_path)
    assert asked == [("cart-pole", {}), ("unicycle", {"basis": 7})]


@pytest.mark.usefixtures("unwritten")
def test_a_policy_that_stays_at_its_limits_is_warned_of(tmp_path, monkeypatch):
    def full(scenario, generator):
        return scenario.act_by(LinearPolicy([[0.0, 0.0, 0.0]], [torch.pi / 2]))

    def task(name):
        return replace(little_pilco(name), policy=full, optimiser=Adam(steps=1, rate=1e-12))

    monkeypatch.setitem(presets.scenario_methods, "pilco", task)
    result = run("pilco", "pendulum", "--trials", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    said = "the actions of trial 1 were at their limits in 100 % of its steps"
    assert said in words(result.output)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_belief_that_explodes_ends_in_one_line_that_says_what_to_change(tmp_path, monkeypatch):
    def wild(scenario, generator):
        return OnFeatures(LinearPolicy(torch.full((1, 3), 1e200, dtype=torch.float64), [0.0]), 2, scenario.angles)

    monkeypatch.setitem(presets.scenario_methods, "pilco", lambda name: replace(little_pilco(name), policy=wild))
    result = run("pilco", "pendulum", "--trials", 1, "--out", tmp_path)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "policy search from a fresh policy failed" in result.stderr
    assert "smaller actions" in result.stderr
    assert [trial.controlled for trial in Run.open(tmp_path).trials] == [False]  # what was finished is kept


def test_a_process_that_cannot_be_factorised_ends_in_one_line_that_says_what_to_change(tmp_path, monkeypatch):
    def singular(matrix):
        raise NumericalError("1 of 1 covariance matrices (40 x 40) are not positive definite")

    monkeypatch.setitem(presets.scenario_methods, "pilco", little_pilco)
    monkeypatch.setattr("bayesdyn.gaussian_processes.likelihood.jittered_cholesky", singular)
    monkeypatch.setattr("bayesdyn.gaussian_processes.autograd.jittered_cholesky", singular)
    result = run("pilco", "pendulum", "--trials", 1, "--out", tmp_path)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "not positive definite" in result.stderr
    assert "Remove duplicate rows" in result.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The quick demo, run once to the end."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    return folder, run("demo", "--quick", "--threads", 1, "--out", folder)


def test_quick_demo_says_where_to_look_and_leaves_it_there(demo):
    folder, result = demo
    assert result.exit_code == 0, result.output
    assert str(folder / "report.html") in result.output.strip().splitlines()[-1]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/gif;base64,") == 2
    assert (folder / "quarter-drone" / "results.csv").is_file()
    assert sorted(p.suffix for p in folder.glob("*/pictures/*")) == [".gif", ".gif"]


def test_demo_runs_again_without_doing_anything_twice(demo):
    folder, _ = demo
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".safetensors", ".npz", ".gif")}
    assert len(before) > 8
    assert run("demo", "--quick", "--threads", 1, "--out", folder).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_demo_goes_on_after_a_kill(demo, tmp_path):
    """Without its last trial a run goes on, and ends as it did undisturbed."""
    import shutil

    folder, _ = demo
    half = tmp_path / "half"
    shutil.copytree(folder, half)
    last = Run.open(folder / "gp").trials[-1]
    (half / "gp" / "trials" / f"{last.index:03d}.safetensors").unlink()
    shutil.rmtree(half / "ensemble")
    assert run("demo", "--quick", "--threads", 1, "--out", half).exit_code == 0
    for name in ("gp", "ensemble"):
        again = Run.open(half / name).trials[-1]
        assert np.array_equal(again.episode.states, Run.open(folder / name).trials[-1].episode.states)


def test_report_is_rebuilt_from_folders(demo, tmp_path):
    folder, _ = demo
    page = folder / "again.html"
    result = run("report", "--threads", 1, folder / "gp", folder / "ensemble", folder / "quarter-drone", "--out", page)
    assert result.exit_code == 0, result.output
    assert page.read_text(encoding="utf-8") == (folder / "report.html").read_text(encoding="utf-8")


def test_compare_takes_a_log_of_ones_own(tmp_path):
    """A damped oscillator in a CSV file; the small table holds the posterior that was asked for, beside the references."""
    random = np.random.default_rng(0)
    y, u = [0.0, 0.0], random.normal(size=120)
    for t in range(1, 119):
        y.append(1.6 * y[-1] - 0.8 * y[-2] + 0.1 * u[t] + 0.01 * random.normal())
    lines = [f"{0.1 * t:.1f},{y[t]:.5f},{u[t]:.5f}" for t in range(120)]
    (tmp_path / "arm.csv").write_text("\n".join(["s,angle,volt", *lines]))
    options = ("--time", "s", "--output", "angle", "--input", "volt", "--lags", 2, "--posterior", "gp", "--threads", 1)
    result = run("compare", tmp_path / "arm.csv", *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "gp" in result.output
    assert "arm: arm.csv, 'angle' measured, 'volt' commanded, every 0.1 s" in result.output
    assert "Few data to test on: like the training data, 1 episode (30 rows)." in result.output
    assert "ridge-linear" in result.output
    assert "ensemble" not in result.output
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("given", "workers", "beside"),
    [
        ((), InProcess(), []),
        (("--threads", 2, "--toy"), InProcess(2), ["toy"]),
        (("--jobs", 3, "--active-learning"), Processes(3), ["active_learning"]),
        (("--ray", "auto", "--jobs", 8, "--toy", "--active-learning"), Ray("auto", 8), ["active_learning", "toy"]),
        (("--ray", "local"), Ray("local"), []),
        (("--retry",), InProcess(), []),
    ],
)
def test_compare_computes_where_it_is_told_and_asks_what_it_is_told(given, workers, beside, tmp_path, monkeypatch):
    asked = []

    def record(makers, *data, **options):
        asked.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesdyn.cli.comparing.compare_posteriors", record)
    result = run("compare", "quarter-drone", "--out", tmp_path, *given)
    assert result.exit_code == 130
    (options,) = asked
    assert options["workers"] == workers
    assert options["retry"] == ("--retry" in given)
    assert sorted(name for name in ("toy", "active_learning") if options[name] is not None) == beside


def test_compare_says_what_failed_and_how_to_fit_it_again():
    cells = [Cell("gp", seed, (), failure="NumericalError: singular" if seed else "") for seed in (0, 1)]
    said = failed(Comparison(tuple(cells)))
    assert said.startswith("Failed: gp (seed 1), NumericalError: singular. ")
    assert "--retry" in said
    assert failed(Comparison(tuple(cells[:1]))) == ""


def test_compare_without_ray_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("compare", "quarter-drone", "--out", tmp_path, "--ray", "auto")
    assert result.exit_code == 2
    assert "bayesdyn[ray]" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_compare_plans_in_the_environment_that_its_data_are_from(tmp_path, monkeypatch):
    asked = []

    def record(makers, train, *data, **options):
        asked.append((train, options["decisions"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesdyn.cli.comparing.compare_posteriors", record)
    assert run("compare", "cart-pole", "--out", tmp_path, "--episodes", 4, "--decisions").exit_code == 130
    ((train, task),) = asked
    assert task.planner == presets.task(CARTPOLE_ID).planner
    assert task.starts.shape == (40, train.state_size)  # all states of the one test episode
    assert not torch.isin(task.starts, train.state).any()
    nowhere = run("compare", "quarter-drone", "--out", tmp_path, "--decisions")
    assert nowhere.exit_code == 2
    assert "quarter-drone" in nowhere.stderr
