"""The bootstrap ensemble: how draws are dealt, what a prediction is, how good it is on a pendulum, what data it survives."""

import math

import pytest
import torch

from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.networks import Epochs, Heteroscedastic, Homoscedastic, Noise, OutOfBag, Training
from bayesdyn.posteriors.ensemble import BootstrapEnsemble
from bayesdyn.testing.conformance import shape_checks_off

NOISE_STD = 0.043  # noise floor of log(0.043·√(2πe)) = -1.73 nats per output
QUICK = Training(steps=40, warm_steps=10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pendulum_step(rows: int, seed: int, *, far: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """One Euler step of a pendulum, whitened: x = (sin θ, cos θ, ω, u), y = (Δθ, Δω) + noise; `far` leaves the range of ω and u."""
    g = generator(seed)
    angle, speed, torque = ((2 * torch.rand(rows, generator=g) - 1) * limit for limit in (math.pi, 8.0, 2.0))
    if far:
        speed, torque = speed + 12 * speed.sign(), torque + 3 * torque.sign()
    gain = 0.05 * (15 * angle.sin() + 3 * torque)
    x = torch.stack([angle.sin() * 2**0.5, angle.cos() * 2**0.5, speed * 3**0.5 / 8, torque * 3**0.5 / 2], 1)
    std_gain = 0.05 * (15**2 / 2 + 9 * 4 / 3) ** 0.5
    y = torch.stack([0.05 * (speed + gain) / (0.05**2 * (64 / 3 + std_gain**2)) ** 0.5, gain / std_gain], 1)
    return x, y + NOISE_STD * torch.randn(rows, 2, generator=g)


def wave(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 2, generator=generator(seed), dtype=dtype)
    y = torch.stack([(2 * x[:, 0]).sin(), x.prod(1)], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=generator(seed + 1), dtype=dtype)


@pytest.fixture(scope="module")
def small() -> BootstrapEnsemble:
    ensemble = BootstrapEnsemble(members=5, hidden=(8, 8), training=QUICK)
    ensemble.fit(*wave(50), generator=generator())
    return ensemble


@pytest.fixture(scope="module", params=[Heteroscedastic(), Homoscedastic(), OutOfBag()], ids=lambda noise: type(noise).__name__)
def pendulum(request) -> tuple[BootstrapEnsemble, object]:
    ensemble = BootstrapEnsemble(noise=request.param)
    with shape_checks_off():  # 2000 steps; the short fits below keep the checks
        return ensemble, ensemble.fit(*pendulum_step(200, 1), generator=generator())


def member_of_each_draw(ensemble: BootstrapEnsemble, n: int, g: torch.Generator | None) -> list[int]:
    """Tell the member behind each draw by its answer at one point."""
    x = torch.ones(1, 2)
    members = ensemble.predict(x).component_mean[:, 0, 0]
    gaps = (ensemble.sample(n, g)(x).mean[:, :1] - members).abs()
    assert float(gaps.amin(1).max()) < 1e-5
    return gaps.argmin(1).tolist()


def test_prediction_is_the_mixture_of_members_and_not_of_their_averaged_parameters(small: BootstrapEnsemble) -> None:
    x, y = wave(20, seed=3)
    answer = small.sample(5)(x.unsqueeze(0))
    log_prob = -0.5 * ((y - answer.mean).square() / answer.var + answer.var.log() + math.log(2 * math.pi)).sum(-1)
    predictive = small.predict(x)
    torch.testing.assert_close(predictive.log_prob(y), log_prob.logsumexp(0) - math.log(5), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predictive.mean, answer.mean.mean(0))
    torch.testing.assert_close(predictive.aleatoric_variance, answer.var.mean(0))
    torch.testing.assert_close(predictive.epistemic_variance, answer.mean.var(0, correction=0))
    assert bool((predictive.component_epistemic_var == 0).all())
    # The geometric mean of variances, which averaged log variances give, is smaller.
    assert bool((predictive.aleatoric_variance > answer.var.log().mean(0).exp()).all())


@pytest.mark.parametrize("n", [5, 10, 15])
def test_draws_come_in_blocks_when_members_divide_them(small: BootstrapEnsemble, n: int) -> None:
    assert member_of_each_draw(small, n, generator()) == [member for member in range(5) for _ in range(n // 5)]


@pytest.mark.parametrize("n", [1, 2, 4, 7, 13])
def test_every_member_is_equally_likely(small: BootstrapEnsemble, n: int) -> None:
    g, calls = generator(1), 150
    dealt = [member_of_each_draw(small, n, g) for _ in range(calls)]
    whole = n // 5
    assert all(sorted(draws[: 5 * whole]) == [m for m in range(5) for _ in range(whole)] for draws in dealt)
    rest = [draws[5 * whole :] for draws in dealt]
    assert all(len(set(members)) == n % 5 for members in rest)
    frequency = torch.tensor([[m in members for m in range(5)] for members in rest]).double().mean(0)
    chance = (n % 5) / 5
    # 4.5 standard errors of a binomial share; five members at each of five n.
    assert float((frequency - chance).abs().max()) < 4.5 * math.sqrt(chance * (1 - chance) / calls)


def test_draws_without_a_generator_vary_and_leave_the_global_state_alone(small: BootstrapEnsemble) -> None:
    before = torch.get_rng_state()
    seen = {member_of_each_draw(small, 1, None)[0] for _ in range(60)}
    assert len(seen) > 1  # one member 60 times has a chance of 5^-59
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_generator_state_gives_the_same_fit_and_the_global_state_is_left_alone() -> None:
    x, y = wave(50)
    before = torch.get_rng_state()
    fits = []
    for seed in (3, 3, 4):
        ensemble = BootstrapEnsemble(members=2, hidden=(8,), training=QUICK)
        ensemble.fit(x, y, generator=generator(seed))
        fits.append(ensemble.predict(x).mean)
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_outlive_a_new_fit_a_warm_start_and_a_loaded_state() -> None:
    x, y = wave(50)
    ensemble = BootstrapEnsemble(members=2, hidden=(8,), training=QUICK)
    ensemble.fit(x, y, generator=generator())
    saved = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    function = ensemble.sample(3, generator())
    answer = function(x.unsqueeze(0)).mean
    ensemble.fit(x, y + 1, generator=generator(1))
    ensemble.fit(x, y + 2, warm_start=True, generator=generator(2))
    ensemble.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in saved.items()})
    ensemble.train()
    assert torch.equal(function(x.unsqueeze(0)).mean, answer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", [(8,), (9, 8, 7), None])
@pytest.mark.usefixtures("unchecked_fits")
def test_state_loads_into_a_fresh_object_of_other_sizes(tmp_path, dtype: torch.dtype, hidden: tuple[int, ...] | None) -> None:
    x, y = wave(30, dtype=dtype)
    ensemble = BootstrapEnsemble(members=3, hidden=hidden, noise=Homoscedastic(), training=QUICK)
    ensemble.fit(x, y, generator=generator())
    torch.save(ensemble.state_dict(), tmp_path / "state.pt")
    fresh = BootstrapEnsemble(noise=Homoscedastic(), training=QUICK)
    fresh.fit(torch.randn(12, 3, generator=generator()), torch.randn(12, 1, generator=generator()))
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert fresh.sizes == (2, 2)
    assert fresh.predict(x).mean.dtype == dtype
    assert torch.equal(fresh.predict(x).mean, ensemble.predict(x).mean)
    assert torch.equal(fresh.predict(x).variance, ensemble.predict(x).variance)
    fresh.fit(x, y, warm_start=True)


def test_width_follows_the_amount_of_data_unless_given() -> None:
    shortest = Training(steps=1)
    for rows, given, hidden in ((999, None, (64, 64)), (1000, None, (200, 200, 200)), (1000, (8,), (8,))):
        ensemble = BootstrapEnsemble(members=1, hidden=given, training=shortest)
        ensemble.fit(*wave(rows))
        assert ensemble.network.hidden == hidden


def test_bootstrap_leaves_a_share_of_one_over_e_unseen() -> None:
    ensemble = BootstrapEnsemble(members=8, hidden=(4,), training=Training(steps=1))
    ensemble.fit(*wave(2000), generator=generator())
    assert bool((ensemble.counts.sum(1) == 2000).all())
    # The number of empty cells has variance N(e⁻¹ - 2e⁻²) (Rényi 1962), here 16,000 rows in 8 independent samples.
    share = float((ensemble.counts == 0).double().mean())
    assert abs(share - math.exp(-1)) < 4.5 * math.sqrt((math.exp(-1) - 2 * math.exp(-2)) / 16000)
    ensemble = BootstrapEnsemble(members=2, hidden=(4,), bootstrap=False, training=Training(steps=1))
    report = ensemble.fit(*wave(50))
    assert bool((ensemble.counts == 1).all())
    assert report.r2_held_out is None


@pytest.mark.usefixtures("unchecked_fits")
def test_a_warm_start_keeps_unseen_rows_unseen_and_learns_from_new_ones() -> None:
    x, y = pendulum_step(150, 2)
    ensemble = BootstrapEnsemble(members=3, hidden=(32,), training=Training(steps=500, warm_steps=150))
    ensemble.fit(x[:100], y[:100], generator=generator())
    counts = ensemble.counts
    cold = float(-ensemble.predict(x[100:]).log_prob(y[100:]).mean())
    report = ensemble.fit(x, y, warm_start=True, generator=generator(1))
    assert torch.equal(ensemble.counts[:, :100], counts)
    assert bool((ensemble.counts[:, 100:].sum(1) == 50).all())
    assert report.steps <= 150
    assert float(-ensemble.predict(x[100:]).log_prob(y[100:]).mean()) < cold
    with pytest.raises(ShapeError, match="warm start"):
        ensemble.fit(x[:, :3], y, warm_start=True)


def test_a_pendulum_step_is_learned_with_honest_uncertainty(pendulum) -> None:
    ensemble, report = pendulum
    x, y = pendulum_step(2000, 98)
    predictive = ensemble.predict(x)
    # The noise floor is -1.73 nats per output; a linear fit stays above 0.
    assert float(-predictive.log_prob(y).mean()) / 2 < -1.4
    low, high = predictive.interval(0.9)
    assert 0.8 < float(((low < y) & (y < high)).float().mean()) < 0.97
    assert not report.collapsed
    assert min(report.r2_held_out) > 0.98
    assert len(report.curves["nll"]) == len(report.curves["held_out_nll"]) == len(report.curves["step"])


def test_uncertainty_grows_off_the_data_and_noise_does_not_explode(pendulum) -> None:
    ensemble, _ = pendulum
    near, far = pendulum_step(2000, 98)[0], pendulum_step(2000, 98, far=True)[0]
    epistemic = [ensemble.predict(x).epistemic_variance.mean().sqrt() for x in (near, far)]
    assert float(epistemic[1]) > 3 * float(epistemic[0])
    remote = ensemble.predict(1e3 * near)
    assert bool(remote.variance.isfinite().all())
    assert bool((remote.component_aleatoric_var > 0).all())
    assert float(remote.component_aleatoric_var.max()) <= 1.65


@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic(), OutOfBag()])
@pytest.mark.parametrize("scale", [1e-6, 30.0])
def test_raw_targets_constant_columns_and_duplicate_rows_give_finite_answers(noise: Noise, scale: float) -> None:
    x, y = wave(40)
    x = torch.cat([x, torch.full((40, 1), 3.0), torch.zeros(40, 1)], 1)
    y = torch.cat([scale * y, torch.zeros(40, 1)], 1)
    x, y = torch.cat([x, x]), torch.cat([y, y])
    ensemble = BootstrapEnsemble(members=2, hidden=(16,), noise=noise, training=Training(steps=150))
    report = ensemble.fit(x, y, generator=generator())
    predictive = ensemble.predict(x)
    assert all(bool(t.isfinite().all()) for t in (predictive.mean, predictive.variance, predictive.log_prob(y)))
    assert math.isfinite(report.nll + report.penalty)
    assert bool((predictive.variance > 0).all())


@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic(), OutOfBag()])
@pytest.mark.parametrize("rows", [2, 3, 5])
def test_very_few_rows_are_learned_from(noise: Noise, rows: int) -> None:
    ensemble = BootstrapEnsemble(noise=noise, training=Training(steps=100))
    report = ensemble.fit(*wave(rows), generator=generator())
    predictive = ensemble.predict(wave(20)[0])
    assert bool(predictive.variance.isfinite().all())
    assert bool((predictive.variance > 0).all())
    unseen = (ensemble.counts == 0).any(1)
    assert any("no held-out rows" in warning for warning in report.warnings) == (not bool(unseen.all()))


