import json
import math
from pathlib import Path

import gpytorch
import numpy as np
import pytest
import torch
from linear_operator import to_linear_operator

from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.likelihood import negative_log_likelihood
from bayesdyn.gaussian_processes.training import GPModel, GPTraining, Hyperparameters, curb
from bayesdyn.inference.optimisation import minimise
from bayesdyn.kernels import RBF, KernelParameters, Matern32, Matern52, RBFLinear
from bayesdyn.posteriors.exact_gp import ExactGP

F64 = torch.float64
KERNELS = [RBF(), Matern32(), Matern52(), RBFLinear()]
GOLDEN = json.loads((Path(__file__).parent / "gp_training_cartpole.json").read_text())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(rows: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator(seed)
    x = torch.randn(rows, 3, generator=random, dtype=F64)
    y = torch.stack([torch.sin(1.5 * x[:, 0]) + 0.3 * x[:, 1], torch.cos(x[:, 1] + x[:, 2])], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=random, dtype=F64)


def hyperparameters(kernel=RBF(), noise: float = 0.02) -> Hyperparameters:
    linear = torch.tensor([0.3, 0.05] if kernel.linear else [0.0, 0.0], dtype=F64)
    lengthscale = torch.tensor([[0.7, 1.2, 3.0], [2.0, 0.9, 1.1]], dtype=F64)
    return Hyperparameters(
        KernelParameters(lengthscale, torch.tensor([1.3, 0.6], dtype=F64), linear), torch.tensor([noise, 2 * noise], dtype=F64)
    )


def make_gp(kernel=RBF(), rows: int = 30, seed: int = 0, noise: float = 0.02, dtype=F64) -> ExactGP:
    x, y = data(rows, seed)
    (lengthscale, signal_var, linear_var), noise_var = hyperparameters(kernel, noise)
    linear = linear_var if kernel.linear else None
    return ExactGP.from_hyperparameters(x, y, lengthscale, signal_var, noise_var, linear_var=linear, kernel=kernel, dtype=dtype)


class Oracle(gpytorch.models.ExactGP):
    def __init__(self, x: torch.Tensor, y: torch.Tensor, model: GPModel) -> None:
        super().__init__(x, y.mT.contiguous(), model.likelihood)
        self.mean = gpytorch.means.ZeroMean(batch_shape=torch.Size([y.shape[1]]))
        self.parts = [model.scale, *model.trend]

    def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(
            self.mean(x), to_linear_operator(sum(part(x).to_dense() for part in self.parts))
        )


def oracle(kernel, x: torch.Tensor, y: torch.Tensor, values: Hyperparameters) -> tuple[GPModel, Oracle]:
    model = GPModel(kernel, x.shape[1], y.shape[1], GPTraining())
    model.write(values)
    return model, Oracle(x, y, model)


# --- prediction


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("rows", [1, 30, 520])
def test_predictions_agree_with_gpytorch(kernel, rows):
    gp = make_gp(kernel, rows)
    x = 1.5 * torch.randn(4, 5, 3, generator=generator(9), dtype=F64)
    _, reference = oracle(kernel, gp.x, gp.y, hyperparameters(kernel))
    reference.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        posterior = reference(x.reshape(-1, 3))
        mean, var = posterior.mean.mT.reshape(4, 5, 2), posterior.covariance_matrix.diagonal(dim1=-2, dim2=-1).mT.reshape(4, 5, 2)
    prediction = gp.predict(x)
    assert prediction.components == 1
    assert prediction.mean.shape == (4, 5, 2)
    torch.testing.assert_close(prediction.mean, mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(prediction.epistemic_variance, var, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(prediction.aleatoric_variance, gp.noise_var.expand(4, 5, 2))


def test_predictions_are_chunked_with_the_same_answer():
    gp, x = make_gp(rows=300), torch.randn(9000, 3, generator=generator(1), dtype=F64)
    whole, some = gp.predict(x), gp.predict(x[8000:8003])
    torch.testing.assert_close(whole.mean[8000:8003], some.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(whole.epistemic_variance[8000:8003], some.epistemic_variance, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_predictions_are_differentiable(kernel):
    gp = make_gp(kernel, 10)
    x = torch.randn(2, 3, generator=generator(1), dtype=F64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gp.predict(x).mean, (x,))
    assert torch.autograd.gradcheck(lambda x: gp.predict(x).epistemic_variance, (x,))


def test_bayesian_linear_regression_is_a_linear_kernel():
    # With s -> 0 the model is y = xᵀw + ε, w ~ N(0, b I), whose posterior is known in weight space.
    x, y = data(20)
    b, noise = 0.7, 0.3
    gp = ExactGP.from_hyperparameters(
        x,
        y,
        torch.ones(2, 3, dtype=F64),
        torch.full((2,), 1e-14, dtype=F64),
        torch.full((2,), noise, dtype=F64),
        linear_var=torch.full((2,), b, dtype=F64),
        kernel=RBFLinear(),
    )
    cov = torch.linalg.inv(x.mT @ x / noise + torch.eye(3, dtype=F64) / b)
    query = torch.randn(6, 3, generator=generator(4), dtype=F64)
    prediction = gp.predict(query)
    torch.testing.assert_close(prediction.mean, query @ cov @ x.mT @ y / noise, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(prediction.epistemic_variance[:, 0], ((query @ cov) * query).sum(-1), rtol=1e-8, atol=1e-10)


def test_scaling_the_targets_scales_mean_and_variance():
    # The hyper-parameters of whitened targets applied to raw ones would leave the variance 1e4 too large.
    gp, scale = make_gp(), 1e-2
    values = hyperparameters()
    scaled = ExactGP.from_hyperparameters(
        gp.x, gp.y * scale, values.kernel.lengthscale, values.kernel.signal_var * scale**2, values.noise_var * scale**2
    )
    x = torch.randn(5, 3, generator=generator(1), dtype=F64)
    torch.testing.assert_close(scaled.predict(x).mean, gp.predict(x).mean * scale)
    torch.testing.assert_close(scaled.predict(x).variance, gp.predict(x).variance * scale**2)


def test_the_order_of_the_rows_does_not_matter():
    x, y = data(40)
    order = torch.randperm(40, generator=generator(3))
    first, second = ExactGP(), ExactGP()
    first.fit(x, y)
    second.fit(x[order], y[order])
    query = torch.randn(20, 3, generator=generator(1), dtype=F64)
    torch.testing.assert_close(first.predict(query).mean, second.predict(query).mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(first.predict(query).variance, second.predict(query).variance, rtol=0, atol=1e-8)


def test_a_vanishing_variance_is_floored_and_a_negative_one_is_an_error():
    gp = make_gp(noise=1e-9)
    assert bool((gp.predict(gp.x).epistemic_variance > 0).all())
    gp.inverse_chol = 1.5 * gp.inverse_chol
    with pytest.raises(NumericalError, match="nearly singular"):
        gp.predict(gp.x)


def test_far_from_the_data_the_prediction_is_the_prior():
    prediction = make_gp().predict(torch.full((1, 3), 1e3, dtype=F64))
    assert float(prediction.mean.abs().max()) < 1e-12
    torch.testing.assert_close(prediction.epistemic_variance[0], hyperparameters().kernel.signal_var)


def test_float32_data_and_queries_keep_their_dtype():
    x, y = data()
    gp = ExactGP()
    gp.fit(x.float(), y.float())
    assert gp.x.dtype == F64
    assert gp.predict(x.float()).mean.dtype == torch.float32
    assert gp.sample(2, generator())(x.float().unsqueeze(0)).mean.dtype == torch.float32


def test_a_float32_gp_agrees_with_the_float64_one():
    x = torch.randn(50, 3, generator=generator(1), dtype=F64)
    exact, single = make_gp().predict(x), make_gp(dtype=torch.float32).predict(x.float())
    # Condition number of K + σ²I is below 30·1.3/0.02 ≈ 2e3, so float32 keeps about 2e3 · 6e-8 ≈ 1e-4.
    torch.testing.assert_close(single.mean.double(), exact.mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(single.variance.double(), exact.variance, rtol=0, atol=1e-3)


# --- conditioning


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_appending_equals_conditioning_on_all_rows(kernel):
    whole = make_gp(kernel, 40)
    values = {"lengthscale": whole.lengthscale, "signal_var": whole.signal_var, "noise_var": whole.noise_var}
    linear = whole.linear_var if kernel.linear else None
    part = ExactGP.from_hyperparameters(whole.x[:25], whole.y[:25], **values, linear_var=linear, kernel=kernel)
    part.append(whole.x[25:26], whole.y[25:26])
    part.append(whole.x[26:], whole.y[26:])
    for name in ("x", "y", "chol", "inverse_chol", "alpha"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


def test_appending_a_repeated_row_falls_back_to_jitter():
    x = torch.zeros(1, 1, dtype=F64)
    one = torch.ones(1, dtype=F64)
    gp = ExactGP.from_hyperparameters(x, x + 1, torch.ones(1, 1, dtype=F64), one, 1e-30 * one)
    gp.append(x, x + 1)
    assert float(gp.jitter) > 0
    assert float(gp.predict(x).mean) == pytest.approx(1.0, abs=1e-6)


def test_leave_one_out_equals_refitting_without_each_row():
    gp = make_gp(rows=8)
    values = hyperparameters()
    result = gp.leave_one_out()
    for row in range(8):
        rest = [i for i in range(8) if i != row]
        other = ExactGP.from_hyperparameters(
            gp.x[rest], gp.y[rest], values.kernel.lengthscale, values.kernel.signal_var, values.noise_var
        ).predict(gp.x[row])
        torch.testing.assert_close(result.mean[row], other.mean)
        torch.testing.assert_close(result.var[row], other.variance)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_a_state_dict_alone_restores_a_gp_of_another_size(kernel):
    gp = make_gp(kernel, 30)
    other = ExactGP(kernel)
    other.load_state_dict(gp.state_dict())
    x = torch.randn(5, 3, generator=generator(1), dtype=F64)
    assert torch.equal(other.predict(x).mean, gp.predict(x).mean)
    assert torch.equal(other.predict(x).variance, gp.predict(x).variance)
    larger = make_gp(kernel, 50)
    gp.load_state_dict(larger.state_dict())
    assert torch.equal(gp.predict(x).mean, larger.predict(x).mean)
    assert all(
        torch.equal(f, g) for f, g in zip(gp.sample(2, generator())(x[None]), larger.sample(2, generator())(x[None]), strict=True)
    )


def test_an_unfitted_state_dict_loads():
    other = ExactGP()
    other.load_state_dict(ExactGP().state_dict())
    assert other.sizes == (0, 0)


def test_train_and_eval_change_nothing():
    gp, x = make_gp(), torch.zeros(1, 3, dtype=F64)
    before = gp.train().predict(x)
    after = gp.eval().predict(x)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.variance, after.variance)


def test_other_data_under_the_same_hyperparameters_give_other_predictions():
    # A factor cached per hyper-parameters, not per data, would answer with the first data set.
    x = torch.zeros(1, 3, dtype=F64)
    first, second = make_gp(seed=0), make_gp(seed=1)
    assert not torch.allclose(first.predict(x).mean, second.predict(x).mean)
    before = first.predict(x).mean
    first.load_state_dict(second.state_dict())
    assert torch.equal(first.predict(x).mean, second.predict(x).mean)
    assert not torch.equal(first.predict(x).mean, before)


def test_predictions_agree_with_draws():
    gp, n = make_gp(), 200 * 20
    x = torch.randn(6, 3, generator=generator(1), dtype=F64)
    random = generator(2)
    paths = torch.stack([gp.sample(20, random)(x[None]).mean for _ in range(200)])
    prediction = gp.predict(x)
    z = (paths.mean((0, 1)) - prediction.mean) / (prediction.epistemic_variance / n).sqrt()
    # Draws that share features are correlated at most through the features' error, hence 4.5 + 10 %.
    assert float(z.abs().max()) < 5


# --- the objective


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_likelihood_and_gradient_agree_with_gpytorch(kernel):
    x, y = data(25)
    model, reference = oracle(kernel, x, y, hyperparameters(kernel))
    values = model.read()
    ours = negative_log_likelihood(kernel, x, y, *values.kernel, values.noise_var)
    raw = list(model.parameters())
    gradient = torch.autograd.grad(ours.sum(), raw)
    reference.train()
    with gpytorch.settings.fast_computations(False, False, False):
        mvn = model.likelihood(reference(x))
        theirs = -mvn.log_prob(y.mT)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for a, b in zip(gradient, torch.autograd.grad(theirs.sum(), raw), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("point", ["init", "far", "trained"])
def test_likelihood_and_curb_agree_with_pilco(point):
    log_hyp = torch.tensor(GOLDEN[f"{point}_log_hyp"], dtype=F64, requires_grad=True)
    x, y = torch.tensor(GOLDEN["inputs"], dtype=F64), torch.tensor(GOLDEN["targets"], dtype=F64)
    lengthscale, signal_var, noise_var = log_hyp[:-2].exp().mT, (2 * log_hyp[-2]).exp(), (2 * log_hyp[-1]).exp()
    nll = negative_log_likelihood(RBF(), x, y, lengthscale, signal_var, torch.zeros_like(signal_var), noise_var)
    if point != "far":
        torch.testing.assert_close(nll, torch.tensor(GOLDEN[f"{point}_nlml"], dtype=F64), rtol=1e-9, atol=1e-9)
    values = Hyperparameters(KernelParameters(lengthscale, signal_var, torch.zeros_like(signal_var)), noise_var)
    training = GPTraining(signal_to_noise=GOLDEN["curb_snr"], lengthscale_ratio=GOLDEN["curb_ls"])
    total = nll + curb(values, torch.tensor(GOLDEN["curb_std"], dtype=F64), training)
    torch.testing.assert_close(total, torch.tensor(GOLDEN[f"{point}_hypCurb"], dtype=F64), rtol=1e-9, atol=1e-9)
    if point == "far":
        (gradient,) = torch.autograd.grad(total.sum(), log_hyp)
        torch.testing.assert_close(gradient, torch.tensor(GOLDEN["far_hypCurb_grad"], dtype=F64), rtol=1e-8, atol=1e-8)


def test_the_curb_is_a_wall_not_a_prior():
    def height(lengthscale: float, noise: float) -> float:
        one = torch.ones(1, dtype=F64)
        values = Hyperparameters(KernelParameters(lengthscale * one[None], one, 0 * one), noise * one)
        return curb(values, one, GPTraining(lengthscale_ratio=100.0)).item()

    assert height(10.0, 1e-2) < 1e-6
    assert height(100.0, 1e-2) == pytest.approx(1.0, abs=1e-6)
    assert height(150.0, 1e-2) == pytest.approx(12.6, rel=0.01)
    assert height(1.0, 1e-6) == pytest.approx(1.0, abs=1e-6)


def test_the_priors_are_the_stated_densities():
    model = GPModel(RBF(), 3, 1, GPTraining())
    ell, noise = torch.tensor([[0.5, 1.0, 4.0]], dtype=F64), torch.tensor([0.03], dtype=F64)
    one = torch.ones(1, dtype=F64)
    model.write(Hyperparameters(KernelParameters(ell, one, 0 * one), noise))
    location = math.sqrt(2) + 0.5 * math.log(3)
    expected = sum(
        math.log(v * s * math.sqrt(2 * math.pi)) + 0.5 * ((math.log(v) - m) / s) ** 2
        for v, m, s in [(0.5, location, 3**0.5), (1.0, location, 3**0.5), (4.0, location, 3**0.5), (0.03, -4.0, 1.0)]
    )
    assert model.negative_log_prior().item() == pytest.approx(expected, rel=1e-12)


# --- training


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_fit_ends_at_a_stationary_point_of_the_penalised_likelihood(kernel):
    x, y = data(40)
    gp = ExactGP(kernel)
    report = gp.fit(x, y)
    model = GPModel(kernel, 3, 2, gp.training_settings)
    model.write(Hyperparameters(gp.kernel_parameters, gp.noise_var))
    values = model.read()
    nll = negative_log_likelihood(kernel, x, y, *values.kernel, values.noise_var)
    penalty = model.negative_log_prior() + curb(values, x.std(0), gp.training_settings)
    assert nll.sum().item() / 40 == pytest.approx(report.nll, rel=1e-9)
    assert penalty.sum().item() / 40 == pytest.approx(report.penalty, rel=1e-9)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad((nll + penalty).sum() / 40, list(model.parameters()))])
    lower, upper = torch.tensor(model.raw_bounds(), dtype=F64).mT
    raw = torch.cat([p.detach().flatten() for p in model.parameters()])
    stuck = ((raw <= lower + 1e-6) & (gradient > 0)) | ((raw >= upper - 1e-6) & (gradient < 0))
    # The optimiser stops at 1e-5 or when values change by 1e-10, relatively; curvatures here are at most of order 1.
    assert float(gradient[~stuck].abs().max()) < 1e-4


def test_fit_recovers_the_noise_and_predicts_held_out_points():
    x, y = data(150)
    gp = ExactGP()
    report = gp.fit(x, y)
    # 150 residuals know their standard deviation 0.1 to 1/√300 = 6 %, and the prior pulls a little.
    assert gp.noise_var.sqrt().tolist() == pytest.approx([0.1, 0.1], rel=0.25)
    assert not report.collapsed
    assert min(report.r2_held_out) > 0.9
    query, truth = data(200, seed=5)
    z = (truth - gp.predict(query).mean) / gp.predict(query).stddev
    # 400 standardised errors: the mean square is 1 ± 0.07 if calibrated; correlated errors widen that.
    assert 0.6 < float(z.square().mean()) < 1.6


def test_the_best_start_wins_for_every_output():
    x, y = data(25)
    both = ExactGP(training=GPTraining(restarts=1)).fit(x, y)
    best = sum(min(min(both.curves[f"loss of output {o}, start {s}"]) for s in range(2)) for o in range(2))
    assert both.nll + both.penalty == pytest.approx(best, rel=1e-10)


def test_a_warm_start_goes_on_from_the_last_fit():
    x, y = data(60)
    gp = ExactGP()
    cold = gp.fit(x, y)
    lengthscale = gp.lengthscale
    warm = gp.fit(x, y, warm_start=True)
    assert warm.steps < cold.steps / 4
    assert warm.nll + warm.penalty <= cold.nll + cold.penalty + 1e-9
    torch.testing.assert_close(gp.lengthscale, lengthscale, rtol=0.05, atol=0)
    with pytest.raises(ShapeError, match="warm start"):
        gp.fit(x[:, :2], y, warm_start=True)


def test_a_warm_start_before_any_fit_is_a_fit():
    x, y = data(20)
    warm, cold = ExactGP(), ExactGP()
    assert warm.fit(x, y, warm_start=True).nll == cold.fit(x, y).nll


def test_progress_is_reported_and_bounded():
    x, y = data(15)
    seen: list[tuple[int, int]] = []
    ExactGP().fit(x, y, progress=lambda done, total, figures: seen.append((done, total)))
    assert seen
    assert all(0 < done <= total for done, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_parameter_at_its_bound_is_reported():
    x, y = data(40)
    training = GPTraining(noise_var=(0.5, 2.0), lengthscale=(0.05, 0.06))
    report = ExactGP(training=training).fit(x, y)
    assert any("lengthscale" in text and "upper" in text for text in report.at_bound)
    x = torch.linspace(-1, 1, 150, dtype=F64).unsqueeze(-1)
    fit = ExactGP(training=GPTraining(lengthscale=(2.0, 100.0))).fit(x, torch.sin(5 * x))
    assert any("lengthscale" in text and "lower" in text for text in fit.at_bound)
    assert any("faster than the data" in text for text in fit.warnings)


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_a_handful_of_rows_is_enough(rows):
    x, y = data(rows)
    gp = ExactGP()
    gp.fit(x, y)
    prediction = gp.predict(torch.randn(10, 3, generator=generator(1), dtype=F64))
    assert bool(prediction.mean.isfinite().all())
    assert bool((prediction.epistemic_variance > 0).all())


def test_constant_inputs_duplicate_rows_and_constant_targets_fit():
    x, y = data(20)
    x[:, 1] = 4.2
    x, y = torch.cat([x, x]), torch.cat([y, y])
    y[:, 1] = 0.0
    gp = ExactGP()
    report = gp.fit(x, y)
    assert report.r2_train[0] > 0.9
    assert any("signal_var" in text for text in report.at_bound)
    assert any("constant" in text for text in report.warnings)
    prediction = gp.predict(x)
    assert bool(prediction.variance.isfinite().all())
    torch.testing.assert_close(prediction.mean[:, 1], torch.zeros(40, dtype=F64))


@pytest.mark.parametrize("scale", [1e-6, 30.0])
def test_targets_that_are_not_whitened_are_named(scale):
    x, y = data(20)
    report = ExactGP().fit(x, scale * y)
    assert any("y is not whitened" in text for text in report.warnings)
    assert report.at_bound


def test_a_covariance_that_cannot_be_factorised_names_the_likely_causes():
    x = torch.tensor([[0.0], [1e200], [0.0]], dtype=F64)
    one = torch.ones(1, dtype=F64)
    with pytest.raises(NumericalError, match=r"non-finite.*duplicate rows"):
        ExactGP.from_hyperparameters(x, 0 * x, torch.ones(1, 1, dtype=F64), one, one)


def test_duplicate_rows_without_noise_get_jitter_that_is_recorded():
    x = torch.zeros(3, 1, dtype=F64)
    one = torch.ones(1, dtype=F64)
    gp = ExactGP.from_hyperparameters(x, x + 1, torch.ones(1, 1, dtype=F64), one, 1e-30 * one)
    assert 0 < float(gp.jitter) <= 1e-8
    assert make_gp().jitter.tolist() == [0.0, 0.0]


def test_fit_is_deterministic_and_leaves_the_random_state():
    x, y = data(20)
    state = torch.random.get_rng_state()
    first, second = ExactGP(), ExactGP()
    first.fit(x, y)
    second.fit(x, y)
    assert torch.equal(first.alpha, second.alpha)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_caller_may_reuse_its_data():
    x, y = data(20)
    gp = ExactGP()
    gp.fit(x, y)
    before = gp.predict(torch.zeros(1, 3, dtype=F64)).mean
    x.zero_()
    y.zero_()
    assert torch.equal(gp.predict(torch.zeros(1, 3, dtype=F64)).mean, before)
    assert float(gp.x.abs().max()) > 0


# --- the optimiser


def rosenbrock(p: np.ndarray) -> tuple[float, np.ndarray]:
    a, b = p
    return float((1 - a) ** 2 + 100 * (b - a**2) ** 2), np.array([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)])


def test_minimise_finds_an_inner_optimum_and_one_at_a_bound():
    inner = minimise(rosenbrock, np.array([-1.0, 1.0]), [(-2, 2), (-2, 2)], 200)
    assert inner.point == pytest.approx([1.0, 1.0], abs=1e-3)
    bound = minimise(rosenbrock, np.array([-1.0, 0.0]), [(-2, 0.5), (-2, 2)], 200)
    assert bound.point == pytest.approx([0.5, 0.25], abs=1e-3)


def test_minimise_goes_on_with_adam_when_the_objective_breaks_down():
    def fragile(p: np.ndarray) -> tuple[float, np.ndarray]:
        if p[0] < -0.5:
            raise NumericalError("singular")
        return float((p[0] - 0.2) ** 2 * 50), 100 * (p - 0.2)

    # The first L-BFGS step has length 1 and lands in the broken region.
    result = minimise(fragile, np.array([0.4]), [(-5.0, 5.0)], 100)
    assert result.point == pytest.approx([0.2], abs=0.01)
    assert any("Adam" in text for text in result.warnings)


def test_minimise_returns_the_best_point_met_not_the_last():
    values = iter([3.0, 1.0, float("nan")])

    def scripted(p: np.ndarray) -> tuple[float, np.ndarray]:
        return next(values, 2.0), np.ones(1)

    result = minimise(scripted, np.array([0.0]), [(-5.0, 5.0)], 10)
    assert result.value == 1.0
    assert result.value == min(result.curve)


def test_minimise_gives_up_on_an_objective_that_fails_at_the_start():
    with pytest.raises(NumericalError, match="non-finite"):
        minimise(lambda p: (float("nan"), p), np.array([1.0]), [(0.0, 2.0)], 10)


def test_minimise_says_when_it_ran_out_of_steps():
    result = minimise(rosenbrock, np.array([-1.0, 1.0]), [(-2, 2), (-2, 2)], 3)
    assert any("before it converged" in text for text in result.warnings)


# --- wrong use


def test_asking_before_fit_raises():
    for ask in (
        lambda gp: gp.predict(torch.zeros(1, 3, dtype=F64)),
        lambda gp: gp.sample(1),
        lambda gp: gp.append(*data(2)),
        lambda gp: gp.leave_one_out(),
    ):
        with pytest.raises(NotFittedError, match="fit"):
            ask(ExactGP())


def test_unusable_data_raise():
    x, y = data(5)
    with pytest.raises(DataError, match="at least 2"):
        ExactGP().fit(x[:1], y[:1])
    with pytest.raises(DataError, match="non-finite"):
        ExactGP().fit(x, y * float("nan"))
    with pytest.raises(ShapeError, match="append wants"):
        make_gp().append(x[:, :2], y)
    with pytest.raises(ShapeError, match="3 features"):
        make_gp().predict(x[:, :2])


def test_unusable_options_raise():
    x, y = data(5)
    values = hyperparameters()
    with pytest.raises(ConfigurationError, match="even"):
        ExactGP(features=511)
    with pytest.raises(ConfigurationError, match="n >= 1"):
        make_gp().sample(0)
    with pytest.raises(ConfigurationError, match="linear"):
        ExactGP.from_hyperparameters(
            x, y, values.kernel.lengthscale, values.kernel.signal_var, values.noise_var, kernel=RBFLinear()
        )
    with pytest.raises(ConfigurationError, match="noise_var wants positive"):
        ExactGP.from_hyperparameters(x, y, values.kernel.lengthscale, values.kernel.signal_var, 0 * values.noise_var)
    for wrong in ({"noise_var": (1.0, 0.5)}, {"signal_to_noise": 1.0}, {"max_steps": 0}):
        with pytest.raises(ConfigurationError, match="want"):
            GPTraining(**wrong)


def test_a_refit_that_breaks_down_leaves_the_posterior_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does an append: predictions, draws and saved tensors are those of the last fit that worked."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    gp = ExactGP(training=GPTraining(max_steps=3, restarts=0))
    gp.fit(x, x.sin())
    before, saved = gp.predict(x).mean, {name: tensor.clone() for name, tensor in gp.state_dict().items()}

    def broken(*_: object, **__: object) -> None:
        raise NumericalError("not positive definite")

    for name in ("jittered_cholesky", "extend_cholesky"):
        monkeypatch.setattr(f"bayesdyn.posteriors.exact_gp.{name}", broken)
    with pytest.raises(NumericalError):
        gp.fit(x[:6], x[:6].cos())
    with pytest.raises(NumericalError):
        gp.append(x[:2], x[:2].cos())
    assert torch.equal(gp.predict(x).mean, before)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in gp.state_dict().items())
