"""Metrics agree with independent libraries, quadrature and closed forms, and with what a calibrated model has to score."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import scoringrules
import torch
import uncertainty_toolbox as uct
from reference_posteriors import ConjugateRegression
from sklearn.metrics import r2_score, roc_auc_score

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, DataError, ShapeError
from bayesdyn.evaluation import metrics
from bayesdyn.evaluation.null_bands import independent_replicates, joint_replicates, null_band
from bayesdyn.evaluation.samples import energy_score, fair_crps, rank_pit, split_variance, spread_skill


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def mixture(m, rows, outputs, seed=0):
    mean = normal(m, rows, outputs, seed=seed)
    epistemic = 0.3 * normal(m, rows, outputs, seed=seed + 1).square()
    return Predictive(mean, epistemic, 0.1 + normal(m, rows, outputs, seed=seed + 2).square())


def gaussian(mean, std):
    return Predictive(mean.unsqueeze(0), torch.zeros_like(mean).unsqueeze(0), std.square().unsqueeze(0))


@pytest.fixture(scope="module")
def single():
    """One Gaussian per point, with y drawn from it: [500, 1]."""
    mean, std = normal(500, 1), 0.3 + normal(500, 1, seed=1).abs()
    return gaussian(mean, std), mean + std * normal(500, 1, seed=2), mean[:, 0].numpy(), std[:, 0].numpy()


def test_gaussian_scores_agree_with_uncertainty_toolbox(single):
    predictive, y, mean, std = single
    target = y[:, 0].numpy()
    assert metrics.nll(predictive, y).item() == pytest.approx(uct.nll_gaussian(mean, std, target), abs=1e-10)
    assert metrics.crps(predictive, y).item() == pytest.approx(uct.crps_gaussian(mean, std, target), abs=1e-10)
    assert metrics.sharpness(predictive).total.item() == pytest.approx(uct.sharpness(std), abs=1e-12)
    # The toolbox counts |z| below a bound on the two-sided interval, so its curve is that of |2u - 1|.
    folded = (2 * metrics.pit(predictive, y) - 1).abs()
    ours = metrics.calibration_curve(folded)[1][:, 0].mean().item()
    _, observed = uct.get_proportion_lists_vectorized(mean, std, target, num_bins=101, prop_type="interval")
    assert ours == pytest.approx(observed[1:-1].mean(), abs=1e-9)


def test_miscalibration_agrees_with_uncertainty_toolbox(single):
    predictive, y, mean, std = single
    expected, observed = uct.get_proportion_lists_vectorized(mean, std, y[:, 0].numpy(), num_bins=101, prop_type="quantile")
    ours = metrics.mace(metrics.pit(predictive, y)).item()
    assert ours == pytest.approx(np.abs(expected - observed)[1:-1].mean(), abs=1e-9)


def test_gaussian_crps_agrees_with_scoringrules(single):
    predictive, y, mean, std = single
    assert metrics.crps(predictive, y).item() == pytest.approx(
        scoringrules.crps_normal(y[:, 0].numpy(), mean, std).mean(), abs=1e-12
    )


def test_mixture_crps_agrees_with_quadrature():
    predictive = mixture(4, 3, 2)
    y = normal(3, 2, seed=9)
    mean, std = predictive.component_mean.numpy(), predictive.component_var.sqrt().numpy()

    def by_quadrature(row, output):
        m, s, value = mean[:, row, output], std[:, row, output], float(y[row, output])

        def square(t, step):
            return (scipy.stats.norm.cdf(t, m, s).mean() - step) ** 2

        low, high = (m - 12 * s).min(), (m + 12 * s).max()
        options = {"epsabs": 1e-11, "epsrel": 1e-11, "limit": 200}
        below = scipy.integrate.quad(square, low, value, args=(0.0,), **options)[0]
        return below + scipy.integrate.quad(square, value, high, args=(1.0,), **options)[0]

    expected = [np.mean([by_quadrature(row, output) for row in range(3)]) for output in range(2)]
    assert metrics.crps(predictive, y).tolist() == pytest.approx(expected, abs=1e-9)


def test_crps_in_portions_is_the_same(monkeypatch):
    predictive, y = mixture(5, 20, 2), normal(20, 2, seed=9)
    whole = metrics.crps(predictive, y)
    monkeypatch.setattr(metrics, "_ELEMENTS_AT_ONCE", 5 * 5 * 2 * 7)
    torch.testing.assert_close(metrics.crps(predictive, y), whole, rtol=1e-13, atol=0)


def test_crps_of_a_certain_prediction_is_the_absolute_error():
    sure = Predictive(torch.zeros(1, 2, 1, dtype=torch.float64), *(torch.zeros(1, 2, 1, dtype=torch.float64) for _ in range(2)))
    assert metrics.crps(sure, torch.tensor([[1.0], [-3.0]], dtype=torch.float64)).item() == pytest.approx(2.0)


def test_nll_is_that_of_the_mixture_with_outputs_inside():
    predictive, y = mixture(6, 50, 3), normal(50, 3, seed=9)
    mean, std = predictive.component_mean.numpy(), predictive.component_var.sqrt().numpy()
    density = scipy.stats.norm.pdf(y.numpy(), mean, std).prod(-1).mean(0)
    assert metrics.nll(predictive, y).item() == pytest.approx(-np.log(density).mean() / 3, abs=1e-12)
    marginal = scipy.stats.norm.pdf(y.numpy(), mean, std).mean(0)
    assert metrics.marginal_nll(predictive, y).tolist() == pytest.approx(-np.log(marginal).mean(0), abs=1e-12)


def test_moment_matched_nll_misses_modes():
    two = Predictive(torch.tensor([[[-1.0]], [[1.0]]]), torch.zeros(2, 1, 1), torch.full((2, 1, 1), 0.01))
    y = torch.ones(1, 1)
    # At a mode the mixture's density is half the component's; the matched Gaussian has variance 1.01.
    assert metrics.nll(two, y).item() == pytest.approx(0.5 * math.log(2 * math.pi * 0.01) + math.log(2), abs=1e-5)
    assert metrics.moment_matched_nll(two, y).item() == pytest.approx(0.5 * (1 / 1.01 + math.log(2 * math.pi * 1.01)), abs=1e-5)


def test_errors_agree_with_scikit_learn():
    predictive, y = mixture(3, 60, 2), normal(60, 2, seed=9)
    mean = predictive.mean.numpy()
    assert metrics.r2(predictive, y).tolist() == pytest.approx(r2_score(y.numpy(), mean, multioutput="raw_values"))
    assert metrics.rmse(predictive, y).tolist() == pytest.approx(np.sqrt(((y.numpy() - mean) ** 2).mean(0)))


def test_rank_statistics_agree_with_scipy_and_scikit_learn():
    # Rounding makes ties.
    score, error = (normal(200, 2, seed=1) * 3).round(), (normal(200, 2, seed=2) * 3).round().abs()
    expected = [scipy.stats.spearmanr(score[:, d], error[:, d]).statistic for d in range(2)]
    assert metrics.spearman(score, error).tolist() == pytest.approx(expected, abs=1e-12)
    inside, shifted = score[:80, 0], score[80:, 0] + 1
    labels = np.r_[np.zeros(80), np.ones(120)]
    assert metrics.auroc(inside, shifted).item() == pytest.approx(roc_auc_score(labels, torch.cat([inside, shifted]).numpy()))


def test_spearman_of_a_perfect_std_stays_below_its_ceiling():
    """For |error| = σ|ε| with log σ ~ N(0, s²), rank correlations are .30 at s = .3 and .69 at s = 1, to Monte Carlo error."""
    rows = 40_000
    for spread, ceiling in ((0.3, 0.30), (1.0, 0.69)):
        std = (spread * normal(rows, 1)).exp()
        found = metrics.spearman(std, (std * normal(rows, 1, seed=1)).abs()).item()
        # The ceilings are given to two digits; a rank correlation of independent pairs has a standard error below 1/√J.
        assert found == pytest.approx(ceiling, abs=0.005 + 4 / math.sqrt(rows))


def test_false_positive_rate_counts_points_above_the_kept_share():
    inside, shifted = torch.arange(100.0), torch.arange(50.0, 150.0)
    # 95 of the shifted 50..149 are at least 55; of 0..99 inside, 45 are.
    assert metrics.false_positive_rate(inside, shifted).item() == pytest.approx(0.45)


def test_shift_score_is_the_log_variance_ratio():
    predictive = Predictive(torch.zeros(1, 3, 2), torch.full((1, 3, 2), 3.0), torch.ones(1, 3, 2))
    assert metrics.shift_score(predictive).tolist() == pytest.approx([2 * math.log(4.0)] * 3)


def test_proper_scores_are_smallest_for_the_true_std():
    """On 4,000 points the expected NLL and CRPS at half and twice the std lie many standard errors above those of the truth."""
    y = normal(4000, 1)

    def score(metric, scale):
        return metric(gaussian(torch.zeros_like(y), torch.full_like(y, scale)), y).item()

    for metric in (metrics.nll, metrics.crps):
        assert score(metric, 1.0) < min(score(metric, 0.5), score(metric, 2.0))


def test_units_move_nll_by_their_logarithm_and_nothing_else():
    predictive, y = mixture(4, 300, 2), normal(300, 2, seed=9)
    scaled = Predictive(
        7 * predictive.component_mean, 49 * predictive.component_epistemic_var, 49 * predictive.component_aleatoric_var
    )
    assert (metrics.nll(scaled, 7 * y) - metrics.nll(predictive, y)).item() == pytest.approx(math.log(7), abs=1e-12)
    for metric in (metrics.pit, metrics.ence, metrics.mean_squared_z, metrics.r2):
        torch.testing.assert_close(metric(scaled, 7 * y), metric(predictive, y), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metrics.crps(scaled, 7 * y), 7 * metrics.crps(predictive, y))


def test_order_of_points_and_components_does_not_matter():
    predictive, y = mixture(5, 200, 2), normal(200, 2, seed=9)
    rows, parts = torch.randperm(200, generator=generator()), torch.randperm(5, generator=generator())
    tensors = (predictive.component_mean, predictive.component_epistemic_var, predictive.component_aleatoric_var)
    mixed = Predictive(*(t[parts][:, rows] for t in tensors))
    for metric in (metrics.nll, metrics.crps, metrics.ence, metrics.rmse):
        torch.testing.assert_close(metric(mixed, y[rows]), metric(predictive, y), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metrics.mace(metrics.pit(mixed, y[rows])), metrics.mace(metrics.pit(predictive, y)))


def test_overconfidence_has_the_sign_of_the_error():
    y = normal(2000, 1)
    signs = [metrics.overconfidence(metrics.pit(gaussian(0 * y, torch.full_like(y, s)), y)).item() for s in (0.5, 2.0)]
    assert signs[0] > 0.1 > -0.1 > signs[1]


@pytest.mark.parametrize(("rows", "expected"), [(500, 0.0140), (2000, 0.0070)])
def test_mace_of_a_calibrated_model_is_its_closed_form(rows, expected):
    """E[MACE] ≈ √(2/π)·(π/8)/√J for independent points."""
    assert expected == pytest.approx(math.sqrt(2 / math.pi) * math.pi / 8 / math.sqrt(rows), abs=5e-5)
    u = torch.rand(rows, 400, generator=generator(), dtype=torch.float64)
    found = metrics.mace(u)
    # The mean over p on a grid and the normal limit are good to a few percent at these J.
    assert found.mean().item() == pytest.approx(expected, rel=0.03, abs=4 * found.std().item() / math.sqrt(400))


@pytest.mark.parametrize(("rows", "expected"), [(500, 0.113), (2000, 0.056)])
def test_ence_of_a_calibrated_model_is_its_closed_form(rows, expected):
    """E[ENCE] ≈ 1/√(πb) with b = J/20 points per bin."""
    std = (0.3 * normal(rows, 1)).exp()
    predictive = gaussian(torch.zeros_like(std), std)
    found = torch.stack([metrics.ence(predictive, std * normal(rows, 1, seed=s), bins=20) for s in range(1, 101)])
    assert found.mean().item() == pytest.approx(expected, rel=0.03, abs=4 * found.std().item() / math.sqrt(100))


@pytest.mark.usefixtures("unchecked_shapes")
def test_joint_null_holds_where_the_independent_null_does_not():
    """Conjugate regression: a test set drawn from the model's own prior lies in the joint band as often as it should.

    θ is drawn from the prior, data and test points from θ. The 5 % quantile of R replicates lies at the order statistic
    .05 (R - 1) + 1, below which a further replicate falls with that number over R + 1; the count of repetitions is binomial.
    """
    repetitions, replicates = 150, 60
    expected = 1 - 2 * (0.05 * (replicates - 1) + 1) / (replicates + 1)
    inside = {"joint": 0, "independent": 0}
    for seed in range(repetitions):
        g = generator(seed)
        x = torch.randn(430, 10, generator=g, dtype=torch.float64)
        posterior = ConjugateRegression(lambda v: v, prior_var=1.0, noise_var=0.25)
        weight = torch.randn(10, 1, generator=g, dtype=torch.float64)
        y = x @ weight + 0.5 * torch.randn(430, 1, generator=g, dtype=torch.float64)
        posterior.fit(x[:30], y[:30])
        predictive = posterior.predict(x[30:])
        mean, half = predictive.mean, 1.6449 * predictive.stddev

        def covered(p, values, mean=mean, half=half):
            return ((values - mean).abs() <= half).double().mean(0)

        nulls = {
            "joint": joint_replicates(posterior.sample(replicates, g), x[30:], g),
            "independent": independent_replicates(predictive, replicates, g),
        }
        for name, drawn in nulls.items():
            low, high = null_band(covered, predictive, drawn)
            inside[name] += int(low <= covered(predictive, y[30:]) <= high)
    error = math.sqrt(expected * (1 - expected) / repetitions)
    assert inside["joint"] / repetitions == pytest.approx(expected, abs=4 * error)
    assert inside["independent"] / repetitions < expected - 4 * error


def test_a_wrong_std_leaves_the_null_band_on_the_right_side():
    y = normal(1000, 1)
    for scale, side in ((0.5, -1), (2.0, 1)):
        predictive = gaussian(torch.zeros_like(y), torch.full_like(y, scale))

        def covered(p, values):
            return metrics.coverage(metrics.pit(p, values), 0.9)

        low, high = null_band(covered, predictive, independent_replicates(predictive, 100, generator()))
        value = covered(predictive, y)
        assert bool(value < low) if side < 0 else bool(value > high)


def test_fair_scores_agree_with_scoringrules():
    samples, y = normal(12, 30, 3), normal(30, 3, seed=1)
    expected = scoringrules.crps_ensemble(y.numpy(), np.moveaxis(samples.numpy(), 0, -1), estimator="fair")
    np.testing.assert_allclose(fair_crps(samples, y).numpy(), expected, atol=1e-12)
    expected = scoringrules.es_ensemble(y.numpy(), np.moveaxis(samples.numpy(), 0, 1), estimator="fair")
    np.testing.assert_allclose(energy_score(samples, y).numpy(), expected, atol=1e-12)


def test_fair_crps_has_the_same_expectation_for_any_number_of_samples():
    y = normal(20_000)
    for count in (2, 10, 50):
        scores = fair_crps(normal(count, 20_000, seed=count), y)
        # E CRPS of N(0, 1) on its own draws is 1/√π.
        assert scores.mean().item() == pytest.approx(1 / math.sqrt(math.pi), abs=4 * scores.std().item() / math.sqrt(20_000))


def test_rank_pit_and_spread_skill_of_exchangeable_samples():
    """Samples and truth from one distribution: PIT uniform (Kolmogorov-Smirnov), ratio 1 only with the (P + 1)/P factor."""
    samples, y = normal(20, 20_000), normal(20_000, seed=99)
    u = rank_pit(samples, y, generator())
    assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    # RMSE² and mean variance each have a relative standard error of at most √(2/J); the ratio of roots has half their sum.
    assert spread_skill(samples, y).item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / 20_000))


def test_rank_pit_is_uniform_when_everything_ties():
    u = rank_pit(torch.zeros(10, 5000), torch.zeros(5000), generator())
    assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-3


def test_split_variance_removes_the_noise_from_the_epistemic_part():
    """θ ~ N(0, 4), noise var 1, 25 x 4 samples: both parts are unbiased over many places."""
    places = 4000
    theta = 2 * normal(25, 1, places)
    epistemic, aleatoric = split_variance(theta + normal(25, 4, places, seed=1))
    for found, expected in ((epistemic, 4.0), (aleatoric, 1.0)):
        assert found.mean().item() == pytest.approx(expected, abs=4 * found.std().item() / math.sqrt(places))


def test_faults_found_elsewhere_are_not_made():
    """Members' parameters averaged would give std .10 for 1.005; exp(mean log var) would give aleatoric 1 for 500."""
    two = Predictive(torch.tensor([[[-1.0]], [[1.0]]]), torch.zeros(2, 1, 1), torch.full((2, 1, 1), 0.01))
    assert metrics.sharpness(two).total.item() == pytest.approx(math.sqrt(1.01), abs=1e-6)
    wide = Predictive(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1), torch.tensor([[[0.001]], [[1000.0]]]))
    assert metrics.sharpness(wide).aleatoric.item() ** 2 == pytest.approx(500.0005, rel=1e-6)


def test_mismatched_inputs_are_refused():
    predictive = mixture(2, 5, 1)
    with pytest.raises(ShapeError, match="5, 1"):
        metrics.crps(predictive, torch.zeros(4, 1, dtype=torch.float64))
    with pytest.raises(DataError, match="0 shifted"):
        metrics.auroc(torch.zeros(3), torch.zeros(0))
    with pytest.raises(ConfigurationError, match="at least 2"):
        fair_crps(torch.zeros(1, 3), torch.zeros(3))
    with pytest.raises(ConfigurationError, match="2 draws"):
        split_variance(torch.zeros(5, 1, 3))
