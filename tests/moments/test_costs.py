"""Costs of beliefs: Monte Carlo, finite differences, quadrature, the six scenarios and the limits of small and large spread."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled import check_by_sampling

from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.moments import (
    Average,
    CostOf,
    HingeCost,
    Lift,
    LinearCost,
    QuadraticCost,
    SaturatingCost,
    Sum,
    cart_double_pendulum_cost,
    cart_double_pendulum_cost_true_lengths,
    cart_pole_cost,
    double_pendulum_cost,
    pendubot_cost,
    pendulum_cost,
    unicycle_cost,
    unicycle_cost_true_lengths,
)

F64 = torch.float64
ROWS = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=F64)
COSTS = {
    "saturating": SaturatingCost([0.1, 0.2, 0.3], ROWS),
    "quadratic": QuadraticCost([0.1, 0.2, 0.3], [[1.0, 0.3, 0.0], [-0.4, 2.0, 0.1], [0.0, 0.5, 0.7]]),
    "linear": LinearCost([1.0, -2.0, 0.5], [0.0, 1.0, 0.0]),
}


def random_belief(size, scale=1.0, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(*batch, size, size, generator=generator, dtype=F64)
    return torch.randn(*batch, size, generator=generator, dtype=F64), scale * root @ root.mT / size


@pytest.mark.parametrize("scale", [0.05, 2.0])
@pytest.mark.parametrize("name", COSTS)
def test_moments_are_those_of_samples(name, scale):
    mean, cov = random_belief(3, scale)
    check_by_sampling(COSTS[name], COSTS[name].moments(mean, cov), mean, cov)


@pytest.mark.parametrize("middle", [-1.5, 0.1, 2.0])
def test_hinge_is_that_of_samples(middle):
    cost, mean, cov = HingeCost(1.5, -1.0, 0.5), torch.tensor([middle], dtype=F64), torch.tensor([[0.8]], dtype=F64)
    check_by_sampling(cost, cost.moments(mean, cov), mean, cov)


@given(st.floats(-12, 12), st.floats(-3, 1))
def test_hinge_keeps_its_digits(middle, power):
    """Against E c² - (E c)² with 60 digits, on both sides of the corners and far from them, where that subtraction cancels."""
    std = 10.0**power
    found = HingeCost(2.0, -1.0, 1.0).moments(torch.tensor([middle], dtype=F64), torch.tensor([[std**2]], dtype=F64))
    mean, var = _hinge(2.0, -1.0, 1.0, middle, std)
    assert abs(found.mean.item() - mean) <= 1e-13 * abs(mean) + 1e-14 * std
    assert abs(found.cov.item() - var) <= 1e-11 * var + 1e-14 * std**2


def _hinge(slope, lower, upper, middle, std):
    """Return mean and variance of the hinge by first and second moments of rectified normals."""
    with mpmath.workdps(60):
        first = second = mpmath.mpf(0)
        for y in (mpmath.mpf(lower) - mpmath.mpf(middle), mpmath.mpf(middle) - mpmath.mpf(upper)):
            s = mpmath.sqrt(mpmath.mpf(std**2))
            share, density = mpmath.ncdf(y / s), mpmath.npdf(y / s)
            first += y * share + s * density
            second += (y**2 + s**2) * share + y * s * density
        return float(slope * first), float(slope**2 * (second - first**2))


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("name", COSTS)
def test_gradients_are_finite_differences(name, scale):
    mean, cov = random_belief(3, scale, batch=(2,))

    def moments(mean, cov):
        return tuple(COSTS[name].moments(mean, 0.5 * (cov + cov.mT)))

    assert torch.autograd.gradcheck(moments, (mean.requires_grad_(), cov.requires_grad_()))


def test_hinge_gradients_are_finite_differences():
    cost = HingeCost(2.0, -0.5, 0.5)
    mean, cov = torch.tensor([[-0.7], [0.1]], dtype=F64), torch.tensor([[[0.3]], [[2.0]]], dtype=F64)
    assert torch.autograd.gradcheck(lambda m, v: tuple(cost.moments(m, v)), (mean.requires_grad_(), cov.requires_grad_()))


@pytest.mark.parametrize(
    ("cost", "size"), [*((cost, 3) for cost in COSTS.values()), (HingeCost(1.0, -0.5, 0.5), 1)], ids=[*COSTS, "hinge"]
)
def test_a_known_state_costs_what_the_point_costs(cost, size):
    mean = torch.tensor([0.9, -0.3, 0.4], dtype=F64)[:size].requires_grad_()
    cov = torch.zeros(size, size, dtype=F64, requires_grad=True)
    found = cost.moments(mean, cov)
    torch.testing.assert_close(found.mean[0], cost(mean), rtol=1e-14, atol=1e-15)
    assert found.cov.abs().max() <= 1e-24
    (slope,) = torch.autograd.grad(cost(mean), mean)
    torch.testing.assert_close(found.gain[:, 0], slope, rtol=1e-14, atol=1e-15)
    slopes = torch.autograd.grad(sum(values.sum() for values in cost.moments(mean, cov)), (mean, cov))
    assert all(bool(values.isfinite().all()) for values in slopes)


@pytest.mark.parametrize("power", [-24, -12, -6, 0])
@pytest.mark.parametrize("away", [0.0, 0.5])
def test_saturating_variance_keeps_its_digits(power, away):
    """Against E e^{-q} - (E e^{-q/2})² with 80 digits; at the target the variance is of second order in Σ."""
    cost = SaturatingCost([0.0, 0.0], [[1.0, 0.0], [0.0, 2.0]])
    spread = [10.0**power, 3 * 10.0**power]
    found = cost.moments(torch.tensor([away, away], dtype=F64), torch.diag(torch.tensor(spread, dtype=F64)))
    with mpmath.workdps(80):
        one = [_exponential(away, w, s, 1) for w, s in zip((1, 2), spread, strict=True)]
        two = [_exponential(away, w, s, 2) for w, s in zip((1, 2), spread, strict=True)]
        mean, var = 1 - one[0] * one[1], two[0] * two[1] - (one[0] * one[1]) ** 2
        assert abs(found.mean.item() - float(mean)) <= 1e-14 * float(mean)
        assert abs(found.cov.item() - float(var)) <= 1e-13 * float(var)


def _exponential(mean, weight, var, times):
    """Return E exp(-½ times (weight x)²) for x ~ N(mean, var)."""
    inflated = 1 + times * mpmath.mpf(weight) ** 2 * mpmath.mpf(var)
    return mpmath.exp(-times * (mpmath.mpf(weight) * mean) ** 2 / (2 * inflated)) / mpmath.sqrt(inflated)


@pytest.mark.parametrize("spread", [0.0, 1.0, 1e6, 1e100])
@pytest.mark.parametrize("away", [0.0, 1e3, 1e8])
def test_far_beliefs_have_a_finite_cost_and_gradient(spread, away):
    mean = torch.full((3,), away, dtype=F64, requires_grad=True)
    cov = (spread * torch.eye(3, dtype=F64)).requires_grad_()
    found = COSTS["saturating"].moments(mean, cov)
    assert 0 <= found.mean.item() <= 1
    assert 0 <= found.cov.item() <= 0.25
    slopes = torch.autograd.grad(sum(values.sum() for values in found), (mean, cov))
    assert all(bool(values.isfinite().all()) for values in slopes)


def test_batches_are_singles():
    """T beliefs in one call, as an objective asks for them."""
    mean, cov = random_belief(3, batch=(5, 2))
    for cost in [*COSTS.values(), Sum(list(COSTS.values())), Average(list(COSTS.values()), 0.3)]:
        together = cost.moments(mean, cov)
        assert [tuple(values.shape) for values in together] == [(5, 2, 1), (5, 2, 1, 1), (5, 2, 3, 1)]
        for batched, single in zip(together, cost.moments(mean[3, 1], cov[3, 1]), strict=True):
            torch.testing.assert_close(batched[3, 1], single, rtol=1e-13, atol=1e-15)


def test_a_sum_of_linear_costs_is_the_linear_cost_of_the_sum():
    first, second = LinearCost([1.0, -2.0, 0.5], [0.0, 1.0, 0.0]), LinearCost([0.3, 2.0, 1.0], [0.0, 1.0, 0.0])
    mean, cov = random_belief(3)
    both = LinearCost([1.3, 0.0, 1.5], [0.0, 1.0, 0.0])
    for ours, expected in zip(Sum([first, second]).moments(mean, cov), both.moments(mean, cov), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(Sum([first, second])(mean), both(mean))


def test_exploration_is_the_std_of_each_width():
    mean, cov = random_belief(6, 0.1)
    plain = [cart_pole_cost(width).moments(mean, cov) for width in (0.25, 1.0)]
    mixed = cart_pole_cost([0.25, 1.0], exploration=-0.5).moments(mean, cov)
    expected = sum(part.mean - 0.5 * part.cov[..., 0].sqrt() for part in plain) / 2
    torch.testing.assert_close(mixed.mean, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(mixed.cov, sum(part.cov for part in plain) / 2, rtol=1e-14, atol=0)


def test_exploration_has_a_finite_gradient_where_nothing_is_uncertain():
    mean = torch.tensor([0.1, 0.2], dtype=F64, requires_grad=True)
    cov = torch.zeros(2, 2, dtype=F64, requires_grad=True)
    cost = CostOf(Lift(2, [1]), pendulum_cost(exploration=-0.5)).moments(mean, cov).mean.sum()
    assert all(bool(values.isfinite().all()) for values in torch.autograd.grad(cost, (mean, cov)))
    assert cost.item() == CostOf(Lift(2, [1]), pendulum_cost())(mean).item()


@pytest.mark.parametrize(
    ("cost", "lift", "mean", "var"),
    [
        (double_pendulum_cost(), Lift(4, [2, 3]), 0.228445867744, 0.019112917237),
        (pendubot_cost(), Lift(4, [2, 3]), 0.580834962937, 0.062003602085),
        (cart_double_pendulum_cost(), Lift(6, [4, 5]), 0.785487901179, 0.044182798808),
        (unicycle_cost(), Lift(10, []), 0.728671733849, 0.022741376892),
    ],
    ids=["double pendulum", "pendubot", "cart double pendulum", "unicycle"],
)
def test_scenario_costs_of_a_belief(cost, lift, mean, var):
    """At m = 0.1, 0.2, ..., Σ = 0.04 I; 12 decimals of an independent float64 implementation of UCL-SML/pilco-matlab's costs."""
    size = lift.state_size
    found = CostOf(lift, cost).moments(0.1 * torch.arange(1, size + 1, dtype=F64), 0.04 * torch.eye(size, dtype=F64))
    assert abs(found.mean.item() - mean) <= 1e-12
    assert abs(found.cov.item() - var) <= 1e-12


