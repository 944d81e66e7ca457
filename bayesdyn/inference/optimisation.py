"""Smooth minimisation inside bounds: L-BFGS-B, and Adam from the best point when that breaks down."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bayesdyn.errors import NumericalError

# Maps a point [P] to (value, gradient [P]); may raise NumericalError.
Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]

_ADAM_STEPS = 150
_ADAM_RATE = 0.1


class Optimum(NamedTuple):
    """The best point met, its value, the number of evaluations, the values on the way, what went wrong and why it ended."""

    point: np.ndarray
    value: float
    steps: int
    curve: tuple[float, ...]
    warnings: tuple[str, ...]
    reason: str = ""


class _Recorder:
    """Evaluates an objective, remembers the best point, and turns a non-finite value into a `NumericalError`."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.point: np.ndarray | None = None
        self.value = np.inf
        self.curve: list[float] = []

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.objective(point)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            raise NumericalError(f"the objective became non-finite after {len(self.curve)} evaluations")
        self.curve.append(value)
        if value < self.value:
            self.point, self.value = point.copy(), value
        return value, gradient


def minimise(
    objective: Objective,
    start: np.ndarray,
    bounds: list[tuple[float, float]],
    max_steps: int,
    progress: Callable[[int, float], None] | None = None,
) -> Optimum:
    """Return the best point met by L-BFGS-B (Byrd et al. 1995) within `bounds` and `max_steps` iterations.

    If the objective fails or becomes non-finite on the way, Adam (rate 0.1, 150 steps) goes on from the best point; the returned
    warnings say so. The best point is the one of lowest value, not the last.

    Raises `NumericalError` if the objective fails at the start itself.

    >>> best = minimise(lambda p: (float(p @ p), 2 * p), np.array([3.0]), [(1.0, 5.0)], 20)
    >>> best.point.item()
    1.0
    """
    evaluate = _Recorder(objective)
    iterations = 0

    def report(_: np.ndarray) -> None:
        nonlocal iterations
        iterations += 1
        if progress is not None:
            progress(iterations, evaluate.value)

    warnings: tuple[str, ...] = ()
    reason = "all steps made"
    try:
        options = {"maxiter": max_steps, "maxfun": 3 * max_steps, "ftol": 1e-10, "gtol": 1e-5}
        # The steps are tiny vectors: threads of the linear algebra behind SciPy only get in the way of the objective's own.
        with threadpool_limits(limits=1, user_api="blas"):
            result = minimize(evaluate, start, jac=True, method="L-BFGS-B", bounds=bounds, callback=report, options=options)
        reason = str(result.message)
        if result.nit >= max_steps:
            warnings = (f"stopped after {max_steps} iterations before it converged",)
    except NumericalError as error:
        if evaluate.point is None:
            raise
        warnings = (f"L-BFGS broke down ({error}); went on with Adam",)
        _adam(evaluate, evaluate.point, bounds)
    if evaluate.point is None:
        raise NumericalError("the optimiser evaluated nothing; are all bounds intervals?")
    return Optimum(evaluate.point, evaluate.value, len(evaluate.curve), tuple(evaluate.curve), warnings, reason)


def _adam(evaluate: _Recorder, start: np.ndarray, bounds: list[tuple[float, float]]) -> None:
    # A failed evaluation means that the step was too long: go back to the best point and halve the rate.
    lower, upper = np.array(bounds).T
    point, rate = start.copy(), _ADAM_RATE
    first, second, age = np.zeros_like(point), np.zeros_like(point), 0
    for _ in range(_ADAM_STEPS):
        try:
            _, gradient = evaluate(point)
        except NumericalError:
            point = start.copy() if evaluate.point is None else evaluate.point.copy()
            first, second, age, rate = np.zeros_like(point), np.zeros_like(point), 0, 0.5 * rate
            continue
        age += 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9**age)) / (np.sqrt(second / (1 - 0.999**age)) + 1e-8)
        point = np.clip(point - rate * step, lower, upper)
