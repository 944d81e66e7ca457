"""Recalibrated posteriors: scales that are known, draws that keep their θ, held-out rows that really are."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_posteriors import ConjugateRegression
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from uncertainty_toolbox.recalibration import iso_recal

import bayesdyn as bd
from bayesdyn.data import Episode
from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ConfigurationError, DataError, FileError, NotFittedError, ShapeError
from bayesdyn.evaluation import metrics
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import GPyTorchKernel, Matern52, RBFLinear
from bayesdyn.networks.training import Training
from bayesdyn.posteriors import CoverageScale, QuantileMap, Recalibrated, TotalScale, TwoScales
from bayesdyn.posteriors.base import FitReport, Posterior
from bayesdyn.posteriors.mean_functions import PredictedMean, mean_function
from bayesdyn.posteriors.scaling import Scales
from bayesdyn.testing import check_posterior
from bayesdyn.testing.conformance import shape_checks_off
from bayesdyn.testing.posterior_case import toy_data

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=F64)


def quick_gp() -> bd.posteriors.ExactGP:
    return bd.posteriors.ExactGP(training=GPTraining(max_steps=15, restarts=0))


def quick_ensemble() -> bd.posteriors.BootstrapEnsemble:
    return bd.posteriors.BootstrapEnsemble(members=4, hidden=(16,), training=Training(steps=200))


class Stated(Posterior):
    """Says N(0, I) of both outputs of any x, as noise: what it is fitted on does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shape", torch.zeros(2, dtype=torch.int64))

    @property
    def sizes(self) -> tuple[int, int]:
        return int(self.shape[0]), int(self.shape[1])

    def fit(self, x, y, *, warm_start=False, generator=None, progress=None) -> FitReport:
        self.shape = torch.tensor([x.shape[1], y.shape[1]])
        return FitReport(0.0, 0.0, 0, 0.0, (0.0,) * y.shape[1])

    def sample(self, n: int, generator: torch.Generator | None = None):
        raise NotImplementedError

    def predict(self, x: Tensor) -> Predictive:
        none = torch.zeros(1, *x.shape[:-1], self.sizes[1], dtype=x.dtype)
        return Predictive(none, none, none + 1)


def stated() -> Recalibrated:
    model = Recalibrated(Stated())
    model.fit(normal(3, 1, seed=90), normal(3, 2, seed=91))
    return model


def cells(count: int) -> ConjugateRegression:
    """Return a conjugate posterior over one unknown level per cell, x the number of the cell: rows of other cells say nothing."""
    return ConjugateRegression(lambda x: torch.nn.functional.one_hot(x[..., 0].long(), count).to(x.dtype), noise_var=0.05)


def fitted_cells(method: TotalScale | TwoScales, count: int = 1000) -> Recalibrated:
    """Return it fitted, with 0 to 4 rows in a cell, so that what is unknown and what is noise differ from cell to cell."""
    model = Recalibrated(cells(count), method)
    x = torch.cat([torch.arange(count)[torch.arange(count) % 5 > k] for k in range(4)]).to(F64).unsqueeze(1)
    model.fit(x, normal(len(x), 1, seed=1))
    return model


# --- scales in closed form


