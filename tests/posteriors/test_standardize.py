import math

import numpy as np
import pytest
import torch
from reference_posteriors import ConjugateRegression

from bayesdyn.errors import DataError, NotFittedError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.networks.training import Training
from bayesdyn.numerics import spread
from bayesdyn.posteriors.ensemble import BootstrapEnsemble
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.standardize import Standardize
from bayesdyn.testing import check_posterior
from bayesdyn.testing.conformance import shape_checks_off
from bayesdyn.testing.posterior_case import toy_data

F64 = torch.float64
X_SCALE, X_OFFSET = torch.tensor([4.0, 0.5, 1.0], dtype=F64), torch.tensor([3.0, -1.0, 10.0], dtype=F64)
Y_SCALE, Y_OFFSET = torch.tensor([5.0, 0.2], dtype=F64), torch.tensor([20.0, -1.0], dtype=F64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw_data(rows: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = toy_data(rows, random)
    return x * X_SCALE + X_OFFSET, y * Y_SCALE + Y_OFFSET


def quick_gp() -> ExactGP:
    return ExactGP(training=GPTraining(max_steps=15, restarts=0))


def quick_ensemble() -> BootstrapEnsemble:
    return BootstrapEnsemble(members=4, hidden=(16,), training=Training(steps=200))


# --- the contract


@pytest.mark.usefixtures("unchecked_fits")
@pytest.mark.parametrize("dtype", [F64, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_a_standardised_gp_keeps_the_contract(dtype):
    check_posterior(lambda: Standardize(quick_gp()), data=raw_data, exact_fit=True, feature_error=1.13 / 512**0.5, dtype=dtype)


@pytest.mark.usefixtures("unchecked_fits")
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(F64, marks=pytest.mark.slow)])
def test_a_standardised_ensemble_keeps_the_contract(dtype):
    check_posterior(lambda: Standardize(quick_ensemble()), data=raw_data, exact_predict=True, dtype=dtype)


# --- units


def test_it_is_the_wrapped_posterior_on_whitened_data():
    x, y = raw_data(30, generator())
    model, plain = Standardize(ConjugateRegression()), ConjugateRegression()
    report = model.fit(x, y)
    mean_x, std_x, mean_y, std_y = x.mean(0), x.std(0, correction=0), y.mean(0), y.std(0, correction=0)
    plain_report = plain.fit((x - mean_x) / std_x, (y - mean_y) / std_y)
    query, target = raw_data(7, generator(1))
    said, plainly = model.predict(query), plain.predict((query - mean_x) / std_x)
    torch.testing.assert_close(said.mean, plainly.mean * std_y + mean_y)
    torch.testing.assert_close(said.epistemic_variance, plainly.epistemic_variance * std_y**2)
    torch.testing.assert_close(said.aleatoric_variance, plainly.aleatoric_variance * std_y**2)
    # Change of variables: a density of y in raw units is smaller by the volume of one whitened unit.
    expected = plainly.log_prob((target - mean_y) / std_y) - std_y.log().sum()
    torch.testing.assert_close(said.log_prob(target), expected)
    assert report.nll == pytest.approx(plain_report.nll + float(std_y.log().sum()), rel=1e-10)
    draws, plain_draws = model.sample(5, generator(2)), plain.sample(5, generator(2))
    answer, plain_answer = draws(query.unsqueeze(0)), plain_draws(((query - mean_x) / std_x).unsqueeze(0))
    torch.testing.assert_close(answer.mean, plain_answer.mean * std_y + mean_y)
    torch.testing.assert_close(answer.var, plain_answer.var * std_y**2)


def test_a_density_in_raw_units_integrates_to_one():
    x, y = raw_data(30, generator())
    model = Standardize(ConjugateRegression())
    model.fit(x, y[:, 1:])
    said = model.predict(x[0])
    grid = said.mean + torch.linspace(-10, 10, 2001, dtype=F64).unsqueeze(-1) * said.stddev
    assert torch.trapezoid(said.log_prob(grid).exp(), grid[:, 0]).item() == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_powers_of_two_change_no_digit(scale):
    # They scale every number exactly, so that even an optimiser's path is the same, bit for bit.
    x, y = raw_data(25, generator())
    query = raw_data(6, generator(1))[0]
    first, second = Standardize(quick_gp()), Standardize(quick_gp())
    first.fit(x, y)
    second.fit(x * scale, y / scale)
    one, two = first.predict(query), second.predict(query * scale)
    assert torch.equal(one.mean, two.mean * scale)
    assert torch.equal(one.variance, two.variance * scale**2)


@pytest.mark.parametrize("x_scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("y_scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_units_and_offsets_do_not_matter(x_scale, y_scale, offset):
    # The torchrl GPWorldModel applied hyper-parameters of standardised targets to raw ones: 1e4 off in variance at 1e-2.
    x, y = raw_data(40, generator())
    query = raw_data(10, generator(1))[0]
    first, second = Standardize(ConjugateRegression()), Standardize(ConjugateRegression())
    first.fit(x, y)
    second.fit(x * x_scale + offset, y * y_scale + offset)
    one, two = first.predict(query), second.predict(query * x_scale + offset)
    # What float64 lost when the offset was added, in units of the spreads, which are 0.2 at least; the factor is |dŷ/d(x, y)|:
    # the posterior mean's slope to x̃ is below 1 + 2|x̃| < 10 and is met by three features, its weights to ỹ sum to below 10.
    lost = torch.finfo(F64).eps * (1 + offset / (0.2 * min(x_scale, y_scale)))
    mean = (two.mean - offset) / y_scale
    torch.testing.assert_close(mean, one.mean, rtol=0, atol=100 * lost * float(one.mean.abs().max()) + 1e-12)
    torch.testing.assert_close(two.variance / y_scale**2, one.variance, rtol=100 * lost + 1e-12, atol=0)


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6), (1e-3, -1e3)])
def test_a_gp_learns_the_same_in_any_units(scale, offset):
    x, y = raw_data(40, generator())
    first, second = Standardize(ExactGP()), Standardize(ExactGP())
    first.fit(x, y)
    second.fit(x / scale - offset, y * scale + offset)
    query = raw_data(10, generator(1))[0]
    one, two = first.predict(query), second.predict(query / scale - offset)
    # L-BFGS stops where the loss per row changes by less than 1e-10, which leaves hyper-parameters, and predictions, known to about
    # √1e-10 of themselves along the flat directions.
    spread_of_y = y.std(0)
    torch.testing.assert_close((two.mean - offset) / scale / spread_of_y, one.mean / spread_of_y, rtol=0, atol=1e-4)
    torch.testing.assert_close(two.variance / scale**2, one.variance, rtol=1e-3, atol=0)