@pytest.mark.parametrize(
    ("cost", "lift", "goal", "start"),
    [
        (pendulum_cost(), Lift(2, [1]), [0.0, math.pi], [0.0, 0.0]),
        (cart_pole_cost(), Lift(4, [3]), [0.0, 0.0, 0.0, math.pi], [0.0] * 4),
        (double_pendulum_cost(), Lift(4, [2, 3]), [0.0] * 4, [0.0, 0.0, math.pi, math.pi]),
        (pendubot_cost(), Lift(4, [2, 3]), [0.0] * 4, [0.0, 0.0, math.pi, math.pi]),
        (cart_double_pendulum_cost(), Lift(6, [4, 5]), [0.0] * 6, [0.0] * 4 + [math.pi] * 2),
        (cart_double_pendulum_cost_true_lengths(), Lift(6, [4, 5]), [0.0] * 6, [0.0] * 4 + [math.pi] * 2),
        (unicycle_cost(), Lift(10, []), [0.0] * 10, [0.0] * 5 + [3.0, 3.0, 1.5, 0.0, 1.5]),
        (unicycle_cost_true_lengths(), Lift(10, []), [0.0] * 10, [0.0] * 5 + [3.0, 3.0, 1.5, 0.0, 1.5]),
    ],
)
def test_the_goal_is_free_and_the_start_is_dear(cost, lift, goal, start):
    cost = CostOf(lift, cost)
    assert cost(torch.tensor(goal, dtype=F64)).item() <= 1e-15
    assert cost(torch.tensor(start, dtype=F64)).item() > 0.9


