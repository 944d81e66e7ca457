"""Conjugate Bayesian linear regression on features: exact, so it has to pass every item of the posterior contract."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.functions import Function
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data, r_squared

Features = Callable[[Tensor], Tensor]


def quadratic(x: Tensor) -> Tensor:
    """Return [1, x, x²], [..., 1 + 2D]: smooth, unbounded off the data."""
    return torch.cat([torch.ones_like(x[..., :1]), x, x.square()], -1)


class LinearFunction(Function):
    """f_i(x) = φ(x)ᵀw_i with constant noise variance; `weight` is [n, M, E], `noise_var` [E]."""

    def __init__(self, features: Features, weight: Tensor, noise_var: Tensor, inputs: int) -> None:
        self.features, self.weight, self.noise_var = features, weight, noise_var
        self.n, self.inputs, self.outputs = weight.shape[0], inputs, weight.shape[2]

    def __call__(self, x: Tensor) -> Gaussian:
        self.check_inputs(x)
        phi = self.features(x)
        mean = (phi.reshape(x.shape[0], -1, phi.shape[-1]) @ self.weight).reshape(self.n, *x.shape[1:-1], self.outputs)
        return Gaussian(mean, self.noise_var.expand_as(mean))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "LinearFunction":
        moved = (t.to(dtype=dtype, device=device) for t in (self.weight, self.noise_var))
        return type(self)(self.features, *moved, inputs=self.inputs)


class ConjugateRegression(Posterior):
    """y = φ(x)ᵀw + ε, w ~ N(0, prior_var I), ε ~ N(0, noise_var), both known: p(w | D) = N(A⁻¹Φᵀy/noise_var, A⁻¹).

    A = ΦᵀΦ/noise_var + I/prior_var (Bishop, Pattern Recognition and Machine Learning, equations 3.50 to 3.54).
    """

    def __init__(self, features: Features = quadratic, prior_var: float = 1.0, noise_var: float = 0.05) -> None:
        super().__init__()
        self.features, self.prior_var, self.noise_var = features, prior_var, noise_var
        for name in ("x", "y", "mean", "factor"):  # factor is A's Cholesky factor
            self.register_buffer(name, torch.empty(0, 0))

    @property
    def sizes(self) -> tuple[int, int]:
        return self.x.shape[1], self.y.shape[1]

    def fit(self, x, y, *, warm_start=False, generator=None, progress=None) -> FitReport:
        begin = time.perf_counter()
        check_training_data(x, y)
        phi = self.features(x)
        precision = phi.T @ phi / self.noise_var + torch.eye(phi.shape[-1], dtype=x.dtype) / self.prior_var
        factor = torch.linalg.cholesky(precision)
        self.x, self.y, self.factor = x.clone(), y.clone(), factor
        self.mean = torch.cholesky_solve(phi.T @ y / self.noise_var, factor)
        fitted = phi @ self.mean
        nll = 0.5 * ((y - fitted).square() / self.noise_var + math.log(2 * math.pi * self.noise_var)).sum(-1).mean()
        penalty = 0.5 * self.mean.square().sum() / self.prior_var / len(x)
        return FitReport(float(nll), float(penalty), 1, time.perf_counter() - begin, r_squared(y, fitted))

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        self.check_sample(n)
        generator = generator or fresh_generator()
        noise = torch.randn((n, *self.mean.shape), generator=generator, dtype=self.mean.dtype)
        weight = self.mean + torch.linalg.solve_triangular(self.factor.T, noise, upper=True)
        return LinearFunction(self.features, weight, torch.full_like(self.mean[0], self.noise_var), self.sizes[0])

    def predict(self, x: Tensor) -> Predictive:
        self.check_inputs(x)
        phi = self.features(x)
        mean = phi @ self.mean
        root = torch.linalg.solve_triangular(self.factor, phi.reshape(-1, phi.shape[-1]).T, upper=False)
        epistemic = root.square().sum(0).reshape(*x.shape[:-1], 1).expand_as(mean)
        return Predictive(mean[None], epistemic[None], torch.full_like(mean, self.noise_var)[None])
