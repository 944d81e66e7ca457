"""Hyper-parameters of a Gaussian process: the model stated in GPyTorch, its penalised marginal likelihood, its maximiser."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import gpytorch
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.errors import ConfigurationError
from bayesdyn.gaussian_processes.likelihood import negative_log_likelihood
from bayesdyn.inference.optimisation import Objective, Optimum, minimise
from bayesdyn.kernels import Kernel, KernelParameters
from bayesdyn.progress import Progress

_CURB_POWER = 30
NOISE_PRIOR = (-4.0, 1.0)  # σ² ~ LogNormal(-4, 1)


@dataclass(frozen=True)
class GPTraining:
    """How hyper-parameters are found, in units of whitened x and y.

    The four intervals are hard bounds. `signal_to_noise` is the largest ratio of standard deviations √s/σ and
    `lengthscale_ratio` the largest ℓ_d/std(x_d) that the curb allows; `restarts` counts the starts after the first. Without
    `priors` the curb is all that is added to the likelihood; `scaled_start` starts at the scales of the data (`cold_starts`).

    Raises `ConfigurationError` for an empty or non-positive interval or a non-positive count.

    >>> GPTraining(max_steps=50).noise_var
    (1e-06, 2.0)
    """

    lengthscale: tuple[float, float] = (0.05, 1000.0)
    signal_var: tuple[float, float] = (1e-2, 1e2)
    linear_var: tuple[float, float] = (1e-6, 1e2)
    noise_var: tuple[float, float] = (1e-6, 2.0)
    signal_to_noise: float = 1000.0
    lengthscale_ratio: float = 1000.0
    max_steps: int = 200
    restarts: int = 1
    priors: bool = True
    scaled_start: bool = False

    def __post_init__(self) -> None:
        for name in ("lengthscale", "signal_var", "linear_var", "noise_var"):
            lower, upper = getattr(self, name)
            if not 0 < lower < upper:
                raise ConfigurationError(f"{name} wants bounds 0 < lower < upper; got ({lower}, {upper})")
        if self.signal_to_noise <= 1 or self.lengthscale_ratio <= 1:
            raise ConfigurationError("signal_to_noise and lengthscale_ratio want numbers above 1")
        if self.max_steps < 1 or self.restarts < 0:
            raise ConfigurationError(f"max_steps wants >= 1 and restarts >= 0; got {self.max_steps} and {self.restarts}")

    @classmethod
    def pilco(cls, *, max_steps: int = 300, restarts: int = 0) -> "GPTraining":
        """Return the settings of PILCO (Deisenroth & Rasmussen 2011; pilco-matlab `train`): the curb at 100 and 1000, no priors.

        The bounds are too wide to act. All of it moves with the scales of x and y, std taken with N - 1, so that whitening, by
        whichever std, changes nothing but the units of what is found. A kernel of GPyTorch keeps its own priors and start.

        >>> GPTraining.pilco().lengthscale_ratio
        100.0
        """
        wide = (1e-12, 1e12)
        return cls(
            lengthscale=wide,
            signal_var=wide,
            linear_var=wide,
            noise_var=(1e-18, 1e12),
            signal_to_noise=1000.0,
            lengthscale_ratio=100.0,
            max_steps=max_steps,
            restarts=restarts,
            priors=False,
            scaled_start=True,
        )


class Hyperparameters(NamedTuple):
    """Kernel parameters and noise variance σ² [E] of E independent Gaussian processes."""

    kernel: KernelParameters
    noise_var: Float[Tensor, "E"]


class _LogInterval(gpytorch.constraints.Interval):
    """A bounded parameter whose raw value is its logarithm; the optimiser enforces the bounds."""

    def __init__(self, bounds: tuple[float, float]) -> None:
        super().__init__(*bounds, transform=torch.exp, inv_transform=torch.log)
        # GPyTorch rounds bounds to the default dtype.
        self.lower_bound, self.upper_bound = torch.tensor(bounds, dtype=torch.float64)

    def transform(self, tensor: Tensor) -> Tensor:
        return tensor.exp()

    def inverse_transform(self, transformed_tensor: Tensor) -> Tensor:
        return transformed_tensor.log()


def _log_normal(location: float, scale: float) -> gpytorch.priors.LogNormalPrior:
    return gpytorch.priors.LogNormalPrior(*torch.tensor([location, scale], dtype=torch.float64))


class GPModel(nn.Module):
    """E independent zero-mean Gaussian processes on D inputs as GPyTorch modules: kernel, likelihood, constraints, priors.

    ℓ_d ~ LogNormal(√2 + ½ log D, √3) (Hvarfner et al. 2024, vanilla Bayesian optimisation), σ² ~ LogNormal(-4, 1), if at all.
    """

    likelihood: gpytorch.likelihoods.GaussianLikelihood
    trend: Iterable[gpytorch.kernels.Kernel]

    def __init__(self, kernel: Kernel, inputs: int, outputs: int, training: GPTraining) -> None:
        super().__init__()
        self.kernel, self.outputs = kernel, outputs
        batch = torch.Size([outputs])
        self.correlation = kernel.gpytorch_kernel(inputs, outputs)
        self.scale = gpytorch.kernels.ScaleKernel(self.correlation, batch_shape=batch)
        self.likelihood = gpytorch.likelihoods.GaussianLikelihood(batch_shape=batch)
        trends = [gpytorch.kernels.LinearKernel(num_dimensions=inputs, batch_shape=batch)] if kernel.linear else []
        self.trend = nn.ModuleList(trends)
        self.double()
        self.correlation.register_constraint("raw_lengthscale", _LogInterval(training.lengthscale))
        self.scale.register_constraint("raw_outputscale", _LogInterval(training.signal_var))
        self.likelihood.noise_covar.register_constraint("raw_noise", _LogInterval(training.noise_var))
        for trend in trends:
            trend.register_constraint("raw_variance", _LogInterval(training.linear_var))
        if not training.priors:
            return
        self.correlation.register_prior("lengthscale_prior", _log_normal(2**0.5 + 0.5 * math.log(inputs), 3**0.5), "lengthscale")
        self.likelihood.noise_covar.register_prior("noise_prior", _log_normal(*NOISE_PRIOR), "noise")

    def read(self) -> Hyperparameters:
        """Return the present values, attached to the raw parameters."""
        outputscale = self.scale.outputscale
        linear = [trend.variance.flatten() for trend in self.trend]
        linear_var = linear[0] if linear else torch.zeros_like(outputscale)
        parameters = KernelParameters(self.correlation.lengthscale.squeeze(-2), outputscale, linear_var)
        return Hyperparameters(parameters, self.likelihood.noise.squeeze(-1))

    def write(self, values: Hyperparameters) -> None:
        """Set the values; those outside the bounds are moved to them."""
        with torch.no_grad():
            self._set(self.correlation, "raw_lengthscale", values.kernel.lengthscale)
            self._set(self.scale, "raw_outputscale", values.kernel.signal_var)
            self._set(self.likelihood.noise_covar, "raw_noise", values.noise_var)
            for trend in self.trend:
                self._set(trend, "raw_variance", values.kernel.linear_var)

    @staticmethod
    def _set(module: gpytorch.Module, name: str, value: Tensor) -> None:
        constraint, raw = module.constraint_for_parameter_name(name), getattr(module, name)
        inside = value.to(raw).clamp(constraint.lower_bound, constraint.upper_bound)
        raw.copy_(constraint.inverse_transform(inside).reshape(raw.shape))

    def covariance_module(self) -> gpytorch.kernels.Kernel:
        """Return the whole kernel, s·κ plus its linear part, for use in a GPyTorch model."""
        total: gpytorch.kernels.Kernel = self.scale
        for trend in self.trend:
            total = total + trend
        return total

    def negative_log_prior(self) -> Float[Tensor, "E"]:
        """Return -log p(ℓ) - log p(σ²) per output."""
        total = torch.zeros(self.outputs, dtype=torch.float64, device=self.scale.raw_outputscale.device)
        for module in (self.correlation, self.likelihood.noise_covar):
            for _, owner, prior, closure, _ in module.named_priors():
                total = total - prior.log_prob(closure(owner)).reshape(self.outputs, -1).sum(-1)
        return total

    def raw_bounds(self) -> list[tuple[float, float]]:
        """Return the interval of every raw (log) parameter, in the order of `parameters()`."""
        bounds = []
        for name, parameter in self.named_parameters():
            *path, leaf = name.split(".")
            owner: gpytorch.Module = self.get_submodule(".".join(path))
            constraint = owner.constraint_for_parameter_name(leaf)
            lower, upper = math.log(float(constraint.lower_bound)), math.log(float(constraint.upper_bound))
            bounds += [(lower, upper)] * parameter.numel()
        return bounds


def curb(values: Hyperparameters, x_std: Float[Tensor, "D"], training: GPTraining) -> Float[Tensor, "E"]:
    """Return Σ_d ((log ℓ_d - log std(x_d))/log r_ℓ)³⁰ + ((log √s - log σ)/log r)³⁰: about 0 inside, 1 at each limit, a wall beyond.

    The signal-to-noise limit r keeps float64 moment matching accurate (Deisenroth & Rasmussen 2011, PILCO; pilco-matlab `hypCurb`).
    """
    lengthscale = (values.kernel.lengthscale.log() - x_std.log()) / math.log(training.lengthscale_ratio)
    return lengthscale.pow(_CURB_POWER).sum(-1) + ratio_curb(values.kernel.signal_var, values.noise_var, training)


def ratio_curb(signal_var: Float[Tensor, "*E"], noise_var: Float[Tensor, "*E"], training: GPTraining) -> Float[Tensor, "*E"]:
    """Return the curb's second part, ((log √s - log σ)/log r)³⁰."""
    ratio = 0.5 * (signal_var.log() - noise_var.log()) / math.log(training.signal_to_noise)
    return ratio.pow(_CURB_POWER)


