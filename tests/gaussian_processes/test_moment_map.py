"""Properties of moment matching through Gaussian processes: limits, invariances, simulation, inducing points, wrong use."""

import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moment_cases import F64, assert_same, belief, generator, gradients, posterior

from bayesdyn.errors import ConfigurationError, NotFittedError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.moment_inducing import fitc_moments
from bayesdyn.gaussian_processes.moment_map import GPMoments, rbf_moments, rbf_weights
from bayesdyn.gaussian_processes.sparse_objectives import FITC, Collapsed
from bayesdyn.kernels import Matern52
from bayesdyn.posteriors import ExactGP, SparseGP
from bayesdyn.testing.conformance import shape_checks_off

TWENTY = settings(max_examples=20, deadline=None, derandomize=True, database=None)


# --- simulation


def test_a_million_draws_have_these_moments():
    # Few rows on one side and a skewed belief: a sign wrong in a cross term shows.
    gp, (mean, cov) = posterior(seed=3, rows=12), belief(scale=0.6)
    found = gp.exact_moment_map().moments(mean, cov)
    count, batches = 10**6, 20
    root = torch.linalg.cholesky(cov)
    random, kept = generator(1), []
    for _ in range(batches):
        z = torch.randn(count // batches, 3, generator=random, dtype=F64)
        at = gp.predict(mean + z @ root.mT)
        f = at.mean + at.epistemic_variance.sqrt() * torch.randn(at.mean.shape, generator=random, dtype=F64)
        away = f - found.mean
        # Σ⁻¹(x - m) = L⁻ᵀz.
        slope = torch.linalg.solve_triangular(root.mT, z.mT, upper=True)
        kept.append([f.mean(0), away.mT @ away / len(f), slope @ away / len(f)])
    for analytic, samples in zip(found, zip(*kept, strict=True), strict=True):
        stacked = torch.stack(samples)
        error = stacked.std(0) / batches**0.5
        # 20 batches give Student's t with 19 degrees of freedom: |t| > 5.5 has a probability of 3e-5 for each of 12 numbers.
        assert float(((stacked.mean(0) - analytic) / error).abs().max()) < 5.5


# --- limits and invariances


@pytest.mark.parametrize("scale", [1.0, 0.04], ids=["whitened", "small targets"])
def test_a_certain_input_gives_the_prediction_and_its_slope(scale):
    gp = posterior()
    small = ExactGP.from_hyperparameters(gp.x, gp.y * scale, gp.lengthscale, gp.signal_var * scale**2, gp.noise_var * scale**2)
    x = torch.randn(7, 3, generator=generator(2), dtype=F64).requires_grad_()
    found = small.moments(x, torch.zeros(7, 3, 3, dtype=F64))
    wanted = small.predict(x)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-11, atol=1e-12 * scale)
    torch.testing.assert_close(found.cov, torch.diag_embed(wanted.epistemic_variance), rtol=1e-10, atol=1e-13 * scale**2)
    slopes = [torch.autograd.grad(wanted.mean[:, e].sum(), x, retain_graph=True)[0] for e in range(2)]
    torch.testing.assert_close(found.gain, torch.stack(slopes, -1), rtol=1e-10, atol=1e-11 * scale)


def test_units_are_folded_into_the_factors_exactly():
    gp, (mean, cov) = posterior(), belief()
    x_mean, x_std = torch.tensor([1.0, -2.0, 30.0], dtype=F64), torch.tensor([0.1, 3.0, 20.0], dtype=F64)
    y_mean, y_std = torch.tensor([-4.0, 0.5], dtype=F64), torch.tensor([0.04, 7.0], dtype=F64)
    whitened = gp.exact_moment_map(process_noise=True)
    found = whitened.rescaled(x_mean, x_std, y_mean, y_std).moments(x_mean + x_std * mean, cov * torch.outer(x_std, x_std))
    wanted = whitened.moments(mean, cov)
    torch.testing.assert_close(found.mean, y_mean + y_std * wanted.mean, rtol=1e-11, atol=0)
    torch.testing.assert_close(found.cov, wanted.cov * torch.outer(y_std, y_std), rtol=1e-10, atol=0)
    torch.testing.assert_close(found.gain, wanted.gain * y_std / x_std.unsqueeze(-1), rtol=1e-10, atol=0)


def test_an_offset_of_the_inputs_changes_nothing():
    gp, (mean, cov) = posterior().exact_moment_map(), belief()
    zero, one = torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)
    # The inputs themselves round at 1000·1e-16, and β amplifies that by less than 100.
    moved = gp.rescaled(zero + 1000, one, zero[:2], one[:2]).moments(mean + 1000, cov)
    assert_same(moved, gp.moments(mean, cov), 1e-11)


