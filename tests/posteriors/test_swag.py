"""SWAG: draws have the covariance they say, the walk is as wide as exact Bayesian regression, its limits are reported."""

import math

import pytest
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NotFittedError, ShapeError
from bayesdyn.networks import Heteroscedastic, Homoscedastic, Network, Noise, OutOfBag, Parameters, Training
from bayesdyn.networks.energy import Energy
from bayesdyn.posteriors.swag import SWAG
from bayesdyn.posteriors.swag_sgd import Averaging, choose_pace, walk
from bayesdyn.testing import check_posterior

QUICK = Training(steps=60, warm_steps=20, learning_rate=1e-2)
SHORT = Averaging(steps=100, burn_in=20, snapshots=40, rank=10, probes=32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 2, generator=generator(seed), dtype=dtype)
    y = torch.stack([(2 * x[:, 0]).sin(), x.prod(1)], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=generator(seed + 1), dtype=dtype)


def test_draws_have_half_the_diagonal_and_half_the_covariance_of_the_deviations() -> None:
    posterior, g, draws = SWAG(members=2, hidden=(), noise=Homoscedastic()), generator(), 40_000
    posterior.keep(Network(2, (), 1, noise=Homoscedastic()), torch.zeros(2, 1, 1))
    posterior.location, posterior.diagonal = torch.randn(2, 3, generator=g), torch.rand(2, 3, generator=g)
    posterior.deviations = torch.randn(2, 5, 3, generator=g)
    function = posterior.sample(2 * draws, g)
    theta = torch.cat([function.weights[0].flatten(1), function.biases[0].flatten(1)], 1).unflatten(0, (2, draws)).double()
    for k in range(2):
        low_rank = posterior.deviations[k].T @ posterior.deviations[k] / 4
        wanted = 0.5 * (posterior.diagonal[k].diag() + low_rank).double()
        assert bool(((theta[k].mean(0) - posterior.location[k]).abs() < 4.5 * (wanted.diagonal() / draws).sqrt()).all())
        # The variance of a sample covariance of Gaussians is (Σ_ij² + Σ_ii Σ_jj)/n.
        error = ((wanted.square() + torch.outer(wanted.diagonal(), wanted.diagonal())) / draws).sqrt()
        assert bool(((theta[k].T.cov() - wanted).abs() < 4.5 * error).all())


def test_moments_and_deviations_are_those_of_the_snapshots() -> None:
    x, y = wave(40, dtype=torch.float64)
    network, seen = Network(2, (4,), 2), []

    class Recording(Energy):
        """Remembers the weights at which gradients were asked for."""

        def gradient(self, parameters, rows=None):
            seen.append(parameters.theta)
            return super().gradient(parameters, rows)

    energy, g = Recording(network, x, y, network.prior_precision().double()), generator()
    start = Parameters(*(t.double() for t in network.initial(2, g)))
    settings = Averaging(steps=61, burn_in=21, snapshots=20, rank=7, probes=8)
    pace = choose_pace(energy, start, settings, g)
    seen.clear()
    walked = walk(energy, start, pace, settings, g, None)
    # The snapshot after step s is where step s + 1 asks; the one after the last step is not asked at.
    snapshots = torch.stack([seen[step + 1] for step in range(22, 60, 2)])
    last = walked.mean * 20 - snapshots.sum(0)
    snapshots = torch.cat([snapshots, last.unsqueeze(0)])
    torch.testing.assert_close(walked.var, snapshots.var(0, correction=0))
    running = snapshots.cumsum(0) / torch.arange(1, 21).reshape(-1, 1, 1)
    torch.testing.assert_close(walked.deviations, (snapshots - running)[-7:].transpose(0, 1))


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.usefixtures("unchecked_fits")
def test_the_walk_is_as_wide_as_exact_linear_regression_over_the_training_inputs(correlation: float) -> None:
    rows, members, noise_std = 200, 20, 0.3
    x = torch.randn(rows, 4, generator=generator(), dtype=torch.float64)
    x[:, 1] = correlation * x[:, 0] + math.sqrt(1 - correlation**2) * x[:, 1]
    y = x.sum(1, keepdim=True) / 4 + noise_std * torch.randn(rows, 1, generator=generator(1), dtype=torch.float64)
    posterior = SWAG(
        members=members,
        hidden=(),
        noise=Homoscedastic(),
        training=Training(steps=400, learning_rate=2e-2),
        averaging=Averaging(steps=1500, burn_in=300),
    )
    report = posterior.fit(x, y, generator=generator())
    assert min(report.curves["widened"]) > 1.2  # the rate that fits is too fast here
    design = torch.cat([x, torch.ones(rows, 1, dtype=torch.float64)], 1)
    precision = posterior.network.prior_precision().double()
    var = (10 * posterior.noise_parameters.mean()).exp()
    exact = torch.linalg.inv(precision.diag() + design.T @ design / var)
    told = posterior.deviations.mT @ posterior.deviations / (posterior.averaging.rank - 1)
    cov = 0.5 * (posterior.diagonal.diag_embed() + told)
    width = (design @ cov * design).sum(-1).mean(1)  # [members], the mean epistemic variance over the training inputs
    wanted = float((design @ exact * design).sum(-1).mean())
    error = float(width.std()) / math.sqrt(members) / wanted
    # Between the exact width and 10/9 of it, which the longest step gives at the most, within a fifth and the Monte Carlo error.
    assert 0.8 - 4 * error < float(width.mean()) / wanted < 10 / 9 + 0.2 + 4 * error
    assert error < 0.1
    # Exact noise: the residuals' variance with N - γ, a chi-square number with 195 degrees of freedom.
    assert abs(float(var) / noise_std**2 - 1) < 4.5 * math.sqrt(2 / 195)


