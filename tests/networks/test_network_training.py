"""Training of many networks at once: gradients that do not mix, fair minibatches, the objective's constants, the kept state."""

import math

import pytest
import torch
from torch.distributions import Normal

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.networks import Epochs, Heteroscedastic, Homoscedastic, Network, OutOfBag, Parameters, Training, train
from bayesdyn.networks.training import minibatches, score_rows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def line(rows: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 2, generator=generator(seed), dtype=dtype)
    y = x @ torch.tensor([[0.8], [-0.5]], dtype=dtype) + 0.1 * torch.randn(rows, 1, generator=generator(seed + 1), dtype=dtype)
    return x, y


def test_nll_is_the_normal_log_density_summed_over_outputs() -> None:
    for noise in (Heteroscedastic(), Homoscedastic()):
        network = Network(2, (4,), 3, noise=noise)
        parameters = network.initial(2, generator())
        x, y = torch.randn(5, 2, generator=generator(1)), torch.randn(5, 3, generator=generator(2))
        answer = network.function(parameters)(x.unsqueeze(0))
        by_hand = -Normal(answer.mean, answer.var.sqrt()).log_prob(y).sum(-1)
        nll = network.nll(network.columns(parameters.theta, x.unsqueeze(0)), parameters.noise, y.unsqueeze(0))
        torch.testing.assert_close(nll, by_hand, rtol=1e-5, atol=1e-5)


def test_penalty_is_the_log_prior_per_data_point_so_that_twice_the_data_halve_it() -> None:
    network = Network(2, (4,), 1, noise=Homoscedastic())
    parameters = network.initial(3, generator())
    weights, biases = network.unflatten(parameters.theta)
    log_prior = sum(Normal(0.0, w.shape[1] ** -0.5).log_prob(w).sum((1, 2)) for w in weights)
    log_prior = log_prior + sum(Normal(0.0, 1.0).log_prob(b).sum((1, 2)) for b in biases)
    constant = 0.5 * (network.prior_precision().log() - math.log(2 * math.pi)).sum()
    penalty = network.penalty(parameters, 10, network.prior_precision())
    torch.testing.assert_close(penalty, (constant - log_prior) / 10, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.penalty(parameters, 20, network.prior_precision()), penalty / 2)


def test_bounds_of_the_log_variance_are_curbed() -> None:
    noise = Heteroscedastic()
    torch.testing.assert_close(noise.penalty(noise.start(2, 3)), torch.full((2,), 0.01 * 3 * 10.5))


