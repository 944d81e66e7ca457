"""Lift, Trig, squashes, affine maps: Monte Carlo, finite differences, limits, and what has gone wrong elsewhere."""

import copy
import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled import check_by_sampling

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.moments import Columns, Lift, Linear, Sine, SquashSat, SquashSin, Trig, lift
from bayesdyn.moments import waves as waves_module

F64 = torch.float64


def random_belief(size, scale=1.0, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(*batch, size, size, generator=generator, dtype=F64)
    return torch.randn(*batch, size, generator=generator, dtype=F64), scale * root @ root.mT / size


def symmetrised(moment_map):
    return lambda mean, cov: tuple(moment_map.moments(mean, 0.5 * (cov + cov.mT)))


MAPS = {
    "lift": Lift(3, [2, 0]),
    "trig": Trig([1, 2], amplitude=0.7),
    "sin": SquashSin([1.0, 2.0, 3.0]),
    "sat": SquashSat(2.5),
    "sine": Sine(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.rand(2, 4)),
    "linear": Linear([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]], [1.0, 2.0]),
    "columns": Columns([2, 0], 3),
}


@pytest.mark.parametrize("scale", [0.05, 3.0])
@pytest.mark.parametrize("name", MAPS)
def test_moments_are_those_of_samples(name, scale):
    mean, cov = random_belief(3, scale)
    check_by_sampling(MAPS[name], MAPS[name].moments(mean, cov), mean, cov)


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("name", MAPS)
def test_gradients_are_finite_differences(name, scale):
    """Batched, and at Σ = 0 too, where the derivatives are those from the side of positive variances (they are analytic)."""
    mean, cov = random_belief(3, scale, batch=(2,))
    assert torch.autograd.gradcheck(symmetrised(MAPS[name]), (mean.requires_grad_(), cov.requires_grad_()))


@pytest.mark.parametrize("name", MAPS)
def test_batches_are_singles(name):
    mean, cov = random_belief(3, batch=(2, 4))
    together = MAPS[name].moments(mean, cov)
    for index in [(0, 0), (1, 3)]:
        for batched, single in zip(together, MAPS[name].moments(mean[index], cov[index]), strict=True):
            torch.testing.assert_close(batched[index], single, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", MAPS)
def test_a_known_input_gives_the_point_and_its_slope(name):
    mean, _ = random_belief(3)
    found = MAPS[name].moments(mean, torch.zeros(3, 3, dtype=F64))
    torch.testing.assert_close(found.mean, MAPS[name](mean), rtol=1e-14, atol=1e-15)
    slope = torch.autograd.functional.jacobian(MAPS[name], mean).mT
    torch.testing.assert_close(found.gain, slope, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(found.cov, torch.zeros_like(found.cov))


@given(st.integers(0, 10**6), st.floats(-6, 8))
def test_joint_covariance_is_positive_semi_definite(seed, power):
    """For any belief, narrow or wide: the eigenvalues of cov(input, output) are at least -1e-12 of the largest."""
    mean, cov = random_belief(3, 10.0**power, seed)
    for name in ("lift", "sat"):
        found = MAPS[name].moments(mean, cov)
        cross = cov @ found.gain
        joint = torch.cat((torch.cat((cov, cross), 1), torch.cat((cross.mT, found.cov), 1)))
        least, most = torch.linalg.eigvalsh(joint)[[0, -1]]
        assert least >= -1e-12 * most


@given(st.floats(-8, 8), st.floats(-9, 9), st.floats(-1, 1))
def test_covariance_is_accurate_however_small(angle, power, share):
    """Against 150 digits, at the quarter turns too, where the textbook form subtracts nearly equal numbers.

    The error is at most 1e-12 of the two standard deviations: exponents up to 700, rounded to 2e-16, are known to 2e-13.
    """
    for theta in (angle, math.pi / 2, math.pi):
        v, w = 10.0**power, 4 * 10.0**power
        c = share * 2 * 10.0**power
        found = SquashSin(1.0).moments(torch.tensor([theta, 1.0], dtype=F64), torch.tensor([[v, c], [c, w]], dtype=F64)).cov
        with mpmath.workdps(150):
            exact = [[_sine_covariance(*pair) for pair in row] for row in _pairs(theta, v, w, c)]
        for i in range(2):
            for j in range(2):
                scale = float(mpmath.sqrt(exact[i][i] * exact[j][j]))
                assert abs(found[i, j].item() - float(exact[i][j])) <= 1e-12 * scale + 1e-100


def _pairs(theta, v, w, c):
    return [[(theta, theta, v, v, v), (theta, 1.0, v, w, c)], [(1.0, theta, w, v, c), (1.0, 1.0, w, w, w)]]


def _sine_covariance(a, b, v, w, c):
    """Return ½E[cos(p - q) - cos(p + q)] - E sin p E sin q."""
    a, b, v, w, c = (mpmath.mpf(x) for x in (a, b, v, w, c))
    minus = mpmath.exp(-(v + w - 2 * c) / 2) * mpmath.cos(a - b)
    plus = mpmath.exp(-(v + w + 2 * c) / 2) * mpmath.cos(a + b)
    return (minus - plus) / 2 - mpmath.exp(-(v + w) / 2) * mpmath.sin(a) * mpmath.sin(b)


def test_an_unknown_angle_is_anywhere_on_the_circle():
    """Variance 1e8: cov(sin, cos) = ½ I and gain 0, with gradients that are finite."""
    mean = torch.tensor([0.3, 2.0], dtype=F64, requires_grad=True)
    cov = torch.diag(torch.tensor([1.0, 1e8], dtype=F64)).requires_grad_()
    found = Trig([1]).moments(mean, cov)
    torch.testing.assert_close(found.cov, 0.5 * torch.eye(2, dtype=F64), rtol=1e-15, atol=1e-15)
    assert found.gain.abs().max() == 0.0
    slopes = torch.autograd.grad(sum(values.sum() for values in found), (mean, cov))
    assert all(bool(slope.isfinite().all()) for slope in slopes)


@pytest.mark.parametrize("moment_map", [Lift(2, [1]), SquashSat(3.0)], ids=["lift", "sat"])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e6, 1e300])
def test_far_beliefs_stay_finite(moment_map, spread):
    mean = torch.tensor([1e3, -1e6], dtype=F64, requires_grad=True)
    cov = (spread * torch.eye(2, dtype=F64)).requires_grad_()
    found = moment_map.moments(mean, cov)
    slopes = torch.autograd.grad(sum(values.sum() for values in found), (mean, cov))
    assert all(bool(values.isfinite().all()) for values in (*found, *slopes))


