"""Where the data of `bayesdyn compare` come from: built-in logs, environments, files of the user's own, Minari datasets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import gymnasium

from bayesdyn.codec import BaseCodec, Codec, LagCodec
from bayesdyn.data import Log, Transitions, load_logs, load_minari, read_columns, resample
from bayesdyn.errors import ConfigurationError, DataError, UnknownNameError
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
TIME, OUTPUTS, INPUTS, LAGS = "t", ("y",), ("u",), 4
"""The columns of a table, and how many samples make its state, unless others are asked for."""


_ENVIRONMENT = "an environment"
_COLUMNS, _TRANSITIONS, _LOG = f"a table ({', '.join(FILES)})", "a file of transitions", "a log of the package"
_MINARI, _TOSSES = "a Minari dataset", "a file of tosses"
_TAKES = {
    _ENVIRONMENT: ("behaviour", "episodes", "steps", "decisions"),
    _COLUMNS: ("time", "output", "input", "episode", "lags", "angle", "rate", "shift"),
    _MINARI: ("episodes",),
    _TOSSES: ("episodes",),
    _TRANSITIONS: (),
    _LOG: (),
}


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of data, of which each source has a use for some; None, or empty, where nothing is asked for.

    episodes, steps, behaviour   of an environment; `episodes` also bounds what is read of a Minari dataset and of tosses
    time, output, input, episode the columns of a file ("t", "y" and "u"); an empty `time`: samples without one
    lags, rate                   how many samples make the state (4), and how many a second there are to be
    angle                        measured columns that are angles in radians, for states without lags
    shift                        further files of the same columns, each a shift by its name
    decisions                    whether plans are to be made in the environment that the data are from

    >>> SourceOptions(rate=20.0, seed=3).given
    ('rate',)
    """

    episodes: int | None = None
    steps: int | None = None
    behaviour: str | None = None
    time: str | None = None
    output: Sequence[str] = ()
    input: Sequence[str] = ()
    episode: str | None = None
    lags: int | None = None
    rate: float | None = None
    angle: Sequence[str] = ()
    shift: Sequence[Path] = ()
    decisions: bool | None = None
    seed: int = 0

    @property
    def given(self) -> tuple[str, ...]:
        """The options that ask for something, without the seed, which every source takes."""
        return tuple(f.name for f in fields(self) if f.name != "seed" and getattr(self, f.name) not in (None, (), []))


def find_source(data: str, options: SourceOptions) -> DataSet:
    """Return the data set that a word on the command line names.

    A built-in log; `minari:NAME`; `cube-tosses:PATH`; a file of the user's own; else an environment.

    Raises `UnknownNameError` for none of these, `ConfigurationError` for options that the source has no use for, and what the
    source raises.
    """
    kind = _kind(data)
    _check(data, kind, options)
    return _SOURCES[kind](data, options)


def _kind(data: str) -> str:
    """Say what kind of source a word names; raises `UnknownNameError` for none."""
    if data in BUILT_IN:
        return _LOG
    if data.startswith(MINARI):
        return _MINARI
    if data.startswith(TOSSES):
        return _TOSSES
    if Path(data).suffix in FILES:
        holds_rows = Path(data).suffix == ".npz" and {"state", "action"} <= read_columns(data).keys()
        return _TRANSITIONS if holds_rows else _COLUMNS
    if data in SHORT_NAMES or data in gymnasium.registry or ":" in data:
        return _ENVIRONMENT
    raise _unknown(data)


def _check(data: str, kind: str, options: SourceOptions) -> None:
    """Raise `ConfigurationError` for what a source of this kind has no use for, and would leave unheard."""
    strange = [name for name in options.given if name not in _TAKES[kind]]
    if not strange:
        return
    homes = dict.fromkeys(" or ".join(other for other, taken in _TAKES.items() if name in taken) for name in strange)
    own = _flags(_TAKES[kind]) or "none of its own"
    raise ConfigurationError(
        f"{data} is {kind}, and {_flags(strange)} would change nothing there: that is for {' and '.join(homes)}. Leave it out; "
        f"the options of {kind} are {own}"
    )


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def _environment(data: str, options: SourceOptions) -> DataSet:
    episodes = EPISODES if options.episodes is None else options.episodes
    behaviour = options.behaviour or "random"
    return environment_set(data, behaviour=behaviour, episodes=episodes, steps=options.steps, seed=options.seed)


