"""`ExactGP` with kernels that a user states in GPyTorch."""

import math

import gpytorch
import pytest
import torch
from gpytorch import kernels
from gpytorch.constraints import Interval
from gpytorch.priors import LogNormalPrior

from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.autograd import RawValues, _AutogradProblem, first_starts
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import RBF, GPyTorchKernel
from bayesdyn.kernels.gpytorch_kernel import raw_values, stacked
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.testing import check_posterior

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(rows: int = 25, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator(seed)
    x = torch.randn(rows, 2, generator=random, dtype=F64)
    y = torch.stack([torch.sin(2 * x[:, 0]) + 0.4 * x[:, 1], torch.cos(x[:, 1] + x[:, 0])], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=random, dtype=F64)


def locally_periodic(inputs: int) -> kernels.Kernel:
    wave = kernels.PeriodicKernel(active_dims=(0,))
    wave.period_length, wave.lengthscale = 4.0, 2.0
    return kernels.ScaleKernel(wave * kernels.RBFKernel(ard_num_dims=inputs)) + kernels.LinearKernel()


def plain(inputs: int) -> kernels.Kernel:
    return kernels.ScaleKernel(kernels.RBFKernel(ard_num_dims=inputs))


class Warped(kernels.RBFKernel):
    """A kernel that no library knows: the RBF of x³/3 + x."""

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, **options: object) -> torch.Tensor:
        return super().forward(x1**3 / 3 + x1, x2**3 / 3 + x2, **options)


BROUGHT = {
    "locally periodic": locally_periodic,
    "rough": lambda inputs: kernels.ScaleKernel(kernels.MaternKernel(nu=0.5, ard_num_dims=inputs)),
    "unknown": lambda inputs: kernels.ScaleKernel(Warped(ard_num_dims=inputs)),
}
NOISE = torch.tensor([0.02, 0.05], dtype=F64)


def make(name: str, rows: int = 25, features: int = 128, dtype: torch.dtype = F64) -> ExactGP:
    x, y = data(rows)
    return ExactGP.from_kernel(x, y, GPyTorchKernel(BROUGHT[name]), NOISE, features=features, dtype=dtype)


def queries(rows: int = 6) -> torch.Tensor:
    return torch.randn(rows, 2, generator=generator(9), dtype=F64)


def quick() -> GPTraining:
    return GPTraining(max_steps=15, restarts=0)


# --- the contract


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_fits")
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_a_brought_kernel_keeps_the_contract(dtype):
    # GPyTorch's lazy tensors do not compile to one graph.
    check_posterior(
        lambda: ExactGP(GPyTorchKernel(locally_periodic), features=128, training=quick()),
        dtype=dtype,
        rows=30,
        exact_fit=True,
        feature_error=1.13 / 128**0.5,
        compiles=False,
    )


# --- prediction


class Oracle(gpytorch.models.ExactGP):
    def __init__(self, x: torch.Tensor, y: torch.Tensor, kernel: kernels.Kernel, noise: float) -> None:
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        likelihood.noise = noise
        super().__init__(x, y, likelihood)
        self.mean, self.kernel = gpytorch.means.ZeroMean(), kernel

    def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))


