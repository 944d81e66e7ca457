"""What an exact Gaussian process asks of its kernel: covariances, training, prior draws; for our own kernels and for GPyTorch's."""

from abc import ABC, abstractmethod
from functools import singledispatch
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import gpytorch
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.functions import Function
from bayesdyn.gaussian_processes.autograd import RawValues, first_starts, train_kernel
from bayesdyn.gaussian_processes.diagnosis import at_bounds, bound_warnings, closest_rows, explain_singular
from bayesdyn.gaussian_processes.feature_path import FeatureDraws, FeaturePathFunction, reference_points, spread_points
from bayesdyn.gaussian_processes.pathwise import PathwiseFunction, draw_prior
from bayesdyn.gaussian_processes.starts import cold_starts
from bayesdyn.gaussian_processes.training import GPTraining, Hyperparameters, train
from bayesdyn.kernels import GPyTorchKernel, Kernel, KernelParameters, NystromTerm, UnknownSpectrumError, draw_terms
from bayesdyn.kernels import covariance as stationary_covariance
from bayesdyn.kernels import prior_variance as stationary_variance
from bayesdyn.kernels.gpytorch_kernel import stacked, stacked_diagonal
from bayesdyn.kernels.prior_features import Features
from bayesdyn.progress import Progress

# Parameters of the kernels of all E outputs, as the tensors that a posterior keeps in buffers.
Theta = tuple[Tensor, ...]


@runtime_checkable
class PriorFunctions(Protocol):
    """n functions drawn from the prior, evaluated at inputs that all draws share."""

    def __call__(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "E N n"]:
        """Return their values."""


class Trained(NamedTuple):
    """Kernel parameters and noise variances found by a fit, their losses in nats [E], and what the fit has to tell."""

    theta: Theta
    noise_var: Float[Tensor, "E"]
    nll: Float[Tensor, "E"]
    penalty: Float[Tensor, "E"]
    steps: int
    curves: dict[str, tuple[float, ...]]
    at_bound: tuple[str, ...]
    warnings: tuple[str, ...]


class Family(ABC):
    """One way of stating kernels; `axes` names the tensors of its parameters with their numbers of axes, E first.

    `rounding` is the share of the prior variance by which a posterior variance may come out negative by rounding alone.
    """

    axes: ClassVar[dict[str, int]]
    rounding: ClassVar[float]

    @abstractmethod
    def training_matrices(self, inputs: int) -> int:
        """Return how many N x N matrices of float64 training holds at its peak, one output at a time (measured)."""

    @abstractmethod
    def covariance(self, theta: Theta, x1: Float[Tensor, "N D"], x2: Float[Tensor, "M D"]) -> Float[Tensor, "E N M"]:
        """Return k(x1, x2) of every output."""

    @abstractmethod
    def prior_variance(self, theta: Theta, x: Float[Tensor, "N D"]) -> Float[Tensor, "E N"]:
        """Return k(x, x) of every output."""

    @abstractmethod
    def train(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        present: tuple[Theta, Float[Tensor, "E"]] | None,
        training: GPTraining,
        progress: Progress | None,
    ) -> Trained:
        """Find parameters and noise variances, from default starts or from the present ones only."""

    @abstractmethod
    def draw_prior(
        self, theta: Theta, x: Float[Tensor, "N D"], n: int, features: int, generator: torch.Generator
    ) -> PriorFunctions:
        """Draw n prior functions; x are the training inputs."""

    @abstractmethod
    def function(
        self, theta: Theta, prior: Any, x: Float[Tensor, "N D"], update: Float[Tensor, "E N n"], noise_var: Float[Tensor, "E"]
    ) -> Function:
        """Return the functions prior(·) + k(·, x) update."""

    @abstractmethod
    def explain(
        self, error: NumericalError, theta: Theta, noise_var: Float[Tensor, "E"], x: Float[Tensor, "N D"]
    ) -> NumericalError:
        """Return an error that adds the likely cause of a singular K + σ²I."""

    def draw_warnings(self, theta: Theta, x: Float[Tensor, "N D"], features: int) -> tuple[str, ...]:
        """Return what a user has to know about function draws; nothing where they have the whole prior variance."""
        return ()


