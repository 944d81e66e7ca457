"""SGHMC: chains sample what exact Bayesian regression says, diagnostics tell when they do not, stored draws are dealt fairly."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NotFittedError, NumericalError, ShapeError
from bayesdyn.networks import Heteroscedastic, Homoscedastic, Network, Noise, OutOfBag, Parameters, Training
from bayesdyn.networks.energy import Energy
from bayesdyn.networks.langevin import Langevin
from bayesdyn.posteriors.sghmc import SGHMC, SGHMCSampling
from bayesdyn.posteriors.sghmc_schedule import Constant, Cyclical
from bayesdyn.testing import check_posterior

QUICK = Training(steps=60, warm_steps=20, learning_rate=1e-2)
SHORT = SGHMCSampling(steps=120, burn_in=40, draws=40)
NOISE_STD = 0.3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 2, generator=generator(seed), dtype=dtype)
    y = torch.stack([(2 * x[:, 0]).sin(), x.prod(1)], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=generator(seed + 1), dtype=dtype)


def line(rows: int) -> tuple[Tensor, Tensor]:
    """A linear function of three features, two of which correlate by 0.9."""
    x = torch.randn(rows, 3, generator=generator(), dtype=torch.float64)
    x[:, 1] = 0.9 * x[:, 0] + math.sqrt(1 - 0.81) * x[:, 1]
    y = x @ torch.tensor([[0.5], [-0.4], [0.2]], dtype=torch.float64) + 0.1
    return x, y + NOISE_STD * torch.randn(rows, 1, generator=generator(1), dtype=torch.float64)


def exact(energy: Energy, var: float) -> tuple[Tensor, Tensor, float]:
    """Posterior mean [P] and covariance [P, P] of a linear network's weights given the noise variance, and log p(y | variance)."""
    design = torch.cat([energy.x, torch.ones(len(energy.x), 1, dtype=torch.float64)], 1)
    inverse = energy.precision.diag() + design.T @ design / var
    cov = torch.linalg.inv(inverse)
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(len(design), dtype=torch.float64),
        design @ (design / energy.precision).T + var * torch.eye(len(design), dtype=torch.float64),
    )
    return cov @ design.T @ energy.y[:, 0] / var, cov, float(marginal.log_prob(energy.y[:, 0]))


@pytest.fixture(scope="module")
def small() -> SGHMC:
    posterior = SGHMC(hidden=(8,), sampling=SHORT, training=QUICK)
    posterior.fit(*wave(50), generator=generator())
    return posterior


@pytest.mark.parametrize("reach", [0.7, 1.6])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_linear_network_has_the_exact_mean_and_covariance_at_any_stable_step(reach: float) -> None:
    x, y = line(30)
    network, chains = Network(3, (), 1, noise=Homoscedastic()), 400
    energy = Energy.of(network, x, y)
    mean, cov, _ = exact(energy, NOISE_STD**2)
    noise = network.noise.with_variance(torch.zeros(chains, 1, 1, dtype=torch.float64), torch.full((chains, 1), NOISE_STD**2))
    start = Parameters(torch.zeros(chains, network.size, dtype=torch.float64), noise.double())
    langevin = Langevin(energy, start, friction=1.0, reach=reach, batch_size=None, generator=generator())
    kinetic, virial, states = [], [], []
    for step in range(600):
        figures = langevin.step()
        if step >= 300:
            kinetic.append(figures.kinetic)
            virial.append(figures.configurational)
        if step >= 300 and step % 20 == 0:
            states.append(langevin.parameters.theta)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (torch.stack(states) - mean).mT, upper=False).mT
    products = (whitened.unsqueeze(-1) * whitened.unsqueeze(-2)).mean(0)  # [chains, P, P]
    # Chains are independent, so errors come from their spread; 14 numbers at 4.5 standard errors.
    for name, value, wanted in (
        ("mean", whitened.mean(0), torch.zeros(4, dtype=torch.float64)),
        ("covariance", products, torch.eye(4, dtype=torch.float64)),
        ("virial", torch.stack(virial).mean(0), torch.ones((), dtype=torch.float64)),
    ):
        error = value.std(0) / math.sqrt(chains)
        assert bool(((value.mean(0) - wanted).abs() < 4.5 * error).all()), name
        assert float(error.max()) < 0.05  # an error of a tenth of a standard deviation would be seen
    # At the step's own time the momentum's variance is 1 - h²ω²/4 in a direction of frequency ω (Leimkuhler, Matthews 2013).
    scale = energy.precision.rsqrt()
    curvatures = torch.linalg.eigvalsh(scale[:, None] * torch.linalg.inv(cov) * scale)
    wanted = (1 - langevin.step_size.square() * curvatures / 4).mean(1)
    gap = torch.stack(kinetic).mean(0) - wanted
    assert abs(float(gap.mean())) < 4.5 * float(gap.std()) / math.sqrt(chains)