def test_cart_pole_cost_is_that_of_the_tip():
    """1 - exp(-½ d²/w²) with d the distance, in metres, of the tip from (0, 0.5)."""
    state = torch.tensor([0.3, 0.0, 0.0, 2.5], dtype=F64)
    tip = 0.3 + 0.5 * math.sin(2.5), -0.5 * math.cos(2.5)
    expected = 1 - math.exp(-0.5 * (tip[0] ** 2 + (tip[1] - 0.5) ** 2) / 0.25**2)
    assert CostOf(Lift(4, [3]), cart_pole_cost())(state).item() == pytest.approx(expected, rel=1e-14)


def test_a_covariance_that_is_none_is_a_breakdown_that_searches_know():
    """I + H is singular for H = -I: an optimiser steps back from our error, and would not from the linear algebra's own."""
    with pytest.raises(NumericalError, match="negative eigenvalues"):
        SaturatingCost([0.0], [[1.0]]).moments(torch.zeros(1), -torch.eye(1))


def test_errors_name_what_came():
    with pytest.raises(ConfigurationError, match="widths are positive"):
        cart_pole_cost(widths=(0.25, 0.0))
    with pytest.raises(ShapeError, match=r"target \[D\] and rows"):
        SaturatingCost([0.0], [[1.0, 2.0]])
    with pytest.raises(ShapeError, match=r"weight \[D, D\]"):
        QuadraticCost([0.0], [[1.0, 2.0]])
    with pytest.raises(ShapeError, match="offset"):
        LinearCost([1.0], [1.0, 2.0])
    with pytest.raises(ConfigurationError, match="lower < upper"):
        HingeCost(1.0, 1.0, 1.0)
    with pytest.raises(ConfigurationError, match="at least one"):
        Sum([])
    with pytest.raises(ShapeError, match=r"mean \[..., 3\]"):
        COSTS["saturating"].moments(torch.zeros(2), torch.zeros(2, 2))