# --- constant columns


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -1e-6])
def test_a_constant_feature_is_only_centred(value):
    x, y = raw_data(30, generator())
    with_constant = torch.cat([x, torch.full_like(x[:, :1], value)], 1)
    model = Standardize(quick_gp())
    report = model.fit(with_constant, y)
    assert float(model.feature_std[3]) == 1.0
    assert any("column 3 of x is constant" in text for text in report.warnings)
    assert min(report.r2_held_out) > 0.5
    assert bool(model.predict(with_constant).mean.isfinite().all())


@pytest.mark.parametrize("make", [quick_gp, quick_ensemble, ConjugateRegression])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-6])
def test_a_constant_target_is_predicted_with_a_small_variance(make, value):
    x, y = (t.float() for t in raw_data(30, generator()))
    model = Standardize(make())
    report = model.fit(x, torch.cat([y, torch.full_like(y[:, :1], value)], 1))
    assert any("column 2 of y is constant" in text for text in report.warnings)
    said = model.predict(x.double() if make is quick_gp else x)
    size = abs(value) or 1e3
    # In whitened units the constant is 0 with a variance of at most that of the prior, about 1.
    assert float((said.mean[:, 2] - value).abs().max()) < 2e-3 * size
    assert 0 < float(said.stddev[:, 2].min()) <= float(said.stddev[:, 2].max()) < 2e-3 * size


def test_rounding_is_told_from_spread():
    random = generator()
    signal = torch.randn(50, 1, generator=random, dtype=F64)
    for dtype, offset, size in ((F64, 1e6, 1e-6), (torch.float32, 1e3, 1.0), (F64, 0.0, 1e-150), (torch.float32, 0.0, 1e-30)):
        assert not spread((offset + size * signal).to(dtype)).constant.any()
    # One unit in the last place up or down is no signal, nor is the error of the mean of equal numbers.
    for dtype in (F64, torch.float32):
        base = torch.full((50, 1), 0.1, dtype=dtype)
        noisy = torch.where(signal > 0, base, torch.nextafter(base, base + 1))
        assert spread(base).constant.all()
        assert spread(noisy).constant.all()
    result = spread(signal.float())
    assert result.mean.dtype == result.std.dtype == F64


# --- later data