class StationaryFamily(Family):
    """Our own kernels: closed gradients, shared frequencies, one product for all pairs of inputs."""

    axes: ClassVar[dict[str, int]] = {"lengthscale": 2, "signal_var": 1, "linear_var": 1}
    rounding = 1e-8

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def training_matrices(self, inputs: int) -> int:
        """Return 7: the kernel, its slope, K, L, W and their temporaries."""
        return 7

    def covariance(self, theta: Theta, x1: Float[Tensor, "N D"], x2: Float[Tensor, "M D"]) -> Float[Tensor, "E N M"]:
        """Return k(x1, x2) of every output."""
        return stationary_covariance(self.kernel, KernelParameters(*theta), x1, x2)

    def prior_variance(self, theta: Theta, x: Float[Tensor, "N D"]) -> Float[Tensor, "E N"]:
        """Return k(x, x) of every output."""
        return stationary_variance(KernelParameters(*theta), x)

    def train(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        present: tuple[Theta, Float[Tensor, "E"]] | None,
        training: GPTraining,
        progress: Progress | None,
    ) -> Trained:
        """Find parameters and noise variances by the closed gradient."""
        starts = self._starts(x, y, present, training)
        try:
            result = train(self.kernel, x, y, starts, training, progress)
        except NumericalError as error:
            raise explain_singular(error, x, starts[0]) from error
        bounds = at_bounds(result.values, training, self.kernel.linear)
        return Trained(
            tuple(result.values.kernel),
            result.values.noise_var,
            result.nll,
            result.penalty,
            result.steps,
            result.curves,
            tuple(str(b) for b in bounds),
            result.warnings + bound_warnings(bounds),
        )

    @staticmethod
    def _starts(x: Tensor, y: Tensor, present: tuple[Theta, Tensor] | None, training: GPTraining) -> list[Hyperparameters]:
        if present is not None:
            theta, noise_var = present
            return [Hyperparameters(KernelParameters(*(t.double() for t in theta)), noise_var.double())]
        return cold_starts(x, y, training)

    def draw_prior(
        self, theta: Theta, x: Float[Tensor, "N D"], n: int, features: int, generator: torch.Generator
    ) -> PriorFunctions:
        """Draw n prior functions from random Fourier features."""
        return draw_prior(self.kernel, KernelParameters(*theta), n, features, generator)

    def function(
        self, theta: Theta, prior: Any, x: Float[Tensor, "N D"], update: Float[Tensor, "E N n"], noise_var: Float[Tensor, "E"]
    ) -> Function:
        """Return the functions as one batched product."""
        return PathwiseFunction(self.kernel, KernelParameters(*theta), prior, x, update, noise_var)

    def explain(
        self, error: NumericalError, theta: Theta, noise_var: Float[Tensor, "E"], x: Float[Tensor, "N D"]
    ) -> NumericalError:
        """Return an error that names duplicate rows, a long length-scale or little noise."""
        return explain_singular(error, x, Hyperparameters(KernelParameters(*theta), noise_var))


