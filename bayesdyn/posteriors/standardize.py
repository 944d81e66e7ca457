"""`Standardize`: any posterior for raw tabular data, whitened on the way in and put back into raw units on the way out."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ShapeError
from bayesdyn.functions import Function
from bayesdyn.numerics import Spread, keep_buffers_on_error, spread
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data
from bayesdyn.progress import Progress

# A constant target has no spread of its own. A thousandth of its size is far above its rounding and keeps its variance small.
_CONSTANT_TARGET = 1e-3
# Beyond three old standard deviations the defaults of a posterior, made for whitened data, no longer fit.
_DRIFT = 3.0


class Statistics(NamedTuple):
    """Mean and std of features [D] and targets [E] in raw units, in float64."""

    feature_mean: Float[Tensor, "D"]
    feature_std: Float[Tensor, "D"]
    target_mean: Float[Tensor, "E"]
    target_std: Float[Tensor, "E"]

    def whiten(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Return (x - mean) / std in float64: with an offset, the difference needs more digits than x has itself."""
        return (x.double() - self.feature_mean) / self.feature_std

    def raw_mean(self, mean: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
        """Return mean·std + mean₀ in float64."""
        return mean.double() * self.target_std + self.target_mean

    def raw_var(self, var: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
        """Return var·std² in float64."""
        return var.double() * self.target_std.square()


class Standardize(Posterior):
    r"""p(θ|D) of a posterior on whitened data, for raw x [N, D] and y [N, E], in raw units.

        x̃ = (x - x̄)/s_x,   ỹ = (y - ȳ)/s_y,   p(y | x, D) = p̃(ỹ | x̃, D) / Π_d s_y,d

    with mean and population std of the training data. So predictions and draws do not depend on the units of x and y. A constant
    feature is centred only; a constant target is predicted as that constant, in units of a thousandth of its size (1 if it is 0).

    `append` and a warm start keep the statistics of the last fit from scratch: the wrapped posterior goes on from what it learned
    in those units, and its functions would become other ones in new units. The report of a warm start says when the data have moved
    so far that they are no longer whitened; then fit from scratch.

    Statistics are computed, kept and applied in float64, answers come in the dtype of x. In float32, an answer cannot resolve less
    than 6e-8 of its own size, offset included.

    >>> from bayesdyn.posteriors import ExactGP
    >>> x = torch.linspace(0, 1000, 30, dtype=torch.float64).unsqueeze(-1)
    >>> model = Standardize(ExactGP())
    >>> model.fit(x, 1e6 + 1e3 * torch.sin(x / 100)).collapsed
    False
    >>> bool((model.predict(x).mean - 1e6).abs().max() < 1e3 * 1.01)
    True
    """

    feature_mean: Tensor
    feature_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, posterior: Posterior) -> None:
        super().__init__()
        self.posterior = posterior
        for name in Statistics._fields:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E) of the wrapped posterior."""
        return self.posterior.sizes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the wrapped posterior works in."""
        return self.posterior.dtype

    @property
    def statistics(self) -> Statistics:
        """What raw data are whitened with; raises `NotFittedError` before `fit`."""
        self.check_fitted()
        return self._statistics

    @property
    def _statistics(self) -> Statistics:
        return Statistics(self.feature_mean, self.feature_std, self.target_mean, self.target_std)

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Take the statistics of the N rows (a warm start keeps the present ones) and fit the wrapped posterior on whitened rows.

        The report's nll is that of the raw targets, nll + Σ_d log s_y,d; its curves, R² and penalty are the wrapped posterior's.

        Raises `DataError` for anything but floating-point tensors, `ShapeError` for a warm start with other D or E, and what the
        wrapped posterior raises; the statistics then stay as they were.
        """
        return self._fit(self.posterior.fit, x, y, warm_start, generator, progress)

    def fit_groups(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        groups: Int[Tensor, " N"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Fit as `fit` does; rows with one number in `groups` belong together."""
        return self._fit(partial(grouped, self.posterior, groups), x, y, warm_start, generator, progress)

    def _fit(
        self,
        fit: Callable[..., FitReport],
        x: Tensor,
        y: Tensor,
        warm_start: bool,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> FitReport:
        check_training_data(x, y)
        features, targets = spread(x), spread(y)
        if warm_start and self.sizes[0] > 0:
            self._check_sizes("a warm start", x, y)
            statistics = self._statistics
            warnings = _drift("x", features, statistics.feature_mean, statistics.feature_std)
            warnings += _drift("y", targets, statistics.target_mean, statistics.target_std)
        else:
            statistics = Statistics(features.mean, _feature_scale(features), targets.mean, _target_scale(targets))
            warnings = _constants("x", features, "it cannot tell anything about y")
            warnings += _constants("y", targets, "it is predicted as that constant")
        with keep_buffers_on_error(self):
            report = fit(*_whitened(statistics, x, y), warm_start=warm_start, generator=generator, progress=progress)
            self.feature_mean, self.feature_std, self.target_mean, self.target_std = statistics
        volume = float(statistics.target_std.log().sum())
        return replace(report, nll=report.nll + volume, warnings=warnings + report.warnings)

    def append(self, x: Float[Tensor, "k D"], y: Float[Tensor, "k E"]) -> None:
        """Take k more raw rows into account as the wrapped posterior does, whitened with the statistics of the last fit.

        Raises `NotFittedError` before `fit`, `DataError` or `ShapeError` for unusable rows.
        """
        self.check_fitted()
        check_training_data(x, y, minimum=1)
        self._check_sizes("append", x, y)
        self.posterior.append(*_whitened(self._statistics, x, y))

    def sample(self, n: int, generator: torch.Generator | None = None) -> "StandardizedFunction":
        """Draw n functions of the wrapped posterior, in raw units.

        Raises `ConfigurationError` for n < 1 and `NotFittedError` before `fit`.
        """
        self.check_sample(n)
        return StandardizedFunction(self.posterior.sample(n, generator), self._statistics, self.dtype)

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return p(y | x, D) in raw units: each component's mean·s_y + ȳ, and its two variances times s_y².

        Raises `DataError` for anything but a floating-point tensor, `NotFittedError`, and `ShapeError` for other features.
        """
        self.check_fitted()
        self.check_inputs(x)
        statistics = self._statistics
        said = self.posterior.predict(statistics.whiten(x).to(self.dtype))
        variances = (said.component_epistemic_var, said.component_aleatoric_var)
        raw = (statistics.raw_mean(said.component_mean), *(statistics.raw_var(var) for var in variances))
        return Predictive(*(part.to(x.dtype) for part in raw))

    def _check_sizes(self, what: str, x: Tensor, y: Tensor) -> None:
        if (x.shape[1], y.shape[1]) != self.sizes:
            raise ShapeError(f"{what} wants (D, E) = {self.sizes}, the sizes of the last fit; got {(x.shape[1], y.shape[1])}")


class StandardizedFunction(Function):
    """Draws of a posterior on whitened data, asked and answering in raw units; `dtype` is the one that the draws compute in."""

    def __init__(self, function: Function, statistics: Statistics, dtype: torch.dtype) -> None:
        self.n, self.inputs, self.outputs = function.n, function.inputs, function.outputs
        self.function, self.statistics, self.dtype = function, statistics, dtype

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at raw x `[n or 1, ..., D]`; raises `ShapeError` for another number of draws or features."""
        self.check_inputs(x)
        answer = self.function(self.statistics.whiten(x).to(self.dtype))
        mean, var = self.statistics.raw_mean(answer.mean), self.statistics.raw_var(answer.var)
        return Gaussian(mean.to(x.dtype), var.to(x.dtype))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "StandardizedFunction":
        """Return the same draws computing in another dtype or on another device; the statistics stay in float64."""
        moved = copy.copy(self)
        moved.function = self.function.to(dtype=dtype, device=device)
        moved.statistics = Statistics(*(part.to(device=device) for part in self.statistics))
        moved.dtype = dtype or self.dtype
        return moved


def grouped(posterior: Posterior, groups: Int[Tensor, " N"], x: Tensor, y: Tensor, **options: Any) -> FitReport:
    """Call `fit_groups` with the arguments of `fit`, the groups being bound before."""
    return posterior.fit_groups(x, y, groups, **options)


def _whitened(statistics: Statistics, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    target = (y.double() - statistics.target_mean) / statistics.target_std
    return statistics.whiten(x).to(x.dtype), target.to(y.dtype)


def _feature_scale(features: Spread) -> Float[Tensor, "D"]:
    return torch.where(features.constant, torch.ones_like(features.std), features.std)


def _target_scale(targets: Spread) -> Float[Tensor, "E"]:
    size = targets.mean.abs()
    instead = torch.where(size > 0, _CONSTANT_TARGET * size, torch.ones_like(size))
    return torch.where(targets.constant, instead, targets.std)


def _constants(name: str, columns: Spread, therefore: str) -> tuple[str, ...]:
    return tuple(f"column {i} of {name} is constant: {therefore}" for i in columns.constant.nonzero().flatten().tolist())


def _drift(name: str, now: Spread, mean: Tensor, std: Tensor) -> tuple[str, ...]:
    """Return a sentence if data whitened with old statistics are no longer near mean 0 and variance 1."""
    size = ((now.mean - mean).square() + now.std.square()).sqrt() / std
    moved = ((size > _DRIFT) | (~now.constant & (size < 1 / _DRIFT))).nonzero().flatten().tolist()
    if not moved:
        return ()
    return (
        f"{name} has left the statistics that a warm start keeps (whitened with them, column {moved[0]} has a root mean square of "
        f"{float(size[moved[0]]):.2g}, not 1); fit without warm_start",
    )
