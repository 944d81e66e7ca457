"""Hyper-parameters of kernels that the user brings: the same penalised marginal likelihood, differentiated by autograd."""

import math
from typing import NamedTuple

import gpytorch
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.gaussian_processes.training import NOISE_PRIOR, GPTraining, canonical_order, ratio_curb, search
from bayesdyn.kernels.gpytorch_kernel import (
    GPyTorchKernel,
    at_bound,
    dense,
    negative_log_prior,
    raw_bounds,
    raw_values,
    write_raw_values,
)
from bayesdyn.linalg import jittered_cholesky
from bayesdyn.progress import Progress

_FIRST_NOISE = 0.01
_RESTART_NOISE = 0.1


class RawValues(NamedTuple):
    """Raw kernel parameters [E, P] and noise variances [E]."""

    raw: Float[Tensor, "E P"]
    noise_var: Float[Tensor, "E"]


class AutogradResult(NamedTuple):
    """Best values, their losses in nats [E], evaluations in all, losses on the way, parameters at a bound, and warnings."""

    values: RawValues
    nll: Float[Tensor, "E"]
    penalty: Float[Tensor, "E"]
    steps: int
    curves: dict[str, tuple[float, ...]]
    at_bound: tuple[str, ...]
    warnings: tuple[str, ...]


def first_starts(kernel: GPyTorchKernel, inputs: int, outputs: int, training: GPTraining) -> list[RawValues]:
    """Return the factory's own values with σ² = 0.01, then, per restart, all raw parameters one higher and σ² a tenth."""
    raw = kernel.initial(inputs, outputs)
    noise = torch.full((outputs,), _FIRST_NOISE, dtype=torch.float64)
    return [RawValues(raw + i, noise * _RESTART_NOISE**i) for i in range(training.restarts + 1)]


def train_kernel(
    kernel: GPyTorchKernel,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    starts: list[RawValues],
    training: GPTraining,
    progress: Progress | None = None,
) -> AutogradResult:
    """Minimise (-log p(y|X) - log p(kernel) - log p(σ²) + curb)/N from each start, output by output; the lowest value wins.

    The priors are those that the kernel carries, and σ² ~ LogNormal(-4, 1). The curb limits the ratio of √mean k(x, x) to σ as for
    our own kernels; length-scales are the user's own business. Rows are put into a canonical order first.

    Raises `NumericalError` if the objective cannot be evaluated at any start of an output.
    """
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    curves: dict[str, tuple[float, ...]] = {}
    warnings: list[str] = []
    bounds: list[str] = []
    for output in range(y.shape[1]):
        problem = _AutogradProblem(kernel, x, y[:, output], training)
        points = [problem.point(start.raw[output], start.noise_var[output]) for start in starts]
        best = search(problem, problem.bounds, points, output, y.shape[1], training.max_steps, progress)
        curves |= best.curves
        warnings += best.warnings
        found.append(problem.at(best.point))
        bounds += [f"{name}, output {output}" for name in problem.at_bound()]
    raw, noise_var, nll, penalty = (torch.stack(parts) for parts in zip(*found, strict=True))
    steps = sum(map(len, curves.values()))
    return AutogradResult(RawValues(raw, noise_var), nll, penalty, steps, curves, tuple(bounds), tuple(warnings))


class _AutogradProblem:
    """The objective of one output as a function of the trainable raw parameters and log σ²."""

    def __init__(self, kernel: GPyTorchKernel, x: Tensor, y: Tensor, training: GPTraining) -> None:
        self.x, self.y = canonical_order(x, y)
        self.training = training
        self.kernel: gpytorch.kernels.Kernel = kernel.build(x.shape[1]).to(x.device)
        self.free = [p for p in self.kernel.parameters() if p.requires_grad]
        self.log_noise = torch.zeros(1, dtype=torch.float64, device=x.device, requires_grad=True)
        lower, upper = training.noise_var
        self.bounds = [*raw_bounds(self.kernel), (math.log(lower), math.log(upper))]

    def point(self, raw: Tensor, noise_var: Tensor) -> np.ndarray:
        fixed = [p.detach().clone() for p in self.kernel.parameters() if not p.requires_grad]
        write_raw_values(self.kernel, raw.to(self.x))
        with torch.no_grad():
            # A start raises all raw numbers; those that the user fixed stay.
            for parameter, value in zip((p for p in self.kernel.parameters() if not p.requires_grad), fixed, strict=True):
                parameter.copy_(value)
        parts = [p.detach().flatten() for p in self.free] + [noise_var.to(self.x).log().reshape(1)]
        lower, upper = np.array(self.bounds).T
        return np.clip(torch.cat(parts).cpu().numpy(), lower, upper)

    def _move(self, point: np.ndarray) -> None:
        torch.nn.utils.vector_to_parameters(torch.as_tensor(point, device=self.x.device), [*self.free, self.log_noise])

    def _losses(self) -> tuple[Tensor, Tensor]:
        gram, noise = dense(self.kernel, self.x, self.x), self.log_noise.exp()
        noisy = gram + noise * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor, _ = jittered_cholesky(noisy)
        whitened = torch.linalg.solve_triangular(factor, self.y, upper=False)
        nll = 0.5 * whitened.square().sum() + factor.diagonal().log().sum() + 0.5 * len(gram) * math.log(2 * math.pi)
        location, scale = NOISE_PRIOR
        noise_prior = self.log_noise + 0.5 * ((self.log_noise - location) / scale).square() + 0.5 * math.log(2 * math.pi * scale**2)
        signal = gram.diagonal().mean()
        penalty = negative_log_prior(self.kernel) + noise_prior.sum() + ratio_curb(signal, noise.squeeze(0), self.training)
        return nll, penalty

    def at(self, point: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return raw parameters [P], noise variance, nll and penalty at a point."""
        self._move(point)
        with torch.no_grad():
            nll, penalty = self._losses()
            return raw_values(self.kernel).clone(), self.log_noise.exp().squeeze(0), nll, penalty

    def at_bound(self) -> list[str]:
        """Name what lies at a bound at the point that was evaluated last."""
        names, value = at_bound(self.kernel), self.log_noise.detach().exp().item()
        lower, upper = self.training.noise_var
        names += [f"noise_var = {lower:g} (lower bound)"] if value <= 1.01 * lower else []
        names += [f"noise_var = {upper:g} (upper bound)"] if value >= 0.99 * upper else []
        return names

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        self._move(point)
        nll, penalty = self._losses()
        loss = (nll + penalty) / len(self.x)
        raw = [*self.free, self.log_noise]
        gradient = torch.autograd.grad(loss, raw, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(raw, gradient, strict=True)]
        return loss.item(), torch.cat([g.flatten() for g in filled]).cpu().numpy()
