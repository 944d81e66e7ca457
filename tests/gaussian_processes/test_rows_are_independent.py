import gpytorch
import pytest
import torch

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.gaussian_processes.sparse_objectives import FITC, Collapsed
from bayesdyn.gaussian_processes.sparse_svgp import DivergedError, Stochastic, _Training
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import RBF, GPyTorchKernel, Matern32, Matern52, RBFLinear
from bayesdyn.posteriors.base import Posterior
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.sparse_gp import SparseGP
from bayesdyn.testing.conformance import shape_checks_off

F64 = torch.float64
KERNELS = [RBF(), Matern32(), Matern52(), RBFLinear()]
QUICK = GPTraining(max_steps=15, restarts=0)
BAD = [float("nan"), float("inf"), 1e8]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(rows: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator(seed)
    x = torch.randn(rows, 2, generator=random, dtype=F64)
    y = torch.stack([torch.sin(1.5 * x[:, 0]) + 0.3 * x[:, 1], torch.cos(x[:, 1] + x[:, 0])], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=random, dtype=F64)


def brought(part: type[gpytorch.kernels.Kernel]) -> GPyTorchKernel:
    return GPyTorchKernel(lambda inputs: gpytorch.kernels.ScaleKernel(part(ard_num_dims=inputs)))


class Unregistered(gpytorch.kernels.MaternKernel):
    """A kernel for whose draws there are Nyström features only."""


def make(kind: type[Posterior], kernel: object) -> Posterior:
    x, y = data()
    noise = torch.full((2,), 0.01, dtype=F64)
    if isinstance(kernel, GPyTorchKernel):
        return ExactGP.from_kernel(x, y, kernel, noise, features=64)
    one = torch.ones(2, dtype=F64)
    linear = {"linear_var": 0.1 * one} if kernel.linear else {}
    settings = {"kernel": kernel, "features": 64, **linear}
    if kind is ExactGP:
        return ExactGP.from_hyperparameters(x, y, torch.ones(2, 2, dtype=F64), one, noise, **settings)
    return SparseGP.from_hyperparameters(x, y, x[:15], torch.ones(2, 2, dtype=F64), one, noise, **settings)


CASES = [(kind, kernel) for kind in (ExactGP, SparseGP) for kernel in KERNELS]
BROUGHT = [
    (ExactGP, brought(part)) for part in (gpytorch.kernels.RBFKernel, gpytorch.kernels.MaternKernel, gpytorch.kernels.RQKernel)
] + [(ExactGP, GPyTorchKernel(lambda inputs: Unregistered(nu=1.5, ard_num_dims=inputs)))]


# --- one row of a query says nothing about the others


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("kind", "kernel"), CASES + BROUGHT)
def test_a_bad_row_leaves_the_other_predictions_as_they_are(kind, kernel, bad):
    gp, good = make(kind, kernel), torch.randn(9, 2, generator=generator(1), dtype=F64)
    spoilt = torch.cat([good, torch.full((1, 2), bad, dtype=F64)])
    alone, beside = gp.predict(good), gp.predict(spoilt)
    torch.testing.assert_close(beside.mean[:9], alone.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(beside.epistemic_variance[:9], alone.epistemic_variance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("kind", "kernel"), CASES + BROUGHT)
@pytest.mark.parametrize("lead", [1, 3])
def test_a_bad_row_leaves_the_other_rows_of_a_draw_as_they_are(kind, kernel, bad, lead):
    draws, good = make(kind, kernel).sample(3, generator()), torch.randn(lead, 9, 2, generator=generator(1), dtype=F64)
    spoilt = torch.cat([good, torch.full((lead, 1, 2), bad, dtype=F64)], 1)
    torch.testing.assert_close(draws(spoilt).mean[:, :9], draws(good).mean, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("kind", "kernel"), [(ExactGP, RBF()), (SparseGP, RBF()), *BROUGHT[:3]])
def test_a_far_row_leaves_the_other_rows_of_a_float32_draw_as_they_are(kind, kernel):
    draws = make(kind, kernel).sample(3, generator()).to(dtype=torch.float32)
    good = torch.randn(1, 10, 2, generator=generator(1))
    spoilt = torch.cat([good[:, :9], torch.full((1, 1, 2), 1e4)], 1)
    # As many rows in the same places: not even the order of a sum differs.
    assert torch.equal(draws(spoilt).mean[:, :9], draws(good).mean[:, :9])


# --- a fit or an append that is cut short changes nothing


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "last"), [(ExactGP, "_solve_targets"), (SparseGP, "_factorise")])
@pytest.mark.parametrize("ask", ["fit", "append"])
def test_an_interrupt_leaves_the_posterior_as_it_was(kind, last, ask, monkeypatch: pytest.MonkeyPatch):
    gp = kind(training=QUICK, **({"inducing": 8, "objective": Collapsed(max_steps=5)} if kind is SparseGP else {}))
    gp.fit(*data())
    x, before = torch.randn(5, 2, generator=generator(1), dtype=F64), {k: v.clone() for k, v in gp.named_buffers()}
    expected = gp.predict(x)
    monkeypatch.setattr(kind, last, interrupt)
    with pytest.raises(KeyboardInterrupt):
        getattr(gp, ask)(*data(30, seed=2))
    monkeypatch.undo()
    assert torch.equal(gp.predict(x).mean, expected.mean)
    assert torch.equal(gp.predict(x).epistemic_variance, expected.epistemic_variance)
    assert all(torch.equal(v, before[k]) for k, v in gp.named_buffers())


