"""`ExactGP` on data that are few, repeated, constant, in odd units or far too many: it works, or an error names the cause."""

import pytest
import torch
from gpytorch import kernels

from bayesdyn import numerics
from bayesdyn.errors import ConfigurationError, DataError
from bayesdyn.gaussian_processes.family import StationaryFamily
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import RBF, GPyTorchKernel, Matern52, RBFLinear
from bayesdyn.posteriors.exact_gp import ExactGP

F64 = torch.float64
GIGABYTE = 10**9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(rows: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 2, generator=generator(seed), dtype=F64)
    return x, torch.sin(x[:, :1]) + 0.5 * x[:, 1:]


def fitted(x: torch.Tensor, y: torch.Tensor, kernel=RBF()) -> tuple[ExactGP, object]:
    gp = ExactGP(kernel)
    report = gp.fit(x, y)
    draws, said = gp.sample(3, generator())(x.unsqueeze(0)), gp.predict(x)
    for values in (draws.mean, draws.var, said.mean, said.variance):
        assert bool(values.isfinite().all())
    assert bool((said.variance > 0).all())
    return gp, report


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("kernel", [RBF(), Matern52(), RBFLinear()], ids=repr)
def test_a_few_rows_are_learned(rows, kernel):
    x, y = smooth(rows)
    gp, _ = fitted(x, y, kernel)
    said = gp.predict(x)
    assert bool(((said.mean - y).abs() < 3 * said.stddev).all())


@pytest.mark.parametrize("kernel", [RBF(), Matern52(), RBFLinear()], ids=repr)
def test_repeated_rows_without_noise_are_learned(kernel):
    x, y = smooth(20)
    gp, report = fitted(x.repeat(3, 1), y.repeat(3, 1), kernel)
    assert float((gp.predict(x).mean - y).abs().max()) < 0.02
    assert any("repeated rows" in text for text in report.warnings)


def test_one_row_repeated_throughout_is_predicted_there_and_unknown_elsewhere():
    x, y = smooth(1)
    gp, _ = fitted(x.repeat(30, 1), y.repeat(30, 1))
    assert float((gp.predict(x).mean - y).abs()) < 1e-3
    far = gp.predict(x + 100)
    assert float(far.epistemic_variance) == pytest.approx(float(gp.signal_var), rel=1e-6)


def test_repeated_rows_that_disagree_are_noise():
    x, _ = smooth(1)
    y = torch.randn(200, 1, generator=generator(1), dtype=F64)
    gp, report = fitted(x.repeat(200, 1), y)
    # The variance of 200 normals is known to √(2/200) = 10 %; the prior of the noise pulls by less than 1/200.
    assert float(gp.predict(x).variance) == pytest.approx(float(y.var()), rel=0.05)
    assert report.collapsed


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_feature_changes_nothing(value):
    x, y = smooth()
    plain, _ = fitted(x, y)
    gp, _ = fitted(torch.cat([x, torch.full((30, 1), value, dtype=F64)], 1), y)
    query = smooth(10, seed=5)[0]
    more = torch.cat([query, torch.full((10, 1), value, dtype=F64)], 1)
    # The prior of length-scales is a little different for three features than for two.
    torch.testing.assert_close(gp.predict(more).mean, plain.predict(query).mean, rtol=0, atol=0.01)


def test_features_that_are_all_constant_leave_the_mean():
    _, y = smooth()
    gp, report = fitted(torch.ones(30, 2, dtype=F64), y - y.mean())
    assert report.collapsed
    assert float(gp.predict(torch.ones(1, 2, dtype=F64)).mean.abs()) < 1e-6


@pytest.mark.parametrize("value", [0.0, 0.7, 1e-17])
def test_a_constant_target_is_predicted_as_it_is(value):
    x, y = smooth()
    gp, _ = fitted(x, torch.full_like(y, value))
    said = gp.predict(x)
    assert float((said.mean - value).abs().max()) < 1e-3
    # The smallest noise std allowed is 1e-3.
    assert float(said.stddev.max()) < 2e-3


