"""Gaussian processes, beliefs and comparisons that the tests of moment matching share."""

import torch

from bayesdyn.kernels import RBF
from bayesdyn.posteriors import ExactGP

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posterior(seed: int = 0, rows: int = 25, inputs: int = 3, outputs: int = 2, noise: float = 0.02, kernel=RBF()) -> ExactGP:
    random = generator(seed)
    x = torch.randn(rows, inputs, generator=random, dtype=F64) + 0.3
    mix = torch.randn(inputs, outputs, generator=random, dtype=F64)
    y = torch.sin(1.3 * x @ mix) + 0.4 * x[:, :1] + 0.1 * torch.randn(rows, outputs, generator=random, dtype=F64)
    lengthscale = 0.6 + 1.5 * torch.rand(outputs, inputs, generator=random, dtype=F64)
    signal_var = 0.5 + torch.rand(outputs, generator=random, dtype=F64)
    noise_var = noise * (1 + torch.arange(outputs, dtype=F64))
    return ExactGP.from_hyperparameters(x, y, lengthscale, signal_var, noise_var, kernel=kernel)


def belief(inputs: int = 3, seed: int = 5, scale: float = 0.5, batch: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator(seed)
    mean = 0.5 * torch.randn(*batch, inputs, generator=random, dtype=F64)
    root = scale * torch.randn(*batch, inputs, inputs, generator=random, dtype=F64)
    return mean, root @ root.mT


def gradients(moments, mean, cov, seed: int = 9) -> list[torch.Tensor]:
    """Return the gradients of one random weighting of all outputs, that to the covariance symmetrised."""
    inputs = [mean.clone().requires_grad_(), cov.clone().requires_grad_()]
    outputs = moments(*inputs)
    random = generator(seed)
    total = sum((torch.randn(part.shape, generator=random, dtype=F64) * part).sum() for part in outputs)
    to_mean, to_cov = torch.autograd.grad(total, inputs)
    return [to_mean, 0.5 * (to_cov + to_cov.mT)]


def assert_same(found, wanted, tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max()))


def symmetric_in(function):
    """Return a function of a square matrix that sees its symmetric part, for finite differences of single entries."""
    return lambda mean, cov, *rest: function(mean, 0.5 * (cov + cov.mT), *rest)
