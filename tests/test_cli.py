"""The command line: help for newcomers, exit codes, mistakes in one line, runs that go on, and the demo from end to end."""

import numpy as np
import pytest
from typer.testing import CliRunner

import bayesdyn
from bayesdyn import loop
from bayesdyn.cli import app
from bayesdyn.envs import CARTPOLE_ID
from bayesdyn.errors import DataError, NumericalError
from bayesdyn.loop import Run
from bayesdyn.testing.conformance import shape_checks_off

COMMANDS = ("demo", "learn", "compare", "report")


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
        (("compare", "quarter-dron"), "known is quarter-drone"),
        (("compare", "quarter-drone", "--posterior", "gpp"), "did you mean 'gp'?"),
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


@pytest.mark.parametrize("arguments", [("learn",), ("learn", CARTPOLE_ID, "--trials", "none"), ("demo", "--seed", "-1"), ("dmeo",)])
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
    page = tmp_path / "pages" / "again.html"
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
    assert "ridge-linear" in result.output
    assert "ensemble" not in result.output
    assert (tmp_path / "out" / "report.html").is_file()