def test_moments_are_continuous_as_the_covariance_vanishes():
    gp, (mean, cov) = posterior().exact_moment_map(), belief(scale=1.0)
    limit = gp.moments(mean, 0 * cov), gradients(gp.moments, mean, 0 * cov)
    for scale in (1e-6, 1e-9, 1e-12):
        near = gp.moments(mean, scale * cov), gradients(gp.moments, mean, scale * cov)
        # Third derivatives of these functions are below 100, and so are the entries of cov/100.
        for found, wanted in zip((*near[0], *near[1]), (*limit[0], *limit[1]), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e4 * scale + 1e-12)
    # To first order the off-diagonal entries are slopeᵀ Σ slope, at every size of Σ: nothing is switched off or rounded away.
    for scale in (1e-6, 1e-9, 1e-12):
        spread = gp.split(mean, scale * cov).spread / scale
        torch.testing.assert_close(spread, limit[0].gain.mT @ cov @ limit[0].gain, rtol=1e-3 if scale == 1e-6 else 1e-6, atol=1e-6)


def test_process_noise_is_the_noise_variance_on_the_diagonal():
    gp, at = posterior(), belief()
    with_noise, without = (gp.exact_moment_map(process_noise=noise).moments(*at) for noise in (True, False))
    torch.testing.assert_close(with_noise.cov - without.cov, torch.diag(gp.noise_var), rtol=1e-12, atol=1e-14)
    assert torch.equal(with_noise.mean, without.mean)


@pytest.mark.parametrize("spread", [0.0, 1.0, 1e3, 1e6])
def test_a_far_belief_has_the_prior_and_finite_gradients(spread):
    gp = posterior()
    mean, cov = torch.full((3,), 2e3, dtype=F64), spread * torch.eye(3, dtype=F64)
    found = gp.moments(mean, cov)
    if spread <= 1.0:
        torch.testing.assert_close(found.cov, torch.diag(gp.signal_var), rtol=1e-12, atol=1e-300)
    assert all(bool(part.isfinite().all()) for part in found)
    assert all(bool(part.isfinite().all()) for part in gradients(gp.exact_moment_map().moments, mean, cov))


@TWENTY
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 30.0]))
def test_both_parts_of_the_covariance_are_positive(seed, scale):
    gp = posterior(seed, noise=1e-4)
    at = belief(3, seed + 1, scale)
    parts, whole = gp.exact_moment_map().split(*at), gp.moments(*at)
    floor = -1e-12 * float(gp.signal_var.max())
    assert float(torch.linalg.eigvalsh(parts.spread).min()) >= floor
    assert float(parts.epistemic.min()) >= floor
    torch.testing.assert_close(parts.spread + torch.diag(parts.epistemic), whole.cov, rtol=1e-8, atol=1e-12)


def test_a_batch_of_beliefs_is_each_of_them():
    gp, (mean, cov) = posterior(rows=40).exact_moment_map(), belief(batch=(2, 3))
    found = gp.moments(mean, cov)
    assert found.gain.shape == (2, 3, 3, 2)
    slopes = gradients(gp.moments, mean, cov)
    weights = generator(9)
    weighted = [torch.randn(part.shape, generator=weights, dtype=F64) for part in found]
    for i in range(2):
        for j in range(3):
            at = mean[i, j].clone().requires_grad_(), cov[i, j].clone().requires_grad_()
            one = gp.moments(*at)
            assert_same([part[i, j] for part in found], one, 1e-12)
            total = sum((weight[i, j] * part).sum() for weight, part in zip(weighted, one, strict=True))
            assert_same([part[i, j] for part in slopes], torch.autograd.grad(total, at), 1e-12)


def test_many_rows_are_summed_in_blocks_with_the_same_answer():
    gp, at = posterior(rows=330).exact_moment_map(), belief()
    assert_same(gp.moments(*at), gp.taped().moments(*at), 1e-10)
    assert_same(gradients(gp.moments, *at), gradients(gp.taped().moments, *at), 1e-9)


