"""The mean-field network: its loss against closed forms, its optimum against Bayesian linear regression, what it leaves alone."""

import math
import subprocess
import sys

import pyro
import pytest
import torch
from scipy import integrate, stats

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.networks import Homoscedastic, Network, OutOfBag
from bayesdyn.networks.local_reparameterisation import Estimator, Flipout, Local, Shared
from bayesdyn.networks.priors import GaussianPrior, Prior, ScaleMixture
from bayesdyn.posteriors.mean_field import MeanField
from bayesdyn.posteriors.variational_inference import BayesByBackprop, Problem
from bayesdyn.posteriors.variational_schedule import VariationalTraining, WindowedLosses
from bayesdyn.testing import check_posterior

ESTIMATORS = [Shared(), Local(), Flipout()]
CALLS = 300
QUICK = VariationalTraining(steps=40, warm_steps=20, learning_rate=1e-2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def named(value: object) -> str:
    return type(value).__name__


def inference(
    network: Network,
    rows: int,
    *,
    prior: Prior = GaussianPrior(),
    temperature: float = 1.0,
    estimator: Estimator = Shared(),
    spread: float = 0.3,
) -> BayesByBackprop:
    """A guide with means and scales of all sizes, in float64."""
    g = generator(5)
    location = torch.randn(network.size, generator=g, dtype=torch.float64)
    scale = spread * (0.2 + torch.rand(network.size, generator=g, dtype=torch.float64))
    noise = network.noise.start(1, network.outputs).double()
    return BayesByBackprop(Problem(network, prior, temperature, estimator, rows), location, scale, noise, generator(6))


def toy(rows: int, inputs: int = 2, outputs: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, inputs, generator=generator(1), dtype=torch.float64)
    return x, torch.randn(rows, outputs, generator=generator(2), dtype=torch.float64)


def seeded_loss(bayes: BayesByBackprop, x: torch.Tensor, y: torch.Tensor, batch_size: int = 10**6) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return float(bayes.loss(x, y, batch_size).detach())


def losses(bayes: BayesByBackprop, x: torch.Tensor, y: torch.Tensor, batch_size: int, calls: int) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        return torch.stack([bayes.loss(x, y, batch_size) for _ in range(calls)])


def kl_by_hand(bayes: BayesByBackprop, stds: list[float]) -> float:
    total = 0.0
    for mu, sigma, prior in zip(bayes.location.tolist(), bayes.scale.tolist(), stds, strict=True):
        total += math.log(prior / sigma) + (sigma**2 + mu**2) / (2 * prior**2) - 0.5
    return total


# A 2x2 layer: four weights of prior variance 1/2 and two biases of prior variance 1.
LAYER = Network(2, (), 2, noise=Homoscedastic())
LAYER_STDS = [0.5**0.5] * 4 + [1.0] * 2


def test_kl_of_a_two_by_two_layer_is_a_sum_over_weights_with_prior_stds_not_variances() -> None:
    bayes = inference(LAYER, 7)
    assert float(bayes.kl()) == pytest.approx(kl_by_hand(bayes, LAYER_STDS), rel=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=named)
def test_the_loss_holds_the_whole_kl_once_divided_by_the_number_of_rows(estimator: Estimator) -> None:
    for rows, batch in ((7, 7), (7, 3), (14, 14)):
        x, y = toy(rows)
        # Temperatures 3 and 1 with one seed: what differs is twice the KL, and nothing of it is sampled.
        hot, bayes = (seeded_loss(inference(LAYER, rows, temperature=t, estimator=estimator), x, y, batch) for t in (3.0, 1.0))
        wanted = kl_by_hand(inference(LAYER, rows), LAYER_STDS) / rows
        assert (hot - bayes) / 2 == pytest.approx(wanted, rel=1e-10)


@pytest.mark.usefixtures("unchecked_shapes")
def test_expected_loss_of_a_linear_layer_has_the_closed_form() -> None:
    x, y = toy(5)
    bayes = inference(LAYER, 5)
    (mean,), (bias,) = LAYER.unflatten(bayes.location.detach().unsqueeze(0))
    (var,), (bias_var,) = LAYER.unflatten(bayes.scale.detach().square().unsqueeze(0))
    square = (y - x @ mean[0] - bias[0]).square() + x.square() @ var[0] + bias_var[0]
    noise_var = math.exp(-2)  # where the log variance starts
    nll = 0.5 * (square / noise_var + math.log(2 * math.pi * noise_var)).sum(1).mean()
    drawn = losses(bayes, x, y, 5, CALLS)
    wanted = float(nll) + kl_by_hand(bayes, LAYER_STDS) / 5
    assert abs(float(drawn.mean()) - wanted) < 4.5 * float(drawn.std()) / CALLS**0.5


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_loss_of_a_minibatch_is_unbiased() -> None:
    network, (x, y) = Network(2, (4,), 2), toy(24)
    bayes = inference(network, 24, spread=1e-6)
    drawn = losses(bayes, x, y, 4, CALLS)
    # With scales of 1e-6 the rows alone decide, and the loss of all rows is exact to about that.
    assert abs(float(drawn.mean()) - seeded_loss(bayes, x, y)) < 4.5 * float(drawn.std()) / CALLS**0.5


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_three_estimators_have_one_expected_loss_and_local_noise_the_least_variance() -> None:
    network, (x, y) = Network(2, (4,), 1), toy(16, outputs=1)
    drawn = {named(e): losses(inference(network, 16, estimator=e, spread=0.2), x, y, 16, CALLS) for e in ESTIMATORS}
    mean, error = (
        {name: float(f) for name, f in parts}
        for parts in ([(name, d.mean()) for name, d in drawn.items()], [(name, d.std() / CALLS**0.5) for name, d in drawn.items()])
    )
    for name in ("Local", "Flipout"):
        assert abs(mean[name] - mean["Shared"]) < 4.5 * math.hypot(error[name], error["Shared"])
    assert error["Local"] < error["Shared"]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=named)
