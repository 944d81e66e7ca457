"""Data for a comparison, cut by episodes into what is learned from, calibrated on and tested on: `DataSet` and its sources."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count as numbers_from
from itertools import pairwise
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from bayesdyn.codec import BaseCodec, Codec, LagCodec
from bayesdyn.data import Episode, Log, Transitions, ball_hoop, lagged, load_tosses
from bayesdyn.data.cube_tosses import kinetic_energy
from bayesdyn.errors import ConfigurationError, DataError
from bayesdyn.evaluation.about import Size
from bayesdyn.evaluation.drone import LAGS, RATE, quarter_drone_data
from bayesdyn.evaluation.open_loop import HORIZONS
from bayesdyn.evaluation.table import IN_DISTRIBUTION

# Of a recording, or of the episodes: the first share is learned from, the last tested on, the middle one calibrated on.
_CALIBRATION, _TEST = 0.15, 0.25
# What `Recalibrated` wants at least.
_EPISODES, _ROWS = 5, 200
_DRONE_CALIBRATION = 15.0
_SMALL = 0.5  # the largest command of the training part of the hoop
_CALM, _ENERGETIC = 0.5, 0.75  # quantiles of the tosses' first kinetic energy


@dataclass(frozen=True, eq=False)
class DataSet:
    """What a comparison wants of its data; no episode is in two parts.

    `calibration` is None where there are too few episodes or rows for one. `lagged` says that states are lags, for which a Gaussian
    process wants a linear part. `note` says in a sentence how the data were cut, `step_seconds` how long a step is, if known.
    """

    name: str
    train: Transitions
    in_distribution: Transitions
    codec: Callable[[], BaseCodec]
    calibration: Transitions | None = None
    shifted: Mapping[str, Transitions] = field(default_factory=dict)
    lagged: bool = False
    note: str = ""
    step_seconds: float | None = None

    def horizons(self) -> tuple[int, ...]:
        """Return the usual horizons that every test part has an episode for.

        >>> ball_hoop_set().horizons()
        (1, 2, 5, 10, 20, 50)
        """
        longest = min(max(len(e) for e in part.episodes()) for part in (self.in_distribution, *self.shifted.values()))
        return tuple(h for h in HORIZONS if h <= longest)

    def test_sizes(self) -> dict[str, Size]:
        """Return how much there is to test on, in distribution and of each shift.

        >>> list(quarter_drone_set().test_sizes())
        ['none', 'landing', 'steps', 'seq']
        """
        return {name: Size.of(part) for name, part in {IN_DISTRIBUTION: self.in_distribution, **self.shifted}.items()}


def quarter_drone_set() -> DataSet:
    """Return the real quarter-drone: multisine 0-55 s, calibration 55-70 s, test 70-85 s, and three shifts."""
    data = quarter_drone_data(_DRONE_CALIBRATION)
    return DataSet(
        "quarter-drone",
        data.train,
        data.in_distribution,
        partial(LagCodec, LAGS, LAGS),
        data.calibration,
        data.shifted,
        lagged=True,
        note="learned from multisine 0-55 s, calibrated on 55-70 s, tested on 70-85 s and on other excitations",
        step_seconds=1 / RATE,
    )


def ball_hoop_set() -> DataSet:
    """Return the real ball in a hoop: small commands to learn from, calibrate and test on, large ones a shift.

    A command is held for 5 s, and holds in a row that are all small, |u| <= 0.5, or all large are an episode. Episodes of the whole
    log are shared out, because the commands of its second half are those of the first with the other sign: a model that was
    learned from the first half alone has seen no negative one.

    >>> data = ball_hoop_set()
    >>> bool(data.train.action.abs().max() <= 0.5), bool(data.shifted["large commands"].action.abs().min() > 0.5)
    (True, True)
    """
    log = ball_hoop()
    runs = _runs(lagged(log, LAGS, LAGS))
    small, large = (
        Transitions.concat([run for run in runs if bool(run.action[0].abs() <= _SMALL) == wanted]) for wanted in (True, False)
    )
    found = _shared_out("ball-hoop", small, partial(LagCodec, LAGS, LAGS), 0, deep=True)
    note = f"commands up to 0.5, {found.note}; larger ones are a shift"
    return replace(found, shifted={"large commands": large}, note=note, step_seconds=round(log.sample_time, 9))


def cube_toss_set(path: str | PathLike[str], episodes: int = 60) -> DataSet:
    """Return real tosses of a cube from the user's file: calm ones, of a first kinetic energy below its median; wild ones a shift.

    At most `episodes` calm tosses, evenly spaced over the file, of which 60 % are learned from, and a quarter as many of the upper
    quarter of energies. The dynamics do not depend on where the cube is on its table (coordinates 0 and 1).
    """
    tosses = load_tosses(path)
    energy = torch.stack([kinetic_energy(toss.states[0]) for toss in tosses])
    calm = [toss for toss, e in zip(tosses, energy, strict=True) if e <= energy.quantile(_CALM)]
    wild = [toss for toss, e in zip(tosses, energy, strict=True) if e >= energy.quantile(_ENERGETIC)]
    kept = _spaced(calm, episodes)
    found = episodes_set("cube-tosses", kept, lambda: Codec(ignore=[0, 1]), seed=0)
    energetic = Transitions.from_episodes(_spaced(wild, max(len(kept) // 4, 1)))
    return replace(found, shifted={"energetic tosses": energetic}, note=f"calm tosses, {found.note}; energetic ones are a shift")


def episodes_set(
    name: str, episodes: Sequence[Episode], codec: Callable[[], BaseCodec], *, seed: int, lagged: bool = False
) -> DataSet:
    """Cut episodes, drawn at random, into 60 % to learn from, 15 % (5 at least) to calibrate on and 25 % to test on.

    Without enough for a calibration of 5 episodes and 200 rows, 75 % are learned from. A single episode is cut in time.

    Raises `DataError` for no episode.

    >>> paths = [Episode(torch.randn(51, 1), torch.zeros(50, 1)) for _ in range(20)]
    >>> data = episodes_set("toy", paths, Codec, seed=0)
    >>> [len(part.episodes()) for part in (data.train, data.calibration, data.in_distribution)]
    [10, 5, 5]
    """
    if not episodes:
        raise DataError(f"{name} has no episode to learn from")
    rows = Transitions.from_episodes(episodes)
    return _cut(name, rows, codec, lagged) if len(episodes) == 1 else _shared_out(name, rows, codec, seed, lagged)


def logs_set(name: str, logs: Sequence[Log], lags: int, codec: Callable[[], BaseCodec], *, seed: int) -> DataSet:
    """Make lagged states of logs and cut them as `episodes_set` does, a log being an episode.

    Raises `DataError` for logs that are too short for the lags or not evenly sampled.
    """
    rows, deep = lagged_rows(logs, lags), lags > 1
    return _cut(name, rows, codec, deep) if len(logs) == 1 else _shared_out(name, rows, codec, seed, deep)


def lagged_rows(logs: Sequence[Log], lags: int) -> Transitions:
    """Return the lagged states of all logs, an episode each, with as many lags of the outputs as of the inputs."""
    return Transitions.concat([lagged(log, lags, lags) for log in logs])


def _shared_out(name: str, rows: Transitions, codec: Callable[[], BaseCodec], seed: int, deep: bool) -> DataSet:
    """Cut whole episodes, in an order drawn at random."""
    numbers = rows.episode.unique_consecutive()
    order = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))]
    test = max(round(_TEST * len(order)), 1)
    calibration = max(round(_CALIBRATION * len(order)), _EPISODES)

    def part(chosen: Tensor) -> Transitions:
        return rows.select(torch.isin(rows.episode, chosen))

    held_out = None
    if len(order) - test - calibration >= calibration:
        held_out = _unseen(part(order[test : test + calibration]), part(order[test + calibration :]), part(order[:test]))
    calibration = calibration if held_out is not None else 0
    train = part(order[test + calibration :])
    kept = _kept(calibration, f"{_episodes_wanted()} episodes, {_ROWS} different rows in those kept for it")
    note = f"{len(order)} episodes: {len(order) - test - calibration} to learn from, {kept}, {test} to test on"
    return DataSet(name, train, part(order[:test]), codec, held_out, lagged=deep, note=note)


def _cut(name: str, whole: Transitions, codec: Callable[[], BaseCodec], deep: bool) -> DataSet:
    """Cut one episode in time: the first part to learn from, five pieces to calibrate on, the last part to test on.

    Lags reach back over a cut: the first states after it hold outputs from before it, as they would have at any start.
    """
    count = len(whole)
    test = round(_TEST * count)
    calibration = round(_CALIBRATION * count) if _CALIBRATION * count >= _ROWS else 0
    train = count - test - calibration
    if min(train, test) < 2:
        raise ConfigurationError(f"{name} has {count} rows, too few to learn from and to be tested on; bring a longer recording")
    index = torch.arange(count)

    def part(start: int, end: int) -> Transitions:
        return whole.select((index >= start) & (index < end))

    held_out = None
    if calibration:
        ends = [train + calibration * piece // _EPISODES for piece in range(_EPISODES + 1)]
        pieces = Transitions.concat([part(start, end) for start, end in pairwise(ends)])
        held_out = _unseen(pieces, part(0, train), part(train + calibration, count))
    if held_out is None:
        train, calibration = count - test, 0
    kept = _kept(calibration, f"{math.ceil(_ROWS / _CALIBRATION)} rows that differ")
    note = f"one recording: {train} rows to learn from, then {kept}, the last {test} to test on"
    return DataSet(name, part(0, train), part(train + calibration, count), codec, held_out, lagged=deep, note=note)


def _kept(calibration: int, wanted: str) -> str:
    """Say how much is kept for a calibration, and where that is nothing, what a calibration wants."""
    return f"{calibration} to calibrate on" if calibration else f"none to calibrate on (that takes {wanted})"


def _episodes_wanted() -> int:
    """Return the fewest episodes of which some are kept for a calibration."""
    return next(n for n in numbers_from(1) if n - max(round(_TEST * n), 1) >= 2 * max(round(_CALIBRATION * n), _EPISODES))


def _unseen(held_out: Transitions, *others: Transitions) -> Transitions | None:
    """Return the rows that other parts do not have, to a float's digits, None if too few for a calibration are left.

    Quantised logs of a system at rest repeat their rows, and no calibration takes rows that a fit or a test has.
    """
    seen = {row.tobytes() for other in others for row in _numbers(other)}
    fresh = torch.tensor([row.tobytes() not in seen for row in _numbers(held_out)])
    if int(fresh.sum()) < _ROWS or len(held_out.episode[fresh].unique()) < _EPISODES:
        return None
    return held_out.select(fresh)


def _numbers(rows: Transitions) -> np.ndarray:
    return (torch.cat([rows.state, rows.action, rows.next_state], 1).float() + 0.0).numpy()  # -0 becomes 0


def _runs(rows: Transitions) -> list[Transitions]:
    """Cut rows of the hoop where commands change between small and large."""
    small = rows.action[:, 0].abs() <= _SMALL
    number = (small[1:] != small[:-1]).cumsum(0)
    number = torch.cat([number.new_zeros(1), number])
    return [rows.select(number == run) for run in number.unique()]


def _spaced(tosses: Sequence[Episode], count: int) -> list[Episode]:
    chosen = torch.linspace(0, len(tosses) - 1, min(count, len(tosses))).round().long()
    return [tosses[index] for index in chosen.tolist()]