# --- fits


@pytest.mark.parametrize("kernel", [RBF(), brought(gpytorch.kernels.RBFKernel)])
def test_an_exact_fit_needs_no_gradient_mode_of_the_caller(kernel):
    x, y = data()
    with torch.no_grad():
        inside = ExactGP(kernel, training=QUICK)
        inside.fit(x, y)
    outside = ExactGP(kernel, training=QUICK)
    outside.fit(x, y)
    assert torch.equal(inside.predict(x).mean, outside.predict(x).mean)


@pytest.mark.parametrize("objective", [Collapsed(max_steps=5), FITC(max_steps=5), Stochastic(steps=5, batch=16)])
def test_sparse_fits_agree_without_a_generator_and_whatever_the_gradient_mode(objective):
    x, y = data()
    fits = [SparseGP(inducing=8, objective=objective, training=QUICK) for _ in range(2)]
    fits[0].fit(x, y)
    with torch.no_grad():
        fits[1].fit(x, y)
    assert torch.equal(fits[0].predict(x).mean, fits[1].predict(x).mean)


def test_a_loss_that_diverges_is_not_blamed_on_duplicate_rows(monkeypatch: pytest.MonkeyPatch):
    x, y = data()
    monkeypatch.setattr(_Training, "_penalty", lambda training: torch.full((2,), torch.inf, dtype=F64))
    with pytest.raises(DivergedError, match="lower the rate") as caught:
        SparseGP(inducing=8, objective=Stochastic(steps=5, batch=16), training=QUICK).fit(x, y)
    assert "uplicate" not in str(caught.value)

    def singular(*_: object) -> None:
        raise NumericalError("not positive definite")

    monkeypatch.setattr(Collapsed, "train", singular)
    with pytest.raises(NumericalError, match="Remove duplicate rows"):
        SparseGP(inducing=8, objective=Collapsed(), training=QUICK).fit(x, y)


# --- wrong use


def test_wrong_kernels_and_objectives_are_named():
    with shape_checks_off():
        for kernel in (brought(gpytorch.kernels.RBFKernel), RBF, "rbf"):
            with pytest.raises(ConfigurationError, match=r"RBFLinear\(\).*ExactGP takes"):
                SparseGP(kernel)
            with pytest.raises(ConfigurationError, match=r"RBFLinear\(\).*ExactGP takes"):
                SparseGP.from_hyperparameters(*data(5), data(2)[0], *(torch.ones(2, dtype=F64),) * 3, kernel=kernel)
        for objective in (FITC, "fitc"):
            with pytest.raises(ConfigurationError, match=r"objective wants an object: .*FITC\(\)"):
                SparseGP(objective=objective)
        for given in (gpytorch.kernels.RBFKernel(), None):
            with pytest.raises(ConfigurationError, match=r"factory such as lambda inputs: RBFKernel\(ard_num_dims=inputs\)"):
                GPyTorchKernel(given)