def test_noise_variance_is_drawn_from_its_conditional_distribution() -> None:
    x, y = line(8)
    network, chains = Network(3, (), 1, noise=Homoscedastic()), 2000
    energy = Energy.of(network, x, 3 * y)
    parameters = Parameters(torch.zeros(chains, 4, dtype=torch.float64), torch.zeros(chains, 1, 1, dtype=torch.float64))
    g, seen = generator(), []
    for step in range(60):
        parameters, _ = energy.draw_noise(parameters, g)
        if step >= 20:
            seen.append((10 * parameters.noise[:, 0, 0]).exp())
    std = torch.linspace(1e-3, 12, 200_000, dtype=torch.float64)
    squares = (3 * y).square().sum()
    density = (-0.5 * std.square() - len(x) * std.log() - 0.5 * squares / std.square()).exp()
    density /= density.sum()
    for power in (-1.0, 0.5, 1.0, 2.0):
        value = torch.stack(seen).pow(power).mean(0)
        wanted = (density * std.pow(2 * power)).sum()
        assert abs(float(value.mean() - wanted)) < 4.5 * float(value.std()) / math.sqrt(chains)


@pytest.mark.usefixtures("unchecked_fits")
def test_homoscedastic_linear_regression_agrees_with_quadrature_over_the_noise() -> None:
    x, y = line(25)
    posterior = SGHMC(
        chains=40, hidden=(), noise=Homoscedastic(), training=QUICK, sampling=SGHMCSampling(steps=700, burn_in=200, draws=2000)
    )
    report = posterior.fit(x, y, generator=generator())
    energy = Energy.of(posterior.network, x, y)
    stds = torch.linspace(0.1, 1.2, 300, dtype=torch.float64)
    parts = [exact(energy, float(std) ** 2) for std in stds]
    weight = torch.softmax(torch.tensor([log for _, _, log in parts]) - 0.5 * stds.square(), 0)
    mean = sum(w * m for w, (m, _, _) in zip(weight, parts, strict=True))
    second = sum(w * (c.diagonal() + (m - mean).square()) for w, (m, c, _) in zip(weight, parts, strict=True))
    by_chain = posterior.theta.unflatten(0, (-1, 40))  # [draws, chains, P]
    var = (10 * posterior.noise_parameters[:, 0, 0]).exp().unflatten(0, (-1, 40))
    for value, wanted in (
        (by_chain.mean(0), mean),
        ((by_chain - mean).square().mean(0), second),
        (var.mean(0), (weight * stds.square()).sum()),
    ):
        assert bool(((value.mean(0) - wanted).abs() < 4.5 * value.std(0) / math.sqrt(40)).all())
    assert float(posterior.effective_size.min()) > 500
    assert report.warnings == ()


def test_minibatches_heat_the_chains_and_the_report_says_so() -> None:
    x, y = wave(200)
    posterior = SGHMC(hidden=(8,), training=QUICK, sampling=replace(SHORT, batch_size=20))
    report = posterior.fit(x, y, generator=generator())
    assert float(posterior.temperature[0].min()) > 1.1
    assert any("kinetic temperature" in warning for warning in report.warnings)


