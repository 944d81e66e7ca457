"""The wall-clock allowance of one plan: how many candidates it can still afford, and the speed that says so."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from bayesdyn.errors import ConfigurationError

# What is predicted to end later than this share of the allowance is not begun: predictions err, and the plan must be back in time.
SHARE = 0.9
# As long as nothing is known about the speed, an eighth of an iteration is tried.
_FIRST_CHUNK = 8
# A call has at most this many times the rows of the largest one timed lately: further out, the line is not to be trusted.
_GROWTH = 4
# A further iteration is planned on where this many times its floor fits: where the first then takes a little longer than predicted,
# the second would find no time and the rest be lost.
_SLACK = 1.1
# The first call is made even where it does not fit; what its candidates add to its fixed cost may be this share.
_CHEAP = 0.1
# Calls that the line is fitted to: enough for it to pass by two that were held up, few enough to follow the machine's load.
_CALLS = 10
# A call of at most half the rows of all others is kept for so many: without one a fixed cost would not show.
_RARE_CALLS = 100
# Noise can make large calls look no slower than small ones. A row costs at least this share of a call's seconds per row.
_LEAST_SLOPE = 0.1


class _Call(NamedTuple):
    rows: int
    seconds: float
    number: int  # counted from the first


class Pace:
    """What lately timed calls say about the next: one of r rows takes `fixed` + `each`·r seconds.

    `each` is the median of the slopes between all pairs of calls, weighted by their distance (Theil 1950, Sen 1968; weighted:
    Jaeckel 1972), `fixed` the upper quartile of what that leaves, or the median of the last three calls where that is more: a call
    that was held up once changes little, two in a row do. Calls of a single size tell nothing of a fixed cost; then time is
    proportional to rows. A row is a candidate, or a trajectory where a candidate is scored on many.

    `calls` are pairs (rows, seconds), oldest first.

    >>> pace = Pace([(10, 0.014), (100, 0.023), (50, 0.018), (20, 0.2), (30, 0.016)])
    >>> round(pace.predict(200), 4)
    0.033
    """

    def __init__(self, calls: Iterable[tuple[int, float]] = ()) -> None:
        self._calls: list[_Call] = []
        self._noted = 0
        self.fixed = self.each = 0.0
        for rows, seconds in calls:
            self.note(rows, seconds)

    @property
    def known(self) -> bool:
        """Whether any call was timed."""
        return bool(self._calls)

    @property
    def widest(self) -> int:
        """Rows of the largest call timed lately."""
        return max((call.rows for call in self._calls), default=0)

    def note(self, rows: int, seconds: float) -> None:
        """Learn from one call. Raises `ConfigurationError` unless there are rows, and seconds not below zero."""
        if rows < 1 or not 0 <= seconds < math.inf:
            raise ConfigurationError(f"a pace wants calls of at least one row and finite seconds >= 0; got {rows}, {seconds}")
        self._noted += 1
        self._calls.append(_Call(rows, seconds, self._noted))
        if len(self._calls) > _CALLS:
            self._forget_one()
        per_row = [call.seconds / call.rows for call in self._calls]
        pairs = [(a, b) for a, b in combinations(self._calls, 2) if a.rows != b.rows]
        slope = _weighted_median([((b.seconds - a.seconds) / (b.rows - a.rows), abs(b.rows - a.rows)) for a, b in pairs])
        self.each = min(max(slope, _LEAST_SLOPE * min(per_row)), _upper(per_row))
        self.fixed = max(0.0, _upper([call.seconds - self.each * call.rows for call in self._calls]))

    def _forget_one(self) -> None:
        """Forget the oldest call, unless it alone shows what few rows cost."""
        oldest, *others = self._calls
        alone = 2 * oldest.rows <= min(call.rows for call in others)
        self._calls.remove(others[0] if alone and oldest.number > self._noted - _RARE_CALLS else oldest)

    def predict(self, rows: float, calls: int = 1) -> float:
        """Return the seconds that so many rows take in so many calls; 0 where nothing is known."""
        return self.fixed * calls + self.each * rows

    def afford(self, seconds: float, calls: int = 1) -> float:
        """Return how many rows that many calls can have in all to take that many seconds; negative where not even none."""
        left = seconds - self.fixed * calls
        return left / self.each if self.each else math.copysign(math.inf, left)


class Budget:
    """Seconds that one plan may take, counted from when the budget is made.

    An iteration is one call where that is predicted to end within 0.9 of the allowance, and otherwise gets fewer candidates, down
    to a floor that the planner names; then there are fewer iterations. Candidates are scored in chunks, with a look at the clock
    between them, as long as the speed is unknown or time is short. The first chunk is always scored.

    `pace` is what earlier plans measured; it learns from this one too. `rows` is the number of trajectories that a candidate is
    scored on, so that a pace stays true when it changes. `clock` returns seconds. Raises `ConfigurationError` unless the
    allowance is positive and `rows` is at least 1.

    >>> budget = Budget(1.0, Pace([(100, 1.0)]), clock=lambda: 0.0)
    >>> budget.allow([100, 100], least=20), budget.allow([100, 100, 100, 100, 100, 100], least=20)
    (45, 22)
    """

    def __init__(
        self,
        seconds: float = math.inf,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.perf_counter,
        rows: int = 1,
    ) -> None:
        if not seconds > 0 or rows < 1:
            raise ConfigurationError(f"a budget wants a positive number of seconds and rows >= 1; got {seconds} and {rows}")
        self.seconds, self.rows = seconds, rows
        self.pace = Pace() if pace is None else pace
        self._clock = clock
        self._started = self._mark = clock()
        self._scored = self._floor = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the budget was made."""
        return self._clock() - self._started

    @property
    def over(self) -> bool:
        """Whether more than 0.9 of the allowance is used up."""
        return self._left <= 0

    @property
    def at_floor(self) -> bool:
        """Whether the plan scored no more than one iteration of the fewest worth having: the planner's floor, or an eighth."""
        return self._scored <= self._floor

    @property
    def above_floor(self) -> bool:
        """Whether it scored three times as many: at twice the rows each, half as many take no longer and are well above it."""
        return self._scored >= 3 * self._floor

    def affords_floor(self, rows: int, share: float = SHARE) -> bool:
        """Whether one iteration of the planner's fewest candidates, at `rows` each, is predicted to fit that share."""
        return self.pace.predict(self._floor * rows) <= share * self.seconds

    def begin(self) -> None:
        """Start counting the plan's own work: what was done before is no part of the pace."""
        self._mark = self._clock()

    def allow(self, wanted: Sequence[int], least: int) -> int:
        """Return how many candidates the next iteration gets, of those `wanted` by it and by all that follow; 0 ends the search.

        No iteration is cut below `least`; before that there are fewer of them.
        """
        floors = [min(count, least) for count in wanted]
        self._floor = max(self._floor, floors[0], math.ceil(wanted[0] / _FIRST_CHUNK))
        if self._affordable(len(wanted)) >= sum(wanted):
            return wanted[0]
        total, last = 0, 0
        while last < len(floors) and self._affordable(last + 1) >= (total + floors[last]) * (_SLACK if last else 1):
            total, last = total + floors[last], last + 1
        if last == 0:
            return 0 if self._scored else max(floors[0], self._cheap(wanted[0]))
        stretch = (self._affordable(last) - total) / max(1, sum(wanted[:last]) - total)
        return floors[0] + int(min(1.0, stretch) * (wanted[0] - floors[0]))

    def chunks(self, count: int) -> Iterator[slice]:
        """Yield slices of `count` candidates, to be scored before the next is asked for, until all are done or the time is up."""
        least, done = math.ceil(count / _FIRST_CHUNK), 0
        while done < count:
            size = self._chunk(count - done, least)
            if size == 0:
                return
            yield slice(done, done + size)
            done += size
            now = self._clock()
            self.pace.note(size * self.rows, now - self._mark)
            self._scored += size
            self._mark = now

    @property
    def _left(self) -> float:
        return SHARE * self.seconds - self.elapsed

    def _affordable(self, calls: int = 1) -> float:
        return self.pace.afford(self._left, calls) / self.rows

    def _cheap(self, most: int) -> int:
        """Return how many candidates a call that is late anyway may have for a tenth of its fixed cost."""
        return int(min(most, _CHEAP * self.pace.fixed / self.pace.each / self.rows)) if self.pace.each else 0

    def _chunk(self, left: int, least: int) -> int:
        if math.isinf(self.seconds):
            return left
        smallest = min(left, least)
        if not self.pace.known:
            return smallest
        affordable = self._affordable()
        if affordable < smallest:
            return 0 if self._scored else max(smallest, self._cheap(left))
        return max(smallest, int(min(left, affordable, _GROWTH * self.pace.widest / self.rows)))


def _upper(values: Sequence[float]) -> float:
    """Return the upper quartile, or the median of the last three where that is more."""
    return max(sorted(values)[math.ceil(0.75 * len(values)) - 1], statistics.median_low(values[-3:]))


def _weighted_median(values: Sequence[tuple[float, float]]) -> float:
    """Return the median of (value, weight), infinity where there is none."""
    half = sum(weight for _, weight in values) / 2
    for value, weight in sorted(values):
        half -= weight
        if half <= 0:
            return value
    return math.inf