@pytest.mark.usefixtures("unchecked_shapes")
def test_columns_of_a_row_have_the_moments_of_the_weights(estimator: Estimator) -> None:
    g, draws = generator(7), 2000
    location, scale = torch.randn(1, 6, generator=g).double(), torch.rand(1, 6, generator=g).double()
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    thetas = location + scale * torch.randn(draws, 6, generator=g, dtype=torch.float64)
    columns = torch.cat([estimator.columns(LAYER, t.unsqueeze(0), location, scale, x, g) for t in thetas])
    (weight,), (bias,) = LAYER.unflatten(location)
    (weight_var,), (bias_var,) = LAYER.unflatten(scale.square())
    mean, var = (x @ weight + bias)[0], (x.square() @ weight_var + bias_var)[0]
    assert bool(((columns.mean(0) - mean).abs() < 4.5 * (var / draws).sqrt()).all())
    assert bool(((columns.var(0) / var - 1).abs() < 4.5 * (2 / draws) ** 0.5).all())
    # Rows share θ in one estimator only.
    shared = (x[0] * x[1]) @ weight_var[0] + bias_var[0, 0]
    correlation = ((columns - columns.mean(0)).prod(1).mean(0) / var.prod(0).sqrt()).tolist()
    wanted = (shared / var.prod(0).sqrt()).tolist() if named(estimator) == "Shared" else [0.0, 0.0]
    # The covariance of normals has standard error √((1 + ρ²)/draws) in units of their stds.
    assert correlation == pytest.approx(wanted, abs=4.5 * (2 / draws) ** 0.5)