def test_chains_that_have_not_arrived_are_reported() -> None:
    posterior = SGHMC(hidden=(16,), training=QUICK, sampling=SGHMCSampling(steps=20, burn_in=1, draws=20))
    report = posterior.fit(*wave(100), generator=generator())
    assert any("R̂" in warning for warning in report.warnings)
    assert any("configurational" in warning for warning in report.warnings)


def test_cycles_are_noisy_at_their_ends_and_keep_their_draws_there() -> None:
    stages = Cyclical(cycles=4, exploration=0.7).stages(400, 20)
    assert len(stages) == 400
    assert [step % 100 for step, stage in enumerate(stages) if stage.keep] == 4 * [75, 81, 87, 93, 99]
    assert all((stage.temperature == 1) == (step % 100 >= 70) for step, stage in enumerate(stages))
    # The rate is the square of the pace.
    assert all(math.isclose(s.pace**2, 0.5 * (1 + math.cos(math.pi * (k % 100) / 100))) for k, s in enumerate(stages))
    assert sum(stage.keep for stage in Cyclical(cycles=7).stages(400, 50)) == 50
    assert sum(stage.keep for stage in Constant().stages(7, 3)) == 3
    posterior = SGHMC(hidden=(4,), training=QUICK, sampling=replace(SHORT, schedule=Cyclical(cycles=5)))
    posterior.fit(*wave(30), generator=generator())
    assert len(posterior.theta) == 40


def test_draws_are_taken_without_replacement_and_prediction_is_the_mixture_of_all(small: SGHMC) -> None:
    x = wave(20, seed=3)[0]
    stored = small.predict(x)
    assert stored.components == 40
    once = small.sample(15, generator())(x.unsqueeze(0)).mean
    gaps = (once.unsqueeze(1) - stored.component_mean).abs().amax((2, 3))
    assert float(gaps.amin(1).max()) < 1e-5
    assert len(set(gaps.argmin(1).tolist())) == 15
    twice = small.sample(80)(x.unsqueeze(0))
    torch.testing.assert_close(twice.mean.mean(0), stored.mean)
    torch.testing.assert_close(twice.mean.var(0, correction=0), stored.epistemic_variance)
    torch.testing.assert_close(twice.var.mean(0), stored.aleatoric_variance)


@pytest.mark.usefixtures("unchecked_fits")
def test_the_generator_alone_decides_and_the_global_state_is_left_alone() -> None:
    x, y = wave(30)
    before, fits = torch.get_rng_state(), []
    for seed in (3, 3, 4):
        posterior = SGHMC(hidden=(4,), noise=Homoscedastic(), sampling=SHORT, training=QUICK)
        posterior.fit(x, y, generator=generator(seed))
        fits.append(posterior.theta)
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("unchecked_fits")
def test_a_warm_start_goes_on_from_the_last_draws_and_draws_outlive_it() -> None:
    x, y = wave(60)
    posterior = SGHMC(hidden=(8,), sampling=SHORT, training=QUICK)
    posterior.fit(x[:40], y[:40], generator=generator())
    function, cold = posterior.sample(3, generator()), float(-posterior.predict(x[40:]).log_prob(y[40:]).mean())
    answer = function(x.unsqueeze(0)).mean
    report = posterior.fit(x, y, warm_start=True, generator=generator(1))
    assert report.steps <= QUICK.warm_steps + SHORT.steps + SHORT.burn_in
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
    # With 8 units the chains of these few steps are in modes of their own (R̂ of 3), which more rows do not make agree.
    def make() -> SGHMC:
        return SGHMC(
            hidden=(16,),
            noise=noise,
            training=Training(steps=300, warm_steps=50, learning_rate=2e-2),
            sampling=SGHMCSampling(steps=600, burn_in=300, draws=60),
        )

    check_posterior(make, dtype=dtype, exact_predict=True, compiles=dtype == torch.float32)


@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic()])
@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_few_rows_constant_columns_and_raw_targets_give_finite_answers(noise: Noise, rows: int, scale: float) -> None:
    x, y = wave(rows)
    x, y = torch.cat([x, torch.zeros(rows, 1)], 1), torch.cat([scale * y, torch.zeros(rows, 1)], 1)
    posterior = SGHMC(hidden=(8,), noise=noise, sampling=SHORT, training=QUICK)
    report = posterior.fit(x, y, generator=generator())
    predictive = posterior.predict(x)
    assert all(bool(t.isfinite().all()) for t in (predictive.mean, predictive.variance, predictive.log_prob(y)))
    assert math.isfinite(report.nll + report.penalty)