def test_a_full_turn_changes_nothing():
    mean, cov = random_belief(3)
    turned = mean + torch.tensor([0.0, 2 * math.pi, -4 * math.pi], dtype=F64)
    for before, after in zip(Trig([1, 2]).moments(mean, cov), Trig([1, 2]).moments(turned, cov), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("squash", "slope"), [(SquashSin, 1.0), (SquashSat, 1.5)])
def test_squashes_stay_within_their_amplitude(squash, slope):
    """Slope at 0, extremes at quarter turns, and amplitudes that are one for each coordinate."""
    amplitude = torch.tensor([2.0, 10.0], dtype=F64)
    x = torch.linspace(-50, 50, 20_001, dtype=F64).unsqueeze(-1).expand(-1, 2)
    assert bool((squash(amplitude)(x).abs() <= amplitude * (1 + 1e-15)).all())
    torch.testing.assert_close(squash(amplitude)(torch.full((2,), math.pi / 2, dtype=F64)), amplitude)
    at_zero = squash(amplitude).moments(torch.zeros(2, dtype=F64), torch.zeros(2, 2, dtype=F64))
    torch.testing.assert_close(at_zero.gain, slope * torch.diag(amplitude), rtol=1e-15, atol=0)


def test_covariance_is_continuous_at_zero():
    mean, cov = random_belief(3)
    at_zero = [torch.autograd.functional.jacobian(lambda x: MAPS["lift"].moments(mean, x).cov, 0 * cov)]
    for scale in (1e-6, 1e-9, 1e-12):
        near = torch.autograd.functional.jacobian(lambda x: MAPS["lift"].moments(mean, x).cov, scale * cov)
        torch.testing.assert_close(near, at_zero[0], rtol=0, atol=100 * scale)


def test_torch_and_numpy_agree(monkeypatch):
    """Tensors that are not on the CPU take torch's operations; the same numbers and gradients come out."""
    mean, cov = random_belief(3, batch=(2,))

    def answers():
        m, s = mean.clone().requires_grad_(), cov.clone().requires_grad_()
        maps = Lift(3, [2, 0]), Sine(torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]), torch.eye(2))
        found = [values for moment_map in maps for values in moment_map.moments(m, s)]
        return [*found, *torch.autograd.grad(sum((values**2).sum() for values in found), (m, s))]

    by_numpy = answers()
    monkeypatch.setattr(waves_module, "_NUMPY_TYPES", ())
    for ours, theirs in zip(answers(), by_numpy, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", MAPS)
def test_a_used_map_can_be_copied(name):
    mean, cov = random_belief(3)
    before = MAPS[name].moments(mean, cov)
    for ours, theirs in zip(copy.deepcopy(MAPS[name]).moments(mean, cov), before, strict=True):
        assert torch.equal(ours, theirs)


def test_single_precision_stays_single():
    mean, cov = random_belief(3)
    single = MAPS["lift"].moments(mean.float(), cov.float())
    for small, exact in zip(single, MAPS["lift"].moments(mean, cov), strict=True):
        assert small.dtype == torch.float32
        torch.testing.assert_close(small.double(), exact, rtol=1e-5, atol=1e-6)


def test_lift_as_a_function_is_the_map():
    mean, cov = random_belief(3)
    for ours, theirs in zip(lift(mean, cov, [1]), Lift(3, [1]).moments(mean, cov), strict=True):
        assert torch.equal(ours, theirs)


def test_a_state_without_angles_is_not_changed():
    mean, cov = random_belief(3)
    found = Lift(3, []).moments(mean, cov)
    assert torch.equal(found.mean, mean)
    assert torch.equal(found.cov, cov)
    assert torch.equal(found.gain, torch.eye(3, dtype=F64))


def test_errors_name_what_came():
    with pytest.raises(ConfigurationError, match="different coordinates"):
        Lift(3, [1, 1])
    with pytest.raises(ConfigurationError, match="different coordinates"):
        Lift(3, [3])
    with pytest.raises(ShapeError, match=r"mean \[..., 3\]"):
        Lift(3, [1]).moments(torch.zeros(2), torch.zeros(2, 2))
    with pytest.raises(ShapeError, match="inputs of 3 numbers"):
        Trig([2]).moments(torch.zeros(2), torch.zeros(2, 2))
    with pytest.raises(ConfigurationError, match="one or more"):
        Trig([])
    with pytest.raises(ConfigurationError, match="positive"):
        SquashSat(-1.0)
    with pytest.raises(ShapeError, match="2 amplitudes"):
        SquashSat([1.0, 2.0])(torch.zeros(3))
    with pytest.raises(ShapeError, match="offset"):
        Linear([[1.0]], [1.0, 2.0])
    with pytest.raises(ConfigurationError, match=r"0\.\.2"):
        Columns([3], 3)