def test_targets_far_too_large_are_refused_and_far_too_small_ones_are_vague_but_right():
    x, y = smooth()
    with pytest.raises(DataError, match=r"column 0, far beyond the largest prior std.*Standardize\(posterior\)"):
        ExactGP().fit(x, 1e6 * y)
    gp, report = fitted(x, 1e-6 * y)
    said = gp.predict(x)
    assert any("y is not whitened" in text for text in report.warnings)
    assert bool(((said.mean - 1e-6 * y).abs() < said.stddev).all())
    wide = ExactGP(training=GPTraining(signal_var=(1e-2, 1e13), noise_var=(1e-6, 1e12)))
    assert not wide.fit(x, 1e6 * y).collapsed


# --- memory


def never(*_: object, **__: object) -> None:
    raise AssertionError("something was computed before memory was checked")


def test_too_many_rows_are_refused_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numerics, "memory_size", lambda device: 16 * GIGABYTE)
    for name in ("train", "covariance"):
        monkeypatch.setattr(StationaryFamily, name, never)
    x, y = torch.zeros(20_000, 1, dtype=F64), torch.zeros(20_000, 2, dtype=F64)
    # Five matrices of 3.2 GB for each of two outputs.
    with pytest.raises(ConfigurationError, match=r"20000 rows would take 32\.0 GB of memory, and there are 16\.0 GB; SparseGP"):
        ExactGP().fit(x, y)
    ell, one = torch.ones(2, 1, dtype=F64), torch.ones(2, dtype=F64)
    with pytest.raises(ConfigurationError, match="SparseGP"):
        ExactGP.from_hyperparameters(x, y, ell, one, one)
    with pytest.raises(ConfigurationError, match="SparseGP"):
        ExactGP.from_kernel(x, y, GPyTorchKernel(lambda inputs: kernels.RBFKernel()), one)


def test_rows_that_fit_are_not_refused_and_appended_ones_are_counted(monkeypatch: pytest.MonkeyPatch):
    x, y = smooth(30)
    monkeypatch.setattr(numerics, "memory_size", lambda device: 8 * 7 * 40**2)
    gp, _ = fitted(x, y)
    with pytest.raises(ConfigurationError, match="50 rows"):
        gp.append(*smooth(20))
    assert len(gp.x) == 30


def test_each_part_of_a_brought_kernel_counts(monkeypatch: pytest.MonkeyPatch):
    x, y = smooth(30)
    two = GPyTorchKernel(lambda inputs: kernels.ScaleKernel(kernels.RBFKernel()) + kernels.LinearKernel())
    monkeypatch.setattr(numerics, "memory_size", lambda device: 8 * 20 * 30**2 - 1)
    with pytest.raises(ConfigurationError, match="30 rows"):
        ExactGP(two).fit(x, y)


def test_memory_is_unknown_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch):
    def silent(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(numerics.os, "sysconf", silent)
    assert numerics.memory_size() is None
    numerics.check_memory(2**62, "anything", "nothing")


# --- float32


@pytest.mark.parametrize(("noise", "share"), [(0.1, 0.001), (0.01, 0.01)])
def test_float32_draws_are_good_enough_to_plan_with(noise, share):
    # What the docstring states: errors of 0.03 % and 0.5 % of the epistemic std, here with room for other data.
    random, rows = generator(), 1000
    x = torch.randn(rows, 6, generator=random, dtype=F64)
    y = torch.sin(x[:, :1] + x[:, 1:2]) + noise * torch.randn(rows, 1, generator=random, dtype=F64)
    one = torch.ones(1, dtype=F64)
    gp = ExactGP.from_hyperparameters(x, y, torch.full((1, 6), 2.0, dtype=F64), one, noise**2 * one)
    function, query = gp.sample(10, random), torch.randn(10, 50, 6, generator=random, dtype=F64)
    exact, epistemic = function(query).mean, gp.predict(query[0]).epistemic_variance.mean().sqrt()
    single = function.to(dtype=torch.float32)(query.float()).mean
    assert single.dtype == torch.float32
    assert float((single - exact).square().mean().sqrt()) < share * float(epistemic)
    # Not cast, draws compute in float64 and only x is rounded: 6e-8 of it, times slopes of at most a few.
    mixed = function(query.float()).mean
    assert mixed.dtype == torch.float32
    assert float((mixed - exact).abs().max()) < 1e-5
