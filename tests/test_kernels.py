import pytest
import torch

from bayesdyn.gaussian_processes.training import GPModel, GPTraining, Hyperparameters
from bayesdyn.kernels import LOG2_E, RBF, KernelParameters, Matern32, Matern52, RBFLinear, covariance, prior_variance, rbf_exponent

F64 = torch.float64
KERNELS = [RBF(), Matern32(), Matern52(), RBFLinear()]


def parameters(kernel, outputs: int = 2, inputs: int = 3) -> KernelParameters:
    lengthscale = torch.linspace(0.5, 3.0, outputs * inputs, dtype=F64).reshape(outputs, inputs)
    linear = torch.linspace(0.2, 0.4, outputs, dtype=F64) if kernel.linear else torch.zeros(outputs, dtype=F64)
    return KernelParameters(lengthscale, torch.linspace(0.5, 2.0, outputs, dtype=F64), linear)


def inputs(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_covariance_agrees_with_gpytorch(kernel):
    model = GPModel(kernel, 3, 2, GPTraining())
    model.write(Hyperparameters(parameters(kernel), torch.full((2,), 0.1, dtype=F64)))
    x1, x2 = inputs(7), inputs(4, seed=1)
    reference = model.covariance_module()(x1, x2).to_dense()
    # GPyTorch floors squared distances at 1e-15 in Matérn kernels; distances here are far larger.
    torch.testing.assert_close(covariance(kernel, parameters(kernel), x1, x2), reference, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_slope_is_the_derivative_of_the_correlation(kernel):
    half_square = -torch.linspace(1e-3, 8, 40, dtype=F64)
    free = half_square.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kernel.correlation(LOG2_E * free).sum(), free)
    value, ours = kernel.correlation_and_slope(LOG2_E * half_square)
    torch.testing.assert_close(ours, slope, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(value, kernel.correlation(LOG2_E * half_square), rtol=1e-14, atol=0)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_diagonal_is_the_prior_variance(kernel):
    x = inputs(6)
    diagonal = covariance(kernel, parameters(kernel), x, x).diagonal(dim1=-2, dim2=-1)
    # q = 0 is met to rounding only; all kernels fall off linearly in q.
    torch.testing.assert_close(diagonal, prior_variance(parameters(kernel), x), rtol=1e-12, atol=1e-12)


def test_distances_survive_a_large_common_offset():
    x = inputs(5)
    lengthscale = torch.ones(1, 3, dtype=F64)
    # The offset is representable to 1e-10 here, so distances can be no better than that.
    moved = rbf_exponent(x + 1e6, x + 1e6, lengthscale)
    torch.testing.assert_close(moved, rbf_exponent(x, x, lengthscale), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_spectral_frequencies_reproduce_the_correlation(kernel):
    generator = torch.Generator().manual_seed(3)
    count = 200_000
    z = torch.randn(3, count, generator=generator, dtype=F64)
    frequencies = z * kernel.spectral_scale(z[:1], generator)
    for distance in (0.3, 1.0, 2.5):
        # All three coordinates move, so that one scale per dimension instead of per frequency would show.
        x = torch.full((3,), distance / 3**0.5, dtype=F64)
        cosine = torch.cos(x @ frequencies)
        expected = kernel.correlation(torch.tensor(-0.5 * LOG2_E * distance**2, dtype=F64))
        assert abs(float(cosine.mean() - expected)) < 4.5 * float(cosine.std()) / count**0.5


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradients_are_finite_at_zero_distance(kernel):
    x = inputs(3).requires_grad_()
    covariance(kernel, parameters(kernel), x, inputs(3)).sum().backward()
    assert bool(x.grad.isfinite().all())
