import math

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch import kernels
from gpytorch.constraints import GreaterThan, Interval
from gpytorch.priors import GammaPrior, LogNormalPrior

from bayesdyn.errors import ConfigurationError
from bayesdyn.kernels import GPyTorchKernel
from bayesdyn.kernels.gpytorch_kernel import at_bound, dense, negative_log_prior, raw_bounds, raw_values, write_raw_values

F64 = torch.float64


def scaled(inputs: int) -> kernels.Kernel:
    return kernels.ScaleKernel(kernels.RBFKernel(ard_num_dims=inputs))


def test_kernels_are_restored_from_their_raw_parameters():
    kernel = GPyTorchKernel(scaled)
    raw = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    first, second = kernel.restore(raw, 3)
    assert torch.equal(raw_values(first), raw[0])
    assert torch.equal(raw_values(second), raw[1])
    assert not any(p.requires_grad for p in first.parameters())
    assert next(kernel.restore(raw.float(), 3)[0].parameters()).dtype == torch.float32
    raw.zero_()
    assert not torch.equal(raw_values(first), raw[0])


def test_bounds_are_those_of_constraints_that_no_transform_enforces():
    kernel = kernels.RBFKernel(ard_num_dims=2, lengthscale_constraint=Interval(0.1, 3.0, transform=None, initial_value=1.0))
    fixed = kernels.ScaleKernel(kernel, outputscale_constraint=GreaterThan(1e-3)).double()
    assert np.array(raw_bounds(fixed)[1:]) == pytest.approx(np.array([(0.1, 3.0)] * 2))
    assert raw_bounds(fixed)[0] == (-20.0, 1e4)
    fixed.raw_outputscale.requires_grad_(False)
    assert np.array(raw_bounds(fixed)) == pytest.approx(np.array([(0.1, 3.0)] * 2))
    kernel.register_parameter("free", torch.nn.Parameter(torch.zeros(1)))
    assert (-math.inf, math.inf) in raw_bounds(fixed)


def test_priors_of_every_part_count():
    lengthscale = kernels.RBFKernel(ard_num_dims=2, lengthscale_prior=LogNormalPrior(0.3, 0.8))
    kernel = kernels.ScaleKernel(lengthscale, outputscale_prior=GammaPrior(2.0, 0.5)).double()
    kernel.outputscale, lengthscale.lengthscale = 1.7, torch.tensor([[0.5, 2.0]])
    expected = torch.distributions.Gamma(2.0, 0.5).log_prob(torch.tensor(1.7, dtype=F64))
    expected = expected + torch.distributions.LogNormal(0.3, 0.8).log_prob(torch.tensor([0.5, 2.0], dtype=F64)).sum()
    torch.testing.assert_close(negative_log_prior(kernel).detach(), -expected, rtol=1e-6, atol=1e-6)
    assert float(negative_log_prior(scaled(2))) == 0.0


def test_parameters_at_a_bound_are_named():
    kernel = kernels.RBFKernel(lengthscale_constraint=Interval(0.1, 3.0)).double()
    assert at_bound(kernel) == []
    write_raw_values(kernel, torch.full((1,), 20.0, dtype=F64))
    assert at_bound(kernel) == ["lengthscale = 3 (upper bound)"]
    # 0, below which no positive number can be, is no bound that a user has set.
    positive = kernels.RBFKernel().double()
    write_raw_values(positive, torch.full((1,), -20.0, dtype=F64))
    assert at_bound(positive) == []


def test_wrong_factories_are_named():
    with pytest.raises(ConfigurationError, match="returns a gpytorch Kernel; got int"):
        GPyTorchKernel(lambda inputs: inputs).build(2)
    with pytest.raises(ConfigurationError, match="without a batch shape"):
        GPyTorchKernel(lambda inputs: kernels.RBFKernel(batch_shape=torch.Size([2]))).build(2)
    with pytest.raises(ConfigurationError, match="4 parameters, the stored ones have 3"):
        GPyTorchKernel(scaled).restore(torch.zeros(1, 3, dtype=F64), 3)


def test_values_are_gpytorchs_own():
    kernel = GPyTorchKernel(lambda inputs: scaled(inputs) + kernels.LinearKernel()).build(3)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    with gpytorch.settings.lazily_evaluate_kernels(False):
        torch.testing.assert_close(dense(kernel, x, x[:2]), kernel(x, x[:2]).to_dense())
