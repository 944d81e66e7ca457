"""Extrapolated midpoint rule: closed forms, SciPy, its order, and the independence of rows."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from bayesdyn.envs import integrate
from bayesdyn.errors import ConfigurationError


def pendulum(y):
    return torch.stack((-15 * torch.sin(y[..., 1]), y[..., 0]), -1)


def starts(rows, speed=20.0):
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.rand(rows, 2, generator=generator, dtype=torch.float64) - 1) * torch.tensor([speed, math.pi])


def test_linear_system_matches_the_matrix_exponential():
    matrix = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = start @ torch.linalg.matrix_exp(0.7 * matrix).mT
    torch.testing.assert_close(integrate(lambda y: y @ matrix.mT, start, 0.7), expected, rtol=0, atol=1e-12)


def test_pendulum_matches_scipy():
    start = starts(20)
    ours = integrate(pendulum, start, 0.1)
    for row, mine in zip(start.numpy(), ours.numpy(), strict=True):
        peer = solve_ivp(lambda _, y: [-15 * np.sin(y[1]), y[0]], (0, 0.1), row, method="DOP853", rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(mine, peer.y[:, -1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_halving_the_step_divides_the_error_by_two_to_the_order(columns):
    start = starts(4, speed=3.0)
    exact = integrate(pendulum, start, 0.5, substeps=20)
    coarse, fine = ((integrate(pendulum, start, 0.5, substeps=steps, columns=columns) - exact).abs().amax(-1) for steps in (10, 20))
    # The next term of the error is of relative size h² << 1/4, so the observed order is within a quarter of 2k.
    assert (torch.log2(coarse / fine) - 2 * columns).abs().max() < 0.25


def test_running_back_returns_to_the_start():
    start = starts(10)
    torch.testing.assert_close(integrate(pendulum, integrate(pendulum, start, 0.1), -0.1), start, rtol=0, atol=1e-11)


def test_a_row_does_not_depend_on_its_neighbours():
    start = starts(12).reshape(3, 4, 2)
    together = integrate(pendulum, start, 0.1)
    alone = torch.stack([integrate(pendulum, row, 0.1) for row in start.reshape(-1, 2)]).reshape(3, 4, 2)
    # Vector and scalar sines differ in the last bit, nothing else may.
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_gradient_matches_finite_differences():
    start = starts(2, speed=4.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: integrate(pendulum, y, 0.1, substeps=2, columns=4), start)


@pytest.mark.parametrize(("duration", "options"), [(0.1, {"substeps": 0}), (0.1, {"columns": 0}), (math.inf, {}), (math.nan, {})])
def test_meaningless_options_are_refused(duration, options):
    with pytest.raises(ConfigurationError, match="substeps >= 1"):
        integrate(pendulum, starts(1), duration, **options)