@pytest.mark.parametrize("name", BROUGHT)
def test_predictions_agree_with_gpytorch(name):
    gp, x = make(name), queries()
    said = gp.predict(x)
    for output in range(2):
        kernel = GPyTorchKernel(BROUGHT[name]).build(2)
        reference = Oracle(gp.x, gp.y[:, output], kernel, float(NOISE[output])).eval()
        with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
            mean, var = reference(x).mean, reference(x).covariance_matrix.diagonal()
        torch.testing.assert_close(said.mean[:, output], mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(said.epistemic_variance[:, output], var, rtol=1e-8, atol=1e-8)


def test_a_brought_rbf_is_our_own():
    x, y = data()
    kernel = GPyTorchKernel(plain)
    (built,) = kernel.restore(kernel.initial(2, 1), 2)
    ell, s = built.base_kernel.lengthscale.expand(2, -1), built.outputscale.expand(2)
    ours = ExactGP.from_hyperparameters(x, y, ell, s, NOISE)
    theirs = ExactGP.from_kernel(x, y, kernel, NOISE)
    query = torch.cat([queries(), x[:3]])
    torch.testing.assert_close(theirs.predict(query).mean, ours.predict(query).mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(theirs.predict(query).variance, ours.predict(query).variance, rtol=0, atol=1e-8)
    torch.testing.assert_close(theirs.leave_one_out().mean, ours.leave_one_out().mean, rtol=0, atol=1e-8)


def test_a_brought_rbf_with_our_priors_and_bounds_is_trained_to_our_optimum():
    def factory(inputs: int) -> kernels.Kernel:
        prior = LogNormalPrior(2**0.5 + 0.5 * math.log(inputs), 3**0.5)
        base = kernels.RBFKernel(ard_num_dims=inputs, lengthscale_prior=prior, lengthscale_constraint=Interval(0.05, 100.0))
        base.lengthscale = math.sqrt(inputs)
        kernel = kernels.ScaleKernel(base, outputscale_constraint=Interval(1e-2, 1e2))
        kernel.outputscale = 1.0
        return kernel

    x, y = data(40)
    ours, theirs = ExactGP(training=GPTraining(restarts=0)), ExactGP(GPyTorchKernel(factory), training=GPTraining(restarts=0))
    our_report, their_report = ours.fit(x, y), theirs.fit(x, y)
    # Both minimise the same function of the same parameters, in other coordinates, to 1e-10 of its value per step; the length-scale
    # wall, which only ours has, is below 1e-9 here.
    total = our_report.nll + our_report.penalty
    assert their_report.nll + their_report.penalty == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(theirs.noise_var, ours.noise_var, rtol=0.02, atol=0)
    kernel = theirs.kernel.restore(theirs.raw, 2)[0]
    torch.testing.assert_close(kernel.base_kernel.lengthscale[0], ours.lengthscale[0], rtol=0.02, atol=0)


@pytest.mark.parametrize("name", BROUGHT)
def test_the_objectives_gradient_is_its_derivative(name):
    x, y = data(12)
    problem = _AutogradProblem(GPyTorchKernel(BROUGHT[name]), x, y[:, 0], GPTraining())
    start = first_starts(GPyTorchKernel(BROUGHT[name]), 2, 1, GPTraining())[0]
    point = problem.point(start.raw[0], start.noise_var[0])
    _, gradient = problem(point)
    for i in range(len(point)):
        step = 1e-3  # GPyTorch's Matérn distances are off by 1e-8 on the diagonal, which smaller steps would magnify
        up, down = point.copy(), point.copy()
        up[i], down[i] = up[i] + step, down[i] - step
        assert gradient[i] == pytest.approx((problem(up)[0] - problem(down)[0]) / (2 * step), rel=1e-3, abs=1e-6)


def test_the_objective_is_the_penalised_marginal_likelihood():
    def factory(inputs: int) -> kernels.Kernel:
        return kernels.ScaleKernel(kernels.RBFKernel(), outputscale_prior=LogNormalPrior(0.3, 0.7))

    x, y = data(12)
    kernel = GPyTorchKernel(factory)
    problem = _AutogradProblem(kernel, x, y[:, 0], GPTraining())
    noise = torch.tensor(0.05, dtype=F64)
    _, _, nll, penalty = problem.at(problem.point(kernel.initial(2, 1)[0], noise))
    (built,) = kernel.restore(kernel.initial(2, 1), 2)
    cov = stacked([built], x, x)[0] + noise * torch.eye(12, dtype=F64)
    expected = -torch.distributions.MultivariateNormal(torch.zeros(12, dtype=F64), cov).log_prob(y[:, 0])
    assert float(nll) == pytest.approx(float(expected), rel=1e-10)
    priors = torch.distributions.LogNormal(0.3, 0.7).log_prob(built.outputscale) + torch.distributions.LogNormal(
        -4.0, 1.0
    ).log_prob(noise)
    # Besides them there is the curb, ((½ log s/σ²)/log 1000)³⁰ < 1e-15 here.
    assert float(penalty) == pytest.approx(-float(priors), rel=1e-6)


def test_constraints_and_fixed_parameters_hold():
    def factory(inputs: int) -> kernels.Kernel:
        base = kernels.RBFKernel(lengthscale_constraint=Interval(2.0, 3.0, transform=None, initial_value=2.5))
        kernel = kernels.ScaleKernel(base)
        kernel.outputscale = 0.5
        kernel.raw_outputscale.requires_grad_(False)
        return kernel

    x, y = data()
    gp = ExactGP(GPyTorchKernel(factory))
    report = gp.fit(x, y)  # whose length-scale is about 1
    for kernel in gp.kernel.restore(gp.raw, 2):
        assert 2.0 - 1e-6 <= float(kernel.base_kernel.lengthscale) <= 3.0 + 1e-6
        assert float(kernel.outputscale) == pytest.approx(0.5)
    assert any("lengthscale = 2 (lower bound)" in text for text in report.at_bound)


def test_a_period_is_learned_and_carries_far_beyond_the_data():
    x = torch.linspace(0, 6, 60, dtype=F64).unsqueeze(-1)
    y = torch.sin(2 * math.pi * x / 1.5) + 0.05 * torch.randn(60, 1, generator=generator(), dtype=F64)

    def factory(inputs: int) -> kernels.Kernel:
        wave = kernels.PeriodicKernel()
        wave.period_length = 1.48
        return kernels.ScaleKernel(wave)

    gp = ExactGP(GPyTorchKernel(factory))
    gp.fit(x, y)
    assert float(gp.kernel.restore(gp.raw, 1)[0].base_kernel.period_length) == pytest.approx(1.5, rel=0.01)
    far = 30 + x
    assert float((gp.predict(far).mean - torch.sin(2 * math.pi * far / 1.5)).abs().mean()) < 0.3
    stationary = ExactGP()
    stationary.fit(x, y)
    assert float(stationary.predict(far).mean.abs().max()) < 0.1


# --- draws


@pytest.mark.parametrize("name", ["locally periodic", "rough"])
def test_draws_have_the_exact_joint_mean_and_covariance(name):
    # Averaged over feature sets, mean and covariance are the exact posterior's for any number of features.
    gp, x, sets = make(name, rows=10, features=32), queries(4), 100
    random = generator()
    built = gp.kernel.restore(gp.raw, 2)
    noisy = stacked(built, gp.x, gp.x) + torch.diag_embed(NOISE[:, None].expand(-1, 10))
    cross = stacked(built, gp.x, x)
    mean = (cross.mT @ torch.linalg.solve(noisy, gp.y.mT.unsqueeze(-1))).squeeze(-1)
    cov = stacked(built, x, x) - cross.mT @ torch.linalg.solve(noisy, cross)
    paths = torch.stack([gp.sample(10, random)(x.unsqueeze(0)).mean for _ in range(sets)])
    deviation = paths.permute(0, 1, 3, 2) - mean
    for estimate in (deviation.mean(1), torch.einsum("snec,sned->secd", deviation, deviation) / 10 - cov):
        # 40 numbers: the largest of 40 standard normals exceeds 4.5 with probability 3e-4.
        assert float((estimate.mean(0) / (estimate.std(0) / sets**0.5)).abs().max()) < 4.5


def test_draws_of_an_unknown_kernel_are_exact_near_the_data_and_a_warning_says_what_they_lack():
    x, y = data(30)
    gp = ExactGP(GPyTorchKernel(BROUGHT["unknown"]), features=128, training=quick())
    report = gp.fit(x, y)
    warnings = [text for text in report.warnings if "Warped" in text]
    assert [text[:8] for text in warnings] == ["output 0", "output 1"]
    assert all("of the prior variance on average" in text for text in warnings)
    n = 4000
    near = torch.cat([gp.x[:3], queries(3)])
    draws, said = gp.sample(n, generator(1))(near.unsqueeze(0)).mean, gp.predict(near)
    z = (draws.mean(0) - said.mean) / (said.epistemic_variance / n).sqrt()
    assert float(z.abs().max()) < 4.5
    # The std of a sample variance is √(2/n) of it; at the data nothing lacks, among them a little.
    ratio = draws.var(0) / said.epistemic_variance
    assert float((ratio[:3] - 1).abs().max()) < 4.5 * (2 / n) ** 0.5
    assert float(ratio.max()) < 1 + 4.5 * (2 / n) ** 0.5
    known = ExactGP(GPyTorchKernel(plain), training=quick())
    assert not any("draws" in text for text in known.fit(x, y).warnings)


@pytest.mark.parametrize("name", BROUGHT)
def test_shared_inputs_agree_with_their_expansion_and_gradients_with_differences(name):
    function = make(name, rows=8, features=32).sample(3, generator())
    x = queries(4).reshape(1, 2, 2, 2)
    shared, own = function(x), function(x.expand(3, -1, -1, -1))
    assert shared.mean.shape == own.mean.shape == own.var.shape == (3, 2, 2, 2)
    torch.testing.assert_close(shared.mean, own.mean, rtol=1e-10, atol=1e-10)
    for lead in (1, 3):
        free = queries(2).expand(lead, -1, -1).clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: function(x).mean, (free,), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", BROUGHT)
def test_float32_draws_are_the_same_functions(name):
    function, x = make(name).sample(4, generator()), queries().unsqueeze(0)
    before = function(x).mean
    single = function.to(dtype=torch.float32)(x.float())
    assert single.mean.dtype == single.var.dtype == torch.float32
    # Distances in float32 are off by √eps = 3e-4, in which a Matérn-1/2 kernel is linear, times Σ|v| ~ 10.
    torch.testing.assert_close(single.mean.double(), before, rtol=0, atol=2e-2 if name == "rough" else 2e-3)
    assert torch.equal(function(x).mean, before)


# --- what else a posterior does


@pytest.mark.parametrize("name", BROUGHT)
def test_appending_equals_conditioning_on_all_rows(name):
    whole = make(name, 30)
    part = ExactGP.from_kernel(whole.x[:20], whole.y[:20], whole.kernel, NOISE)
    part.append(whole.x[20:], whole.y[20:])
    for attribute in ("x", "y", "chol", "alpha"):
        torch.testing.assert_close(getattr(part, attribute), getattr(whole, attribute), rtol=1e-8, atol=1e-8)


def test_leave_one_out_equals_conditioning_without_each_row():
    gp = make("locally periodic", 8)
    said = gp.leave_one_out()
    for row in range(8):
        rest = [i for i in range(8) if i != row]
        other = ExactGP.from_kernel(gp.x[rest], gp.y[rest], gp.kernel, NOISE).predict(gp.x[row])
        torch.testing.assert_close(said.mean[row], other.mean, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(said.var[row], other.variance, rtol=1e-7, atol=1e-8)


def test_a_state_dict_alone_restores_a_fitted_kernel():
    x, y = data()
    gp = ExactGP(GPyTorchKernel(locally_periodic), training=quick())
    gp.fit(x, y)
    other = ExactGP(GPyTorchKernel(locally_periodic))
    other.load_state_dict(gp.state_dict())
    assert torch.equal(other.predict(queries()).mean, gp.predict(queries()).mean)
    wrong = ExactGP(GPyTorchKernel(plain))
    with pytest.raises(ConfigurationError, match="use the factory of the fit"):
        wrong.load_state_dict(gp.state_dict())


def test_a_warm_start_goes_on_from_the_present_values():
    x, y = data(40)
    gp = ExactGP(GPyTorchKernel(locally_periodic))
    first = gp.fit(x, y)
    again = gp.fit(x, y, warm_start=True)
    assert again.steps < first.steps / 3
    assert again.nll + again.penalty <= first.nll + first.penalty + 1e-8
    with pytest.raises(ShapeError, match="warm start wants"):
        gp.fit(x[:, :1], y, warm_start=True)


def test_starts_are_the_factorys_values_and_raised_ones():
    kernel = GPyTorchKernel(plain)
    first, second = first_starts(kernel, 2, 3, GPTraining())
    assert isinstance(first, RawValues)
    assert torch.equal(first.raw[1], raw_values(kernel.build(2)))
    assert torch.equal(second.raw, first.raw + 1)
    assert float(second.noise_var[0]) == pytest.approx(0.1 * float(first.noise_var[0]))


def test_a_fit_that_cannot_begin_says_why():
    class Broken(kernels.RBFKernel):
        def forward(self, x1: torch.Tensor, x2: torch.Tensor, **options: object) -> torch.Tensor:
            return -super().forward(x1, x2, **options)

    x, y = data(6)
    with pytest.raises(NumericalError, match="Smallest distance between two rows"):
        ExactGP(GPyTorchKernel(lambda inputs: Broken())).fit(x, y)


def test_wrong_kernels_and_noise_are_named():
    x, y = data(5)
    with pytest.raises(ConfigurationError, match="noise_var wants positive"):
        ExactGP.from_kernel(x, y, GPyTorchKernel(plain), -NOISE)
    with pytest.raises(ConfigurationError, match="raw"):
        _ = make("rough").kernel_parameters
    assert ExactGP(RBF()).kernel_parameters.lengthscale.shape == (0, 0)
