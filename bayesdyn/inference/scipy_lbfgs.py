"""SciPy's L-BFGS-B for objectives that may break down: a failed trial looks like a hill that sends the line search back."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.inference.bfgs import Keep
from bayesdyn.inference.optimisation import Objective, Optimum
from bayesdyn.progress import Progress

_MEMORY = 100


@dataclass(frozen=True)
class ScipyLBFGS:
    """SciPy's L-BFGS-B without bounds, with the signature and the promises of `BFGS` except for the length of first steps.

    Where the objective fails at best + d, with slope m = gᵀd < 0 at the best point so far, it is given the value f + |m| and the
    gradient |m| d/|d|²: its line search then finds a parabola with its minimum at d/4 and goes there, and never accepts the point.
    After a search that broke off it goes on from the best point with a fresh memory, as long as that gains anything.

    Raises `ConfigurationError` for a count below 1 or a negative tolerance.

    >>> best = ScipyLBFGS(searches=20).minimise(lambda p: (float(p @ p), 2 * p), np.array([3.0, -4.0]))
    >>> bool(abs(best.point).max() < 1e-6)
    True
    """

    searches: int = 150
    evaluations: int = 10
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if self.searches < 1 or self.evaluations < 1 or not self.tolerance >= 0:
            raise ConfigurationError(f"ScipyLBFGS wants searches >= 1, evaluations >= 1 and tolerance >= 0; got {self}")

    def minimise(
        self, objective: Objective, start: np.ndarray, progress: Progress | None = None, keep: Keep | None = None
    ) -> Optimum:
        """Return the best point met, never worse than the start; its `curve` is the best value at the start and after each search.

        `progress` and `keep` are called as by `BFGS`. Raises `NumericalError` if the objective fails at the start.
        """
        hill = _Hill(objective, np.array(start, dtype=np.float64))
        curve, reason = [hill.value], ""
        if keep is not None:
            keep(hill.point.copy(), hill.value)

        def after(_: np.ndarray) -> None:
            curve.append(hill.value)
            if keep is not None and hill.value < curve[-2]:
                keep(hill.point.copy(), hill.value)
            if progress is not None:
                progress(len(curve) - 1, self.searches, {"value": hill.value, "evaluations": float(hill.evaluations)})

        while len(curve) <= self.searches:
            before = hill.value
            left = self.searches + 1 - len(curve)
            options = {
                "maxiter": left,
                "maxfun": left * self.evaluations,
                "maxls": self.evaluations,
                "maxcor": _MEMORY,
                "ftol": self.tolerance,
                "gtol": 0.0,
            }
            with threadpool_limits(limits=1, user_api="blas"):
                result = minimize(hill, hill.point, jac=True, method="L-BFGS-B", callback=after, options=options)
            reason = str(result.message)
            if before - hill.value <= self.tolerance * (1 + abs(before)):
                break
        return Optimum(hill.point, hill.value, hill.evaluations, tuple(curve), (), reason)


class _Hill:
    """An objective that remembers its best point and rises away from it wherever it fails."""

    def __init__(self, objective: Objective, start: np.ndarray) -> None:
        self.objective, self.evaluations = objective, 0
        found = self._try(start)
        if found is None:
            raise NumericalError("the objective fails at the start; choose another start, for policies one of smaller actions")
        self.point, (self.value, self.gradient) = start, found

    def _try(self, point: np.ndarray) -> tuple[float, np.ndarray] | None:
        self.evaluations += 1
        try:
            value, gradient = self.objective(point.copy())
        except NumericalError:
            return None
        value, gradient = float(value), np.array(gradient, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            return (value, gradient) if math.isfinite(value) and math.isfinite(gradient @ gradient) else None

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        if np.array_equal(point, self.point):
            return self.value, self.gradient.copy()
        found = self._try(point)
        if found is None:
            step = point - self.point
            slope = abs(float(self.gradient @ step))
            return self.value + slope, slope * step / (step @ step)
        if found[0] < self.value:
            self.point, (self.value, self.gradient) = point.copy(), found
        return found