def test_members_do_not_influence_each_other() -> None:
    x, y = line(30, torch.float64)
    network, settings = Network(2, (6,), 1), Training(steps=40)
    start = network.initial(3, generator())
    counts = torch.ones(3, 30, dtype=torch.int64)
    together = train(network, start, x, y, counts, training=settings, generator=generator(5))
    alone = train(network, start.select(torch.tensor([1])), x, y, counts[:1], training=settings, generator=generator(5))
    torch.testing.assert_close(together.parameters.theta[1], alone.parameters.theta[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.parameters.noise[1], alone.parameters.noise[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch_size", [4, 20])
def test_an_epoch_shows_each_member_its_own_rows_as_often_as_counted(batch_size: int) -> None:
    rows = torch.arange(20.0).unsqueeze(1)
    drawn = torch.randint(20, (3, 20), generator=generator())
    counts = torch.zeros(3, 20, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
    batches = minibatches(rows, rows + 100, counts, batch_size, generator(1))
    for _ in range(2):
        epoch = [next(batches) for _ in range(20 // batch_size)]
        x, y = torch.cat([b[0] for b in epoch], 1)[..., 0], torch.cat([b[1] for b in epoch], 1)[..., 0]
        assert torch.equal(y, x + 100)
        for member in range(3):
            assert torch.equal(torch.bincount(x[member].long(), minlength=20), counts[member])


def test_minibatch_loss_is_unbiased() -> None:
    x, y = line(24, torch.float64)
    network = Network(2, (4,), 1)
    parameters = Parameters(*(t.double() for t in network.initial(1, generator())))
    batches = minibatches(x, y, torch.ones(1, 24, dtype=torch.int64), 6, generator())
    means = [
        network.nll(network.columns(parameters.theta, a), parameters.noise, b).mean() for a, b in (next(batches) for _ in range(4))
    ]
    whole = network.nll(network.columns(parameters.theta, x.unsqueeze(0)), parameters.noise, y.unsqueeze(0)).mean()
    assert float(torch.stack(means).mean()) == pytest.approx(float(whole), rel=1e-12)


def test_the_state_kept_is_the_best_on_rows_that_a_member_never_saw() -> None:
    x, y = line(24)
    drawn = torch.randint(24, (4, 24), generator=generator())
    counts = torch.zeros(4, 24, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
    # Without the prior's pull (as if N were large) a wide network over-fits 24 rows, so its last state is not its best.
    network = Network(2, (64, 64), 1)
    trained = train(network, network.initial(4, generator()), x, y, counts, training=Training(steps=400), generator=generator())
    nll = network.nll(network.columns(trained.parameters.theta, x.unsqueeze(0)), trained.parameters.noise, y.unsqueeze(0))
    unseen = (counts == 0).float()
    torch.testing.assert_close(trained.held_out_nll, (nll * unseen).sum(1) / unseen.sum(1), rtol=1e-4, atol=1e-4)
    scored, _ = score_rows(network, trained.parameters, x, y, counts)
    torch.testing.assert_close(scored, (nll * counts).mean(1), rtol=1e-4, atol=1e-4)
    assert float(trained.held_out_nll.mean()) <= min(trained.curves["held_out_nll"]) + 1e-6


def test_training_ends_when_no_member_improves_any_more() -> None:
    x = torch.randn(40, 2, generator=generator())
    y = torch.randn(40, 1, generator=generator(1))
    counts = torch.ones(2, 40, dtype=torch.int64)
    counts[:, :10] = 0
    counts[:, 10:20] = 2
    network = Network(2, (64, 64), 1)
    settings = Training(steps=2000, patience=0.05)
    trained = train(network, network.initial(2, generator()), x, y, counts, training=settings, generator=generator())
    assert trained.steps < 2000


def test_homoscedastic_noise_reaches_the_level_of_the_data() -> None:
    x, y = line(200)
    network = Network(2, (16,), 1, noise=Homoscedastic())
    counts = torch.ones(2, 200, dtype=torch.int64)
    trained = train(
        network,
        network.initial(2, generator()),
        x,
        y,
        counts,
        training=Training(steps=700, learning_rate=1e-2),
        generator=generator(),
    )
    std = (0.5 * network.noise.split(x.unsqueeze(0), trained.parameters.noise)[1]).exp()
    # The sample std of 200 residuals has a relative standard error of 1/√400 = 5 %; fitting takes at most about 10 % off.
    assert bool(((std > 0.1 * 0.75) & (std < 0.1 * 1.2)).all())


def test_out_of_bag_noise_is_the_mean_squared_error_on_unseen_rows() -> None:
    x, y = line(60)
    drawn = torch.randint(60, (3, 60), generator=generator())
    counts = torch.zeros(3, 60, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
    network = Network(2, (16,), 1, noise=OutOfBag())
    trained = train(network, network.initial(3, generator()), x, y, counts, training=Training(steps=200), generator=generator())
    error = (network.columns(trained.parameters.theta, x.unsqueeze(0)) - y).square()[..., 0]
    unseen = (counts == 0).float()
    expected = (error * unseen).sum(1) / unseen.sum(1)
    torch.testing.assert_close(trained.parameters.noise[:, 0, 0].exp(), expected, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do() -> None:
    x, y = line(20)
    network = Network(2, (4,), 1)
    counts = torch.ones(1, 20, dtype=torch.int64)
    with pytest.raises(NumericalError, match="whiten"):
        train(network, network.initial(1, generator()), x, y * 1e30, counts, training=Training(steps=10), generator=generator())


def test_progress_hears_of_the_first_and_the_last_step() -> None:
    x, y = line(20)
    network, heard = Network(2, (4,), 1), []
    train(
        network,
        network.initial(1, generator()),
        x,
        y,
        torch.ones(1, 20, dtype=torch.int64),
        training=Training(steps=30),
        generator=generator(),
        progress=lambda done, of, figures: heard.append((done, of, sorted(figures))),
    )
    assert heard[0][:2] == (0, 30)
    assert heard[-1][:2] == (30, 30)


@pytest.mark.parametrize("broken", [{"steps": 0}, {"learning_rate": 0.0}, {"batch_size": 0}, {"patience": -1.0}])
def test_settings_without_a_meaning_are_refused(broken: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="positive"):
        Training(**broken)


def test_epochs_pass_over_the_data_a_number_of_times_at_one_rate() -> None:
    epochs = Epochs(epochs=3, batch_size=10, learning_rate=0.01)
    for rows, passes in ((4, 3), (10, 3), (99, 27)):
        schedule = epochs.for_rows(rows)
        assert schedule.steps == schedule.warm_steps == passes
        assert {schedule.rate(step) for step in (0, passes)} == {0.01}
    with pytest.raises(ConfigurationError):
        Epochs(epochs=0)


def test_weight_decay_is_the_stated_share_of_the_published_loss_whatever_the_number_of_rows() -> None:
    network = Network(2, (8,), 3)
    parameters = network.initial(1, generator())
    weights, _ = network.unflatten(parameters.theta)
    decayed = sum(d * 0.5 * float(w.square().sum()) for d, w in zip((0.3, 0.7), weights, strict=True))
    for rows in (10, 1000):
        precision = network.decay_precision((0.3, 0.7), rows)
        ours = float(network.penalty(parameters, rows, precision)) - float(network.noise.penalty(parameters.noise))
        # PETS's loss is the mean of (y - mean)^2 / var + log var over rows and outputs: 2/E times ours, up to a constant.
        assert ours * 2 / 3 == pytest.approx(decayed, rel=1e-5)
    with pytest.raises(ConfigurationError, match="each of 2 layers"):
        network.decay_precision((0.3,), 10)