def test_the_number_of_determined_parameters_is_that_of_the_linear_model() -> None:
    x = torch.randn(60, 5, generator=generator(), dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.3, 0.1, 0.03])
    network = Network(5, (), 1, noise=Homoscedastic())
    energy = Energy.of(network, x, x[:, :1])
    start = Parameters(torch.zeros(1, 6, dtype=torch.float64), network.noise.start(1, 1).double())
    pace = choose_pace(energy, start, Averaging(probes=1000), generator())
    design = torch.cat([x, torch.ones(60, 1, dtype=torch.float64)], 1)
    fisher = design.T @ design / math.exp(-2)
    wanted = float(torch.linalg.solve(fisher + energy.precision.diag(), fisher).trace())
    # Simulated gradients have the Fisher information as covariance, to √(2/1000) in each direction.
    assert abs(float(pace.determined) - wanted) < 0.05 * wanted
    torch.testing.assert_close(pace.mass[0], fisher.diagonal() + energy.precision, rtol=4.5 * math.sqrt(2 / 1000), atol=0)


@pytest.mark.slow
def test_a_walk_on_few_rows_of_a_network_is_as_wide_as_the_data_determine() -> None:
    rows, draws, noise_std = 200, 200, 0.3
    x = 3 * torch.rand(rows, 1, generator=generator()) - 1.5
    y = 1.4 * (2.5 * x).sin() + noise_std * torch.randn(rows, 1, generator=generator(1))
    averaging = Averaging(steps=2000, burn_in=500)
    posterior = SWAG(
        members=2, hidden=(30,), noise=Homoscedastic(), averaging=averaging, training=Training(steps=1000, learning_rate=1e-2)
    )
    report = posterior.fit(x, y, generator=generator())
    means = posterior.sample(2 * draws, generator())(x.unsqueeze(0)).mean[..., 0].unflatten(0, (2, draws))
    # A linear model's Σ_n var f(x_n) is γ·noise variance. That curvature away from the mode, 20 deviations and a short walk change
    # this by less than a factor of 4 is a statement of order: a walk that leaves its mode is wider by tens.
    wanted = torch.tensor(report.curves["determined_parameters"]) * (10 * posterior.noise_parameters[:, 0, 0]).exp() / rows
    ratio = means.var(1).mean(1) / wanted
    assert float(ratio.log().abs().max()) < math.log(4)
    assert "shortened" not in " ".join(report.warnings)


def test_a_member_without_a_share_of_the_posterior_walks_from_the_mode_of_another_one() -> None:
    x, y = wave(60)
    training = Training(steps=300, warm_steps=1, learning_rate=1e-2)
    posterior = SWAG(members=3, hidden=(8,), noise=Homoscedastic(), averaging=SHORT, training=training)
    posterior.fit(x, y, generator=generator())
    posterior.location[1] = 0.0
    report = posterior.fit(x, y, warm_start=True, generator=generator(1))
    assert "1 of 3 members far above" in " ".join(report.warnings)
    function = posterior.network.function(Parameters(posterior.location, posterior.noise_parameters))
    assert float((y - function(x.unsqueeze(0)).mean).square().mean((1, 2)).max()) < 0.5 * float(y.square().mean())