class TrainingResult(NamedTuple):
    """Best hyper-parameters, their losses in nats [E], evaluations in all, the loss of each output's evaluations, and warnings."""

    values: Hyperparameters
    nll: Float[Tensor, "E"]
    penalty: Float[Tensor, "E"]
    steps: int
    curves: dict[str, tuple[float, ...]]
    warnings: tuple[str, ...]


def default_start(x: Float[Tensor, "N D"], outputs: int) -> Hyperparameters:
    """Return ℓ = √D, s = 1, σ² = 0.01 and b = 0.1 for every output."""
    inputs = x.shape[1]
    ones = torch.ones(outputs, dtype=torch.float64, device=x.device)
    lengthscale = math.sqrt(inputs) * torch.ones(outputs, inputs, dtype=torch.float64, device=x.device)
    return Hyperparameters(KernelParameters(lengthscale, ones, 0.1 * ones), 0.01 * ones)


def column_std(x: Float[Tensor, "N D"]) -> Float[Tensor, "D"]:
    """Return the standard deviation of each column, with N - 1; 1 for a constant one, which has no scale of its own."""
    spread = x.std(0)
    return torch.where(spread > 1e-12 * x.abs().amax(0), spread, torch.ones_like(spread))


def train(
    kernel: Kernel,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    starts: list[Hyperparameters],
    training: GPTraining,
    progress: Progress | None = None,
) -> TrainingResult:
    """Minimise (-log p(y|X) - log p(ℓ) - log p(σ²) + curb)/N from each start, output by output; the start of lowest value wins.

    Outputs do not interact, so one search each needs a third of the evaluations of one search over all of them. Rows are put into a
    canonical order first, so that the result does not depend on the order in which they came.

    Raises `NumericalError` if the objective cannot be evaluated at any start of an output.
    """
    found: list[tuple[Hyperparameters, Tensor, Tensor]] = []
    curves: dict[str, tuple[float, ...]] = {}
    warnings: tuple[str, ...] = ()
    for output in range(y.shape[1]):
        problem = _Problem(kernel, x, y[:, output], training)
        points = [problem.point(_select(start, output)) for start in starts]
        best = search(problem, problem.bounds, points, output, y.shape[1], training.max_steps, progress)
        curves |= best.curves
        warnings += best.warnings
        found.append(problem.at(best.point))
    values, nll, penalty = zip(*found, strict=True)
    stacked = KernelParameters(*(torch.cat(parts) for parts in zip(*(v.kernel for v in values), strict=True)))
    merged = Hyperparameters(stacked, torch.cat([v.noise_var for v in values]))
    return TrainingResult(merged, torch.cat(nll), torch.cat(penalty), sum(map(len, curves.values())), curves, warnings)


