"""MC dropout and Concrete Dropout: masks that last, the objective's closed forms, mixtures, rates that are learned."""

import math

import pytest
import torch
from torch.nn import functional

from bayesdyn.errors import ConfigurationError, NotFittedError, NumericalError, ShapeError
from bayesdyn.networks import Network, NetworkFunction, OutOfBag, Parameters, Training
from bayesdyn.networks.dropout import Binary, Relaxed, entropy, rate_entropy, weight_penalty
from bayesdyn.networks.dropout_training import Dropped, penalty
from bayesdyn.posteriors.dropout import ConcreteDropout, DropoutPosterior, MCDropout
from bayesdyn.testing import check_posterior

BOTH = [MCDropout, ConcreteDropout]
QUICK = Training(steps=60, warm_steps=20, patience=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 2, generator=generator(seed), dtype=dtype)
    y = torch.stack([(2 * x[:, 0]).sin(), x.prod(1)], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=generator(seed + 1), dtype=dtype)


def masked(n: int, rate: float, hidden: tuple[int, ...] = (12, 9)) -> tuple[Network, Parameters, NetworkFunction]:
    """A network with n binary masks per hidden layer, in float64."""
    network = Network(2, hidden, 2)
    theta = torch.randn(1, network.size, generator=generator(), dtype=torch.float64)
    parameters = Parameters(theta, network.noise.start(1, 2).double())
    log_odds = torch.full((len(hidden),), rate, dtype=torch.float64).logit()
    masks = Binary().draw(log_odds, hidden, (n, 1), generator(1))
    return network, parameters, network.function(parameters, masks=masks)


@pytest.fixture(scope="module", params=BOTH, ids=lambda kind: kind.__name__)
def small(request) -> DropoutPosterior:
    posterior = request.param(rate=0.3, hidden=(16, 8), training=QUICK)
    posterior.fit(*wave(50), generator=generator())
    return posterior