def test_a_std_wrong_by_two_gets_the_factor_two():
    # y = φ(x)ᵀw + ε with 4 times the noise variance that the model knows; its prior is so wide that all variances are 4 times off.
    def sine(x: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x), x, (3 * x).sin()], -1)

    rows, held = 400, 2000
    x = 4 * torch.rand(rows + held, 1, generator=generator(), dtype=F64) - 2
    y = sine(x).sum(-1, keepdim=True) + 0.2 * normal(rows + held, 1, seed=1)
    model = Recalibrated(ConjugateRegression(sine, prior_var=1e6, noise_var=0.01))
    model.fit(x[:rows], y[:rows])
    before, fresh = model.predict(x[:7]), model.sample(4, generator(2))(x[:7].unsqueeze(0))
    report = model.calibrate(x[rows:], y[rows:], torch.arange(held) // 100)
    # Var z² = 2·4², and the three weights, known to 1 part in 400, move all z at once: χ²_3/3 has the variance 2/3.
    error = 4 * math.sqrt(2 / held + (3 / rows) ** 2 * 2 / 3) / (2 * 2)
    assert abs(report.ratio[0] - 2) < 4 * error
    assert report.epistemic_scale == report.aleatoric_scale == report.ratio
    assert report.ratio_error[0] == pytest.approx(4 * math.sqrt(2 / held) / 4, rel=0.6)  # its own error is 1/√(2·20 episodes)
    # Exactly what a scale means, for the predictive and for every draw.
    scale, after = model.epistemic_scale, model.predict(x[:7])
    torch.testing.assert_close(after.mean, before.mean)
    torch.testing.assert_close(after.epistemic_variance, scale**2 * before.epistemic_variance)
    torch.testing.assert_close(after.aleatoric_variance, scale**2 * before.aleatoric_variance)
    torch.testing.assert_close(after.variance, after.epistemic_variance + after.aleatoric_variance)
    drawn = model.sample(4, generator(2))(x[:7].unsqueeze(0))
    torch.testing.assert_close(drawn.mean, before.mean + scale * (fresh.mean - before.mean))
    torch.testing.assert_close(drawn.var, scale**2 * fresh.var)


@pytest.mark.parametrize(("epistemic", "aleatoric"), [(3.0, 1.0), (0.5, 2.0), (1.0, 0.4)])
def test_two_scales_find_both_factors_of_a_conjugate_model(epistemic: float, aleatoric: float):
    count = 1000
    model = fitted_cells(TwoScales(), count)
    x = torch.arange(count, dtype=F64).unsqueeze(1)
    said = model.predict(x)
    noise = normal(2, count, 1, seed=2)
    levels = epistemic * said.epistemic_variance.sqrt() * noise[0]
    y = said.mean + levels + aleatoric * said.aleatoric_variance.sqrt() * noise[1]
    report = model.calibrate(x, y, torch.arange(count) // 50)
    # Fisher information of (log s_epi, log s_ale) in rows of variance v = s_epi² e + s_ale² a: ½ Σ (∂v)(∂v)ᵀ/v², ∂v = 2 (s²e, s²a).
    parts = torch.stack([epistemic**2 * said.epistemic_variance, aleatoric**2 * said.aleatoric_variance])[..., 0]
    slope = 2 * parts / parts.sum(0)
    error = torch.linalg.inv(0.5 * slope @ slope.T).diagonal().sqrt()
    found = torch.tensor([report.epistemic_scale[0], report.aleatoric_scale[0]], dtype=F64).log()
    assert bool(((found - torch.tensor([epistemic, aleatoric], dtype=F64).log()).abs() < 4 * error).all())
    assert report.nll_after < report.nll_before
    assert report.warnings == ()
    # Draws follow: over draws of θ their variance is the scaled epistemic one, the law of total variance holds exactly.
    after = model.predict(x)
    torch.testing.assert_close(after.epistemic_variance, model.epistemic_scale**2 * said.epistemic_variance)
    torch.testing.assert_close(after.aleatoric_variance, model.aleatoric_scale**2 * said.aleatoric_variance)
    torch.testing.assert_close(after.variance, after.epistemic_variance + after.aleatoric_variance)


def test_two_scales_are_the_minimum_over_a_grid():
    # Five components, so that the likelihood is the mixture's; the grid is computed without any code of ours.
    m, rows = 5, 300
    mean, noise = 0.5 * normal(m, rows, 1), torch.rand(m, rows, 1, generator=generator(1), dtype=F64) + 0.05
    said = Predictive(mean, torch.zeros_like(mean), noise)
    y = mean.mean(0) + 1.5 * (mean[0] - mean.mean(0)) + 0.6 * noise[0].sqrt() * normal(rows, 1, seed=2)
    found = TwoScales().learn(said, y)

    def loss(epistemic: float, aleatoric: float) -> float:
        centre = mean.mean(0).numpy()
        density = norm.logpdf(y.numpy(), centre + epistemic * (mean.numpy() - centre), aleatoric * noise.sqrt().numpy())
        return float(0.5 * math.log(epistemic / aleatoric) ** 2 - (logsumexp(density, 0) - math.log(m)).sum())

    ticks = np.exp(np.linspace(-math.log(10), math.log(10), 51))
    best = min(loss(a, b) for a in ticks for b in ticks)
    assert loss(float(found.epistemic[0]), float(found.aleatoric[0])) <= best + 1e-9


def test_scales_that_the_rows_cannot_tell_apart_stay_together():
    # Where both variances are in one ratio at all rows, only s_epi² + s_ale² is known.
    said = Predictive(*(torch.full((1, 4000, 1), value, dtype=F64) for value in (0.0, 1.0, 1.0)))
    y = 3 * math.sqrt(2) * normal(4000, 1)
    found, total = TwoScales().learn(said, y), TotalScale().learn(said, y)
    torch.testing.assert_close(found.epistemic, total.epistemic, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.aleatoric, total.aleatoric, rtol=1e-3, atol=0)


def test_a_factor_at_its_bound_is_told():
    model = Recalibrated(Stated(), TwoScales(bound=3.0))
    model.fit(normal(3, 1, seed=90), normal(3, 2, seed=91))
    x = normal(300, 1)
    y = torch.cat([20 * normal(300, 1, seed=1), normal(300, 1, seed=2)], 1)
    report = model.calibrate(x, y, torch.arange(300) // 30)
    assert report.aleatoric_scale[0] == pytest.approx(3.0)
    # Nothing is said to be unknown, so that nothing tells the other factor, and it goes along.
    assert report.warnings == tuple(f"the {part} factor of output 0 is at its bound, 3" for part in ("epistemic", "aleatoric"))


def test_the_error_of_the_ratio_counts_episodes_not_rows():
    # All errors of an episode are one: 20 episodes of 10 rows tell no more than 20 rows do.
    found, told = [], []
    for seed in range(300):
        model = stated()
        y = 1.7 * normal(20, 2, seed=seed).repeat_interleave(10, 0)
        report = model.calibrate(normal(200, 1, seed=seed), y, torch.arange(200) // 10)
        found.append(report.ratio)
        told.append(report.ratio_error)
    spread, mean_told = np.std(found), np.sqrt(np.mean(np.square(told)))
    # The delta method leaves terms of relative order 1/20 in the variance of √(χ²_20/20); 600 values know a std to 3 %.
    assert mean_told == pytest.approx(spread, rel=0.15)
    assert spread == pytest.approx(1.7 / math.sqrt(40), rel=0.15)


def test_the_coverage_scale_is_exact_on_its_own_rows_and_holds_on_others():
    # A mixture of three skewed components and errors with a tail that has no variance.
    mean, var = normal(3, 4000, 2).exp(), 0.2 + normal(3, 4000, 2, seed=1).square()
    said = Predictive(mean, torch.zeros_like(mean), var)
    centre, uniform = said.mean, torch.rand(4000, 2, generator=generator(2), dtype=F64)
    y = centre + 0.5 * said.stddev * (math.pi * (uniform - 0.5)).tan()
    fit, fresh = (
        Predictive(mean[:, rows], torch.zeros_like(mean[:, rows]), var[:, rows]) for rows in (slice(2000), slice(2000, None))
    )
    scales = CoverageScale(0.8).learn(fit, y[:2000])
    own = metrics.coverage(metrics.pit(scales.predictive(fit), y[:2000]), 0.8)
    torch.testing.assert_close(own, torch.full((2,), math.ceil(2001 * 0.8) / 2000, dtype=F64), rtol=0, atol=1.5 / 2000)
    other = metrics.coverage(metrics.pit(scales.predictive(fresh), y[2000:]), 0.8)
    # Binomial on both sides: the level of the interval found, and the share of fresh rows in it.
    assert bool(((other - 0.8).abs() < 4 * math.sqrt(2 * 0.16 / 2000)).all())
    # What mean z² makes of such a tail covers nearly everything.
    total = TotalScale().learn(fit, y[:2000]).predictive(fresh)
    assert bool((metrics.coverage(metrics.pit(total, y[2000:]), 0.8) > 0.95).all())


def test_fresh_episodes_are_covered_better():
    x = normal(4000, 1)
    y = 3 * normal(4000, 2, seed=1)
    model = stated()

    def share(rows: slice) -> Tensor:
        return metrics.coverage(metrics.pit(model.predict(x[rows]), y[rows]), 0.9)

    fresh = slice(2000, None)
    before = share(fresh)
    model.calibrate(x[:2000], y[:2000], torch.arange(2000) // 100)
    # Coverage of 2,000 rows has a binomial error; that of the scale, 1/√(2·2000), times the density at ±1.645 is one of coverage.
    error = math.sqrt(0.09 / 2000 + (2 * 1.645 * norm.pdf(1.645) / math.sqrt(4000)) ** 2)
    assert bool((before < 0.5).all())
    assert bool(((share(fresh) - 0.9).abs() < 4 * error).all())


# --- the quantile map


def test_the_quantile_map_is_isotonic_regression():
    rows = 251
    u = (0.2 + 0.6 * torch.rand(rows, 2, generator=generator(), dtype=F64)).square()
    u[10:14] = u[10]  # ties
    found = QuantileMap(u)
    for output in range(2):
        ordered = np.sort(u[:, output].numpy())
        oracle = IsotonicRegression(out_of_bounds="clip")
        oracle.fit(np.concatenate([[0.0], ordered, [1.0]]), np.concatenate([[0.0], np.arange(1, rows + 1) / (rows + 1), [1.0]]))
        asked = torch.rand(500, 1, generator=generator(1), dtype=F64)
        wanted = torch.from_numpy(oracle.predict(asked[:, 0].numpy()))
        torch.testing.assert_close(found.corrected(asked.expand(-1, 2))[:, output], wanted, rtol=0, atol=1e-12)


def test_the_quantile_map_agrees_with_uncertainty_toolbox():
    # It regresses expected on observed shares over a grid of probabilities, the inverse of R.
    rows = 1000
    u = torch.rand(rows, 1, generator=generator(), dtype=F64).square()
    expected = np.linspace(0, 1, 1001)
    observed = np.searchsorted(np.sort(u[:, 0].numpy()), expected, side="right") / rows
    oracle = iso_recal(expected, observed)
    asked = torch.linspace(0.01, 0.99, 99, dtype=F64).unsqueeze(1)
    theirs = torch.from_numpy(oracle.predict(asked[:, 0].numpy())).unsqueeze(1)
    found = QuantileMap(u)
    # Between grid points their share may be off by a step of the empirical distribution, ours is off by 1/(N + 1) from that.
    allowed = np.diff(observed).max() + 1 / (rows + 1)
    assert float((found.corrected(theirs) - asked).abs().max()) <= allowed
    torch.testing.assert_close(found.corrected(found.claimed(asked)), asked)


def test_the_map_mends_the_shape_on_fresh_rows():
    # Skewed noise: no scale makes a Gaussian of it. E = 2, of which the second is symmetric.
    rows = 4000
    x, noise = normal(2 * rows, 1), normal(2 * rows, 2, seed=1)
    y = torch.stack([noise[:, 0].exp() - math.exp(0.5), 2 * noise[:, 1]], 1)
    model = stated()
    groups = torch.arange(rows) // 100
    model.calibrate(x[:rows], y[:rows], groups)
    mapped = model.quantile_map(x[:rows], y[:rows], groups)(model.predict(x[rows:]))
    scaled, right = metrics.mace(metrics.pit(model.predict(x[rows:]), y[rows:])), metrics.mace(mapped.cdf(y[rows:]))
    # Two empirical distributions of `rows` each are nowhere further apart than this, but for one case in a million (DKW).
    allowed = 2 * math.sqrt(math.log(4e6) / (2 * rows))
    level, _ = metrics.calibration_curve(mapped.cdf(y[rows:]))
    _, share = metrics.calibration_curve(mapped.cdf(y[rows:]))
    assert float((share - level[:, None]).abs().max()) < allowed
    assert float(scaled[0]) > 0.05
    assert float(right[0]) < 0.02
    low, high = mapped.interval(0.9)
    inside = ((y[rows:] >= low) & (y[rows:] <= high)).double().mean(0)
    assert bool(((inside - 0.9).abs() < 2 * allowed).all())


def test_draws_of_marginals_have_their_quantiles():
    u = torch.rand(300, 2, generator=generator(), dtype=F64).square()
    said = Predictive(normal(3, 4, 2), 0.1 + normal(3, 4, 2).abs(), torch.ones(3, 4, 2, dtype=F64))
    mapped = QuantileMap(u)(said)
    p = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    quantile = torch.stack([mapped.icdf(float(level)) for level in p])
    torch.testing.assert_close(mapped.cdf(quantile), p[:, None, None].expand(3, 4, 2), rtol=0, atol=1e-9)
    drawn = mapped.sample(4000, generator(5))
    assert drawn.shape == (4000, 4, 2)
    below = (drawn.unsqueeze(1) <= quantile).double().mean(0)
    assert float((below - p[:, None, None]).abs().max()) < 5 * math.sqrt(0.25 / 4000)


def test_a_map_of_other_numbers_is_refused():
    with pytest.raises(ConfigurationError, match="probabilities from 0 to 1"):
        QuantileMap(torch.tensor([[1.5]]))
    with pytest.raises(ShapeError, match="held-out rows"):
        QuantileMap(torch.zeros(0, 1))
    with pytest.raises(ShapeError, match="of 1 outputs; got a predictive of 2"):
        QuantileMap(torch.rand(9, 1))(stated().predict(normal(3, 1)))


def test_draws_of_functions_refuse_a_quantile_map_and_say_what_to_use():
    with (
        shape_checks_off(),
        pytest.raises(ConfigurationError, match=r"TwoScales\(\), which draws of θ can follow"),
    ):
        Recalibrated(Stated(), QuantileMap(torch.rand(9, 2)))


# --- the contract, with a calibration inside each fit


class Calibrated(Recalibrated):
    """Calibrates on rows of its own at the end of each fit, so that the contract looks at scaled draws."""

    def fit(self, x, y, **options) -> FitReport:
        report = super().fit(x, y, **options)
        held_x, held_y = (part.to(x.dtype) for part in toy_data(300, generator(99)))
        self.calibrate(held_x, held_y, torch.arange(300) // 50)
        return report


@pytest.mark.usefixtures("unchecked_fits")
@pytest.mark.parametrize("method", [TotalScale(), TwoScales()])
def test_a_calibrated_conjugate_model_keeps_the_contract(method):
    check_posterior(lambda: Calibrated(ConjugateRegression(), method), exact_fit=True, dtype=F64, compiles=False)


@pytest.mark.usefixtures("unchecked_fits")
@pytest.mark.parametrize("dtype", [F64, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_a_calibrated_gp_keeps_the_contract(dtype):
    check_posterior(lambda: Calibrated(quick_gp()), exact_fit=True, feature_error=1.13 / 512**0.5, dtype=dtype)


@pytest.mark.usefixtures("unchecked_fits")
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(F64, marks=pytest.mark.slow)])
def test_a_calibrated_ensemble_keeps_the_contract(dtype):
    check_posterior(lambda: Calibrated(quick_ensemble(), TwoScales()), exact_predict=True, dtype=dtype)


# --- mean functions and closed forms


@pytest.mark.parametrize(
    "make",
    [
        quick_gp,
        lambda: bd.posteriors.ExactGP(RBFLinear(), training=GPTraining(max_steps=5, restarts=0)),
        quick_ensemble,
        lambda: bd.posteriors.MeanField(hidden=(8,), training=bd.posteriors.VariationalTraining(steps=20)),
        lambda: bd.posteriors.Laplace(hidden=(8,), training=Training(steps=20)),
        lambda: bd.posteriors.SGHMC(
            hidden=(8,), training=Training(steps=20), sampling=bd.posteriors.SGHMCSampling(steps=20, burn_in=5, draws=8)
        ),
        ConjugateRegression,
    ],
)
def test_a_mean_function_is_the_predicted_mean_and_stays(make):
    x, y = toy_data(40, generator())
    posterior = make()
    x, y = (part.to(F64 if isinstance(posterior, ConjugateRegression) else posterior.dtype) for part in (x, y))
    posterior.fit(x, y, generator=generator(1))
    query = toy_data(6, generator(2))[0].to(x.dtype).reshape(2, 3, 3)
    centre, wanted = mean_function(posterior), posterior.predict(query).mean
    first = centre(query)
    # Another order of the same sums, and weights of a GP that cancel: 1e-10 of float64's 2e-16, 1e-5 of float32's 1e-7.
    rounding = 5e5 * torch.finfo(x.dtype).eps if x.dtype == F64 else 1e2 * torch.finfo(x.dtype).eps
    torch.testing.assert_close(first, wanted, rtol=0, atol=rounding)
    posterior.fit(2 * x, -y, generator=generator(3))
    assert torch.equal(centre(query), first)
    double = centre.to(dtype=F64)(query.double())
    assert double.dtype == F64
    torch.testing.assert_close(double.to(x.dtype), first, rtol=0, atol=max(rounding, 1e-5) if x.dtype != F64 else rounding)


def test_a_cast_of_the_predicted_mean_leaves_what_is_kept_in_double_as_it_is():
    x, y = (part.float() for part in toy_data(40, generator()))
    posterior = bd.posteriors.Laplace(hidden=(8,), training=Training(steps=20))  # float32 weights, a curvature in float64
    posterior.fit(x, y, generator=generator(1))
    centre = PredictedMean(posterior).to(dtype=torch.float32)
    torch.testing.assert_close(centre(x), posterior.predict(x).mean)


def test_the_mean_of_a_sparse_gp_is_that_of_its_inducing_points():
    x, y = toy_data(40, generator())
    ones = torch.ones(2, 3, dtype=F64)
    gp = bd.posteriors.SparseGP.from_hyperparameters(x, y, x[:12], ones, ones[:, 0], 0.1 * ones[:, 0], kernel=Matern52())
    query = normal(2, 5, 3)
    torch.testing.assert_close(mean_function(gp)(query), gp.predict(query).mean, rtol=0, atol=1e-10)


def test_the_mean_of_a_gp_with_a_kernel_of_gpytorch_comes_from_predict():
    import gpytorch

    x, y = toy_data(25, generator())
    posterior = bd.posteriors.ExactGP(
        GPyTorchKernel(lambda inputs: gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())),
        training=GPTraining(max_steps=3, restarts=0),
    )
    posterior.fit(x, y)
    torch.testing.assert_close(mean_function(posterior)(x), posterior.predict(x).mean)


@pytest.mark.parametrize("process_noise", [False, True])
def test_moments_of_a_scaled_gp_agree_with_quadrature(process_noise: bool):
    x = torch.linspace(-2, 2, 12, dtype=F64).unsqueeze(1)
    y = torch.cat([x.sin(), 0.5 * x.square()], 1) + 0.1 * normal(12, 2)
    model = Recalibrated(bd.posteriors.ExactGP(training=GPTraining(max_steps=10, restarts=0)))
    model.fit(x, y)
    held = 2 * normal(300, 1, seed=1)
    model.calibrate(held, torch.cat([held.sin(), 0.5 * held.square()], 1) + 0.3 * normal(300, 2, seed=2), torch.arange(300) // 30)
    model.epistemic_scale = 1.7 * model.aleatoric_scale
    mean, cov = torch.tensor([0.7], dtype=F64), torch.tensor([[0.3]], dtype=F64)
    # E[g(x)] for x ~ N(0.7, 0.3) by Gauss-Hermite quadrature of what `predict` says at each node.
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weight = torch.from_numpy(weights / weights.sum()).unsqueeze(1)
    said = model.predict(mean + cov.sqrt() * torch.from_numpy(nodes).unsqueeze(1))
    centre = (weight * said.mean).sum(0)
    away = said.mean - centre
    own = said.epistemic_variance + (said.aleatoric_variance if process_noise else 0)
    wanted = (weight * away).T @ away + torch.diag((weight * own).sum(0))
    exact = model.exact_moment_map(process_noise)
    found = exact.moments(mean, cov)
    torch.testing.assert_close(found.mean, centre, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.cov, wanted, rtol=0, atol=1e-9)
    # The same in other units, as a codec asks for it.
    scale = (torch.tensor([0.2]), torch.tensor([3.0]), torch.tensor([1.0, -1.0]), torch.tensor([2.0, 5.0]))
    scale = tuple(part.double() for part in scale)
    moved = exact.rescaled(*scale).moments(mean * scale[1] + scale[0], cov * scale[1] ** 2)
    torch.testing.assert_close(moved.cov, wanted * torch.outer(scale[3], scale[3]), rtol=0, atol=1e-7)


# --- what is held out


def test_without_calibration_it_is_the_wrapped_posterior():
    x, y = toy_data(30, generator())
    model, plain = Recalibrated(quick_gp()), quick_gp()
    assert model.fit(x, y).nll == plain.fit(x, y).nll
    assert not model.calibrated
    assert torch.equal(model.predict(x).variance, plain.predict(x).variance)
    asked = x.unsqueeze(0)
    assert torch.equal(model.sample(3, generator(1))(asked).mean, plain.sample(3, generator(1))(asked).mean)
    assert model.exact_moment_map() is not None


def test_rows_of_the_fit_are_refused():
    x, y = toy_data(400, generator())
    model, groups = Recalibrated(ConjugateRegression()), torch.arange(300) // 30
    model.fit(x[:100], y[:100])
    model.calibrate(x[100:], y[100:], groups)
    for first in (99, 50):
        with pytest.raises(DataError, match=rf"{100 - first} of 300 rows of the calibration set are among those"):
            model.calibrate(x[first : first + 300], y[first : first + 300], groups)
        with pytest.raises(DataError, match="keep whole episodes out of the fit"):
            model.quantile_map(x[first : first + 300], y[first : first + 300], groups)
    # What is given later, in another precision or another order counts too; after another fit the first rows are free.
    model.append(x[100:110], y[100:110])
    order = torch.randperm(300, generator=generator(3))
    with pytest.raises(DataError, match="10 of 300 rows"):
        model.calibrate(x[100:][order], y[100:][order], groups)
    single = Recalibrated(ConjugateRegression())
    single.fit(x[:100].float(), y[:100].float())
    with pytest.raises(DataError, match="2 of 300 rows"):
        single.calibrate(x[98:398].float(), y[98:398].float(), groups)
    model.fit(x[300:], y[300:])
    model.calibrate(x[:300], y[:300], groups)


def test_too_little_is_refused():
    x, y = toy_data(600, generator())
    model = Recalibrated(ConjugateRegression())
    with pytest.raises(NotFittedError, match="Recalibrated has seen no data"):
        model.calibrate(x, y, torch.arange(600))
    model.fit(x[:100], y[:100])
    with pytest.raises(DataError, match=r"at least 5 episodes and 200 rows.*got 4 episodes and 400 rows"):
        model.calibrate(x[100:500], y[100:500], torch.arange(400) // 100)
    with pytest.raises(DataError, match="got 199 episodes and 199 rows"):
        model.calibrate(x[100:299], y[100:299], torch.arange(199))
    with shape_checks_off(), pytest.raises(ShapeError, match="an episode number for each of 200 rows"):
        model.calibrate(x[100:300], y[100:300], torch.arange(199))
    with pytest.raises(ShapeError, match=r"\(D, E\) = \(3, 2\)"):
        model.calibrate(x[100:300, :2], y[100:300], torch.arange(200))
    broken = y[100:300].clone()
    broken[5, 1] = math.nan
    with pytest.raises(DataError, match="non-finite"):
        model.calibrate(x[100:300], broken, torch.arange(200))
    assert not model.calibrated
    assert model.calibrate(x[100:300], y[100:300], torch.arange(200) // 40).episodes == 5


def test_a_posterior_fitted_before_it_was_wrapped_is_refused():
    x, y = toy_data(300, generator())
    plain = ConjugateRegression()
    plain.fit(x[:100], y[:100])
    with pytest.raises(ConfigurationError, match="was fitted before it was wrapped"):
        Recalibrated(plain).calibrate(x[100:], y[100:], torch.arange(200))


def test_another_fit_takes_the_scales_back_and_says_so():
    x, y = toy_data(400, generator())
    model = Recalibrated(ConjugateRegression(noise_var=0.5))
    assert model.fit(x[:100], y[:100]).warnings == ()
    model.calibrate(x[100:], y[100:], torch.arange(300) // 30)
    draws, asked = model.sample(3, generator(1)), x[:5].unsqueeze(0)
    before = draws(asked)
    model.append(x[100:110], y[100:110])
    assert model.calibrated
    again = model.fit(x[:50], y[:50], warm_start=True)
    assert "call calibrate again" in again.warnings[0]
    assert not model.calibrated
    assert torch.equal(draws(asked).mean, before.mean)
    assert torch.equal(draws(asked).var, before.var)


def test_a_calibration_replaces_the_one_before():
    x, y = toy_data(700, generator())
    twice, once = Recalibrated(ConjugateRegression(noise_var=0.5)), Recalibrated(ConjugateRegression(noise_var=0.5))
    for model in (twice, once):
        model.fit(x[:100], y[:100])
    groups = torch.arange(300) // 30
    twice.calibrate(x[100:400], y[100:400], groups)
    assert twice.calibrate(x[400:], y[400:], groups) == once.calibrate(x[400:], y[400:], groups)


# --- dynamics models


def episodes(count: int, seed: int, noise: float = 0.05, steps: int = 40) -> bd.Transitions:
    """Return episodes of x' = 0.9 x + 0.3 sin(v), v' = 0.8 v + 0.2 a + noise from random starts under random actions."""
    random = generator(seed)
    found = []
    for _ in range(count):
        states, actions = [torch.randn(2, generator=random, dtype=F64)], torch.randn(steps, 1, generator=random, dtype=F64)
        for action in actions:
            x, v = states[-1]
            after = torch.stack([0.9 * x + 0.3 * v.sin(), 0.8 * v + 0.2 * action[0]])
            states.append(after + noise * torch.randn(2, generator=random, dtype=F64))
        found.append(Episode(torch.stack(states), actions))
    return bd.Transitions.from_episodes(found)


def fitted_model(method: TotalScale | TwoScales = TotalScale()) -> tuple[bd.DynamicsModel, bd.Transitions, bd.Transitions]:
    train, held_out = episodes(2, 0), episodes(12, 1, noise=0.15)
    model = bd.DynamicsModel(bd.Codec(), Recalibrated(quick_gp(), method))
    model.fit(train)
    return model, train, held_out


def test_a_model_is_calibrated_from_whole_episodes():
    model, train, held_out = fitted_model()
    before = model.predict(held_out.state[:5], held_out.action[:5])
    report = model.calibrate(held_out)
    assert (report.rows, report.episodes) == (480, 12)
    after = model.predict(held_out.state[:5], held_out.action[:5])
    # The same factors in physical units: whitening cancels out.
    torch.testing.assert_close(after.variance, before.variance * model.posterior.aleatoric_scale**2)
    assert min(report.ratio) > 1.5
    with pytest.raises(DataError, match="40 of 520 rows"):
        model.calibrate(train.select(torch.arange(40)) + held_out)
    fresh = episodes(12, 2, noise=0.15)
    said = model.predict_target(fresh.state, fresh.action)
    inside = metrics.coverage(metrics.pit(said, model.codec.target(fresh.state, fresh.next_state)), 0.9)
    assert bool(((inside - 0.9).abs() < 0.05).all())  # 480 rows: 4 standard errors, 2 of the scale among them


def test_a_rollout_keeps_the_draw_and_the_planner_sees_it():
    model, _, held_out = fitted_model(TwoScales())
    model.calibrate(held_out)
    dynamics = model.sample(5, generator(2))
    start, actions = held_out.state[0], held_out.action[:6]
    noise = bd.TSInf().draw_noise(6, 5, 2, 2, generator(3), F64)
    rolled = bd.rollout(dynamics, start, actions, lambda s, a, s2: -s2[..., 0].square(), noise=noise, particles=2)
    state = start.expand(5, 2, 2)
    draws = model.posterior.sample(5, generator(2))
    for t in range(6):
        x = model.codec.encode(state, actions[t].expand(5, 2, 1))
        state = model.codec.decode(state, actions[t].expand(5, 2, 1), draws(x)).sample(noise.normal[t])
        torch.testing.assert_close(rolled.states[t + 1], state)
    exact = dynamics.beliefs
    assert exact is not None  # moment matching stays in closed form for a GP


@pytest.mark.parametrize("method", [TotalScale(), TwoScales()])
def test_saved_and_loaded_it_is_the_same_model(method: TotalScale | TwoScales, tmp_path: Path):
    model, train, held_out = fitted_model(method)
    other = bd.DynamicsModel(bd.Codec(), Recalibrated(quick_gp(), method))
    model.save(tmp_path / "model.safetensors")
    other.load(tmp_path / "model.safetensors")
    assert not other.posterior.calibrated
    model.calibrate(held_out)
    model.save(tmp_path / "model.safetensors")
    other.load(tmp_path / "model.safetensors")
    one, two = (m.predict(held_out.state, held_out.action) for m in (model, other))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one.variance, two.variance)
    assert other.posterior.calibrated
    with pytest.raises(DataError, match="80 of 560 rows"):
        other.calibrate(train + held_out)
    with pytest.raises(FileError, match="another model"):
        bd.DynamicsModel(bd.Codec(), Recalibrated(quick_gp(), CoverageScale())).load(tmp_path / "model.safetensors")


def test_a_quantile_map_serves_any_unit():
    model, _, held_out = fitted_model()
    quantiles = model.quantile_map(held_out)
    fresh = episodes(3, 4, noise=0.15)
    inside = quantiles(model.predict_target(fresh.state, fresh.action)).cdf(model.codec.target(fresh.state, fresh.next_state))
    outside = quantiles(model.predict(fresh.state, fresh.action)).cdf(fresh.next_state)
    torch.testing.assert_close(inside, outside)


def test_a_model_without_a_calibration_says_how_to_get_one():
    model = bd.DynamicsModel(bd.Codec(), quick_gp())
    model.fit(episodes(2, 0))
    for call in (model.calibrate, model.quantile_map):
        with pytest.raises(ConfigurationError, match=r"make the model with Recalibrated\(ExactGP\(\.\.\.\)\)"):
            call(episodes(6, 1))


def test_wrong_bounds_are_named():
    with pytest.raises(ConfigurationError, match="bound above 1"):
        TwoScales(bound=1.0)
    with pytest.raises(ConfigurationError, match="level between 0 and 1"):
        CoverageScale(90)


def test_scales_leave_the_mean_of_a_mixture():
    said = Predictive(normal(3, 5, 2), normal(3, 5, 2, seed=1).square(), normal(3, 5, 2, seed=2).square())
    scales = Scales(torch.tensor([2.0, 0.5], dtype=F64), torch.tensor([3.0, 1.0], dtype=F64))
    scaled = scales.predictive(said)
    torch.testing.assert_close(scaled.mean, said.mean)
    torch.testing.assert_close(scaled.epistemic_variance, said.epistemic_variance * scales.epistemic**2)
    torch.testing.assert_close(scaled.aleatoric_variance, said.aleatoric_variance * scales.aleatoric**2)
    same = Scales(torch.ones(2, dtype=F64), torch.ones(2, dtype=F64)).predictive(said)
    torch.testing.assert_close(same.log_prob(said.mean), said.log_prob(said.mean))
    assert isinstance(said.moment_matched(), Gaussian)
