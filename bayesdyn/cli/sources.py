"""Where the data of `bayesdyn compare` come from: built-in logs, environments, files of the user's own, Minari datasets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium

from bayesdyn.codec import BaseCodec, Codec, LagCodec
from bayesdyn.data import Log, Transitions, load_logs, load_minari, read_columns, resample
from bayesdyn.errors import ConfigurationError, UnknownNameError
from bayesdyn.evaluation.data_sets import (
    DataSet,
    ball_hoop_set,
    cube_toss_set,
    episodes_set,
    lagged_rows,
    logs_set,
    quarter_drone_set,
)
from bayesdyn.evaluation.simulated_sets import EPISODES, SHORT_NAMES, environment_set

BUILT_IN: dict[str, Callable[[], DataSet]] = {"quarter-drone": quarter_drone_set, "ball-hoop": ball_hoop_set}
"""Logs that come with the package."""

MINARI, TOSSES = "minari:", "cube-tosses:"
FILES = (".csv", ".npz", ".parquet")


@dataclass(frozen=True)
class SourceOptions:
    """How data are collected or read; what a source has no use for is left alone.

    episodes, steps, behaviour   of an environment; `episodes` also bounds what is read of a Minari dataset and of tosses
    time, output, input, episode the columns of a file; `time` None: samples without a time
    lags, rate                   how many samples make the state, and how many a second there are to be
    angle                        measured columns that are angles in radians, for states without lags
    shift                        further files of the same columns, each a shift by its name
    """

    episodes: int | None = None
    steps: int | None = None
    behaviour: str = "random"
    time: str | None = "t"
    output: Sequence[str] = ("y",)
    input: Sequence[str] = ("u",)
    episode: str | None = None
    lags: int = 4
    rate: float | None = None
    angle: Sequence[str] = ()
    shift: Sequence[Path] = ()
    seed: int = 0


def find_source(data: str, options: SourceOptions) -> DataSet:
    """Return the data set that a word on the command line names.

    A built-in log; `minari:NAME`; `cube-tosses:PATH`; a file of the user's own; else an environment.

    Raises `UnknownNameError` for none of these, and what the source raises.
    """
    if data in BUILT_IN:
        return BUILT_IN[data]()
    if data.startswith(MINARI):
        name = data.removeprefix(MINARI)
        return episodes_set(name, load_minari(name, options.episodes), Codec, seed=options.seed)
    if data.startswith(TOSSES):
        path = data.removeprefix(TOSSES)
        return cube_toss_set(path) if options.episodes is None else cube_toss_set(path, options.episodes)
    if Path(data).suffix in FILES:
        return _file(Path(data), options)
    if data in SHORT_NAMES or data in gymnasium.registry or ":" in data:
        episodes = EPISODES if options.episodes is None else options.episodes
        return environment_set(data, behaviour=options.behaviour, episodes=episodes, steps=options.steps, seed=options.seed)
    raise _unknown(data)


def _unknown(data: str) -> UnknownNameError:
    known = [*BUILT_IN, *SHORT_NAMES]
    error = UnknownNameError.among("data set", data, known)
    return UnknownNameError(
        f"{error}, any Gymnasium environment by its id, a file of your own ({', '.join(FILES)}), {MINARI}NAME and {TOSSES}PATH"
    )


def _file(path: Path, options: SourceOptions) -> DataSet:
    """Return the data of a file: transitions that were saved, or columns of recordings."""
    if path.suffix == ".npz" and {"state", "action"} <= read_columns(path).keys():
        rows = _transitions(path)
        return episodes_set(path.stem, rows.episodes(), Codec, seed=options.seed)
    found = logs_set(path.stem, _logs(path, options), options.lags, _codec_of(options), seed=options.seed)
    return replace(found, shifted={other.stem: lagged_rows(_logs(other, options), options.lags) for other in options.shift})


def _logs(path: Path, options: SourceOptions) -> list[Log]:
    logs = load_logs(path, outputs=options.output, inputs=options.input, time=options.time, episode=options.episode)
    return logs if options.rate is None else [resample(log, options.rate) for log in logs]


def _codec_of(options: SourceOptions) -> Callable[[], BaseCodec]:
    """Return lags where there are any, and the codec of states, with its angles, where a sample is the state."""
    unknown = set(options.angle) - set(options.output)
    if unknown:
        raise ConfigurationError(f"--angle wants columns that are measured, {list(options.output)}; got {sorted(unknown)}")
    if options.angle and options.lags > 1:
        raise ConfigurationError(
            f"--angle is for states without lags; add --lags 1, or leave --angle out (lags are {options.lags})"
        )
    if options.lags > 1:
        return lambda: LagCodec(options.lags, options.lags, channels=len(options.output))
    angles = [place for place, name in enumerate(options.output) if name in options.angle]
    return lambda: Codec(angles=angles)


def _transitions(path: Path) -> Transitions:
    """Read what `Transitions.save` wrote, or arrays of the same names."""
    columns = read_columns(path)
    if "bayesdyn" in columns:
        return Transitions.load(path)
    names = ("state", "action", "next_state", "reward", "episode", "terminated")
    given = {name: columns[name] for name in names if name in columns}
    if "next_state" not in given:
        raise ConfigurationError(f"{path} has state and action but no next_state; add it, row by row: what each action led to")
    return Transitions.from_arrays(**given)
