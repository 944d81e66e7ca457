import json
from pathlib import Path

import gpytorch
import pytest
import torch

from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.pathwise import draw_prior
from bayesdyn.gaussian_processes.sparse_objectives import FITC, Automatic, Collapsed
from bayesdyn.gaussian_processes.sparse_svgp import Stochastic
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import RBF, Matern32, Matern52, RBFLinear, covariance, prior_variance
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.sparse_gp import SparseGP
from bayesdyn.testing import check_posterior
from bayesdyn.testing.conformance import shape_checks_off

F64 = torch.float64
KERNELS = [RBF(), Matern32(), Matern52(), RBFLinear()]
OBJECTIVES = [Collapsed(), FITC(), Stochastic()]
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pilco" / "fitc.json").read_text())
QUICK = GPTraining(max_steps=20, restarts=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(rows: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator(seed)
    x = torch.randn(rows, 3, generator=random, dtype=F64)
    y = torch.stack([torch.sin(1.5 * x[:, 0]) + 0.3 * x[:, 1], torch.cos(x[:, 1] + x[:, 2])], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=random, dtype=F64)


def values(kernel=RBF()) -> dict[str, torch.Tensor | None]:
    return {
        "lengthscale": torch.tensor([[0.7, 1.2, 3.0], [2.0, 0.9, 1.1]], dtype=F64),
        "signal_var": torch.tensor([1.3, 0.6], dtype=F64),
        "noise_var": torch.tensor([0.02, 0.04], dtype=F64),
        "linear_var": torch.tensor([0.3, 0.05], dtype=F64) if kernel.linear else None,
    }


def make_gp(kernel=RBF(), objective=Collapsed(), rows: int = 60, points: int = 12, ridge=None, dtype=F64, features=512) -> SparseGP:
    x, y = data(rows)
    z = torch.randn(2, points, 3, generator=generator(5), dtype=F64)
    return SparseGP.from_hyperparameters(
        x, y, z, **values(kernel), kernel=kernel, objective=objective, ridge=ridge, dtype=dtype, features=features
    )


def queries(rows: int = 7) -> torch.Tensor:
    return 1.5 * torch.randn(rows, 3, generator=generator(9), dtype=F64)


def dense(gp: SparseGP, x: torch.Tensor, y: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint mean [E, c] and covariance [E, c, c] of f at the queries, with every N x N matrix written out."""
    parameters, z = gp.kernel_parameters, gp.inducing_points

    def k(a, b):
        return covariance(gp.kernel, parameters, a, b)

    k_zz = k(z, z) + torch.diag_embed(gp.ridge[:, None].expand(-1, z.shape[1]))
    low_rank = k(x, z) @ torch.linalg.solve(k_zz, k(z, x))
    gap = prior_variance(parameters, x) - low_rank.diagonal(dim1=-2, dim2=-1)
    noisy = low_rank + torch.diag_embed(gp.objective.row_noise(gp.noise_var, gap))
    cross = k(query, z) @ torch.linalg.solve(k_zz, k(z, x))
    mean = cross @ torch.linalg.solve(noisy, y.mT.unsqueeze(-1))
    return mean.squeeze(-1), k(query, query) - cross @ torch.linalg.solve(noisy, cross.mT)


# --- prediction


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_predictions_are_dense_inference_under_the_low_rank_covariance(kernel, objective):
    gp, (x, y), query = make_gp(kernel, objective), data(), queries(20)
    mean, cov = dense(gp, x, y, query)
    prediction = gp.predict(query)
    torch.testing.assert_close(prediction.mean, mean.mT, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prediction.epistemic_variance, cov.diagonal(dim1=-2, dim2=-1).mT, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(prediction.aleatoric_variance, gp.noise_var.expand(20, 2))
    assert prediction.components == 1


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_with_every_row_as_inducing_point_it_is_the_exact_gp(kernel, objective):
    (x, y), query = data(30), queries(20)
    # The ridge makes u a noisy view of f(Z), which costs information in proportion: 1e-9/0.02 here.
    ridge = torch.full((2,), 1e-9, dtype=F64)
    gp = SparseGP.from_hyperparameters(x, y, x, **values(kernel), kernel=kernel, objective=objective, ridge=ridge)
    exact = ExactGP.from_hyperparameters(x, y, **values(kernel), kernel=kernel)
    torch.testing.assert_close(gp.predict(query).mean, exact.predict(query).mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(gp.predict(query).variance, exact.predict(query).variance, rtol=0, atol=1e-6)


class _SGPR(gpytorch.models.ExactGP):
    def __init__(self, x, y, z, gp: SparseGP, output: int) -> None:
        super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood().double())
        self.mean = gpytorch.means.ZeroMean()
        scale = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=3)).double()
        scale.base_kernel.lengthscale, scale.outputscale = gp.lengthscale[output], gp.signal_var[output]
        self.kernel = gpytorch.kernels.InducingPointKernel(scale, z, self.likelihood)
        self.likelihood.noise = gp.noise_var[output]

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))


@pytest.mark.parametrize(("objective", "corrected"), [(Collapsed(), False), (FITC(), True)], ids=["Collapsed", "FITC"])
def test_means_agree_with_gpytorchs_sgpr(objective, corrected):
    # In evaluation GPyTorch adds diag(K - Q) to the covariance of the training rows too, which makes its SGPR predict as FITC;
    # without that correction the mean is Titsias', but the predictive variance that of Q. So means are compared.
    gp, (x, y), query = make_gp(objective=objective), data(), queries(20)
    for output in range(2):
        reference = _SGPR(x, y[:, output], gp.inducing_points[output].clone(), gp, output).eval()
        exact = gpytorch.settings.fast_computations(False, False, False)
        with torch.no_grad(), exact, gpytorch.settings.sgpr_diagonal_correction(corrected):
            mean = reference(query).mean
        # The two regularise K_zz by different amounts of about 1e-6.
        torch.testing.assert_close(gp.predict(query).mean[:, output], mean, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", GOLDEN["moments"], ids=lambda c: c["name"])
def test_moments_for_a_gaussian_input_agree_with_pilco(case):
    # Means and covariances of f(x), x ~ N(m, s), from the posterior's own factors; every integral of RBFs written out.
    x, y, log_hyp, z, m, s = (torch.tensor(case[name], dtype=F64) for name in ("inputs", "targets", "log_hyp", "induce", "m", "s"))
    ell, signal, noise = log_hyp[:-2].exp().mT, (2 * log_hyp[-2]).exp(), (2 * log_hyp[-1]).exp()
    ridge, z = torch.full_like(signal, 1e-6), z.movedim(-1, 0) if z.dim() == 3 else z
    gp = SparseGP.from_hyperparameters(x, y, z, ell, signal, noise, ridge=ridge, objective=FITC())
    outputs, eye = y.shape[1], torch.eye(x.shape[1], dtype=F64)
    inverse = [torch.diag(length.pow(-2)) for length in ell]
    mean, gain, cov = [], [], torch.zeros(outputs, outputs, dtype=F64)
    for e in range(outputs):
        away = gp.inducing_points[e] - m
        spread = torch.linalg.inv(s + torch.diag(ell[e].square()))
        q = signal[e] * torch.linalg.det(s @ inverse[e] + eye).rsqrt() * (-0.5 * ((away @ spread) * away).sum(-1)).exp()
        mean.append(gp.weights[e] @ q)
        gain.append(spread @ away.mT @ (gp.weights[e] * q))
    for a in range(outputs):
        for b in range(outputs):
            total = inverse[a] + inverse[b]
            za, zb = gp.inducing_points[a][:, None], gp.inducing_points[b][None]
            centre = torch.linalg.solve(total, (za @ inverse[a] + zb @ inverse[b]).unsqueeze(-1)).squeeze(-1)
            apart = ((za @ inverse[a]) * za).sum(-1) + ((zb @ inverse[b]) * zb).sum(-1) - ((centre @ total) * centre).sum(-1)
            spread = torch.linalg.inv(s + torch.linalg.inv(total))
            far = (((m - centre) @ spread) * (m - centre)).sum(-1)
            q = signal[a] * signal[b] * torch.linalg.det(s @ total + eye).rsqrt() * (-0.5 * (apart + far)).exp()
            cov[a, b] = gp.weights[a] @ q @ gp.weights[b] - mean[a] * mean[b]
            if a == b:
                known = gp.whitening[a].mT @ gp.whitening[a] - gp.reduction[a].mT @ gp.reduction[a]
                cov[a, b] += signal[a] - (known * q).sum()
    # K_zz with a ridge of 1e-6 has a condition number of up to 1e7.
    torch.testing.assert_close(torch.stack(mean), torch.tensor(case["M"], dtype=F64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.stack(gain, -1), torch.tensor(case["V"], dtype=F64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(cov, torch.tensor(case["S"], dtype=F64), rtol=1e-9, atol=1e-9)


def test_predictions_are_chunked_with_the_same_answer():
    gp, x = make_gp(points=100, rows=100), 2 * queries(30_000)
    whole, some = gp.predict(x.reshape(3, 10_000, 3)), gp.predict(x[29_990:])
    assert whole.mean.shape == (3, 10_000, 2)
    torch.testing.assert_close(whole.mean[2, -10:], some.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(whole.epistemic_variance[2, -10:], some.epistemic_variance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_predictions_are_differentiable(kernel):
    gp, x = make_gp(kernel), queries(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gp.predict(x).mean, (x,))
    assert torch.autograd.gradcheck(lambda x: gp.predict(x).epistemic_variance, (x,))


def test_far_from_the_data_the_prediction_is_the_prior():
    prediction = make_gp().predict(torch.full((1, 3), 1e3, dtype=F64))
    assert float(prediction.mean.abs().max()) < 1e-12
    torch.testing.assert_close(prediction.epistemic_variance[0], values()["signal_var"])


def test_a_negative_variance_is_an_error():
    gp = make_gp()
    gp.whitening = 1.5 * gp.whitening
    with pytest.raises(NumericalError, match="nearly singular"):
        gp.predict(gp.inducing_points[0])


def test_float32_predictions_agree_with_float64_ones():
    single, double, x = make_gp(dtype=torch.float32), make_gp(), queries(50)
    assert single.dtype == torch.float32
    assert single.precision.dtype == F64
    # |L_z⁻¹| is at most 1/√ridge = 1e3, so float32 loses 1e3 of its 6e-8.
    torch.testing.assert_close(single.predict(x.float()).mean.double(), double.predict(x).mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(single.predict(x.float()).variance.double(), double.predict(x).variance, rtol=0, atol=1e-3)
    drawn, exact = (gp.sample(3, generator())(x.unsqueeze(0)).mean for gp in (single, double))
    torch.testing.assert_close(drawn, exact, rtol=0, atol=1e-2)


# --- conditioning


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_appending_equals_conditioning_on_all_rows(kernel, objective):
    whole, (x, y), query = make_gp(kernel, objective), data(), queries()
    part = SparseGP.from_hyperparameters(
        x[:25], y[:25], whole.inducing_points, **values(kernel), kernel=kernel, objective=objective, ridge=whole.ridge
    )
    part.append(x[25:26], y[25:26])
    part.append(x[26:].float().double(), y[26:])
    part.append(x[:1], y[:1])
    part.append(x[:1], 2 * y[:1])
    again = SparseGP.from_hyperparameters(
        torch.cat([x[:26], x[26:].float().double(), x[:1], x[:1]]),
        torch.cat([y, y[:1], 2 * y[:1]]),
        whole.inducing_points,
        **values(kernel),
        kernel=kernel,
        objective=objective,
        ridge=whole.ridge,
    )
    for name in ("mean", "root", "weights"):
        torch.testing.assert_close(getattr(part, name), getattr(again, name), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(part.predict(query).mean, again.predict(query).mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(part.predict(query).variance, again.predict(query).variance, rtol=1e-10, atol=1e-10)


def test_many_rows_are_gathered_in_chunks_with_the_same_answer():
    x, y = data(30_000)
    z = torch.randn(120, 3, generator=generator(5), dtype=F64)
    whole = SparseGP.from_hyperparameters(x, y, z, **values())
    part = SparseGP.from_hyperparameters(x[:15_000], y[:15_000], z, **values(), ridge=whole.ridge)
    part.append(x[15_000:], y[15_000:])
    torch.testing.assert_close(part.precision, whole.precision, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(part.predict(queries()).mean, whole.predict(queries()).mean, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_a_state_dict_alone_restores_a_gp_of_another_size(kernel):
    gp, x = make_gp(kernel), queries()
    other = SparseGP(kernel)
    other.load_state_dict(gp.state_dict())
    larger = make_gp(kernel, rows=80, points=20)
    for target, source in ((other, gp), (gp, larger)):
        target.load_state_dict(source.state_dict())
        assert torch.equal(target.predict(x).mean, source.predict(x).mean)
        assert torch.equal(target.predict(x).variance, source.predict(x).variance)
        assert torch.equal(target.sample(2, generator())(x[None]).mean, source.sample(2, generator())(x[None]).mean)


def test_an_unfitted_state_dict_loads():
    other = SparseGP()
    other.load_state_dict(SparseGP().state_dict())
    assert other.sizes == (0, 0)


# --- draws


@pytest.mark.parametrize(
    ("kernel", "objective"), [*((kernel, Collapsed()) for kernel in KERNELS), (RBF(), FITC())], ids=lambda p: type(p).__name__
)
def test_4000_draws_have_the_joint_mean_and_covariance_of_the_posterior(kernel, objective):
    # As E[φφᵀ] = K, mean and covariance averaged over feature sets are the posterior's, for any number of features. So 4,000 draws
    # are taken as 400 feature sets of 10, and the standard error comes from the spread between the sets.
    gp, x, sets = make_gp(kernel, objective, features=32), queries(5), 400
    random, (mean, cov) = generator(), dense(gp, *data(), x)
    paths = torch.stack([gp.sample(10, random)(x.unsqueeze(0)).mean for _ in range(sets)])  # [sets, 10, c, E]
    deviation = paths.permute(0, 1, 3, 2) - mean
    for estimate in (deviation.mean(1), torch.einsum("snec,sned->secd", deviation, deviation) / 10 - cov):
        std_error = estimate.std(0) / sets**0.5
        # 60 numbers in all: the largest of 60 standard normals exceeds 4.5 with probability 4e-4.
        assert float((estimate.mean(0) / std_error).abs().max()) < 4.5


def test_paths_are_exactly_matherons_rule_given_their_features():
    # Given the frequencies, f is linear in (w, v, ε), so its covariance is known without Monte Carlo; 4,000 draws must show it.
    gp, x, n = make_gp(), queries(5), 4000
    paths = gp.sample(n, generator(5))(x.unsqueeze(0)).mean
    prior = draw_prior(gp.kernel, gp.kernel_parameters, 1, gp.features, generator(5))  # the same frequencies: they are drawn first
    z, parameters = gp.inducing_points, gp.kernel_parameters
    k_zz = covariance(gp.kernel, parameters, z, z) + torch.diag_embed(gp.ridge[:, None].expand(-1, z.shape[1]))
    gain = torch.linalg.solve(k_zz, covariance(gp.kernel, parameters, z, x))

    def features(points):
        phase = points @ prior.frequencies
        return torch.cat([phase.cos(), phase.sin()], -1) * (2 * gp.signal_var / gp.features).sqrt()[:, None, None]

    residual = features(x) - gain.mT @ features(z)
    loading = gain.mT @ torch.linalg.cholesky(k_zz) @ gp.root
    expected = residual @ residual.mT + gp.ridge[:, None, None] * gain.mT @ gain + loading @ loading.mT
    deviation = paths.permute(2, 1, 0) - gp.predict(x).mean.mT.unsqueeze(-1)
    variance = expected.diagonal(dim1=-2, dim2=-1)
    assert float((deviation.mean(-1).abs() / (variance / n).sqrt()).max()) < 4.5
    sample = deviation @ deviation.mT / n
    # Var of a sample covariance of Gaussians: (Σ_ii Σ_jj + Σ_ij²)/n.
    std_error = ((variance.unsqueeze(-1) * variance.unsqueeze(-2) + expected.square()) / n).sqrt()
    assert float(((sample - expected) / std_error).abs().max()) < 4.5


def test_a_draw_is_the_same_bit_for_bit_after_a_refit():
    gp = make_gp()
    function, x = gp.sample(4, generator()), queries().expand(4, -1, -1)
    before = function(x)
    gp.append(*data(3, seed=4))
    gp.inducing, gp.training_settings, gp.objective = 8, QUICK, Collapsed(5)
    gp.fit(*data(20, seed=3))
    assert torch.equal(function(x).mean, before.mean)
    assert torch.equal(function(x).var, before.var)


# --- the contract


CHEAP = {"Collapsed": Collapsed(10), "FITC": FITC(10), "Stochastic": Stochastic(steps=20, batch=32)}


def check_contract(objective: str, dtype: torch.dtype, compiles: bool) -> None:
    training = GPTraining(max_steps=10, restarts=0)
    check_posterior(
        lambda: SparseGP(inducing=20, objective=CHEAP[objective], training=training, features=64),
        dtype=dtype,
        exact_fit=objective != "Stochastic",
        compiles=compiles,
    )


@pytest.mark.parametrize(("objective", "dtype"), [("Collapsed", F64), ("FITC", torch.float32), ("Stochastic", F64)])
@pytest.mark.usefixtures("unchecked_fits")
def test_it_keeps_the_contract(objective, dtype):
    check_contract(objective, dtype, compiles=False)


@pytest.mark.slow
@pytest.mark.parametrize("objective", CHEAP)
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.usefixtures("unchecked_fits")
def test_it_keeps_the_whole_contract_in_both_precisions(objective, dtype):
    check_contract(objective, dtype, compiles=True)


# --- wrong use


def test_asking_before_fit_raises():
    for ask in (lambda gp: gp.predict(queries()), lambda gp: gp.sample(1), lambda gp: gp.append(*data(2))):
        with pytest.raises(NotFittedError, match="fit"):
            ask(SparseGP())


@pytest.mark.parametrize(
    "options",
    [
        lambda: SparseGP(features=511),
        lambda: SparseGP(inducing=0),
        lambda: SparseGP(warm_up=1),
        lambda: Collapsed(max_steps=0),
        lambda: FITC(max_steps=0),
        lambda: Stochastic(batch=0),
        lambda: Stochastic(natural_rate=1.5),
        lambda: Automatic(rows=-1),
    ],
)
def test_unusable_options_raise(options):
    with pytest.raises(ConfigurationError, match="want"):
        options()


def test_unusable_parameters_and_points_raise():
    (x, y), z, given = data(5), torch.zeros(2, 3, dtype=F64), values()
    with shape_checks_off():
        for points in (z[:, :2], z.expand(3, 2, 3), z[:0], z[0]):
            with pytest.raises(ShapeError, match=r"inducing_points want shape \[M, 3\]"):
                SparseGP.from_hyperparameters(x, y, points, **given)
        with pytest.raises(ShapeError, match="noise_var"):
            SparseGP.from_hyperparameters(x, y, z, **{**given, "noise_var": torch.ones(3, dtype=F64)})
        with pytest.raises(ShapeError, match="ridge"):
            SparseGP.from_hyperparameters(x, y, z, **given, ridge=torch.ones(3, dtype=F64))
    with pytest.raises(ConfigurationError, match="positive"):
        SparseGP.from_hyperparameters(x, y, z, **{**given, "noise_var": torch.zeros(2, dtype=F64)})
    with pytest.raises(ConfigurationError, match="linear"):
        SparseGP.from_hyperparameters(x, y, z, **given, kernel=RBFLinear())
    with pytest.raises(DataError, match="non-finite"):
        SparseGP.from_hyperparameters(x, y * float("nan"), z, **given)
    with pytest.raises(ShapeError, match="append wants"):
        make_gp().append(x[:, :2], y)
    with pytest.raises(ConfigurationError, match="n >= 1"):
        make_gp().sample(0)