def test_append_keeps_the_statistics():
    x, y = raw_data(40, generator())
    model = Standardize(quick_gp())
    model.fit(x[:30], y[:30])
    statistics = [part.clone() for part in model.statistics]
    model.append(x[30:], y[30:])
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.statistics, strict=True))
    assert model.posterior.x.shape[0] == 40
    torch.testing.assert_close(model.posterior.x, (x - statistics[0]) / statistics[1])
    torch.testing.assert_close(model.posterior.y, (y - statistics[2]) / statistics[3])


def test_a_warm_start_keeps_the_statistics_and_says_when_the_data_have_left_them():
    x, y = raw_data(60, generator())
    model = Standardize(quick_gp())
    model.fit(x[:30], y[:30])
    before = [part.clone() for part in model.statistics]
    same = model.fit(x, y, warm_start=True)
    assert all(torch.equal(a, b) for a, b in zip(before, model.statistics, strict=True))
    assert not any("left" in text for text in same.warnings)
    moved = model.fit(x + 100, y, warm_start=True)
    assert any(text.startswith("x has left the statistics") for text in moved.warnings)
    shrunk = model.fit(x, 0.01 * (y - y.mean(0)) + y.mean(0), warm_start=True)
    assert any(text.startswith("y has left the statistics") for text in shrunk.warnings)
    model.fit(x + 100, y)
    torch.testing.assert_close(model.feature_mean, (x + 100).mean(0))
    with pytest.raises(ShapeError, match="warm start wants"):
        model.fit(x[:, :2], y, warm_start=True)


def test_a_warm_start_of_a_fresh_posterior_takes_statistics():
    x, y = raw_data(20, generator())
    model = Standardize(ConjugateRegression())
    model.fit(x, y, warm_start=True)
    torch.testing.assert_close(model.feature_mean, x.mean(0))


def test_a_fit_that_breaks_down_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    x, y = raw_data(20, generator())
    model = Standardize(ConjugateRegression())
    model.fit(x, y)
    before = model.predict(x).mean

    def broken(*_: object, **__: object) -> None:
        raise NumericalError("not positive definite")

    monkeypatch.setattr(model.posterior, "fit", broken)
    with pytest.raises(NumericalError):
        model.fit(2 * x, 3 * y)
    assert torch.equal(model.predict(x).mean, before)


# --- precision and wrong use


def test_draws_cast_to_float32_stay_close_despite_an_offset():
    x, y = raw_data(40, generator())
    model = Standardize(quick_gp())
    model.fit(x, y)
    function = model.sample(3, generator(1))
    single = function.to(dtype=torch.float32)
    # Asked in float64, only the wrapped draws compute in float32: an offset of 1e6 would otherwise cost 0.06 of the inputs.
    gap = (single(x.unsqueeze(0)).mean - function(x.unsqueeze(0)).mean).abs() / y.std(0)
    assert float(gap.max()) < 1e-3
    assert single(x.float().unsqueeze(0)).mean.dtype == torch.float32


def test_arrays_and_integers_are_refused_by_name():
    x, y = raw_data(10, generator())
    model = Standardize(ConjugateRegression())
    model.fit(x, y)
    with shape_checks_off():
        for call in (
            lambda: model.fit(x.numpy(), y),
            lambda: model.fit(x, y.tolist()),
            lambda: model.predict(x.numpy()),
            lambda: model.append(np.asarray(x), y),
        ):
            with pytest.raises(DataError, match=r"wants to be a torch tensor; got a (ndarray|list)"):
                call()
        with pytest.raises(DataError, match=r"floating-point numbers; got torch\.int64"):
            model.fit(x.long(), y)


def test_wrong_use_is_named():
    model = Standardize(ConjugateRegression())
    for call in (lambda: model.statistics, lambda: model.append(torch.zeros(1, 1), torch.zeros(1, 1)), lambda: model.sample(1)):
        with pytest.raises(NotFittedError, match="Standardize has seen no data"):
            call()
    x, y = raw_data(10, generator())
    model.fit(x, y)
    with pytest.raises(ShapeError, match="append wants"):
        model.append(x[:, :2], y)


def test_the_report_speaks_of_raw_targets():
    x, y = raw_data(30, generator())
    one, hundred = Standardize(ConjugateRegression()).fit(x, y), Standardize(ConjugateRegression()).fit(x, 100 * y)
    assert hundred.nll == pytest.approx(one.nll + 2 * math.log(100), rel=1e-9)
    assert hundred.r2_train == pytest.approx(one.r2_train, rel=1e-9)
