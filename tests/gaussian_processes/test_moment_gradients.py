"""Both forms of moment matching, closed and taped, against each other and against finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moment_cases import F64, assert_same, belief, generator, gradients, posterior, symmetric_in

from bayesdyn.errors import ConfigurationError
from bayesdyn.gaussian_processes.moment_map import GPMoments, rbf_moments, rbf_weights
from bayesdyn.gaussian_processes.moment_rbf import taped_rbf_moments

TWENTY = settings(max_examples=20, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("certain", [False, True])
@TWENTY
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 30),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 3),
    scale=st.sampled_from([0.0, 1e-4, 0.1, 1.0, 10.0]),
)
def test_the_closed_form_is_the_taped_one_in_values_and_gradients(certain, seed, rows, inputs, outputs, scale):
    gp = posterior(seed, rows, inputs, outputs).exact_moment_map(process_noise=True)
    gp = gp.certain() if certain else gp
    mean, cov = belief(inputs, seed + 1, scale, (2,) if certain else ())
    assert_same(gp.moments(mean, cov), gp.taped().moments(mean, cov), 1e-10)
    assert_same(gradients(gp.moments, mean, cov), gradients(gp.taped().moments, mean, cov), 1e-10)


def test_what_is_certain_is_the_mean_function():
    known = posterior().exact_moment_map(process_noise=True)
    mean, _ = belief()
    nothing = torch.zeros(3, 3, dtype=F64)
    whole, certain = known.moments(mean, nothing), known.certain().moments(mean, nothing)
    assert_same([certain.mean, certain.gain], [whole.mean, whole.gain], 1e-12)
    assert not certain.cov.any()


@TWENTY
@given(
    seed=st.integers(0, 10_000),
    centres=st.integers(1, 12),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 3),
    scale=st.sampled_from([0.0, 1e-4, 0.1, 1.0, 10.0]),
)
def test_radial_basis_functions_are_the_taped_ones_in_values_and_gradients(seed, centres, inputs, outputs, scale):
    random = generator(seed)
    points = torch.randn(centres, inputs, generator=random, dtype=F64)
    beta = torch.randn(outputs, centres, generator=random, dtype=F64)
    lengthscale = 0.5 + torch.rand(outputs, inputs, generator=random, dtype=F64)
    mean, cov = belief(inputs, seed + 1, scale, (2,))
    tensors = [mean, cov, points, beta, lengthscale]
    both = []
    for moments in (rbf_moments, taped_rbf_moments):
        copies = [t.clone().requires_grad_() for t in tensors]
        outputs_ = moments(*copies)
        weights = generator(seed + 2)
        total = sum((torch.randn(part.shape, generator=weights, dtype=F64) * part).sum() for part in outputs_)
        found = list(torch.autograd.grad(total, copies))
        found[1] = 0.5 * (found[1] + found[1].mT)
        both.append(([*outputs_], found))
    for (values, slopes), (taped_values, taped_slopes) in [both]:
        assert_same(values, taped_values, 1e-10)
        assert_same(slopes, taped_slopes, 1e-10)


@TWENTY
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 0.3, 3.0]))
def test_gradients_are_finite_differences(seed, scale):
    mean, cov = belief(2, seed, scale)
    gp = posterior(seed, 8, 2, 2).exact_moment_map()
    inputs = (mean.requires_grad_(), cov.requires_grad_())
    assert torch.autograd.gradcheck(symmetric_in(gp.moments), inputs, atol=1e-6, rtol=1e-5)


@TWENTY
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 0.3, 3.0]))
def test_gradients_of_radial_basis_functions_are_finite_differences(seed, scale):
    random = generator(seed)
    tensors = [*belief(2, seed, scale), torch.randn(4, 2, generator=random, dtype=F64)]
    tensors += [torch.randn(2, 4, generator=random, dtype=F64), 0.5 + torch.rand(2, 2, generator=random, dtype=F64)]
    inputs = tuple(t.requires_grad_() for t in tensors)
    assert torch.autograd.gradcheck(symmetric_in(rbf_moments), inputs, atol=1e-6, rtol=1e-5)


def test_second_derivatives_come_from_the_taped_form():
    gp = posterior(rows=6, inputs=2).exact_moment_map()
    inputs = tuple(t.requires_grad_() for t in belief(2))
    assert torch.autograd.gradgradcheck(symmetric_in(gp.taped().moments), inputs, atol=1e-5, rtol=1e-4)
    value = gp.moments(*inputs).cov.sum()
    with pytest.raises(ConfigurationError, match="taped"):
        torch.autograd.grad(value, inputs[0], create_graph=True)


def test_a_function_that_is_known_has_the_spread_alone_and_constants_of_its_own():
    gp, at = posterior(), belief()
    tensors = [t.clone().requires_grad_() for t in (gp.x, gp.lengthscale, gp.signal_var, gp.alpha)]
    certain, whole = GPMoments(*tensors), gp.exact_moment_map()
    parts = certain.split(*at)
    assert not bool(parts.epistemic.any())
    torch.testing.assert_close(certain.moments(*at).cov, whole.split(*at).spread, rtol=1e-10, atol=1e-13)
    assert not certain.moments(*at).cov.requires_grad
    assert_same(gradients(certain.moments, *at), gradients(certain.taped().moments, *at), 1e-10)


def test_weights_are_differentiable_and_interpolate():
    random = generator()
    centres = torch.randn(6, 2, generator=random, dtype=F64).requires_grad_()
    targets = torch.randn(6, 2, generator=random, dtype=F64).requires_grad_()
    lengthscale = (0.5 + torch.rand(2, 2, generator=random, dtype=F64)).requires_grad_()
    assert torch.autograd.gradcheck(rbf_weights, (centres, targets, lengthscale))
    beta = rbf_weights(centres, targets, lengthscale, noise_std=1e-7)
    at = [rbf_moments(c, torch.zeros(2, 2, dtype=F64), centres, beta, lengthscale).mean for c in centres.detach()]
    # The ridge of 1e-14 moves them by 1e-14·|β|, and |β| is at most the condition number, here below 1e4.
    torch.testing.assert_close(torch.stack(at), targets, rtol=0, atol=1e-9)
