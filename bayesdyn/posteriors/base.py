"""The seam of every posterior: `Posterior` (fit, sample, predict) and `FitReport`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.functions import Function, check_floating
from bayesdyn.posteriors.calibration_report import CalibrationReport
from bayesdyn.posteriors.moment_sampling import SampledMoments, whitened_normals
from bayesdyn.posteriors.quantile_map import QuantileMap
from bayesdyn.progress import Progress

PREDICTIVE_DRAWS = 64
MOMENT_POINTS = 128


@dataclass(frozen=True)
class FitReport:
    """What a fit did: losses per data point in nats, summed over outputs, `nll` and `penalty` (kl, prior, curb) apart."""

    nll: float
    penalty: float
    steps: int
    seconds: float
    r2_train: tuple[float, ...]  # [E]
    r2_held_out: tuple[float, ...] | None = None  # [E]
    jitter: tuple[float, ...] = ()  # [E]
    at_bound: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def collapsed(self) -> bool:
        """Whether some output is predicted no better than by its mean (R² below 0.05, or not a number)."""
        return not all(r2 >= 0.05 for r2 in self.r2_held_out or self.r2_train)


class Posterior(nn.Module, ABC):
    """p(θ|D) of y = f_θ(x) + noise, for whitened x [N, D] and y [N, E]; it knows nothing of states, actions or time.

    A subclass keeps what it learned in buffers, named at construction (empty until `fit`), so that `state_dict` holds everything
    and loads into a fresh object, whatever the sizes and dtype. It may work in a dtype of its own (GPs: float64), but `predict` and
    the draws answer in the dtype of the x they are asked at. Nothing depends on train() or eval().
    """

    @abstractmethod
    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Learn from the N rows, from scratch or, with `warm_start`, from where the last fit ended.

        Without a generator the seed is 0: the same data give the same fit.

        Raises `ShapeError` or `DataError` for unusable data and `NumericalError` when the computation breaks down.
        """

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
        """Fit as `fit` does, to rows of which those with one number in `groups` [N] belong together, such as those of an episode.

        A posterior that holds rows out, to stop early, holds out whole groups where there are five or more: neighbours in time are
        nearly copies. This default, for all others, is `fit`.
        """
        return self.fit(x, y, warm_start=warm_start, generator=generator, progress=progress)

    def append(self, x: Float[Tensor, "k D"], y: Float[Tensor, "k E"]) -> None:
        """Take k more rows into account at once, with hyper-parameters as they are, where that is exact and cheap.

        Posteriors that can only learn by fitting leave the rows to the next `fit`: this default does nothing but check them.

        Raises `NotFittedError` before `fit`, `DataError` or `ShapeError` for unusable rows.
        """
        self.check_fitted()
        check_training_data(x, y, minimum=1)
        if (x.shape[1], y.shape[1]) != self.sizes:
            raise ShapeError(f"append wants (D, E) = {self.sizes}, the sizes of the last fit; got {(x.shape[1], y.shape[1])}")

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Draw n functions, using `generator` only, or without one a `fresh_generator` (the global random state is left alone).

        Raises `ConfigurationError` for n < 1 and `NotFittedError` before `fit`.
        """

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """(D, E) of the fitted posterior, (0, 0) before `fit`."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it works in, that of its floating-point buffers: its own choice, or that of the data it was fitted on."""
        tensors = chain(self.buffers(), self.parameters())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return p(y | x, D) with components [m, ..., E]: by default the mixture over `sample(64)`, with a fixed seed."""
        self.check_inputs(x)
        function = self.sample(PREDICTIVE_DRAWS, torch.Generator().manual_seed(0))
        return Predictive.from_draws(function(x.unsqueeze(0)))

    def exact_moment_map(self, process_noise: bool = False) -> MomentMap | None:
        """Return p(f(x)|D) for Gaussian x in closed form, None where there is none: Gaussian processes override this.

        The map is a snapshot of the present fit, to be kept by whoever calls it often; `process_noise` adds the noise variance.
        """
        return None

    def moment_map(self, process_noise: bool = False) -> MomentMap:
        """Return the closed form, or where there is none 64 draws at 128 points each, with a fixed seed.

        Raises `NotFittedError` before `fit`.
        """
        self.check_fitted()
        exact = self.exact_moment_map(process_noise)
        if exact is not None:
            return exact
        inputs = self.sizes[0]
        count = max(MOMENT_POINTS, 8 * inputs)
        points = whitened_normals(count, inputs, self.dtype, torch.Generator().manual_seed(0))
        return SampledMoments(self.sample(PREDICTIVE_DRAWS, torch.Generator().manual_seed(0)), points, process_noise=process_noise)

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments of f(x) for x ~ N(mean, cov): one call of `moment_map()`, which is worth keeping for more than one.

        Raises `NotFittedError` before `fit`, `ShapeError` for a belief of another size.
        """
        return self.moment_map().moments(mean, cov)

    def calibrate(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], groups: Int[Tensor, " N"]) -> CalibrationReport:
        """Become as wide as the errors on N held-out rows of the episodes `groups` [N] are: `Recalibrated` does.

        Raises `ConfigurationError` where no calibration is kept: this default.
        """
        raise self._uncalibrated()

    def quantile_map(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], groups: Int[Tensor, " N"]) -> QuantileMap:
        """Return the map of probabilities that N held-out rows ask for; raises as `calibrate` does."""
        raise self._uncalibrated()

    def check_unseen(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> None:
        """Raise `DataError` for rows that the fit has seen, where these are remembered; this default remembers none."""

    def _uncalibrated(self) -> ConfigurationError:
        name = type(self).__name__
        return ConfigurationError(
            f"{name} keeps no calibration; make the model with Recalibrated({name}(...)), fit it, and calibrate it then"
        )

    def check_inputs(self, x: Tensor) -> None:
        """Raise `NotFittedError` before `fit`, `DataError` or `ShapeError` unless x is a tensor [..., D]."""
        self.check_fitted()
        check_floating("x", x)
        if x.dim() < 1 or x.shape[-1] != self.sizes[0]:
            raise ShapeError(f"{type(self).__name__} was fitted on {self.sizes[0]} features; got x of shape {list(x.shape)}")

    def check_fitted(self) -> None:
        """Raise `NotFittedError` before `fit`."""
        if self.sizes[0] == 0:
            raise NotFittedError(f"{type(self).__name__} has seen no data yet; call fit(x, y) first")

    def check_sample(self, n: int) -> None:
        """Raise `ConfigurationError` unless n >= 1 and `NotFittedError` before `fit`."""
        self.check_fitted()
        if n < 1:
            raise ConfigurationError(f"sample wants n >= 1 draws; got {n}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Fresh tensors of the stored size and dtype: a state dict is a whole fit, and draws still hold the old tensors.
        for name, buffer in list(self._buffers.items()):
            stored = state_dict.get(prefix + name)
            if buffer is not None and stored is not None:
                setattr(self, name, torch.empty_like(stored, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def check_training_data(x: Tensor, y: Tensor, minimum: int = 2) -> None:
    """Raise `ShapeError` unless x is [N, D] and y [N, E].

    Raises `DataError` for anything but floating-point tensors of one dtype, fewer than `minimum` rows or non-finite values.

    >>> check_training_data(torch.zeros(1, 2), torch.zeros(1, 1))
    Traceback (most recent call last):
    ...
    bayesdyn.errors.DataError: fit wants at least 2 rows; got 1
    """
    for name, values in (("x", x), ("y", y)):
        check_floating(name, values)
    if x.dtype != y.dtype:
        raise DataError(f"fit wants x and y of one dtype; got x in {x.dtype} and y in {y.dtype}; convert one of them")
    if x.dim() != 2 or y.dim() != 2 or x.shape[0] != y.shape[0] or 0 in (x.shape[1], y.shape[1]):
        raise ShapeError(f"fit wants x [N, D] and y [N, E]; got x {list(x.shape)} and y {list(y.shape)}")
    if x.shape[0] < minimum:
        raise DataError(f"fit wants at least {minimum} rows; got {x.shape[0]}")
    for name, values in (("x", x), ("y", y)):
        broken = ~values.isfinite()
        if bool(broken.any()):
            row, column = (int(i) for i in broken.nonzero()[0])
            count = int(broken.sum())
            raise DataError(f"{name} has {count} non-finite values, first in row {row}, column {column}; remove those rows")


# Columns smaller than this are constant: whitening subtracts their mean, and rounding is what remains.
_CONSTANT_RMS = 1e-10


def scale_warnings(x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> tuple[str, ...]:
    """Return a sentence if a column's size is far from 1, where default priors, bounds and learning rates no longer fit."""
    found = []
    for name, values in (("x", x), ("y", y)):
        rms = values.double().square().mean(0).sqrt()
        odd = ((rms > 10) | ((rms < 0.1) & (rms > _CONSTANT_RMS))).nonzero().flatten().tolist()
        if odd:
            found.append(
                f"{name} is not whitened (root mean square of column {odd[0]}: {float(rms[odd[0]]):.2g}); the bounds and priors "
                "expect about 1, so standardise it first"
            )
    return tuple(found)


def r_squared(y: Float[Tensor, "N E"], prediction: Float[Tensor, "N E"]) -> tuple[float, ...]:
    """Return 1 - Σ(y - ŷ)² / Σ(y - ȳ)² per output; a constant output counts as 1 if met to a thousandth, else 0."""
    tiny = torch.finfo(y.dtype).tiny
    residual = (y - prediction).square().sum(0)
    total = (y - y.mean(0)).square().sum(0)
    power = y.square().sum(0)
    constant = total <= 1e-12 * power.clamp_min(tiny)
    met = (residual <= 1e-6 * power + 1e-12).to(y.dtype)
    return tuple(float(s) for s in torch.where(constant, met, 1 - residual / total.clamp_min(tiny)))