@pytest.mark.parametrize("temperature", [1.0, pytest.param(0.25, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unchecked_fits")
def test_a_linear_network_finds_the_best_factorised_posterior_of_linear_regression(temperature: float) -> None:
    rows, g = 80, generator(8)
    x = torch.randn(rows, 2, generator=g, dtype=torch.float64)
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    y = x @ torch.tensor([[0.7], [-0.4]], dtype=torch.float64) + 0.3 + 0.5 * torch.randn(rows, 1, generator=g, dtype=torch.float64)
    posterior = MeanField(
        hidden=(),
        noise=Homoscedastic(),
        prior=GaussianPrior(),
        temperature=temperature,
        training=VariationalTraining(steps=1200, learning_rate=2e-2, ramp=0.1, falling=0.7),
    )
    report = posterior.fit(x, y, generator=generator())
    noise_var = float(posterior.predict(x[:1]).aleatoric_variance)
    features = torch.cat([x, torch.ones(rows, 1, dtype=torch.float64)], 1)
    data = features.T @ features / noise_var
    precision = data / temperature + torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    mean = torch.linalg.solve(precision, features.T @ y / (noise_var * temperature))[:, 0]
    std = precision.diagonal().rsqrt()
    # A tenth of the posterior's own std is what the falling learning rate leaves.
    assert float(((posterior.location - mean) / std).abs().max()) < 0.1
    assert float((posterior.scale / std - 1).abs().max()) < 0.05
    # The true marginals are wider: the features are correlated.
    assert bool((std < torch.linalg.inv(precision).diagonal().sqrt()).all())
    square = (y - features @ mean.unsqueeze(1)).square().mean() + (data * torch.diag(std.square())).sum() * noise_var / rows
    assert noise_var == pytest.approx(float(square), rel=0.03)
    kl = GaussianPrior().kl(mean, std, torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64).sqrt(), generator())
    assert report.penalty == pytest.approx(temperature * float(kl) / rows, rel=0.03)


def test_kl_to_a_scale_mixture_agrees_with_quadrature() -> None:
    prior, mu, sigma, copies = ScaleMixture(share=0.3, wide=1.5, narrow=0.2), 0.4, 0.3, 500
    q = stats.norm(mu, sigma)

    def integrand(w: float) -> float:
        density = 0.3 * stats.norm.pdf(w, 0, 3.0) + 0.7 * stats.norm.pdf(w, 0, 0.4)
        return q.pdf(w) * (q.logpdf(w) - math.log(density))

    wanted = integrate.quad(integrand, mu - 8 * sigma, mu + 8 * sigma)[0]
    location, scale, std = (torch.full((copies,), v, dtype=torch.float64) for v in (mu, sigma, 2.0))
    each = torch.stack([prior.kl(location[i : i + 1], scale[:1], std[:1], generator(i)) for i in range(copies)])
    assert abs(float(each.mean()) - wanted) < 4.5 * float(each.std()) / copies**0.5


@pytest.mark.parametrize("estimator", [Shared(), Local()], ids=named)
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_scale_mixture_enters_the_loss_by_sampling_without_bias(estimator: Estimator) -> None:
    x, y = toy(6)
    prior, g = ScaleMixture(), generator(9)
    hot, cold = (losses(inference(LAYER, 6, prior=prior, temperature=t, estimator=estimator), x, y, 6, CALLS) for t in (3.0, 1.0))
    bayes = inference(LAYER, 6, prior=prior)
    direct = torch.stack([prior.kl(bayes.location, bayes.scale, bayes.prior_std, g) for _ in range(200)]).detach()
    error = math.hypot(float((hot - cold).std()) / 2 / CALLS**0.5, float(direct.std()) / 6 / 200**0.5)
    # Seeds are equal, so that the likelihood cancels call by call.
    assert abs(float((hot - cold).mean()) / 2 - float(direct.mean()) / 6) < 4.5 * error


def test_pyro_leaves_nothing_behind() -> None:
    x, y = toy(20)
    pyro.clear_param_store()
    before, validation = torch.get_rng_state(), torch.distributions.Distribution._validate_args
    fits = []
    for seed in (3, 3, 4):
        posterior = MeanField(hidden=(5,), training=QUICK)
        posterior.fit(x, y, generator=generator(seed))
        fits.append(posterior.predict(x).mean)
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.distributions.Distribution._validate_args == validation
    assert len(pyro.get_param_store()) == 0
    assert list(posterior.parameters()) == []


def test_inference_in_pyro_is_imported_by_the_first_fit_only() -> None:
    # Asked of the one module that needs Pyro: GPyTorch imports Pyro on its own account.
    code = "import sys, bayesdyn.posteriors.mean_field; sys.exit('bayesdyn.posteriors.variational_inference' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prediction_is_the_plain_mixture_of_draws_and_not_weighted_by_precision() -> None:
    x, y = toy(30)
    posterior = MeanField(hidden=(8,), training=QUICK)
    posterior.fit(x, y, generator=generator())
    answer, predictive = posterior.sample(64, generator())(x.unsqueeze(0)), posterior.predict(x)
    assert predictive.components == 64
    torch.testing.assert_close(predictive.mean, answer.mean.mean(0))
    torch.testing.assert_close(predictive.aleatoric_variance, answer.var.mean(0))
    weighted = (answer.mean / answer.var).sum(0) / (1 / answer.var).sum(0)
    assert float((weighted - predictive.mean).abs().max()) > 1e-4


@pytest.mark.slow
def test_a_warm_start_goes_on_from_the_last_posterior() -> None:
    x, y = toy(40)
    y = x.sin() + 0.1 * y
    posterior = MeanField(hidden=(8,), training=VariationalTraining(steps=600, warm_steps=30, learning_rate=1e-2))
    posterior.fit(x[:30], y[:30], generator=generator())
    location, scale = posterior.location, posterior.scale
    report = posterior.fit(x, y, warm_start=True, generator=generator(1))
    assert report.steps <= 30
    # Adam moves an element by about the learning rate per step, at most 30 of them.
    assert 0 < float((posterior.location - location).abs().max()) < 0.35
    assert float((posterior.scale / scale).log().abs().max()) < 1.0
    with pytest.raises(ShapeError, match="warm start"):
        posterior.fit(x[:, :1], y, warm_start=True)


def test_losses_are_called_converged_only_when_both_parts_stand_still() -> None:
    def fed(nll: list[float], kl: list[float]) -> WindowedLosses:
        window = WindowedLosses(window=1, tolerance=0.01)
        for step, (a, b) in enumerate(zip(nll, kl, strict=True)):
            assert window.add(torch.tensor(a + b))
            window.close(step, b, b)
        return window

    assert fed([0.5, 0.5, 0.5], [2.0, 2.0, 2.0]).converged
    assert not fed([0.5, 0.5], [2.0, 2.0]).converged
    assert not fed([0.5, 0.5, 0.5], [2.1, 2.05, 2.0]).converged
    assert not fed([0.55, 0.52, 0.5], [2.0, 2.0, 2.0]).converged
    assert fed([0.5, 0.5, 0.5, 0.0], [2.0, 2.0, 2.0, 2.0]).converged_by(2)


@pytest.mark.slow
def test_a_fit_that_was_cut_short_says_so() -> None:
    x, y = toy(40)
    cut = MeanField(hidden=(8,), training=VariationalTraining(steps=60)).fit(x, y, generator=generator())
    assert any("still moved" in warning for warning in cut.warnings)
    assert cut.steps == 60
    assert cut.penalty == pytest.approx(cut.curves["kl"][-1], rel=0.05)
    linear = MeanField(hidden=(), training=VariationalTraining(steps=1000, tolerance=0.05)).fit(
        x, x + 0.3 * y, generator=generator()
    )
    assert linear.warnings == ()


@pytest.mark.parametrize("seed", range(5))
def test_one_layer_of_relu_units_cannot_be_unsure_between_the_data(seed: int) -> None:
    # Var f(0) <= Var f(a) + Var f(b) for a < 0 < b (Foong et al. 2020, theorem 1), in closed form for any factorised Gaussian.
    g, units = generator(seed), 30
    weight, bias, out = (torch.randn(units, generator=g, dtype=torch.float64) for _ in range(3))
    weight_std, bias_std, out_std = (2 * torch.rand(units, generator=g, dtype=torch.float64) for _ in range(3))

    def variance(x: float) -> float:
        mean, var = x * weight + bias, (x * weight_std).square() + bias_std.square()
        ratio, std = mean / var.sqrt(), var.sqrt()
        normal = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        density, below = normal.log_prob(ratio).exp(), normal.cdf(ratio)
        first = mean * below + std * density  # E max(0, a), a ~ N(mean, var), and E max(0, a)²
        second = (mean.square() + var) * below + mean * std * density
        return float(((out.square() + out_std.square()) * second - (out * first).square()).sum())

    network = Network(1, (units,), 1, "relu", Homoscedastic())
    location, scale = (torch.cat([*t, torch.zeros(1).double()]) for t in ((weight, bias, out), (weight_std, bias_std, out_std)))
    theta = location + scale * torch.randn(20_000, network.size, generator=g, dtype=torch.float64)
    points = [-1.0, -0.3, 0.0, 0.3, 1.0]
    answer = network.columns(theta, torch.tensor(points, dtype=torch.float64).reshape(1, -1, 1).expand(len(theta), -1, -1))[..., 0]
    error = (answer - answer.mean(0)).square().std(0) / len(theta) ** 0.5
    for index, x in enumerate(points):
        assert abs(float(answer[:, index].var()) - variance(x)) < 4.5 * float(error[index])
    for a in (-0.1, -0.3, -1.0, -3.0):
        for b in (0.1, 0.3, 1.0, 3.0):
            assert variance(0.0) <= variance(a) + variance(b)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unchecked_fits")
def test_the_posterior_keeps_the_contract(dtype: torch.dtype) -> None:
    training = VariationalTraining(steps=250, warm_steps=50, learning_rate=2e-2)
    check_posterior(lambda: MeanField(hidden=(8,), noise=Homoscedastic(), training=training), dtype=dtype)


def test_options_without_a_meaning_are_refused() -> None:
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigurationError, match="temperature above 0"):
            MeanField(temperature=temperature)
    with pytest.raises(ConfigurationError, match="held out"):
        MeanField(noise=OutOfBag())
    with pytest.raises(ConfigurationError, match="width above 0"):
        GaussianPrior(width=0.0)
    with pytest.raises(ConfigurationError, match="wide > narrow"):
        ScaleMixture(wide=0.1, narrow=0.1)
    with pytest.raises(ConfigurationError, match="positive"):
        VariationalTraining(steps=0)