def test_every_member_is_equally_likely() -> None:
    posterior, g, calls = SWAG(members=3, hidden=(), noise=Homoscedastic()), generator(), 300
    posterior.keep(Network(2, (), 1, noise=Homoscedastic()), torch.arange(3.0).reshape(3, 1, 1))
    posterior.location, posterior.diagonal = 10 * torch.randn(3, 3, generator=g), torch.ones(3, 3)
    posterior.deviations = torch.zeros(3, 5, 3)
    x = wave(20, seed=3)[0].unsqueeze(0)
    means = posterior.network.function(Parameters(posterior.location, posterior.noise_parameters))(x).mean
    blocks = posterior.sample(calls, generator())(x).mean.unflatten(0, (3, 100))
    assert bool(((blocks.mean(1) - means).abs() < 4.5 * blocks.std(1) / 10).all())  # draws scatter about their own member
    drawn = torch.tensor([int(posterior.sample(1, g).noise_parameters) for _ in range(calls)])
    frequency = torch.bincount(drawn, minlength=3) / calls
    assert float((frequency - 1 / 3).abs().max()) < 4.5 * math.sqrt(2 / 9 / calls)


@pytest.mark.usefixtures("unchecked_fits")
def test_the_generator_alone_decides_and_the_global_state_is_left_alone() -> None:
    x, y = wave(30)
    before, fits = torch.get_rng_state(), []
    for seed in (3, 3, 4):
        posterior = SWAG(members=2, hidden=(4,), averaging=SHORT, training=QUICK)
        posterior.fit(x, y, generator=generator(seed))
        fits.append(posterior.predict(x).mean)
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_warm_start_goes_on_from_the_last_means_and_draws_outlive_it() -> None:
    x, y = wave(60)
    posterior = SWAG(members=2, hidden=(8,), averaging=SHORT, training=QUICK)
    posterior.fit(x[:40], y[:40], generator=generator())
    function, cold = posterior.sample(3, generator()), float(-posterior.predict(x[40:]).log_prob(y[40:]).mean())
    answer = function(x.unsqueeze(0)).mean
    posterior.fit(x, y, warm_start=True, generator=generator(1))
    assert float(-posterior.predict(x[40:]).log_prob(y[40:]).mean()) < cold
    assert torch.equal(function(x.unsqueeze(0)).mean, answer)
    with pytest.raises(ShapeError, match="warm start"):
        posterior.fit(x[:, :1], y, warm_start=True)


@pytest.mark.parametrize(
    "noise", [pytest.param(Heteroscedastic(), marks=pytest.mark.slow), Homoscedastic()], ids=lambda noise: type(noise).__name__
)
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64])
@pytest.mark.usefixtures("unchecked_fits")
def test_the_contract_is_kept(noise: Noise, dtype: torch.dtype) -> None:
    def make() -> SWAG:
        return SWAG(
            hidden=(16,),
            noise=noise,
            training=Training(steps=1000, warm_steps=50, learning_rate=1e-2),
            averaging=Averaging(steps=400, burn_in=100, snapshots=50, probes=64),
        )

    check_posterior(make, dtype=dtype)


@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic()])
@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_few_rows_constant_columns_and_raw_targets_give_finite_answers(noise: Noise, rows: int, scale: float) -> None:
    x, y = wave(rows)
    x, y = torch.cat([x, torch.zeros(rows, 1)], 1), torch.cat([scale * y, torch.zeros(rows, 1)], 1)
    posterior = SWAG(members=2, hidden=(8,), noise=noise, averaging=SHORT, training=QUICK)
    report = posterior.fit(x, y, generator=generator())
    predictive = posterior.predict(x)
    assert all(bool(t.isfinite().all()) for t in (predictive.mean, predictive.variance, predictive.log_prob(y)))
    assert math.isfinite(report.nll + report.penalty)


def test_options_without_a_meaning_and_wrong_calls_are_refused() -> None:
    for wrong in ({"rank": 1}, {"rank": 200}, {"steps": 1050}, {"batch_size": 0}):
        with pytest.raises(ConfigurationError, match="rank <= snapshots"):
            Averaging(**wrong)
    with pytest.raises(ConfigurationError, match="member"):
        SWAG(members=0)
    with pytest.raises(ConfigurationError, match="Homoscedastic"):
        SWAG(noise=OutOfBag())
    with pytest.raises(NotFittedError, match="fit"):
        SWAG().sample(1)
