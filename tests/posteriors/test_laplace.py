"""Laplace: exact on linear-Gaussian data, evidence at a maximum, draws that agree with predictions, uncertainty in a gap."""

import math
from itertools import pairwise

import pytest
import torch

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.networks import Heteroscedastic, Homoscedastic, Network, Noise, OutOfBag, Parameters, Training, train
from bayesdyn.networks.linearised import LinearisedFunction, jacobian
from bayesdyn.posteriors.laplace import Laplace
from bayesdyn.posteriors.laplace_evidence import (
    Evidence,
    Hyperparameters,
    Mode,
    approximate,
    at_bound,
    maximise_evidence,
    output_precision,
)
from bayesdyn.posteriors.laplace_mode import layer_of_parameter, linearise
from bayesdyn.posteriors.laplace_structures import DiagonalGGN, FullGGN, LastLayer, Structure, dual, primal
from bayesdyn.testing import check_posterior

QUICK = Training(steps=200, warm_steps=50, learning_rate=1e-2)
STRUCTURES = [FullGGN(), DiagonalGGN(), LastLayer(), LastLayer(DiagonalGGN())]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def wave(rows: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    x = normal(rows, 2, seed=seed)
    y = torch.stack([(2 * x[:, 0]).sin(), x.prod(1)], 1)
    return x.to(dtype), (y + torch.tensor([0.1, 0.3]) * normal(rows, 2, seed=seed + 1)).to(dtype)


def network_at_random(network: Network, seed: int = 0) -> Parameters:
    theta = normal(1, network.size, seed=seed) * network.prior_precision().rsqrt()
    return Parameters(theta, network.noise.start(1, network.outputs).double())


def mode_at(network: Network, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Mode:
    derivative = jacobian(network, parameters.theta, x, columns=network.widths[-1])
    columns = network.columns(parameters.theta, x.unsqueeze(0))[0]
    layer = layer_of_parameter(network)
    return Mode(derivative, columns, y, parameters.theta[0], network.prior_precision().double(), layer)


def dense_covariance(network: Network, laplace: Laplace, x: torch.Tensor) -> torch.Tensor:
    """H⁻¹ as the formula says it, from PyTorch's own Jacobian of mean and log variance with respect to all parameters."""

    def outputs(theta: torch.Tensor) -> torch.Tensor:
        mean, log_var = network.noise.split(network.columns(theta.unsqueeze(0), x.unsqueeze(0)), laplace.noise_parameters)
        return torch.stack([mean[0], (log_var + 0 * mean)[0]], -1)

    derivative = torch.autograd.functional.jacobian(outputs, laplace.theta[0]).flatten(2, 2)  # [N, E, 2, P]
    log_var = outputs(laplace.theta[0])[..., 1]
    weight = torch.stack([(-log_var).exp(), torch.full_like(log_var, 0.5)], -1)
    hessian = torch.einsum("nekp,nek,nekq->pq", derivative, weight, derivative)
    return torch.linalg.inv(hessian + laplace.prior_precision.diag())


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (7,), (6, 5)])
def test_the_jacobian_equals_pytorchs(activation: str, hidden: tuple[int, ...]) -> None:
    network, x = Network(3, hidden, 2, activation), normal(5, 3, seed=1)
    theta = network_at_random(network).theta
    wanted = torch.func.jacrev(lambda t: network.columns(t, x.unsqueeze(0))[0])(theta).squeeze(2)
    for columns in (2, 4):
        torch.testing.assert_close(
            jacobian(network, theta, x, columns=columns), wanted[:, :columns], rtol=0, atol=1e-12 * float(wanted.abs().max())
        )
    last = jacobian(network, theta, x, columns=4, first_layer=len(hidden))
    torch.testing.assert_close(last, wanted[..., -last.shape[-1] :], rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu"])
@pytest.mark.parametrize("noise", [Homoscedastic(), Heteroscedastic()])
def test_linearised_draws_equal_a_jvp(activation: str, noise: Noise) -> None:
    network = Network(3, (7, 6), 2, activation, noise)
    parameters, deviations = network_at_random(network), normal(4, network.size, seed=2)
    function, x = LinearisedFunction.around(network, parameters, deviations), normal(4, 2, 5, 3, seed=3)

    def columns(theta: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return network.columns(theta, rows.reshape(1, -1, 3))[0, :, :2]

    for given in (x, x[:1]):
        answer = function(given)
        for draw in range(4):
            rows = given[draw if len(given) > 1 else 0]
            value, tangent = torch.func.jvp(lambda t: columns(t, rows), (parameters.theta,), (deviations[draw : draw + 1],))
            torch.testing.assert_close(answer.mean[draw].flatten(0, 1), value + tangent, rtol=0, atol=1e-12)
        noise_of_mode = network.function(parameters)(given[:1]).var
        torch.testing.assert_close(answer.var[0], noise_of_mode[0], rtol=0, atol=1e-12)


def test_deviations_of_different_numbers_are_refused() -> None:
    network = Network(1, (2,), 1, noise=Homoscedastic())
    weights, biases = network.unflatten(network_at_random(network).theta)
    with pytest.raises(ShapeError, match=r"\[1, 2\]"):
        LinearisedFunction(
            weights,
            biases,
            [w.expand(2, -1, -1) for w in weights],
            biases,
            Homoscedastic(),
            torch.zeros(1, 1, 1).double(),
            activation="silu",
        )


@pytest.mark.parametrize(("rows", "columns"), [(12, 5), (5, 12), (7, 7)])
def test_primal_and_dual_are_one_covariance(rows: int, columns: int) -> None:
    scaled, structure = normal(rows, columns), FullGGN()
    precision = torch.eye(columns, dtype=torch.float64) + scaled.mT @ scaled
    noise = normal(3, columns, seed=1)
    for curvature in (primal(scaled), dual(scaled), structure.decompose(scaled)):
        root = structure.spread(curvature, torch.eye(columns, dtype=torch.float64))
        torch.testing.assert_close(root @ root.mT, torch.linalg.inv(precision), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(structure.spread(curvature, noise), noise @ root, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(curvature.eigenvalues.log1p().sum(), precision.logdet(), rtol=1e-10, atol=0)
        torch.testing.assert_close(
            structure.determined(curvature), 1 - torch.linalg.inv(precision).diagonal(), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("noise", [Homoscedastic(), Heteroscedastic()])
@pytest.mark.parametrize("rows", [10, 60])
@pytest.mark.usefixtures("unchecked_fits")
def test_full_and_diagonal_epistemic_variance_equal_the_dense_formula(noise: Noise, rows: int) -> None:
    x, y = wave(rows)
    probes = normal(9, 2, seed=5)
    for structure in (FullGGN(), DiagonalGGN()):
        laplace = Laplace(structure, hidden=(6, 5), noise=noise, training=QUICK)
        laplace.fit(x, y, generator=generator())
        covariance = dense_covariance(laplace.network, laplace, x)
        if structure == DiagonalGGN():
            covariance = covariance.inverse().diagonal().reciprocal().diag()
        derivative = jacobian(laplace.network, laplace.theta, probes, columns=2)
        wanted = torch.einsum("nep,pq,neq->ne", derivative, covariance, derivative)
        torch.testing.assert_close(laplace.predict(probes).epistemic_variance, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("structure", [FullGGN(), LastLayer()])
def test_linear_data_give_exact_bayesian_linear_regression(structure: Structure) -> None:
    x = normal(40, 3)
    y = x @ normal(3, 2, seed=1) + torch.tensor([0.1, 0.4]) * normal(40, 2, seed=2)
    laplace = Laplace(structure, hidden=(), evidence=Evidence(tolerance=1e-6, polish=5), training=QUICK)
    laplace.fit(x, y, generator=generator())
    probes = normal(10, 3, seed=3)
    design, at = (torch.cat([rows, torch.ones(len(rows), 1)], 1) for rows in (x, probes))
    precision = laplace.prior_precision.reshape(4, 2)
    predictive = laplace.predict(probes)
    for output in range(2):
        var = predictive.aleatoric_variance[0, output]
        hessian = design.mT @ design / var + precision[:, output].diag()
        epistemic = (at @ torch.linalg.inv(hessian) * at).sum(1)
        torch.testing.assert_close(predictive.epistemic_variance[:, output], epistemic, rtol=1e-9, atol=0)
        mean = at @ torch.linalg.solve(hessian, design.mT @ y[:, output] / var)
        torch.testing.assert_close(predictive.mean[:, output], mean, rtol=0, atol=1e-6)


def test_the_evidence_of_linear_data_is_the_marginal_likelihood() -> None:
    network = Network(3, (), 2, noise=Homoscedastic())
    x = normal(20, 3)
    y = x @ normal(3, 2, seed=1) + 0.3 * normal(20, 2, seed=2)
    var, scale = torch.tensor([0.05, 0.2], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    design = torch.cat([x, torch.ones(20, 1)], 1)
    precision = (scale * network.prior_precision()).reshape(4, 2)
    weights, wanted = [], 0.0
    for output in range(2):
        hessian = design.mT @ design / var[output] + precision[:, output].diag()
        weights.append(torch.linalg.solve(hessian, design.mT @ y[:, output] / var[output]))
        prior = design @ precision[:, output].reciprocal().diag() @ design.mT
        marginal = torch.distributions.MultivariateNormal(torch.zeros(20).double(), prior + var[output] * torch.eye(20).double())
        wanted += float(marginal.log_prob(y[:, output]))
    noise = Homoscedastic().with_variance(torch.zeros(1, 1, 2).double(), var.unsqueeze(0))
    parameters = Parameters(torch.stack(weights, 1).reshape(1, -1), noise)
    found = approximate(FullGGN(), mode_at(network, parameters, x, y), network.noise, Hyperparameters(scale, noise))
    assert found.log_evidence == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("structure", [FullGGN(), DiagonalGGN()])
@pytest.mark.parametrize("noise", [Homoscedastic(), Heteroscedastic()])
def test_the_gradient_of_the_evidence_is_zero_at_the_fixed_point(structure: Structure, noise: Noise) -> None:
    x, y = wave(60)
    network = Network(2, (6,), 2, "tanh", noise)
    start = network_at_random(network)
    counts = torch.ones(1, 60, dtype=torch.int64)
    parameters = train(
        network, start, x, y, counts, training=Training(steps=400, learning_rate=1e-2), generator=generator()
    ).parameters
    mode = mode_at(network, parameters, x, y)
    begin = Hyperparameters(torch.ones(2).double(), parameters.noise)
    settings = Evidence(iterations=2000, tolerance=1e-10)
    best, _, trace = maximise_evidence(structure, mode, noise, begin, settings)
    assert len(trace) < 2000
    assert trace[-1] > trace[0]
    step = 1e-4
    for layer in range(2):
        move = torch.eye(2, dtype=torch.float64)[layer] * step
        sides = [Hyperparameters(best.scale * (sign * move).exp(), best.noise) for sign in (1, -1)]
        high, low = (approximate(structure, mode, noise, side).log_evidence for side in sides)
        assert abs(high - low) / (2 * step) < 1e-4
    for output in range(2):
        move = torch.eye(2, dtype=torch.float64)[output] * step
        var = noise.split(mode.columns.unsqueeze(0), best.noise)[1].exp().reshape(1, -1, 2)[:, 0]
        sides = [Hyperparameters(best.scale, noise.with_variance(best.noise, var * (sign * move).exp())) for sign in (1, -1)]
        high, low = (approximate(structure, mode, noise, side).log_evidence for side in sides)
        assert abs(high - low) / (2 * step) < 1e-4


@pytest.mark.usefixtures("unchecked_fits")
def test_each_output_has_its_own_noise_and_effective_parameters_share_out() -> None:
    x, y = wave(200)
    laplace = Laplace(hidden=(20,), training=Training(steps=800, warm_steps=200, learning_rate=1e-2))
    laplace.fit(x, y, generator=generator())
    std = laplace.predict(x[:1]).aleatoric_variance[0].sqrt()
    # A std estimated from at least 100 degrees of freedom has a standard error of 7 %; twice that for the misfit of the network.
    assert float((std / torch.tensor([0.1, 0.3]) - 1).abs().max()) < 0.28
    precision = output_precision(laplace.noise, laplace.noise_parameters, torch.zeros(3, 2).double())
    torch.testing.assert_close(precision, std.square().reciprocal().expand(3, 2))
    said = laplace.predict(x)
    torch.testing.assert_close(said.stddev.square(), said.epistemic_variance + said.aleatoric_variance)
    gamma_of_outputs = (said.epistemic_variance / said.aleatoric_variance).sum()
    torch.testing.assert_close(gamma_of_outputs, laplace.structure.determined(laplace._curvature).sum())


def test_fisher_information_of_the_columns_is_that_of_sampled_targets() -> None:
    noise, columns = Heteroscedastic(), torch.tensor([[0.3, -0.2, 1.5, -0.5]], dtype=torch.float64)
    parameters = noise.start(1, 2).double()
    mean, log_var = noise.split(columns.unsqueeze(0), parameters)
    y = mean[0] + (0.5 * log_var[0]).exp() * normal(20000, 2)
    raw = columns.expand(20000, -1).clone().requires_grad_()
    value, log_var = noise.split(raw.unsqueeze(0), parameters)
    (score,) = torch.autograd.grad(0.5 * ((y - value).square() * (-log_var).exp() + log_var).sum(), raw)
    # The mean square of a score is the Fisher information; 4.5 standard errors of 20,000 squares.
    square = score.square()
    gap = (square.mean(0) - output_precision(noise, parameters, columns)[0]).abs()
    assert bool((gap < 4.5 * square.std(0) / math.sqrt(20000)).all())


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("noise", [Homoscedastic(), Heteroscedastic()])
@pytest.mark.usefixtures("unchecked_fits")
def test_draws_have_the_covariance_across_inputs_that_the_posterior_says(structure: Structure, noise: Noise) -> None:
    x, y = wave(40)
    laplace = Laplace(structure, hidden=(6,), noise=noise, training=QUICK)
    laplace.fit(x, y, generator=generator())
    probes, draws = normal(4, 2, seed=5), 20000
    answer = laplace.sample(draws, generator(1))(probes.unsqueeze(0))
    first = structure.first_layer(laplace.network)
    derivative = jacobian(laplace.network, laplace.theta, probes, columns=2, first_layer=first).flatten(0, 1)
    root = structure.spread(laplace._curvature, derivative * laplace._prior_std)
    covariance = root @ root.mT
    said = laplace.predict(probes)
    torch.testing.assert_close(covariance.diagonal().reshape(4, 2), said.epistemic_variance)
    moved = answer.mean.flatten(1) - said.mean.flatten()
    std = covariance.diagonal().sqrt()
    assert float((moved.mean(0).abs() / std).max()) < 4.5 / math.sqrt(draws)
    # The product of two normals has variance C_ii C_jj + C_ij², at most twice C_ii C_jj.
    gap = (moved.mT @ moved / draws - covariance).abs() / (std * std[:, None])
    assert float(gap.max()) < 4.5 * math.sqrt(2 / draws)
    torch.testing.assert_close(answer.var[0], said.aleatoric_variance)


def test_last_layer_draws_are_networks_that_share_their_body() -> None:
    x, y = wave(40)
    laplace = Laplace(LastLayer(), hidden=(6, 5), noise=Heteroscedastic(), evidence=Evidence(rounds=1), training=QUICK)
    laplace.fit(x, y, generator=generator())
    function = laplace.sample(3, generator())
    assert [len(w) for w in function.weights] == [1, 1, 3]
    assert bool((function.weights[-1][..., 2:] == function.weights[-1][:1, :, 2:]).all())


def noisy_sine(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x uniform on [-4, 4] without (-1, 1), y = 7 sin x + σ(x)ε, σ² = 0.01 + 9 cos²(x/2), both divided by their scale."""
    g = generator(seed)
    x = (1 + 3 * torch.rand(rows, 1, generator=g)) * (torch.randint(2, (rows, 1), generator=g) * 2 - 1)
    std = (0.01 + 9 * (x / 2).cos().square()).sqrt()
    return x / 2.65, (7 * x.sin() + std * torch.randn(rows, 1, generator=g)) / 5


@pytest.mark.usefixtures("unchecked_fits")
def test_a_gap_in_the_data_is_uncertain_and_the_noise_in_support_is_right() -> None:
    x, y = noisy_sine(800, 0)
    training = Training(steps=1000, warm_steps=400, learning_rate=1e-2)
    laplace = Laplace(hidden=(30,), noise=Heteroscedastic(), evidence=Evidence(iterations=5, rounds=1), training=training)
    laplace.fit(x, y, generator=generator())
    support = noisy_sine(400, 1)[0]
    gap = torch.linspace(-0.7, 0.7, 50).unsqueeze(1) / 2.65
    inside, outside = (laplace.predict(at).epistemic_variance.mean().sqrt() for at in (gap, support))
    assert float(inside) > 3 * float(outside)
    # At |x| = π the log variance has a dip of depth 4 and half width 0.07, which no network finds in 800 rows.
    smooth = support[(2.65 * support[:, 0]).abs() < 2.5]
    log_var = ((0.01 + 9 * (smooth * 2.65 / 2).cos().square()) / 25).log()
    assert float((laplace.predict(smooth).aleatoric_variance.log() - log_var).square().mean().sqrt()) < 0.5


@pytest.mark.usefixtures("unchecked_fits")
def test_the_mode_is_trained_again_while_the_evidence_rises() -> None:
    x, y = wave(40)
    reports = {
        rounds: Laplace(hidden=(6,), evidence=Evidence(rounds=rounds, gain=gain), training=QUICK).fit(x, y, generator=generator())
        for rounds, gain in ((0, 0.0), (1, 0.0), (3, 1e9))
    }
    # A first round always counts as a rise, so that a gain beyond reach ends after the second.
    assert [reports[rounds].steps for rounds in (0, 1, 3)] == [200, 250, 250]
    fixed = Laplace(hidden=(6,), evidence=Evidence(iterations=0), training=QUICK)
    fixed.fit(x, y, generator=generator())
    assert fixed.prior_scale.tolist() == [1.0, 1.0]


@pytest.mark.usefixtures("unchecked_fits")
def test_the_round_of_largest_evidence_is_kept() -> None:
    x, y = wave(40)
    found = {}
    for rounds in range(5):
        laplace = Laplace(hidden=(6,), evidence=Evidence(rounds=rounds, gain=0.0), training=QUICK)
        laplace.fit(x, y, generator=generator())
        found[rounds] = log_evidence(laplace, x, y)
    values = list(found.values())
    assert all(later >= earlier for earlier, later in pairwise(values))


def log_evidence(laplace: Laplace, x: torch.Tensor, y: torch.Tensor) -> float:
    mode = linearise(laplace.structure, laplace.network, laplace.theta, x, y)
    at = Hyperparameters(laplace.prior_scale, laplace.noise_parameters)
    return approximate(laplace.structure, mode, laplace.noise, at).log_evidence


@pytest.mark.usefixtures("unchecked_fits")
def test_few_noisy_rows_are_not_interpolated() -> None:
    # 200 rows, 601 parameters. Trained together with the weights, the noise of this function went to 0 (Friedman 1991, noise 1).
    x = torch.rand(200, 10, generator=generator())
    clean = 10 * (math.pi * x[:, 0] * x[:, 1]).sin() + 20 * (x[:, 2] - 0.5).square() + 10 * x[:, 3] + 5 * x[:, 4]
    y = clean + torch.randn(200, generator=generator(1))
    x, y = (x - 0.5) * math.sqrt(12), ((y - y.mean()) / y.std()).unsqueeze(1)
    laplace = Laplace()
    report = laplace.fit(x, y, generator=generator())
    std = float(laplace.predict(x).aleatoric_variance.mean().sqrt() * (clean.var() + 1).sqrt())
    # Misfit adds to the noise and nothing lowers it but chance: four standard errors 1/√(2(N - γ)) are 0.5 at N - γ = 32.
    assert std > 0.5
    assert not report.warnings


def test_the_report_keeps_nll_and_penalty_apart_per_data_point() -> None:
    x, y = wave(50)
    laplace = Laplace(hidden=(6,), training=QUICK)
    report = laplace.fit(x, y, generator=generator())
    answer = laplace.network.function(laplace.mode)(x.unsqueeze(0))
    nll = -torch.distributions.Normal(answer.mean, answer.var.sqrt()).log_prob(y).sum(-1).mean()
    assert report.nll == pytest.approx(float(nll), rel=1e-9)
    assert report.penalty == pytest.approx(float(0.5 * (laplace.prior_precision * laplace.theta[0].square()).sum() / 50), rel=1e-9)
    assert report.curves["log_evidence"][-1] > report.curves["log_evidence"][0]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_state_loads_into_a_fresh_object_of_other_sizes(tmp_path, structure: Structure) -> None:
    x, y = wave(30)
    training, evidence = Training(steps=100, warm_steps=50, learning_rate=1e-2), Evidence(iterations=10, rounds=2)
    laplace = Laplace(structure, hidden=(5, 4), evidence=evidence, training=training)
    laplace.fit(x, y, generator=generator())
    torch.save(laplace.state_dict(), tmp_path / "state.pt")
    fresh = Laplace(structure, hidden=(3,), evidence=evidence, training=training)
    fresh.fit(normal(12, 3), normal(12, 1), generator=generator())
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(fresh.predict(x).variance, laplace.predict(x).variance)
    assert torch.equal(*(p.sample(3, generator(1))(x.unsqueeze(0)).mean for p in (fresh, laplace)))
    report = fresh.fit(x, y, warm_start=True, generator=generator())
    assert report.steps % 50 == 0
    assert report.nll < 2


@pytest.mark.parametrize("noise", [Homoscedastic(), Heteroscedastic()])
@pytest.mark.parametrize("scale", [1e-6, 30.0])
def test_raw_targets_constant_columns_and_duplicate_rows_give_finite_answers(noise: Noise, scale: float) -> None:
    x, y = wave(20, dtype=torch.float32)
    x = torch.cat([x, torch.full((20, 1), 3.0), torch.zeros(20, 1)], 1)
    y = torch.cat([scale * y, torch.zeros(20, 1)], 1)
    x, y = torch.cat([x, x]), torch.cat([y, y])
    laplace = Laplace(hidden=(6,), noise=noise, evidence=Evidence(rounds=1), training=QUICK)
    report = laplace.fit(x, y, generator=generator())
    said = laplace.predict(x)
    assert all(bool(t.isfinite().all()) for t in (said.mean, said.variance, said.log_prob(y)))
    assert math.isfinite(report.nll + report.penalty)
    assert bool((said.variance > 0).all())


def test_a_layer_that_the_data_do_not_need_ends_at_the_bound_of_its_precision_and_is_named() -> None:
    network, x = Network(2, (4,), 1, "tanh", Homoscedastic()), normal(30, 2)
    parameters = network_at_random(network)
    parameters.theta[0, 12:] = 1e-4  # the last layer
    mode = mode_at(network, parameters, x, normal(30, 1, seed=1))
    start = Hyperparameters(torch.ones(2).double(), parameters.noise)
    best, _, _ = maximise_evidence(FullGGN(), mode, network.noise, start, Evidence())
    assert at_bound(best, 0) == ("prior precision of layer 1",)
    assert at_bound(Hyperparameters(best.scale[1:], best.noise), 1) == ("prior precision of layer 1",)
    assert at_bound(start, 0) == ()


@pytest.mark.parametrize("rows", [2, 3])
def test_very_few_rows_are_learned_from(rows: int) -> None:
    laplace = Laplace(training=QUICK, evidence=Evidence(rounds=1))
    laplace.fit(*wave(rows, dtype=torch.float32), generator=generator())
    assert bool(laplace.predict(wave(20, dtype=torch.float32)[0]).variance.isfinite().all())


def test_options_without_a_meaning_and_wrong_calls_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Homoscedastic"):
        Laplace(noise=OutOfBag())
    with pytest.raises(ConfigurationError, match="tolerance > 0"):
        Evidence(tolerance=0.0)
    laplace = Laplace(hidden=(4,), training=Training(steps=5))
    with pytest.raises(ConfigurationError, match="LastLayer"):
        Laplace(hidden=(4000, 4000)).fit(*wave(40))
    with pytest.raises(ConfigurationError, match="at most 8000"):
        FullGGN().decompose(torch.zeros(1, 1).expand(8001, 8001))
    laplace.fit(*wave(40))
    with pytest.raises(ShapeError, match="warm start"):
        laplace.fit(normal(40, 3), normal(40, 2), warm_start=True)


_REST = [pytest.param(structure, marks=pytest.mark.slow) for structure in (DiagonalGGN(), LastLayer())]


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("structure", [FullGGN(), *_REST], ids=lambda s: type(s).__name__)
@pytest.mark.usefixtures("unchecked_fits")
def test_the_contract_is_kept(structure: Structure, dtype: torch.dtype) -> None:
    def make() -> Laplace:
        evidence = Evidence(iterations=10, rounds=1)
        return Laplace(structure, hidden=(16,), evidence=evidence, training=Training(steps=300, warm_steps=100, learning_rate=1e-2))

    check_posterior(make, dtype=dtype, exact_predict=True)