# The contract


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unchecked_fits")
def test_both_keep_the_contract(kind, dtype: torch.dtype) -> None:
    training = Training(steps=400, warm_steps=10, learning_rate=1e-2)
    check_posterior(lambda: kind(hidden=(32,), training=training), dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.usefixtures("unchecked_fits")
def test_both_keep_the_contract_as_they_come(kind) -> None:
    check_posterior(kind, dtype=torch.float32)


# Draws


def test_a_draw_is_the_network_without_its_dropped_units(small: DropoutPosterior) -> None:
    function = small.sample(6, generator())
    x = torch.randn(6, 4, 2, generator=generator(1))
    answer = function(x)
    weights, biases = small.network.unflatten(small.theta)
    for draw in range(6):
        h, kept = x[draw], torch.arange(2)
        for layer in range(2):
            following = function.masks[layer][draw, 0].nonzero().squeeze(1)
            h = functional.silu(h @ weights[layer][0][kept][:, following] + biases[layer][0, 0, following])
            h, kept = h / (1 - small.rates[layer]), following
        columns = h @ weights[2][0][kept] + biases[2][0, 0]
        mean, log_var = small.noise.split(columns.unsqueeze(0), small.noise_parameters)
        torch.testing.assert_close(answer.mean[draw], mean[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(answer.var[draw], log_var[0].exp(), rtol=1e-4, atol=1e-5)


def test_masks_of_draws_are_binary_and_inversely_scaled_whatever_training_used(small: DropoutPosterior) -> None:
    for rate, mask in zip(small.rates.tolist(), small.sample(200, generator()).masks, strict=True):
        values = mask.unique()
        torch.testing.assert_close(values, torch.tensor([0.0, 1 / (1 - rate)]), rtol=1e-5, atol=0)


def test_units_layers_and_draws_drop_independently_at_their_rate() -> None:
    n, rates = 20_000, torch.tensor([0.1, 0.4], dtype=torch.float64)
    masks = Binary().draw(rates.logit(), (4, 3), (n, 1), generator())
    dropped = torch.cat([(mask == 0).double().squeeze(1) for mask in masks], 1)
    chance = torch.tensor([0.1] * 4 + [0.4] * 3, dtype=torch.float64)
    # 4.5 standard errors for 7 shares, and for 21 correlations, whose standard error is 1/√n under independence.
    assert bool(((dropped.mean(0) - chance).abs() < 4.5 * (chance * (1 - chance) / n).sqrt()).all())
    assert float((dropped.T.corrcoef() - torch.eye(7)).abs().max()) < 4.5 / math.sqrt(n)
    first, second = dropped[:-1], dropped[1:]
    assert float(torch.cat([first, second], 1).T.corrcoef()[:7, 7:].abs().max()) < 4.5 / math.sqrt(n)


def test_data_points_of_a_batch_drop_units_of_their_own() -> None:
    for kind in (Binary(), Relaxed()):
        (mask,) = kind.draw(torch.zeros(1), (64,), (1, 100), generator())
        assert mask.shape == (1, 100, 64)
        assert len({tuple(row.tolist()) for row in (mask[0] > 1)}) == 100  # two equal rows have a chance of 5000·2^-64


def test_relaxed_masks_have_the_chance_and_the_limit_of_binary_ones_and_pass_gradients() -> None:
    uniform = torch.rand(10_000, generator=generator(), dtype=torch.float64)
    odds = torch.tensor(0.2, dtype=torch.float64).logit()
    # (log p/(1-p) + log u/(1-u)) > 0 where u > 1 - p: dropped on the other side of the same uniform, equally often.
    relaxed = Relaxed().kept(odds, 1 - uniform)
    binary = Binary().kept(odds, uniform)
    assert torch.equal((relaxed > 0.5).double(), binary)
    sharp = Relaxed(temperature=1e-4).kept(odds, 1 - uniform)
    assert float((sharp - binary).abs().mean()) < 1e-3
    log_odds = odds.clone().requires_grad_()
    Relaxed().kept(log_odds, uniform).mean().backward()
    assert float(log_odds.grad) < 0


def test_a_draw_keeps_its_masks_when_the_posterior_moves_on(small: DropoutPosterior) -> None:
    posterior = type(small)(hidden=(16,), training=QUICK)
    x, y = wave(40)
    posterior.fit(x, y, generator=generator())
    function = posterior.sample(3, generator())
    before = function(x.unsqueeze(0)).mean
    torch.testing.assert_close(torch.cat([function(row).mean for row in x.reshape(40, 1, 1, 2)], 1), before, rtol=1e-4, atol=1e-5)
    posterior.train()
    posterior.sample(3)
    posterior.fit(x, y + 1, warm_start=True, generator=generator(2))
    assert torch.equal(function(x.unsqueeze(0)).mean, before)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.97])
def test_thinned_draws_answer_like_masked_ones(rate: float) -> None:
    _, _, function = masked(7, rate, hidden=(70, 40))
    thin = function.for_many_rows()
    x = torch.randn(7, 5, 2, generator=generator(2), dtype=torch.float64)
    for rows in (x, x[:1]):
        torch.testing.assert_close(thin(rows).mean, function(rows).mean, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(thin(rows).var, function(rows).var, rtol=1e-11, atol=1e-11)
    kept = [int((mask != 0).sum(-1).max()) for mask in function.masks]
    assert [weight.shape[2] for weight in thin.weights[:2]] == [
        min(w, 16 * max(1, math.ceil(k / 16))) for k, w in zip(kept, (70, 40))
    ]


def test_functions_without_masks_stay_as_they_are() -> None:
    network, parameters, _ = masked(2, 0.5)
    function = network.function(parameters)
    assert function.for_many_rows() is function


# The objective


def test_entropy_is_that_of_a_coin_also_near_its_ends() -> None:
    p = torch.tensor([1e-4, 0.01, 0.3, 0.5, 0.999], dtype=torch.float64)
    torch.testing.assert_close(entropy(p.logit()), torch.distributions.Bernoulli(p).entropy(), rtol=1e-9, atol=1e-15)
    assert float(entropy(torch.tensor(-200.0))) == 0.0


def test_penalty_is_stationary_where_its_closed_form_says() -> None:
    network, parameters, _ = masked(1, 0.5, hidden=(12, 9))
    weights, _ = network.unflatten(parameters.theta)
    lengthscale = 0.3
    squares = [float(weight.square().sum()) for weight in weights[1:]]
    stationary = []
    for square, width in zip(squares, network.hidden):
        # λ²D|W|²/(2(1 - p)²) + K log(p/(1 - p)), where D = K, rises from -∞ to ∞ in p: one root, by bisection.
        low, high = 1e-9, 1 - 1e-9
        for _ in range(100):
            p = 0.5 * (low + high)
            rising = lengthscale**2 * width * square / (2 * (1 - p) ** 2) + width * math.log(p / (1 - p)) > 0
            low, high = (low, p) if rising else (p, high)
        stationary.append(p)
    log_odds = torch.tensor(stationary, dtype=torch.float64).logit().requires_grad_()
    state = Dropped(parameters, log_odds)
    (gradient,) = torch.autograd.grad(penalty(network, state, 10, lengthscale, Relaxed()), log_odds)
    assert float(gradient.abs().max()) < 1e-9
    (away,) = torch.autograd.grad(penalty(network, Dropped(parameters, log_odds + 0.5), 10, lengthscale, Relaxed()), log_odds)
    assert bool((away > 1e-3).all())


def test_penalty_by_hand_halves_with_twice_the_data_and_drops_the_constant_of_fixed_rates() -> None:
    network, parameters, _ = masked(1, 0.5, hidden=(12, 9))
    squares = [float(weight.square().sum()) for weight in network.unflatten(parameters.theta)[0]]
    p, scale = (0.2, 0.4), 0.7
    state = Dropped(parameters, torch.tensor(p, dtype=torch.float64).logit())
    weight_part = scale**2 / 2 * (2 * squares[0] + 12 * squares[1] / 0.8 + 9 * squares[2] / 0.6)
    coin = [-q * math.log(q) - (1 - q) * math.log(1 - q) for q in p]
    own = float(network.noise.penalty(parameters.noise))
    for rows in (10, 20):
        assert float(penalty(network, state, rows, scale, Binary())) == pytest.approx(weight_part / rows + own)
        learned = (weight_part - 12 * coin[0] - 9 * coin[1]) / rows + own
        assert float(penalty(network, state, rows, scale, Relaxed())) == pytest.approx(learned)
    assert float(weight_penalty(network, parameters.theta, state.log_odds, scale)) == pytest.approx(weight_part)
    assert float(rate_entropy(network, state.log_odds)) == pytest.approx(12 * coin[0] + 9 * coin[1])


def test_weight_penalty_is_the_prior_s_share_of_the_mean_over_masks() -> None:
    # E_m |W diag(m)/(1 - p)|² = |W|²/(1 - p), weighted by fan-in: the Gaussian prior's term of KL(q‖p).
    network, parameters, _ = masked(1, 0.5, hidden=(6,))
    weights, _ = network.unflatten(parameters.theta)
    log_odds = torch.tensor([0.3], dtype=torch.float64).logit()
    n = 40_000
    (mask,) = Binary().draw(log_odds, (6,), (n, 1), generator(3))
    each = 0.5 * (2 * weights[0].square().sum() + 6 * (weights[1] * mask.transpose(1, 2)).square().sum((1, 2)))
    error = float(each.std()) / math.sqrt(n)
    assert abs(float(each.mean() - weight_penalty(network, parameters.theta, log_odds, 1.0))) < 4.5 * error


# Predictions


def test_prediction_is_a_mixture_per_point_with_the_mean_of_variances(small: DropoutPosterior) -> None:
    x, y = wave(20, seed=3)
    predictive = small.predict(x)
    mean, var = predictive.component_mean, predictive.component_aleatoric_var
    assert mean.shape == (64, 20, 2)
    each = (-0.5 * ((y - mean).square() / var + var.log() + math.log(2 * math.pi))).sum(-1)
    per_point = each.logsumexp(0) - math.log(64)
    torch.testing.assert_close(predictive.log_prob(y), per_point, rtol=1e-4, atol=1e-4)
    # One θ for the whole test set would give a joint density, which is another number.
    joint = each.sum(1).logsumexp(0) - math.log(64)
    assert abs(float(joint - per_point.sum())) > 1e-2
    torch.testing.assert_close(predictive.aleatoric_variance, var.mean(0))
    assert bool((predictive.aleatoric_variance > var.log().mean(0).exp()).all())
    assert bool((predictive.component_epistemic_var == 0).all())


# Fitting


@pytest.mark.parametrize("kind", BOTH)
def test_reports_keep_nll_and_penalty_apart(kind) -> None:
    x, y = wave(49)  # so few that none are held out
    posterior = kind(hidden=(16,), training=QUICK)
    report = posterior.fit(x, y, generator=generator())
    state = Dropped(Parameters(posterior.theta, posterior.noise_parameters), posterior.log_odds)
    assert report.penalty == pytest.approx(float(penalty(posterior.network, state, 49, 0.3, posterior.training_masks)), rel=1e-5)
    # The mean over data points and masks; over 4096 masks shared by the points it is the same expectation.
    answer = posterior.sample(4096, generator(4))(x.unsqueeze(0))
    nll = 0.5 * ((y - answer.mean).square() / answer.var + answer.var.log() + math.log(2 * math.pi)).sum(-1)
    spread = float(nll.std(0).square().mean().sqrt()) / math.sqrt(49) + float(nll.mean(1).std()) / 64
    assert abs(report.nll - float(nll.mean())) < 4.5 * spread
    assert report.steps == 60
    assert report.r2_held_out is None
    assert set(report.curves) == {"step", "nll", "penalty", "held_out_nll", "rate"}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.usefixtures("unchecked_fits")
def test_the_state_that_predicts_rows_not_trained_on_best_is_kept(kind) -> None:
    # Pure noise: the longer the training, the worse for new rows.
    x, y = (torch.randn(200, columns, generator=generator(columns)) for columns in (6, 2))
    posterior = kind(hidden=(64, 64), rate=0.01, lengthscale=0.01, training=Training(steps=400, learning_rate=1e-2, patience=0.25))
    report = posterior.fit(x, y, generator=generator())
    curve = dict(zip(report.curves["step"], report.curves["held_out_nll"], strict=True))
    best = min(curve, key=curve.get)
    assert report.steps < 400
    assert best < report.steps - 0.25 * 400 <= best + 2 * 400 / 50
    assert report.r2_held_out is not None
    # Trained to the end, the same network explains the noise it was trained on.
    assert max(report.r2_train) < 0.5


@pytest.mark.parametrize("kind", BOTH)
def test_the_same_generator_gives_the_same_fit_and_global_randomness_is_left_alone(kind) -> None:
    x, y = wave(40)
    before = torch.get_rng_state()
    fits = []
    for seed in (3, 3, 4):
        posterior = kind(hidden=(8,), training=QUICK)
        posterior.fit(x, y, generator=generator(seed))
        fits.append(posterior.predict(x).mean)
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", BOTH)
def test_state_loads_into_a_fresh_object_of_other_sizes(kind, tmp_path) -> None:
    x, y = wave(30, dtype=torch.float64)
    posterior = kind(hidden=(9, 8, 7), training=QUICK)
    posterior.fit(x, y, generator=generator())
    torch.save(posterior.state_dict(), tmp_path / "state.pt")
    fresh = kind(hidden=(5,), training=QUICK)
    fresh.fit(*(t.float()[:, :1] for t in wave(12)))
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert fresh.sizes == (2, 2)
    assert torch.equal(fresh.predict(x).mean, posterior.predict(x).mean)
    assert torch.equal(fresh.rates, posterior.rates)
    fresh.fit(x, y, warm_start=True)
    assert fresh.network.hidden == (9, 8, 7)


@pytest.mark.usefixtures("unchecked_fits")
def test_a_given_rate_stays_the_default_follows_the_rows_and_learned_rates_fall_with_them() -> None:
    given = MCDropout(rate=0.2, hidden=(32,), training=QUICK)
    given.fit(*wave(40), generator=generator())
    torch.testing.assert_close(given.rates, torch.tensor([0.2]))
    default = MCDropout(hidden=(8,), training=QUICK)
    for rows, warm in ((25, False), (100, True), (4, False)):
        default.fit(*wave(rows), warm_start=warm, generator=generator())
        assert float(default.rates) == pytest.approx(min(0.5, rows**-0.5))
    rates, settings = [], Training(steps=200, learning_rate=1e-2, patience=1.0)
    for rows in (20, 320):
        learned = ConcreteDropout(hidden=(16,), least_rate=1e-4, training=settings)
        learned.fit(*wave(rows), generator=generator())
        rates.append(float(learned.rates))
    assert rates[1] < 0.5 * rates[0]


def test_learned_rates_have_a_least_that_falls_with_the_rows_unless_it_is_given() -> None:
    assert [ConcreteDropout().lower_bound(rows) for rows in (1, 25, 10_000)] == pytest.approx([0.5, 0.2, 0.01])
    assert [ConcreteDropout().first_rate(rows) for rows in (25, 10_000)] == pytest.approx([0.2, 0.1])
    assert ConcreteDropout(least_rate=0.03).lower_bound(10_000) == 0.03


def test_a_rate_at_its_least_is_reported() -> None:
    posterior = ConcreteDropout(hidden=(8, 8), rate=0.06, least_rate=0.05, training=Training(steps=100, learning_rate=1e-2))
    report = posterior.fit(*wave(300), generator=generator())
    assert float(posterior.rates.min()) == pytest.approx(0.05, rel=1e-4)
    assert len(report.at_bound) == int((posterior.rates < 0.0501).sum())
    assert all("drop rate of hidden layer" in name for name in report.at_bound)


def test_rates_learned_without_information_maximise_their_entropy() -> None:
    # The prior leaves nothing of the weights and y is noise: only the entropy moves the rates, towards 1/2.
    x = torch.randn(20, 2, generator=generator())
    y = torch.randn(20, 1, generator=generator(1))
    posterior = ConcreteDropout(hidden=(16,), lengthscale=1.0, training=Training(steps=200, learning_rate=1e-2))
    posterior.fit(x, y, generator=generator())
    assert float(posterior.rates) > 0.3


@pytest.mark.parametrize("kind", BOTH)
def test_a_warm_start_runs_the_end_of_the_schedule_and_checks_sizes(kind) -> None:
    x, y = wave(60)
    posterior = kind(hidden=(16,), training=QUICK)
    posterior.fit(x[:40], y[:40], generator=generator())
    assert posterior.fit(x, y, warm_start=True, generator=generator(1)).steps == 20
    with pytest.raises(ShapeError, match="warm start"):
        posterior.fit(x[:, :1], y, warm_start=True)


@pytest.mark.parametrize("kind", BOTH)
def test_options_without_a_meaning_are_refused(kind) -> None:
    for options, match in (
        ({"rate": 0.0}, "rate"),
        ({"rate": 1.0}, "rate"),
        ({"lengthscale": 0.0}, "length-scale"),
        ({"hidden": ()}, "hidden"),
        ({"noise": OutOfBag()}, "never saw"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            kind(**options)
    with pytest.raises(ConfigurationError, match="temperature"):
        ConcreteDropout(temperature=0.0)
    with pytest.raises(ConfigurationError, match="least rate"):
        ConcreteDropout(rate=0.1, least_rate=0.1)
    with pytest.raises(NotFittedError, match="fit"):
        kind().sample(1)


def test_a_loss_that_is_not_finite_says_what_to_do() -> None:
    x, y = wave(20)
    with pytest.raises(NumericalError, match="whiten"):
        MCDropout(training=Training(steps=30, learning_rate=1e30)).fit(x, y)