def test_a_chain_that_runs_away_is_put_back_with_a_shorter_step() -> None:
    x, y = line(30)
    network = Network(3, (), 1, noise=Homoscedastic())
    parameters = Parameters(torch.zeros(3, 4, dtype=torch.float64), network.noise.start(3, 1).double())
    langevin = Langevin(Energy.of(network, x, y), parameters, friction=1.0, reach=0.7, batch_size=None, generator=generator())
    langevin.curvature = langevin.curvature * torch.tensor([1.0, 0.01, 1.0])
    begin = langevin.step_size.clone()
    for _ in range(200):
        langevin.step()
    langevin.follow_curvature()
    assert langevin.rescues == 1
    assert float(langevin.step_size[1]) < 0.5 * float(begin[1])
    assert bool(langevin.parameters.theta.isfinite().all())


def test_chains_that_keep_running_away_are_an_error() -> None:
    x, y = line(30)
    network = Network(3, (), 1, noise=Homoscedastic())
    parameters = Parameters(torch.zeros(2, 4, dtype=torch.float64), network.noise.start(2, 1).double())
    langevin = Langevin(Energy.of(network, x, y), parameters, friction=1.0, reach=0.7, batch_size=None, generator=generator())

    def heat() -> None:
        for _ in range(100):
            langevin.momentum = langevin.momentum * torch.inf
            langevin.step()
            langevin.follow_curvature()

    with pytest.raises(NumericalError, match="smaller reach"):
        heat()


def test_options_without_a_meaning_and_wrong_calls_are_refused() -> None:
    for wrong in ({"steps": 0}, {"friction": 0.0}, {"reach": 2.0}, {"batch_size": 0}):
        with pytest.raises(ConfigurationError, match="positive"):
            SGHMCSampling(**wrong)
    with pytest.raises(ConfigurationError, match="divides"):
        SGHMC(chains=3)
    with pytest.raises(ConfigurationError, match="Homoscedastic"):
        SGHMC(noise=OutOfBag())
    with pytest.raises(ConfigurationError, match="cycle"):
        Cyclical(cycles=0)
    with pytest.raises(ConfigurationError, match="do not fit"):
        Cyclical(cycles=10).stages(20, 20)
    with pytest.raises(NotFittedError, match="fit"):
        SGHMC().sample(1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.usefixtures("unchecked_fits")
def test_epistemic_uncertainty_is_larger_in_a_gap_and_noise_is_right_in_support(seed: int) -> None:
    """y = 7 sin x + noise of variance 0.01 + 9 cos²(x/2), |x| in [1, 4]."""
    g = generator(seed)
    x = (1 + 3 * torch.rand(800, generator=g)) * (2 * torch.randint(2, (800,), generator=g) - 1)
    y = 7 * x.sin() + (0.01 + 9 * (0.5 * x).cos().square()).sqrt() * torch.randn(800, generator=g)
    posterior = SGHMC()
    posterior.fit((x / x.std()).unsqueeze(1), ((y - y.mean()) / y.std()).unsqueeze(1), generator=g)
    at = torch.linspace(-4, 4, 161)
    told = posterior.predict((at / x.std()).unsqueeze(1))
    epistemic, gap = told.epistemic_variance[:, 0].sqrt(), at.abs() < 1
    assert float(epistemic[gap].mean()) > 3 * float(epistemic[~gap].mean())
    wanted = 0.01 + 9 * (0.5 * at).cos().square()
    error = (told.aleatoric_variance[:, 0] * y.var()).log() - wanted.log()
    # A smooth network cannot follow the noise into the narrow dip at ±π, where its std falls to 0.1 (it says 0.35).
    followed = ~gap & ((at.abs() - math.pi).abs() > 0.5)
    assert float(error[followed].square().mean().sqrt()) < 0.5