class GPyTorchFamily(Family):
    """Kernels that the user brings: GPyTorch evaluates them, autograd trains them, features are looked up by their types."""

    axes: ClassVar[dict[str, int]] = {"raw": 2}
    # GPyTorch's distances between equal rows are off by √eps, and a Matérn-1/2 kernel is linear in them.
    rounding = 1e-6

    def __init__(self, kernel: GPyTorchKernel) -> None:
        self.kernel = kernel
        self._restored: tuple[Tensor, list[gpytorch.kernels.Kernel]] | None = None

    def kernels(self, theta: Theta, inputs: int) -> list[gpytorch.kernels.Kernel]:
        """Return the frozen kernels of all outputs, made once for each raw tensor: making them costs more than a small predict."""
        (raw,) = theta
        # Buffers are replaced and never written into, so that the same tensor holds the same values.
        if self._restored is None or self._restored[0] is not raw:
            self._restored = (raw, self.kernel.restore(raw, inputs))
        return self._restored[1]

    def training_matrices(self, inputs: int) -> int:
        """Return 10 per elementary kernel: autograd keeps what each operation made."""
        parts = [part for part in self.kernel.build(inputs).modules() if isinstance(part, gpytorch.kernels.Kernel)]
        return 10 * sum(not any(True for _ in part.sub_kernels()) for part in parts)

    def covariance(self, theta: Theta, x1: Float[Tensor, "N D"], x2: Float[Tensor, "M D"]) -> Float[Tensor, "E N M"]:
        """Return k(x1, x2) of every output."""
        return stacked(self.kernels(theta, x1.shape[-1]), x1, x2)

    def prior_variance(self, theta: Theta, x: Float[Tensor, "N D"]) -> Float[Tensor, "E N"]:
        """Return k(x, x) of every output."""
        return stacked_diagonal(self.kernels(theta, x.shape[-1]), x)

    def train(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        present: tuple[Theta, Float[Tensor, "E"]] | None,
        training: GPTraining,
        progress: Progress | None,
    ) -> Trained:
        """Find raw parameters and noise variances by automatic differentiation."""
        if present is None:
            starts = first_starts(self.kernel, x.shape[1], y.shape[1], training)
        else:
            starts = [RawValues(present[0][0].double(), present[1].double())]
        try:
            result = train_kernel(self.kernel, x, y, starts, training, progress)
        except NumericalError as error:
            raise self.explain(error, (starts[0].raw,), starts[0].noise_var, x) from error
        return Trained((result.values.raw,), result.values.noise_var, *result[1:])

    def draw_prior(
        self, theta: Theta, x: Float[Tensor, "N D"], n: int, features: int, generator: torch.Generator
    ) -> PriorFunctions:
        """Draw n prior functions from the features of the kernels' types, or from Nyström features where there are none."""
        drawn: list[list[Features]] = []
        for kernel in self.kernels(theta, x.shape[-1]):
            try:
                drawn.append([*draw_terms(kernel, x.shape[-1], features // 2, generator, x)])
            except UnknownSpectrumError:
                drawn.append([NystromTerm.at(kernel, reference_points(x, features))])
        return FeatureDraws.draw(drawn, n, generator, x)

    def function(
        self, theta: Theta, prior: Any, x: Float[Tensor, "N D"], update: Float[Tensor, "E N n"], noise_var: Float[Tensor, "E"]
    ) -> Function:
        """Return the functions, whose kernels are GPyTorch's."""
        return FeaturePathFunction(self.kernels(theta, x.shape[-1]), prior, x, update, noise_var)

    def explain(
        self, error: NumericalError, theta: Theta, noise_var: Float[Tensor, "E"], x: Float[Tensor, "N D"]
    ) -> NumericalError:
        """Return an error that names duplicate rows or little noise."""
        return NumericalError(
            f"{error}. Smallest distance between two rows {closest_rows(x)}, smallest noise variance {float(noise_var.min()):.1e}. "
            "Remove duplicate rows, raise the noise variance, or constrain the kernel's parameters to sensible ranges"
        )

    def draw_warnings(self, theta: Theta, x: Float[Tensor, "N D"], features: int) -> tuple[str, ...]:
        """Return a sentence for each output whose draws come from Nyström features and lack prior variance."""
        found = []
        for output, kernel in enumerate(self.kernels(theta, x.shape[-1])):
            try:
                draw_terms(kernel, x.shape[-1], 1, torch.Generator(x.device).manual_seed(0), x)
            except UnknownSpectrumError as error:
                term = NystromTerm.at(kernel, reference_points(x, features))
                share = float(term.missing(spread_points(x, features, skip=features)).mean())
                found.append(
                    f"output {output}: {error}. Its draws are exact on {len(term.points)} reference points and lack {share:.1%} of "
                    "the prior variance on average over the region of the data, and more beyond it; predictions are exact"
                )
        return tuple(found)


@singledispatch
def family_of(kernel: object) -> Family:
    """Return what evaluates and trains a kernel; raises `ConfigurationError` for anything but a kernel of either kind."""
    raise ConfigurationError(
        f"ExactGP wants a kernel of bayesdyn.kernels, or GPyTorchKernel(factory) around a kernel of GPyTorch; got a "
        f"{type(kernel).__name__}"
    )


@family_of.register
def _(kernel: Kernel) -> Family:
    return StationaryFamily(kernel)


@family_of.register
def _(kernel: GPyTorchKernel) -> Family:
    return GPyTorchFamily(kernel)
