"""What `bayesdyn.posteriors.base` gives to every posterior: refusals, defaults, saving, R²."""

import math

import pytest
import torch
from reference_posteriors import ConjugateRegression, LinearFunction, quadratic
from torch import Tensor

from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import PREDICTIVE_DRAWS, FitReport, Posterior, check_training_data, r_squared, scale_warnings
from bayesdyn.testing.conformance import shape_checks_off


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(rows: int = 30, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 3, generator=generator(seed), dtype=dtype)
    return x, x[:, :2] + 0.1 * torch.randn(rows, 2, generator=generator(seed + 1), dtype=dtype)


def fitted(rows: int = 30, seed: int = 0, dtype: torch.dtype = torch.float64) -> ConjugateRegression:
    posterior = ConjugateRegression()
    posterior.fit(*data(rows, seed, dtype))
    return posterior


def report(**changes: object) -> FitReport:
    return FitReport(**{"nll": 0.0, "penalty": 0.0, "steps": 1, "seconds": 0.0, "r2_train": (0.9, 0.8), **changes})


# ---- Function


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (4, 5, 3), (1, 2, 5, 3)])
def test_draws_take_n_or_one_leading_rows(shape: tuple[int, ...]) -> None:
    function = LinearFunction(quadratic, torch.zeros(4, 7, 2), torch.ones(2), inputs=3)
    function.check_inputs(torch.zeros(shape))
    assert function(torch.zeros(shape)).mean.shape == (4, *shape[1:-1], 2)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 4, 3), (4, 4), (4, 5, 1), (1, 3, 2)])
def test_draws_refuse_other_inputs_and_say_what_they_want(shape: tuple[int, ...]) -> None:
    function = LinearFunction(quadratic, torch.zeros(4, 7, 2), torch.ones(2), inputs=3)
    with pytest.raises(ShapeError) as caught:
        function.check_inputs(torch.zeros(shape))
    assert "[4 or 1, ..., 3]" in str(caught.value)
    assert str(list(shape)) in str(caught.value)


# ---- FitReport


def test_a_fit_collapsed_if_one_output_is_not_explained() -> None:
    assert not report().collapsed
    assert report(r2_train=(0.9, 0.04)).collapsed
    assert report(r2_train=(0.9, math.nan)).collapsed
    assert report(r2_train=(0.9, 0.9), r2_held_out=(0.9, -1.0)).collapsed
    assert not report(r2_train=(0.0, 0.0), r2_held_out=(0.9, 0.9)).collapsed


# ---- Posterior


def test_nothing_is_answered_before_a_fit() -> None:
    posterior, x = ConjugateRegression(), data()[0]
    assert posterior.sizes == (0, 0)
    for ask in (lambda: posterior.check_fitted(), lambda: posterior.check_sample(1), lambda: posterior.check_inputs(x)):
        with pytest.raises(NotFittedError, match=r"ConjugateRegression has seen no data yet; call fit"):
            ask()


@pytest.mark.parametrize("n", [0, -2])
def test_fewer_than_one_draw_is_refused(n: int) -> None:
    with pytest.raises(ConfigurationError, match=f"n >= 1 draws; got {n}"):
        fitted().check_sample(n)


@pytest.mark.parametrize("shape", [(), (2,), (5, 4), (5, 1)])
def test_wrong_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        fitted().check_inputs(torch.zeros(shape))
    assert "3 features" in str(caught.value)
    assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
def test_the_default_prediction_is_the_mixture_over_a_fixed_sample(batch: tuple[int, ...]) -> None:
    posterior, before = fitted(), torch.get_rng_state()
    x = torch.randn(*batch, 3, generator=generator(2), dtype=torch.float64)
    said = Posterior.predict(posterior, x)
    drawn = posterior.sample(PREDICTIVE_DRAWS, generator(0))(x.unsqueeze(0))
    torch.testing.assert_close(said.component_mean, drawn.mean, rtol=0, atol=0)
    torch.testing.assert_close(said.aleatoric_variance, drawn.var.mean(0))
    assert said.batch_shape == batch
    assert torch.equal(before, torch.get_rng_state())


