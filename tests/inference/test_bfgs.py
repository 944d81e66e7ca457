"""Minimisers of objectives that break down: they find optima, step back from failures, keep the best, and obey their budgets."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.inference.bfgs import BFGS, _between, _beyond, _Trial
from bayesdyn.inference.curvature import DenseCurvature, LimitedCurvature
from bayesdyn.inference.scipy_lbfgs import ScipyLBFGS

BOTH = pytest.mark.parametrize("minimiser", [BFGS, ScipyLBFGS])


def rosenbrock(p: np.ndarray) -> tuple[float, np.ndarray]:
    return float(rosen(p)), rosen_der(p)


def quadratic(size: int, condition: float, seed: int = 0):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    hessian = (turn * np.geomspace(1, 1 / condition, size)) @ turn.T
    return lambda p: (0.5 * float(p @ hessian @ p), hessian @ p)


def fail_with_nan(p):
    return float("nan"), p


def fail_with_inf(p):
    return float("inf"), p


def fail_in_the_gradient(p):
    return -1e9, np.full_like(p, np.nan)


def fail_by_raising(p):
    raise NumericalError("a covariance is not positive definite")


FAILURES = [fail_with_nan, fail_with_inf, fail_in_the_gradient, fail_by_raising]


class Recorded:
    """An objective that keeps every point it was asked for and every value it gave."""

    def __init__(self, objective):
        self.objective, self.points, self.values, self.gradients = objective, [], [], []

    def __call__(self, p):
        self.points.append(p.copy())
        self.values.append(np.inf)
        self.gradients.append(None)
        value, gradient = self.objective(p)
        if np.isfinite(value) and np.isfinite(gradient).all():
            self.values[-1], self.gradients[-1] = value, gradient
        return value, gradient


def jagged(p: np.ndarray) -> tuple[float, np.ndarray]:
    """Neither smooth nor consistent with its gradient, and broken here and there: what no line search expects."""
    value = float(np.sin(50 * p).sum() + 0.1 * p @ p)
    return (np.nan if np.cos(31 * p[0]) > 0.8 else value), 0.2 * p + np.cos(7 * p)


# --- optima


@BOTH
@pytest.mark.parametrize("size", [2, 8])
def test_the_valley_of_rosenbrock_is_followed_to_its_end(minimiser, size):
    best = minimiser(searches=200).minimise(rosenbrock, np.tile([-1.2, 1.0], size // 2))
    # Where the last searches gain less than 1e-12, the error is at most √(1e-12 / smallest curvature 0.4).
    assert best.value < 1e-9
    np.testing.assert_allclose(best.point, 1.0, atol=1e-4)


@BOTH
def test_an_ill_conditioned_quadratic_is_solved(minimiser):
    best = minimiser(searches=1000, tolerance=0.0).minimise(quadratic(30, 1e6), np.full(30, 2.0))
    assert best.value < 1e-10


def test_thousands_of_parameters_take_the_limited_memory():
    scale = np.geomspace(1, 100, 1500)
    best = BFGS(searches=300).minimise(lambda p: (0.5 * float(scale @ (p - 1) ** 2), scale * (p - 1)), np.zeros(1500))
    np.testing.assert_allclose(best.point, 1.0, atol=1e-4)


@pytest.mark.parametrize("curvature", [DenseCurvature, LimitedCurvature])
def test_what_is_learnt_of_the_curvature_is_the_secant_equation_and_positive(curvature):
    random, learnt = np.random.default_rng(1), curvature()
    hessian = np.diag(np.geomspace(0.1, 10, 6))
    np.testing.assert_array_equal(learnt.direction(np.ones(6)), -np.ones(6))
    for _ in range(10):
        step = random.normal(size=6)
        learnt.learn(step, hessian @ step)
        np.testing.assert_allclose(learnt.direction(hessian @ step), -step, rtol=1e-9, atol=1e-9)
        inverse = -np.stack([learnt.direction(row) for row in np.eye(6)])
        np.testing.assert_allclose(inverse, inverse.T, atol=1e-9)
        assert np.linalg.eigvalsh(inverse).min() > 0
    learnt.learn(np.ones(6), -np.ones(6))
    np.testing.assert_allclose(-np.stack([learnt.direction(row) for row in np.eye(6)]), inverse, atol=1e-12)
    learnt.forget()
    np.testing.assert_array_equal(learnt.direction(np.ones(6)), -np.ones(6))


# --- where the objective fails


@BOTH
@pytest.mark.parametrize("fail", FAILURES)
def test_an_optimum_beside_a_region_of_failure_is_found(minimiser, fail):
    slopes = np.array([1e3, 30.0, 1.0, 0.02])  # minima at 1/slope: the first lies 1e-3 from where log ends

    def barrier(p):
        return fail(p) if (p <= 0).any() else (float(slopes @ p - np.log(p).sum()), slopes - 1 / p)

    asked = Recorded(barrier)
    best = minimiser(searches=300).minimise(asked, np.full(4, 3.0))
    assert np.isinf(asked.values).any()
    np.testing.assert_allclose(best.point, 1 / slopes, rtol=1e-4)


@pytest.mark.parametrize("fail", FAILURES)
def test_a_cliff_much_closer_than_the_first_step_is_approached_over_several_searches(fail):
    def cliff(p):
        return fail(p) if p[0] > 1e-5 else (float(-p[0] + 1e5 * p[0] ** 2), np.array([-1 + 2e5 * p[0]]))

    best = BFGS(evaluations=5).minimise(cliff, np.array([-0.1]))
    assert best.point[0] == pytest.approx(5e-6, rel=1e-3)


@BOTH
def test_a_failure_at_the_start_is_an_error(minimiser):
    with pytest.raises(NumericalError, match="at the start"):
        minimiser().minimise(fail_with_nan, np.ones(2))


@BOTH
def test_other_errors_and_interrupts_pass_through_and_the_best_has_been_handed_over(minimiser):
    kept: list[tuple[np.ndarray, float]] = []

    class Interrupted:
        calls = 0

        def __call__(self, p):
            self.calls += 1
            if self.calls == 30:
                raise KeyboardInterrupt
            return rosenbrock(p)

    with pytest.raises(KeyboardInterrupt):
        minimiser().minimise(Interrupted(), np.array([-1.2, 1.0]), keep=lambda point, value: kept.append((point, value)))
    values = [value for _, value in kept]
    assert len(kept) > 3
    assert values == sorted(values, reverse=True)
    assert rosenbrock(kept[-1][0])[0] == values[-1]


# --- the best, the budget, the line search


@BOTH
@pytest.mark.parametrize("seed", range(5))
def test_the_best_point_met_is_returned_with_the_history(minimiser, seed):
    asked = Recorded(jagged)
    best = minimiser(searches=20).minimise(asked, np.array([0.1, *np.random.default_rng(seed).normal(size=2)]))
    assert best.value == min(asked.values) <= asked.values[0]
    assert jagged(best.point)[0] == best.value
    assert best.steps == len(asked.values)
    assert list(best.curve) == sorted(best.curve, reverse=True)
    assert (best.curve[0], best.curve[-1]) == (asked.values[0], best.value)
    assert best.reason


@pytest.mark.parametrize("objective", [rosenbrock, jagged, quadratic(3, 1e4)])
@pytest.mark.parametrize("seed", range(3))
def test_line_searches_start_with_a_step_of_at_most_one_and_keep_to_their_budget(objective, seed):
    asked, ends = Recorded(objective), [1]

    def progress(done: int, total: int, figures: dict[str, float]) -> None:
        ends.append(len(asked.points))
        assert done <= total == 25
        assert figures["value"] == min(asked.values)

    start = 10 * np.random.default_rng(seed).normal(size=3)
    start[0] = 0.1  # where the jagged one is finite
    best = BFGS(searches=25, evaluations=6, tolerance=0.0).minimise(asked, start, progress)
    assert len(ends) - 1 == len(best.curve) - 1 <= 25
    for first, last in pairwise(ends):
        origin = asked.points[int(np.argmin(asked.values[:first]))]
        along = np.array([np.linalg.norm(p - origin) for p in asked.points[first:last]])
        assert len(along) <= 6
        assert along[0] <= 1 + 1e-9
        assert (along[1:] <= 5 * along[:-1] * (1 + 1e-9)).all()


def test_steps_that_end_a_line_search_early_fulfil_the_wolfe_conditions():
    asked, ends = Recorded(rosenbrock), [1]
    BFGS(searches=30, evaluations=20).minimise(asked, np.array([-1.2, 1.0, 0.3]), lambda *_: ends.append(len(asked.points)))
    checked = 0
    for first, last in pairwise(ends):
        if last - first == 20:
            continue
        origin = int(np.argmin(asked.values[:first]))
        step = asked.points[last - 1] - asked.points[origin]
        assert asked.values[last - 1] < asked.values[origin]
        # The quotient of slopes does not depend on the length of the step; differences of points carry rounding.
        assert abs(asked.gradients[last - 1] @ step) <= 0.5 * abs(asked.gradients[origin] @ step) * (1 + 1e-6)
        checked += 1
    assert checked > 15


def trial(length: float, value: float, slope: float) -> _Trial:
    return _Trial(length, value, slope, np.zeros(1), np.zeros(1))


def test_interpolation_is_exact_for_parabolas_and_cubics_and_stays_inside():
    # (t - 0.4)² and t³ - t, which is least at 1/√3.
    assert _between(trial(0, 0.16, -0.8), trial(1, 0.36, 1.2), 0.16) == pytest.approx(0.4)
    assert _between(trial(0, 0.16, -0.8), trial(1, 0.36, 1.2), 1.0) == pytest.approx(0.4)
    assert _between(trial(0, 0.0, -1.0), trial(2, 6.0, 11.0), 10.0) == pytest.approx(1 / np.sqrt(3))
    assert _beyond(trial(0, 0.0, -1.0), trial(0.25, 0.25**3 - 0.25, 3 * 0.25**2 - 1)) == pytest.approx(1 / np.sqrt(3))
    assert _between(trial(1, 0.0, -1.0), trial(3, np.inf, np.nan), 0.0) == 2.0
    assert _between(trial(1, 0.0, -1.0), trial(3, 1e9, 1.0), 0.0) == pytest.approx(1.2)
    assert _between(trial(1, 0.0, -1e9), trial(3, 1.0, 1.0), 0.0) == pytest.approx(2.0)
    assert _beyond(trial(0, 0.0, -1.0), trial(0.5, -0.5, -1.0)) == 2.5
    assert _beyond(trial(0, 0.0, -1.0), trial(0.5, -0.6, -1.5)) == 2.5


def test_it_says_why_it_ended():
    bowl = quadratic(2, 1.0)
    assert "all 1 line" in BFGS(searches=1).minimise(rosenbrock, np.array([-1.2, 1.0])).reason
    assert "vanished" in BFGS().minimise(bowl, np.zeros(2)).reason
    assert "gained less" in BFGS(tolerance=0.5).minimise(quadratic(9, 1e6), np.ones(9)).reason

    def uphill(p):
        return float(-p[0]), np.ones(1)

    assert "no step" in BFGS().minimise(uphill, np.ones(1)).reason


@BOTH
def test_impossible_counts_are_refused(minimiser):
    for wrong in ({"searches": 0}, {"evaluations": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}):
        with pytest.raises(ConfigurationError, match="wants"):
            minimiser(**wrong)


@BOTH
def test_the_start_is_left_alone(minimiser):
    start = np.array([-1.2, 1.0])

    def greedy(p):
        value, gradient = rosenbrock(p)
        p += 1e3  # an objective may do as it likes with what it was given
        return value, gradient

    assert minimiser(searches=200).minimise(greedy, start).value < 1e-9
    np.testing.assert_array_equal(start, [-1.2, 1.0])
