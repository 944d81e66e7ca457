"""Smooth minimisation without bounds where the objective may break down: quasi-Newton steps, line searches that step back."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.inference.curvature import Curvature, DenseCurvature, LimitedCurvature
from bayesdyn.inference.optimisation import Objective, Optimum
from bayesdyn.progress import Progress

# Called with the best point so far and its value: at the start, and after each line search that improved on it.
Keep = Callable[[np.ndarray, float], None]

_CURVATURE = 0.5
_EXTRAPOLATE = 5.0
_INTERPOLATE = (0.1, 0.9)
_LONGEST_FIRST_STEP = 1.0
_DENSE_SIZE = 1000
_PATIENCE = 3
_SHORTEST = 1e-12


@dataclass(frozen=True)
class BFGS:
    """Quasi-Newton minimisation that takes a NaN, an infinity or a `NumericalError` for +inf and steps back from it.

    Directions come from the dense BFGS inverse Hessian up to 1000 parameters, from L-BFGS with 100 pairs beyond (Nocedal & Wright
    2006, eqs. 6.17 and 7.16). Each of at most `searches` line searches starts with a step of norm <= 1 and makes at most
    `evaluations` evaluations until |φ'(α)| <= ½|φ'(0)| and φ(α) < φ(0). It extrapolates by at most a factor of 5, interpolates
    (cubic; quadratic from a value above the start's) within 0.1 to 0.9 of its bracket, and bisects where the objective failed: the
    settings of PILCO's optimiser. A search without descent is followed by one along the gradient, and the next first steps are no
    longer than what failed. It ends early at a zero gradient, when no step descends, or when three searches in a row gain less than
    `tolerance`·(1 + |value|).

    Raises `ConfigurationError` for a count below 1 or a negative tolerance.

    >>> best = BFGS(searches=20).minimise(lambda p: (float(p @ p), 2 * p), np.array([3.0, -4.0]))
    >>> bool(abs(best.point).max() < 1e-6)
    True
    """

    searches: int = 150
    evaluations: int = 10
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if self.searches < 1 or self.evaluations < 1 or not self.tolerance >= 0:
            raise ConfigurationError(f"BFGS wants searches >= 1, evaluations >= 1 and tolerance >= 0; got {self}")

    def minimise(
        self, objective: Objective, start: np.ndarray, progress: Progress | None = None, keep: Keep | None = None
    ) -> Optimum:
        """Return the best point met, never worse than the start; its `curve` is the best value at the start and after each search.

        `progress` hears of every line search; `keep` is handed each new best, so that nothing is lost when a keyboard interrupt or
        an error of the objective's, other than a `NumericalError`, ends the search by passing through.

        Raises `NumericalError` if the objective fails at the start.
        """
        descent = _Descent(objective, start)
        if keep is not None:
            keep(descent.here.point.copy(), descent.here.value)
        reason, curve, idle = f"all {self.searches} line searches made", [descent.here.value], 0
        for search in range(self.searches):
            # The square: a gradient whose square underflows has no usable direction.
            if not descent.here.gradient @ descent.here.gradient > 0:
                reason = "the gradient vanished"
                break
            before = descent.here.value
            descent.search(self.evaluations)
            value = descent.here.value
            curve.append(value)
            if value < before and keep is not None:
                keep(descent.here.point.copy(), value)
            if progress is not None:
                progress(search + 1, self.searches, {"value": value, "evaluations": float(descent.evaluations)})
            if descent.stuck():
                reason = "no step along the gradient descends"
                break
            idle = idle + 1 if before - value <= self.tolerance * (1 + abs(value)) else 0
            if idle >= _PATIENCE and value < before:
                reason = f"{_PATIENCE} line searches in a row gained less than {self.tolerance:g} of the value"
                break
        return Optimum(descent.here.point, descent.here.value, descent.evaluations, tuple(curve), (), reason)


class _Trial(NamedTuple):
    """A point along a line, `length` directions away from its origin; value inf and no gradient where the objective failed."""

    length: float
    value: float
    slope: float
    point: np.ndarray
    gradient: np.ndarray

    @property
    def failed(self) -> bool:
        return math.isinf(self.value)


class _Descent:
    """Where a minimisation stands: the best point, what it knows of the curvature, and how far it dares to step."""

    def __init__(self, objective: Objective, start: np.ndarray) -> None:
        self.objective, self.evaluations, self.cause = objective, 0, "its value or gradient is not finite"
        origin = np.array(start, dtype=np.float64)
        self.here = self._evaluate(origin, np.zeros_like(origin), 0.0)
        if self.here.failed:
            raise NumericalError(
                f"the objective fails at the start ({self.cause}); choose another start, for policies one of smaller actions"
            )
        self.curvature: Curvature = DenseCurvature() if origin.size <= _DENSE_SIZE else LimitedCurvature()
        self.reach = _LONGEST_FIRST_STEP

    def _evaluate(self, origin: np.ndarray, direction: np.ndarray, length: float) -> _Trial:
        self.evaluations += 1
        point = origin + length * direction
        try:
            value, gradient = self.objective(point.copy())
        except NumericalError as error:
            self.cause = str(error)
            return _Trial(length, math.inf, math.nan, point, point)
        value, gradient = float(value), np.array(gradient, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            usable = math.isfinite(value) and math.isfinite(gradient @ gradient)
        return (
            _Trial(length, value, float(gradient @ direction), point, gradient)
            if usable
            else _Trial(length, math.inf, math.nan, point, point)
        )

    def stuck(self) -> bool:
        return self.reach < _SHORTEST * (1 + float(np.linalg.norm(self.here.point)))

    def search(self, budget: int) -> None:
        """Make one line search; move to its best point, or remember that its steps were too long."""
        origin = self.here
        direction = self.curvature.direction(origin.gradient)
        if not (origin.gradient @ direction < 0 and np.linalg.norm(direction) > 0):
            self.curvature.forget()
            direction = -origin.gradient
        norm = float(np.linalg.norm(direction))
        trials = self._along(origin._replace(length=0.0, slope=float(origin.gradient @ direction)), direction, norm, budget)
        best = min(trials, key=lambda trial: trial.value)
        if best.value < origin.value:
            self.reach = _LONGEST_FIRST_STEP
            self.curvature.learn(best.point - origin.point, best.gradient - origin.gradient)
            self.here = best
            return
        # Another direction from the same point meets the same cliffs; start where this search gave up.
        self.reach = 0.5 * norm * min(trial.length for trial in trials)
        self.curvature.forget()

    def _along(self, origin: _Trial, direction: np.ndarray, norm: float, budget: int) -> list[_Trial]:
        """Return the trials of one line search, the last of which fulfils the Wolfe conditions if one does."""
        low, high = origin, None
        length = min(1.0, self.reach / norm)
        trials: list[_Trial] = []
        while len(trials) < budget:
            trial = self._evaluate(origin.point, direction, length)
            trials.append(trial)
            if trial.value < origin.value and abs(trial.slope) <= -_CURVATURE * origin.slope:
                break
            previous = low
            if trial.value < low.value and trial.slope < 0:
                low = trial
            else:
                high = trial
            length = _beyond(previous, low) if high is None else _between(low, high, origin.value)
        return trials


def _beyond(previous: _Trial, last: _Trial) -> float:
    """Return a longer length, where the cubic through two descending points has its minimum, at most five times the last."""
    longest, width = _EXTRAPOLATE * last.length, last.length - previous.length
    minimum = previous.length + width * _cubic(previous, last)
    return min(max(minimum, last.length + _INTERPOLATE[0] * width), longest) if minimum > last.length else longest


def _between(low: _Trial, high: _Trial, ceiling: float) -> float:
    """Return a length inside the bracket: half of it if its far end failed, else an interpolated minimum."""
    width = high.length - low.length
    if high.failed:
        return low.length + 0.5 * width
    share = _quadratic(low, high) if high.value > ceiling else _cubic(low, high)
    if not math.isfinite(share):
        share = 0.5
    return low.length + width * min(max(share, _INTERPOLATE[0]), _INTERPOLATE[1])


def _quadratic(a: _Trial, b: _Trial) -> float:
    """Return where between a (0) and b (1) the parabola with a's value and slope and b's value is least; nan if nowhere."""
    slope = a.slope * (b.length - a.length)
    bend = b.value - a.value - slope
    return -0.5 * slope / bend if bend > 0 else math.nan


def _cubic(a: _Trial, b: _Trial) -> float:
    """Return where, in units of b - a from a, the cubic with the values and slopes of both is least; nan if nowhere."""
    width = b.length - a.length
    first, last, rise = a.slope * width, b.slope * width, b.value - a.value
    third, second = first + last - 2 * rise, 3 * rise - 2 * first - last
    root = second * second - 3 * third * first
    if not root >= 0:
        return math.nan
    # This form of the root does not cancel, and is that of the parabola when the cubic term vanishes.
    below = second + math.sqrt(root)
    return -first / below if below != 0 else math.nan