class Found(NamedTuple):
    """The best point of one output's searches, the losses of each search, and warnings."""

    point: np.ndarray
    curves: dict[str, tuple[float, ...]]
    warnings: tuple[str, ...]


def search(
    objective: Objective,
    bounds: list[tuple[float, float]],
    starts: list[np.ndarray],
    output: int,
    outputs: int,
    max_steps: int,
    progress: Progress | None = None,
) -> Found:
    """Minimise the objective of one output from each start; the point of lowest value wins, the first of equals.

    Raises `NumericalError` if the objective cannot be evaluated at a start.
    """
    found: list[Optimum] = []
    for index, start in enumerate(starts):

        def report(step: int, loss: float, done: int = (output * len(starts) + index) * max_steps) -> None:
            if progress is not None:
                progress(done + step, outputs * len(starts) * max_steps, {"loss": loss})

        found.append(minimise(objective, start, bounds, max_steps, report))
    best = min(found, key=lambda optimum: optimum.value)
    curves = {f"loss of output {output}, start {index}": optimum.curve for index, optimum in enumerate(found)}
    return Found(best.point, curves, tuple(f"output {output}: {text}" for optimum in found for text in optimum.warnings))


def canonical_order(x: Float[Tensor, "N D"], y: Float[Tensor, "N"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N 1"]]:
    """Return the rows in float64, sorted by their values, so that no result depends on the order in which they came."""
    columns = torch.cat([x, y.unsqueeze(-1)], 1).detach().double()
    order = torch.as_tensor(np.lexsort(columns.cpu().numpy().T), device=x.device)
    return columns[order, :-1], columns[order, -1:]


def _select(values: Hyperparameters, output: int) -> Hyperparameters:
    kernel = KernelParameters(*(t[output : output + 1] for t in values.kernel))
    return Hyperparameters(kernel, values.noise_var[output : output + 1])


class _Problem:
    """The objective of one output as a function of the vector of raw parameters."""

    def __init__(self, kernel: Kernel, x: Tensor, y: Tensor, training: GPTraining) -> None:
        self.x, self.y = canonical_order(x, y)
        self.training = training
        self.model = GPModel(kernel, x.shape[1], 1, training).to(x.device)
        self.bounds = self.model.raw_bounds()
        self.raw = list(self.model.parameters())
        self.x_std = column_std(self.x)

    def point(self, values: Hyperparameters) -> np.ndarray:
        self.model.write(values)
        return nn.utils.parameters_to_vector(self.raw).detach().cpu().numpy()

    def _move(self, point: np.ndarray) -> None:
        nn.utils.vector_to_parameters(torch.as_tensor(point, device=self.x.device), self.raw)

    def _losses(self) -> tuple[Hyperparameters, Tensor, Tensor]:
        values = self.model.read()
        nll = negative_log_likelihood(self.model.kernel, self.x, self.y, *values.kernel, values.noise_var)
        return values, nll, self.model.negative_log_prior() + curb(values, self.x_std, self.training)

    def at(self, point: np.ndarray) -> tuple[Hyperparameters, Tensor, Tensor]:
        """Return the values, nll [1] and penalty [1] at a point."""
        self._move(point)
        with torch.no_grad():
            return self._losses()

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        self._move(point)
        _, nll, penalty = self._losses()
        loss = (nll + penalty).sum() / self.x.shape[0]
        gradient = torch.autograd.grad(loss, self.raw)
        return loss.item(), torch.cat([g.flatten() for g in gradient]).cpu().numpy()