def test_single_precision_keeps_five_digits():
    gp, (mean, cov) = posterior(noise=0.1).exact_moment_map(), belief()
    single = gp.to(torch.float32).moments(mean.float(), cov.float())
    for found, wanted in zip(single, gp.moments(mean, cov), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert gp.moments(mean.float(), cov.float()).cov.dtype == torch.float32


# --- inducing points


@pytest.mark.parametrize("objective", [Collapsed(), FITC()], ids=["collapsed", "fitc"])
def test_a_sparse_posterior_has_its_own_prediction_at_a_certain_input(objective):
    gp = posterior(rows=40)
    sparse = SparseGP.from_hyperparameters(gp.x, gp.y, gp.x[:15], gp.lengthscale, gp.signal_var, gp.noise_var, objective=objective)
    x = torch.randn(5, 3, generator=generator(2), dtype=F64)
    found, wanted = sparse.moments(x, torch.zeros(5, 3, 3, dtype=F64)), sparse.predict(x)
    # K_zz with a ridge of 1e-6 has a condition number of up to 1e7.
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.cov, torch.diag_embed(wanted.epistemic_variance), rtol=1e-8, atol=1e-9)


def test_each_output_has_its_own_inducing_points():
    gp, at = posterior(rows=40), belief()
    points = torch.stack([gp.x[:12], gp.x[20:32]])
    whole = fitc_moments(gp.x, gp.y, points, gp.lengthscale, gp.signal_var, gp.noise_var).moments(*at)
    for e in range(2):
        part = slice(e, e + 1)
        one = fitc_moments(gp.x, gp.y[:, part], points[e], gp.lengthscale[part], gp.signal_var[part], gp.noise_var[part])
        single = one.moments(*at)
        torch.testing.assert_close(whole.mean[part], single.mean, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(whole.cov[part, part], single.cov, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(whole.gain[:, part], single.gain, rtol=1e-11, atol=1e-12)


def test_with_every_row_inducing_it_is_the_exact_gp():
    gp, at = posterior(rows=15), belief()
    sparse = fitc_moments(gp.x, gp.y, gp.x, gp.lengthscale, gp.signal_var, gp.noise_var, ridge=1e-10)
    assert_same(sparse.moments(*at), gp.moments(*at), 1e-6)


# --- wrong use


def test_other_kernels_have_no_closed_form():
    gp = posterior(kernel=Matern52())
    assert gp.exact_moment_map() is None
    with pytest.raises(ConfigurationError, match=r"RBF\(\).*Matern52"):
        GPMoments(gp.x, gp.lengthscale, gp.signal_var, gp.alpha, kernel=Matern52())


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1e3])
def test_a_covariance_that_is_none_is_an_error_with_its_likely_cause(broken):
    gp, (mean, cov) = posterior(), belief()
    cov[1, 1] = broken
    for moments in (gp.moments, gp.exact_moment_map().taped().moments):
        with pytest.raises(NumericalError, match="exploded"):
            moments(mean, cov)
    with pytest.raises(NumericalError, match="exploded"):
        rbf_moments(mean, cov, gp.x, gp.alpha, gp.lengthscale)


def test_unusable_sizes_and_unfitted_posteriors_raise():
    gp, (mean, cov) = posterior(), belief()
    with pytest.raises(ShapeError, match="3 inputs"):
        gp.moments(mean[:2], cov[:2, :2])
    with shape_checks_off(), pytest.raises(ShapeError, match="beta wants"):
        GPMoments(gp.x, gp.lengthscale, gp.signal_var, gp.alpha[:, :4])
    for unfitted in (ExactGP(), SparseGP()):
        with pytest.raises(NotFittedError):
            unfitted.exact_moment_map()
        with pytest.raises(NotFittedError):
            unfitted.moment_map()


def test_weights_that_cannot_be_found_name_the_cause():
    one = torch.ones(3, 1, dtype=F64)
    with pytest.raises(NumericalError, match="shorter"):
        rbf_weights(one, one, one[:1], noise_std=0.0)
    with pytest.raises(NumericalError, match="not finite"):
        rbf_weights(one * float("nan"), one, one[:1])


def test_a_map_is_a_snapshot_of_the_fit():
    gp, at = posterior(), belief()
    kept = gp.exact_moment_map()
    before = kept.moments(*at)
    gp.append(gp.x[:1] + 0.1, gp.y[:1] + 1)
    assert all(torch.equal(a, b) for a, b in zip(before, kept.moments(*at), strict=True))
    assert not torch.allclose(gp.moments(*at).mean, before.mean)


def test_what_is_kept_for_the_gradient_does_not_grow_with_the_data():
    """What a call holds on to is not larger for 600 points by as much as one number per point."""
    kept = []
    for rows in (10, 600):
        gp = posterior(rows=rows).exact_moment_map()
        mean, cov = belief()
        gp.moments(mean.requires_grad_(), cov)
        tracemalloc.start()
        found = gp.moments(mean, cov)
        kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert found.cov.requires_grad
    assert kept[1] - kept[0] < 8 * 600
