"""One network by maximum likelihood: what it is the maximum of, that it has no doubt, and how it falls short."""

import math

import pytest
import torch

from bayesdyn.errors import ConfigurationError, NotFittedError, ShapeError
from bayesdyn.networks import Heteroscedastic, Homoscedastic, OutOfBag, Training
from bayesdyn.posteriors.maximum_likelihood import MaximumLikelihood
from bayesdyn.testing import check_posterior

QUICK = Training(steps=60, warm_steps=20)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def line(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 2, generator=generator(seed), dtype=torch.float64)
    noise = torch.randn(rows, 1, generator=generator(seed + 1), dtype=torch.float64)
    return x, x @ torch.tensor([[0.8], [-0.5]], dtype=torch.float64) + 0.2 + 0.3 * noise


def wave_with_gap(rows: int, std: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A sine on [-4, 4] without (-1, 1), with noise of one std."""
    side = torch.rand(rows, 1, generator=generator(1)) * 3 + 1
    x = side * (2 * torch.randint(2, (rows, 1), generator=generator(2)) - 1)
    return x / 2.6, x.sin() + std * torch.randn(rows, 1, generator=generator(3))


@pytest.mark.usefixtures("unchecked_fits")
def test_a_deterministic_linear_network_is_least_squares_with_the_mean_squared_residual_as_noise() -> None:
    x, y = line(60)
    linear = MaximumLikelihood(hidden=(), noise=Homoscedastic(), held_out=0, training=Training(steps=2000, learning_rate=1e-2))
    report = linear.fit(x, y, generator=generator())
    features = torch.cat([x, torch.ones(60, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(features, y).solution
    residual = float((y - features @ best).square().mean())
    said = linear.predict(x)
    torch.testing.assert_close(said.mean, features @ best, rtol=0, atol=1e-3)
    assert float(said.aleatoric_variance[0]) == pytest.approx(residual, rel=1e-3)
    assert report.nll == pytest.approx(0.5 * math.log(2 * math.pi * math.e * residual), abs=1e-4)
    assert report.penalty == 0.0


@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic()], ids=lambda noise: type(noise).__name__)
def test_all_draws_are_one_function_and_there_is_no_epistemic_variance(noise) -> None:
    x, y = line(40)
    single = MaximumLikelihood(hidden=(8,), noise=noise, training=QUICK)
    single.fit(x, y, generator=generator())
    g = generator(4)
    before = g.get_state()
    for n in (1, 5):
        answer = single.sample(n, g)(x.unsqueeze(0))
        assert answer.mean.shape == (n, 40, 1)
        assert bool((answer.mean == answer.mean[:1]).all())
        assert bool((answer.var == answer.var[:1]).all())
    assert torch.equal(g.get_state(), before)
    for at in (x, 100 * x):
        assert bool((single.predict(at).epistemic_variance == 0).all())
    assert single.predict(x).components == 1


@pytest.mark.usefixtures("unchecked_fits")
def test_it_is_as_sure_in_a_gap_as_on_the_data_which_is_why_it_is_a_baseline() -> None:
    x, y = wave_with_gap(200, 0.1)
    single = MaximumLikelihood(noise=Homoscedastic(), training=Training(steps=400))
    single.fit(x, y, generator=generator())
    gap, support = torch.linspace(-0.9, 0.9, 30).unsqueeze(1) / 2.6, x
    std = single.predict(gap).stddev
    assert float(std.max()) == pytest.approx(float(single.predict(support).stddev.mean()), rel=1e-5)
    # Between the noise and a tenth more of unseen rows' error: the fit is good where there are data.
    assert 0.08 < float(std.mean()) < 0.13


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic()], ids=lambda noise: type(noise).__name__)
@pytest.mark.usefixtures("unchecked_fits")
def test_the_posterior_keeps_the_contract_but_for_doubt(dtype: torch.dtype, noise) -> None:
    training = Training(steps=300, learning_rate=1e-2)
    check_posterior(
        lambda: MaximumLikelihood(hidden=(20,), noise=noise, training=training),
        dtype=dtype,
        epistemic=False,
        exact_predict=True,
        compiles=dtype == torch.float32,
    )


def test_held_out_rows_choose_the_state_and_stay_held_out() -> None:
    x, y = line(100)
    single = MaximumLikelihood(hidden=(8,), held_out=0.2, training=QUICK)
    report = single.fit(x[:60], y[:60], generator=generator())
    counts = single.counts
    assert int((counts == 0).sum()) == 12
    assert report.r2_held_out is not None
    warm = single.fit(x, y, warm_start=True, generator=generator(1))
    assert torch.equal(single.counts[:, :60], counts)
    assert int((single.counts == 0).sum()) == 20
    assert warm.steps <= 20
    with pytest.raises(ShapeError, match="warm start"):
        single.fit(x[:, :1], y, warm_start=True)
    everything = MaximumLikelihood(hidden=(8,), held_out=0, training=QUICK)
    assert everything.fit(x, y, generator=generator()).r2_held_out is None
    assert bool((everything.counts == 1).all())


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_very_few_rows_are_learned_from(rows: int) -> None:
    single = MaximumLikelihood(hidden=(8,), training=QUICK)
    single.fit(*line(rows), generator=generator())
    assert bool(single.predict(line(20)[0]).variance.isfinite().all())


def test_options_without_a_meaning_are_refused() -> None:
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ConfigurationError, match="held out"):
            MaximumLikelihood(held_out=share)
    with pytest.raises(ConfigurationError, match="held_out > 0"):
        MaximumLikelihood(noise=OutOfBag(), held_out=0)
    with pytest.raises(NotFittedError, match="fit"):
        MaximumLikelihood().sample(1)
