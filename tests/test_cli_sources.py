"""What a word on the command line names: built-in data, environments, files of every kind, Minari datasets."""

from pathlib import Path

import numpy as np
import pytest
import torch

import bayesdyn as bd
from bayesdyn.cli.sources import SourceOptions, find_source
from bayesdyn.codec import Codec, LagCodec
from bayesdyn.data import Episode
from bayesdyn.errors import ConfigurationError, DataError, UnknownNameError


def recordings(path, runs=8, samples=40):
    """Write a CSV file of several recordings of an angle and a voltage."""
    random = np.random.default_rng(0)
    lines = ["run,s,angle,rate,volt"]
    for run in range(runs):
        values = random.normal(size=(samples, 3))
        lines += [f"{run},{0.1 * t:.1f},{a!r},{r!r},{v!r}" for t, (a, r, v) in enumerate(values.tolist())]
    path.write_text("\n".join(lines))
    return path


OPTIONS = SourceOptions(time="s", output=["angle", "rate"], input=["volt"], episode="run")


def test_recordings_of_a_file_are_episodes_with_lags_or_without(tmp_path):
    path = recordings(tmp_path / "arm.csv")
    lags = find_source(str(path), OPTIONS)
    assert (lags.name, lags.lagged, lags.train.state_size) == ("arm", True, 4 * 2 + 3)
    assert isinstance(lags.codec(), LagCodec)
    assert len(lags.train.episodes()) + len(lags.in_distribution.episodes()) == 8
    plain = find_source(str(path), SourceOptions(**{**vars(OPTIONS), "lags": 1, "angle": ["angle"]}))
    assert (plain.lagged, plain.train.state_size, plain.train.action_size) == (False, 2, 1)
    assert plain.codec().angles == [0]
    assert lags.note.startswith(
        "arm.csv, 'angle' and 'rate' measured, 'volt' commanded, every 0.1 s; the last 4 samples of each are"
    )
    assert (lags.step_seconds, plain.step_seconds) == (0.1, 0.1)
    for data in (lags, plain):
        codec = data.codec()
        codec.fit(data.train)


def test_a_step_is_as_long_as_the_samples_are_apart(tmp_path):
    path = recordings(tmp_path / "arm.csv")
    faster = find_source(str(path), SourceOptions(**{**vars(OPTIONS), "rate": 20.0}))
    assert faster.step_seconds == 0.05
    assert "resampled to every 0.05 s" in faster.note
    timeless = find_source(str(path), SourceOptions(**{**vars(OPTIONS), "time": ""}))
    assert timeless.step_seconds is None
    assert "commanded; the last" in timeless.note


def test_another_file_is_a_shift(tmp_path):
    train, other = recordings(tmp_path / "arm.csv"), recordings(tmp_path / "wild.csv", runs=2)
    data = find_source(str(train), SourceOptions(**{**vars(OPTIONS), "shift": [other]}))
    assert {name: len(part.episodes()) for name, part in data.shifted.items()} == {"wild": 2}


def test_saved_transitions_and_arrays_of_their_names_are_the_same_data(tmp_path):
    episodes = [Episode(torch.randn(11, 2), torch.randn(10, 1)) for _ in range(8)]
    rows = bd.Transitions.from_episodes(episodes)
    rows.save(tmp_path / "saved.npz")
    arrays = {name: getattr(rows, name).numpy() for name in ("state", "action", "next_state", "episode")}
    np.savez(tmp_path / "arrays.npz", **arrays)
    saved, given = (find_source(str(tmp_path / name), SourceOptions()) for name in ("saved.npz", "arrays.npz"))
    assert torch.equal(saved.train.state, given.train.state)
    assert isinstance(saved.codec(), Codec)
    assert saved.note.startswith("saved.npz, states of 2 and actions of 1 numbers; 8 episodes: ")
    np.savez(tmp_path / "half.npz", state=arrays["state"], action=arrays["action"])
    with pytest.raises(ConfigurationError, match="no next_state"):
        find_source(str(tmp_path / "half.npz"), SourceOptions())


def test_built_in_names_and_environments():
    assert find_source("ball-hoop", SourceOptions()).name == "ball-hoop"
    data = find_source("pendulum", SourceOptions(episodes=4, steps=10))
    assert (data.name, len(data.train)) == ("bayesdyn/PILCOPendulum-v0", 30)
    assert find_source("Pendulum-v1", SourceOptions(episodes=2, steps=5)).train.state_size == 3


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("quarter-drone", {"rate": 5.0}, r"--rate would change nothing there: that is for a table \(.*none of its own"),
        ("ball-hoop", {"decisions": True}, "--decisions would .* for an environment"),
        ("pendulum", {"lags": 4, "steps": 5}, "pendulum is an environment, and --lags would"),
        ("pendulum", {"output": ["angle"], "shift": [Path("a.csv")]}, "and --output, --shift would"),
        ("minari:some/data-v0", {"behaviour": "ou"}, "--behaviour .* for an environment.*dataset are --episodes"),
        ("cube-tosses:cube.npz", {"steps": 5}, "--steps"),
        ("arm.csv", {"episodes": 3}, "an environment or a Minari dataset or a file of tosses"),
        ("rows.npz", {"time": ""}, "rows.npz is a file of transitions, and --time"),
    ],
)
def test_an_option_that_a_source_has_no_use_for_is_refused(data, options, said, tmp_path, monkeypatch):
    """Even where it asks for what is the default elsewhere: it would be left unheard."""
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", state=np.zeros((3, 1)), action=np.zeros((3, 1)), next_state=np.zeros((3, 1)))
    with pytest.raises(ConfigurationError, match=said):
        find_source(data, SourceOptions(**options))


def test_a_value_that_is_no_number_is_said_with_its_file_and_column(tmp_path):
    text = recordings(tmp_path / "arm.csv").read_text().splitlines()
    text[3] = "0,0.2,1.0,nan,0.5"
    (tmp_path / "arm.csv").write_text("\n".join(text))
    with pytest.raises(DataError, match=r"arm\.csv, column 'rate' has 1 non-finite value\(s\), the first in data row 2"):
        find_source(str(tmp_path / "arm.csv"), OPTIONS)
    rows = np.full((4, 1), np.inf)
    np.savez(tmp_path / "rows.npz", state=rows, action=rows, next_state=rows)
    with pytest.raises(DataError, match=r"rows\.npz: state has 4 non-finite"):
        find_source(str(tmp_path / "rows.npz"), SourceOptions())


@pytest.mark.parametrize(
    ("data", "options", "error", "said"),
    [
        ("bal-hoop", {}, UnknownNameError, r"did you mean 'ball-hoop'.*minari:NAME"),
        ("arm.xlsx", {}, UnknownNameError, r"\.parquet"),
        ("arm.csv", {"angle": ["volt"], "lags": 1}, ConfigurationError, "--angle wants columns that are measured"),
        ("arm.csv", {"angle": ["angle"]}, ConfigurationError, "add --lags 1"),
        ("arm.csv", {"output": ["speed"]}, UnknownNameError, "no column 'speed'; it has 'run', 's', 'angle', 'rate', 'volt'"),
    ],
)
def test_a_mistake_says_what_was_wanted(data, options, error, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recordings(tmp_path / "arm.csv")
    with pytest.raises(error, match=said):
        find_source(data, SourceOptions(**{**vars(OPTIONS), **options}))