def _minari(data: str, options: SourceOptions) -> DataSet:
    name = data.removeprefix(MINARI)
    return episodes_set(name, load_minari(name, options.episodes), Codec, seed=options.seed)


def _tosses(data: str, options: SourceOptions) -> DataSet:
    path = data.removeprefix(TOSSES)
    return cube_toss_set(path) if options.episodes is None else cube_toss_set(path, options.episodes)


def _unknown(data: str) -> UnknownNameError:
    known = [*BUILT_IN, *SHORT_NAMES]
    error = UnknownNameError.among("data set", data, known)
    return UnknownNameError(
        f"{error}, any Gymnasium environment by its id, a file of your own ({', '.join(FILES)}), {MINARI}NAME and {TOSSES}PATH"
    )


def _rows(data: str, options: SourceOptions) -> DataSet:
    """Return transitions that were saved."""
    path = Path(data)
    rows = _transitions(path)
    found = episodes_set(path.stem, rows.episodes(), Codec, seed=options.seed)
    return replace(found, note=f"{path.name}, states of {rows.state_size} and actions of {rows.action_size} numbers; {found.note}")


def _columns(data: str, options: SourceOptions) -> DataSet:
    """Return recordings from columns of a file."""
    path, options = Path(data), _filled(options)
    lags = options.lags or LAGS
    logs = _logs(path, options)
    found = logs_set(path.stem, logs, lags, _codec_of(options, lags), seed=options.seed)
    shifted = {other.stem: lagged_rows(_logs(other, options), lags) for other in options.shift}
    return replace(
        found, shifted=shifted, note=f"{_held(path, options, logs, lags)}; {found.note}", step_seconds=_step(options, logs)
    )


def _held(path: Path, options: SourceOptions, logs: Sequence[Log], lags: int) -> str:
    """Say which columns were taken of a file, and how."""
    step = _step(options, logs)
    every = "" if step is None else f", {'resampled to ' if options.rate else ''}every {step:.4g} s"
    state = f"the last {lags} samples of each are the state" if lags > 1 else "a sample is the state"
    return f"{path.name}, {_quoted(options.output)} measured, {_quoted(options.input)} commanded{every}; {state}"


def _step(options: SourceOptions, logs: Sequence[Log]) -> float | None:
    """Return the seconds of a step, None without times or where recordings differ by more than their samples may."""
    steps = [log.sample_time for log in logs]
    same = max(steps) - min(steps) <= 0.01 * max(steps)
    return float(f"{sum(steps) / len(steps):.6g}") if options.time and same else None


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))


def _filled(options: SourceOptions) -> SourceOptions:
    """Return the options with the columns that a table has unless others are named."""
    time = TIME if options.time is None else options.time
    return replace(options, time=time, output=options.output or OUTPUTS, input=options.input or INPUTS)


def _logs(path: Path, options: SourceOptions) -> list[Log]:
    logs = load_logs(path, outputs=options.output, inputs=options.input, time=options.time or None, episode=options.episode)
    return logs if options.rate is None else [resample(log, options.rate) for log in logs]


def _codec_of(options: SourceOptions, lags: int) -> Callable[[], BaseCodec]:
    """Return lags where there are any, and the codec of states, with its angles, where a sample is the state."""
    unknown = set(options.angle) - set(options.output)
    if unknown:
        raise ConfigurationError(f"--angle wants columns that are measured, {list(options.output)}; got {sorted(unknown)}")
    if options.angle and lags > 1:
        raise ConfigurationError(f"--angle is for states without lags; add --lags 1, or leave --angle out (lags are {lags})")
    if lags > 1:
        return lambda: LagCodec(lags, lags, channels=len(options.output))
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
    try:
        return Transitions.from_arrays(**given)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


_SOURCES: dict[str, Callable[[str, SourceOptions], DataSet]] = {
    _ENVIRONMENT: _environment,
    _COLUMNS: _columns,
    _MINARI: _minari,
    _TOSSES: _tosses,
    _TRANSITIONS: _rows,
    _LOG: lambda data, options: BUILT_IN[data](),
}