def test_one_row_is_too_few() -> None:
    with pytest.raises(DataError, match="at least 2 rows"):
        BootstrapEnsemble().fit(*wave(1))


@pytest.mark.usefixtures("unchecked_fits")
def test_targets_that_x_says_nothing_about_are_reported_as_collapsed() -> None:
    x = torch.randn(100, 2, generator=generator())
    y = torch.cat([x[:, :1], torch.randn(100, 1, generator=generator(1))], 1)
    report = BootstrapEnsemble(members=3, hidden=(16,), training=Training(steps=600)).fit(x, y, generator=generator())
    assert report.collapsed
    assert any("output 1 is predicted no better" in warning for warning in report.warnings)


def test_options_without_a_meaning_and_wrong_calls_are_refused(small: BootstrapEnsemble) -> None:
    with pytest.raises(ConfigurationError, match="at least one member"):
        BootstrapEnsemble(members=0)
    with pytest.raises(ConfigurationError, match="bootstrap=True"):
        BootstrapEnsemble(noise=OutOfBag(), bootstrap=False)
    with pytest.raises(NotFittedError, match="fit"):
        BootstrapEnsemble().sample(1)
    with pytest.raises(NotFittedError, match="fit"):
        BootstrapEnsemble().predict(torch.zeros(1, 2))
    with pytest.raises(ConfigurationError, match="n >= 1"):
        small.sample(0)
    with pytest.raises(ShapeError, match="2 features"):
        small.predict(torch.zeros(4, 3))


def test_an_ensemble_passes_over_its_data_in_epochs_and_decays_its_weights() -> None:
    x, y = torch.randn(64, 2, generator=generator()), torch.randn(64, 1, generator=generator(1))
    settings = {"members": 2, "hidden": (16,), "mean_first": 0.0, "training": Epochs(epochs=100, learning_rate=1e-2)}
    free, held = (BootstrapEnsemble(decay=decay, **settings) for decay in ((0.0, 0.0), (10.0, 10.0)))
    for ensemble in (free, held):
        assert ensemble.fit(x, y, generator=generator(2)).steps == 200
        assert ensemble.fit(x, y, generator=generator(3), warm_start=True).steps == 200

    def size(ensemble: BootstrapEnsemble) -> float:
        weights, _ = ensemble.network.unflatten(ensemble.theta)
        return sum(float(w.square().sum()) for w in weights)

    assert size(held) < 0.1 * size(free)