def test_the_default_prediction_agrees_with_the_exact_one_within_its_standard_errors() -> None:
    posterior, x = fitted(), data(20, seed=5)[0]
    said, exact = Posterior.predict(posterior, x), posterior.predict(x)
    error = (exact.epistemic_variance / PREDICTIVE_DRAWS).sqrt()
    assert bool(((said.mean - exact.mean).abs() < 5 * error).all())
    # Var of m Gaussian draws: (m - 1)/m of the variance, relative standard error √(2/m).
    ratio = said.epistemic_variance / exact.epistemic_variance * PREDICTIVE_DRAWS / (PREDICTIVE_DRAWS - 1)
    assert bool(((ratio - 1).abs() < 5 * math.sqrt(2 / PREDICTIVE_DRAWS)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_buffers(dtype: torch.dtype) -> None:
    assert fitted(dtype=dtype).dtype == dtype
    assert ConjugateRegression().dtype == torch.float32
    assert ConjugateRegression().to(torch.float64).dtype == torch.float64


@pytest.mark.parametrize("rows_before", [0, 30, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_state_loads_whatever_the_object_held_before(rows_before: int, dtype: torch.dtype) -> None:
    source, x = fitted(20, dtype=dtype), data(5)[0].to(dtype)
    target = fitted(rows_before, seed=7) if rows_before else ConjugateRegression()
    target.load_state_dict(source.state_dict())
    assert (target.sizes, target.dtype) == ((3, 2), dtype)
    torch.testing.assert_close(target.predict(x).variance, source.predict(x).variance, rtol=0, atol=0)
    target.fit(*data(9))
    torch.testing.assert_close(source.predict(x).mean, fitted(20, dtype=dtype).predict(x).mean, rtol=0, atol=0)


def test_an_unfitted_state_makes_an_object_unfitted() -> None:
    posterior = fitted()
    posterior.load_state_dict(ConjugateRegression().state_dict())
    assert posterior.sizes == (0, 0)


def test_loading_leaves_earlier_draws_as_they_are() -> None:
    posterior, x = fitted(20), data(5)[0].unsqueeze(0)
    shared = LinearFunction(quadratic, posterior.mean.unsqueeze(0), torch.ones(2, dtype=torch.float64), inputs=3)
    before = shared(x).mean.clone()
    posterior.load_state_dict(fitted(20, seed=9).state_dict())
    torch.testing.assert_close(shared(x).mean, before, rtol=0, atol=0)


def test_a_missing_entry_is_an_error() -> None:
    state = fitted().state_dict()
    del state["mean"]
    with pytest.raises(RuntimeError, match="mean"):
        ConjugateRegression().load_state_dict(state)


def test_fresh_generators_differ_and_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    one, two = (torch.rand(4, generator=fresh_generator()) for _ in range(2))
    assert not torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())


# ---- data and R²


@pytest.mark.parametrize("x_shape", [(5,), (4, 2), (5, 0), (1, 5, 2)])
@pytest.mark.parametrize("y_shape", [(5,), (3, 1), (5, 0), (5, 1)])
def test_data_of_wrong_shape_are_named(x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> None:
    with shape_checks_off(), pytest.raises(ShapeError) as caught:
        check_training_data(torch.zeros(x_shape), torch.zeros(y_shape))
    assert str(list(x_shape)) in str(caught.value)
    assert str(list(y_shape)) in str(caught.value)


def test_too_few_rows_are_counted() -> None:
    with pytest.raises(DataError, match="at least 5 rows; got 4"):
        check_training_data(torch.zeros(4, 2), torch.zeros(4, 1), minimum=5)
    check_training_data(torch.zeros(1, 2), torch.zeros(1, 1), minimum=1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["x", "y"])
def test_non_finite_values_are_counted_and_located(bad: float, name: str) -> None:
    tensors = {"x": torch.zeros(5, 2), "y": torch.zeros(5, 2)}
    tensors[name][3, 1] = bad
    tensors[name][4, 0] = bad
    with pytest.raises(DataError, match=f"{name} has 2 non-finite values, first in row 3, column 1"):
        check_training_data(tensors["x"], tensors["y"])


def test_r_squared_is_one_minus_the_unexplained_share() -> None:
    y = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
    prediction = torch.tensor([[0.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    assert r_squared(y, prediction) == pytest.approx((0.5, 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.1, -1e3])
def test_r_squared_of_a_constant_output_says_whether_it_is_met(level: float, dtype: torch.dtype) -> None:
    y = torch.full((50, 1), level, dtype=dtype)
    assert r_squared(y, y) == (1.0,)
    assert r_squared(y, 1.002 * y + 0.01) == (0.0,)


def test_r_squared_does_not_depend_on_the_units() -> None:
    x, y = data()
    prediction = y + 0.3 * x[:, :2]
    assert r_squared(1e-4 * y, 1e-4 * prediction) == pytest.approx(r_squared(y, prediction))


def test_columns_of_another_scale_are_named_and_constant_ones_are_not() -> None:
    """A whitened constant column is rounding, about 1e-17."""
    x, y = data()
    constant = torch.full((len(x), 1), 1e-17, dtype=x.dtype)
    assert scale_warnings(torch.cat([x, constant], 1), torch.cat([y, torch.zeros_like(constant)], 1)) == ()
    (said,) = scale_warnings(torch.cat([x, 1e-3 * x], 1), y)
    assert "root mean square of column 3" in said
