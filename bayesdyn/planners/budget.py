"""The wall-clock allowance of one plan: how many candidates it can still afford."""

import math
import time
from collections.abc import Callable, Iterator, Sequence

from bayesdyn.errors import ConfigurationError

# What is predicted to end later than this share of the allowance is not begun: predictions err, and the plan must be back in time.
_SHARE = 0.9
# The clock is looked at after this share of the allowance at the latest. Shorter chunks cost more than they save, since every chunk
# pays once for each step of the horizon, however few candidates it has.
_LONGEST_CHUNK = 0.3
# As long as nothing is known about the speed, an eighth of an iteration is tried.
_FIRST_CHUNK = 8


class Budget:
    """Seconds that one plan may take, counted from when the budget is made.

    Candidates are scored in chunks and the clock is looked at between them. From the running mean of seconds per candidate, what
    does not end within 0.9 of the allowance is not begun: an iteration gets fewer candidates first, down to a floor that the
    planner names, then there are fewer iterations. The first chunk is always scored. `pace` is the seconds per candidate that an
    earlier plan measured (for as many environments at once); predictions take the slower of that and of what this plan measures.

    `clock` returns seconds. Raises `ConfigurationError` unless the allowance is positive.

    >>> budget = Budget(1.0, pace=0.01, clock=lambda: 0.0)
    >>> budget.allow([100, 100], least=20), budget.allow([100, 100, 100, 100, 100, 100], least=20)
    (45, 22)
    """

    def __init__(
        self, seconds: float = math.inf, pace: float | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if not seconds > 0 or (pace is not None and not pace >= 0):
            raise ConfigurationError(f"a budget wants a positive number of seconds and no negative pace; got {seconds}, {pace}")
        self.seconds = seconds
        self._clock = clock
        self._known = pace
        self._started = self._mark = clock()
        self._spent, self._scored = 0.0, 0

    @property
    def elapsed(self) -> float:
        """Seconds since the budget was made."""
        return self._clock() - self._started

    @property
    def over(self) -> bool:
        """Whether more than 0.9 of the allowance is used up."""
        return self._left <= 0

    @property
    def pace(self) -> float | None:
        """Seconds per candidate of this plan, all its work included; before the first, of the earlier plan."""
        return self._spent / self._scored if self._scored else self._known

    def begin(self) -> None:
        """Start counting the plan's own work: what was done before is no part of the pace."""
        self._mark = self._clock()

    def allow(self, wanted: Sequence[int], least: int) -> int:
        """Return how many candidates the next iteration gets, of those `wanted` by it and by all that follow; 0 ends the search.

        No iteration is cut below `least`; before that there are fewer of them.
        """
        floors = [min(count, least) for count in wanted]
        affordable = self._affordable()
        if affordable >= sum(wanted):
            return wanted[0]
        if affordable < floors[0]:
            return 0 if self._scored else floors[0]
        total, last = 0, 0
        while last < len(floors) and total + floors[last] <= affordable:
            total, last = total + floors[last], last + 1
        stretch = min(1.0, (affordable - total) / max(1, sum(wanted[:last]) - total))
        return floors[0] + int(stretch * (wanted[0] - floors[0]))

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
            self._spent += now - self._mark
            self._scored += size
            self._mark = now

    @property
    def _left(self) -> float:
        return _SHARE * self.seconds - self.elapsed

    def _affordable(self) -> float:
        slowest = max(self._known or 0.0, self.pace or 0.0)
        return self._left / slowest if slowest else math.inf

    def _chunk(self, left: int, least: int) -> int:
        if math.isinf(self.seconds):
            return left
        if self.pace is None:
            return min(left, least)
        affordable = self._affordable()
        if self._scored and affordable < min(left, least):
            return 0
        longest = affordable * _LONGEST_CHUNK * self.seconds / self._left if affordable < math.inf else left
        return min(left, max(least, int(min(affordable, longest))))
