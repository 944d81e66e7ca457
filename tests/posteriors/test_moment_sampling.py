"""Moment matching by fixed draws, for posteriors without a closed form."""

import pytest
import torch
from reference_posteriors import ConjugateRegression, LinearFunction, quadratic

from bayesdyn.errors import ConfigurationError, NotFittedError, NumericalError, ShapeError
from bayesdyn.kernels import Matern52
from bayesdyn.posteriors import ExactGP
from bayesdyn.posteriors.moment_sampling import SampledMoments, whitened_normals

F64 = torch.float64
FLOOR = 1e-8  # variance that is added to the belief


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def belief(scale: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    root = scale * torch.randn(3, 3, generator=generator(4), dtype=F64)
    return torch.randn(3, generator=generator(3), dtype=F64), root @ root.mT


def linear_draws(n: int) -> LinearFunction:
    weight = torch.randn(n, 3, 2, generator=generator(1), dtype=F64)
    return LinearFunction(lambda x: x, weight, torch.tensor([0.3, 0.7], dtype=F64), inputs=3)


def smooth_gp(kernel=Matern52()) -> ExactGP:
    x = torch.randn(30, 3, generator=generator(), dtype=F64)
    y = torch.stack([torch.sin(1.5 * x[:, 0]) + 0.3 * x[:, 1], torch.cos(x[:, 1] + x[:, 2])], 1)
    one = torch.ones(2, dtype=F64)
    return ExactGP.from_hyperparameters(x, y, 1.5 * torch.ones(2, 3, dtype=F64), one, 0.01 * one, kernel=kernel)


def points(count: int = 32) -> torch.Tensor:
    return whitened_normals(count, 3, F64, generator(2))


@pytest.mark.parametrize("process_noise", [False, True])
def test_linear_functions_are_matched_exactly_with_the_law_of_total_covariance(process_noise):
    draws, (mean, cov) = linear_draws(5), belief()
    found = SampledMoments(draws, points(), process_noise=process_noise).moments(mean, cov)
    weight, cov = draws.weight, cov + FLOOR * torch.eye(3, dtype=F64)
    values = torch.einsum("d,nde->ne", mean, weight)
    away = values - values.mean(0)
    wanted = (weight.mT @ cov @ weight).mean(0) + away.mT @ away / 5
    wanted = wanted + torch.diag(draws.noise_var) if process_noise else wanted
    torch.testing.assert_close(found.mean, values.mean(0))
    torch.testing.assert_close(found.cov, wanted)
    torch.testing.assert_close(found.gain, weight.mean(0))


def test_a_certain_input_gives_the_spread_of_the_draws_and_their_mean_slope():
    weight = torch.randn(5, 7, 2, generator=generator(1), dtype=F64)
    draws = LinearFunction(quadratic, weight, torch.ones(2, dtype=F64), inputs=3)
    mean = torch.tensor([0.5, -1.0, 2.0], dtype=F64).requires_grad_()
    found = SampledMoments(draws, points()).moments(mean, torch.zeros(3, 3, dtype=F64))
    values = draws(mean[None, None]).mean[:, 0]
    slopes = torch.stack([torch.autograd.grad(values.mean(0)[e], mean, retain_graph=True)[0] for e in range(2)], -1)
    away = (values - values.mean(0)).detach()
    torch.testing.assert_close(found.gain, slopes, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.cov.detach(), away.mT @ away / 5, rtol=1e-5, atol=1e-5)
    gradient = torch.autograd.grad(found.cov.sum() + found.gain.sum(), mean)[0]
    assert bool(gradient.isfinite().all())


def test_gradients_are_finite_differences_also_at_a_singular_covariance():
    draws = LinearFunction(quadratic, torch.randn(3, 7, 2, generator=generator(1), dtype=F64), torch.ones(2, dtype=F64), inputs=3)
    sampled, (mean, cov) = SampledMoments(draws, points()), belief()

    def moments(mean, cov):
        return sampled.moments(mean, 0.5 * (cov + cov.mT))

    assert torch.autograd.gradcheck(moments, (mean.requires_grad_(), cov.requires_grad_()), atol=1e-5)
    flat = torch.zeros(3, 3, dtype=F64, requires_grad=True)
    # E[x²] has slope 1 in the variance: the gradient of the mean of one quadratic to Σ is its coefficient, also at Σ = 0.
    (slope,) = torch.autograd.grad(moments(mean.detach(), flat).mean[0], flat)
    torch.testing.assert_close(slope.diagonal(), draws.weight.mean(0)[4:, 0], rtol=1e-5, atol=1e-5)


def test_sampling_agrees_with_the_closed_form():
    gp, (mean, cov) = smooth_gp(kernel=ExactGP().kernel), belief(0.3)
    exact = gp.exact_moment_map(process_noise=True).moments(mean, cov)
    draws = gp.sample(400, generator(5))
    found = SampledMoments(draws, whitened_normals(400, 3, F64, generator(6)), process_noise=True).moments(mean, cov)
    scale = exact.cov.diagonal().sqrt()
    # 400 independent points with antithetic partners and 400 draws: five standard errors of a mean of 200, √2 more for products.
    allowed = 5 / 200**0.5
    assert float(((found.mean - exact.mean) / scale).abs().max()) < allowed
    assert float(((found.cov - exact.cov) / torch.outer(scale, scale)).abs().max()) < 2**0.5 * allowed
    width = torch.linalg.eigvalsh(cov).min().sqrt()
    assert float(((found.gain - exact.gain) * width / scale).abs().max()) < allowed


def test_any_posterior_has_a_moment_map_that_repeats_itself():
    gp, at = smooth_gp(), belief()
    assert gp.exact_moment_map() is None
    first, second = gp.moment_map().moments(*at), gp.moments(*at)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    noisy = gp.moment_map(process_noise=True).moments(*at)
    torch.testing.assert_close(noisy.cov - first.cov, torch.diag(gp.noise_var))
    regression = ConjugateRegression()
    x = torch.randn(30, 3, generator=generator(), dtype=F64)
    regression.fit(x, x[:, :2])
    batch = regression.moments(at[0].expand(4, 2, 3), at[1].expand(4, 2, 3, 3))
    torch.testing.assert_close(batch.gain[3, 1], regression.moments(*at).gain)
    assert batch.cov.shape == (4, 2, 2, 2)
    with pytest.raises(NotFittedError):
        ConjugateRegression().moment_map()


@pytest.mark.parametrize(("count", "size"), [(8, 3), (128, 5)])
def test_whitened_points_have_the_moments_of_a_normal_up_to_order_three(count, size):
    z = whitened_normals(count, size, F64, generator())
    torch.testing.assert_close(z.mT @ z / count, torch.eye(size, dtype=F64), rtol=0, atol=1e-12)
    assert float(z.mean(0).abs().max()) < 1e-14
    assert float(torch.einsum("pi,pj,pk->ijk", z, z, z).abs().max()) < 1e-10


def test_unusable_points_and_beliefs_raise():
    draws, (mean, cov) = linear_draws(2), belief()
    for count in (7, 6):
        with pytest.raises(ConfigurationError, match="even"):
            whitened_normals(count, 3, F64, generator())
    with pytest.raises(ConfigurationError, match="p > D"):
        SampledMoments(draws, points()[:3])
    sampled = SampledMoments(draws, points())
    with pytest.raises(ShapeError, match="3 features"):
        sampled.moments(mean[:2], cov[:2, :2])
    for broken in (float("nan"), -5.0):
        with pytest.raises(NumericalError, match="one step earlier"):
            sampled.moments(mean, cov + broken * torch.eye(3, dtype=F64))
