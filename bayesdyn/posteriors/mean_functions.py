"""`mean_function`: E f_θ(x) of a fitted posterior as a frozen, differentiable function, as cheap as its kind allows."""

import copy
from abc import ABC, abstractmethod
from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.gaussian_processes.pathwise import PathwiseFunction, PriorDraws
from bayesdyn.kernels import Kernel, KernelParameters
from bayesdyn.numerics import snapshot
from bayesdyn.posteriors.base import PREDICTIVE_DRAWS, Posterior
from bayesdyn.posteriors.dropout import DropoutPosterior
from bayesdyn.posteriors.ensemble import BootstrapEnsemble
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.laplace import Laplace
from bayesdyn.posteriors.mean_field import MeanField
from bayesdyn.posteriors.sghmc import SGHMC
from bayesdyn.posteriors.sparse_gp import SparseGP
from bayesdyn.posteriors.swag import SWAG


class MeanFunction(ABC):
    """E_θ f_θ(x) of one fit: the mean of what the posterior predicts, frozen, in the dtype of x."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch2 E"]:
        """Return the mean at x [..., D], [..., E]."""

    @abstractmethod
    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "MeanFunction":
        """Return the same function cast or moved; the original is unchanged."""


class MeanOfDraws(MeanFunction):
    """(1/m) Σ_i f_i(x) over the m draws of a `Function`.

    >>> from bayesdyn.networks import Homoscedastic
    >>> from bayesdyn.networks.function import NetworkFunction
    >>> two = NetworkFunction([torch.tensor([[[1.0]], [[3.0]]])], [torch.zeros(2, 1, 1)], Homoscedastic(), torch.zeros(1, 1, 1))
    >>> MeanOfDraws(two)(torch.ones(1)).item()
    2.0
    """

    def __init__(self, function: Function) -> None:
        self.function = function

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch2 E"]:
        """Return the mean at x [..., D], [..., E]."""
        return self.function(x.unsqueeze(0)).mean.mean(0)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "MeanOfDraws":
        """Return the mean of the same draws cast or moved."""
        return MeanOfDraws(self.function.to(dtype=dtype, device=device))


class PredictedMean(MeanFunction):
    """The mean that `predict` says: right for every posterior, and as slow as a prediction with its variances."""

    def __init__(self, posterior: Posterior) -> None:
        self.posterior, self.dtype = posterior, posterior.dtype

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch2 E"]:
        """Return the mean at x [..., D], [..., E]."""
        return self.posterior.predict(x.to(self.dtype)).mean.to(x.dtype)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "PredictedMean":
        """Return the same on a device, computing in `dtype` or in the posterior's own where that is wider.

        A factorisation made in float64 may be worth nothing in float32, and what a float32 posterior keeps in float64 stays so.
        """
        moved = copy.deepcopy(self.posterior).to(device=device)
        wider = torch.promote_types(self.dtype, dtype or self.dtype)
        return PredictedMean(moved if wider == self.dtype else moved.to(dtype=wider))


@singledispatch
def mean_function(posterior: Posterior) -> MeanFunction:
    """Return E f_θ(x) of the posterior as fitted now; a later fit leaves it as it is.

    It equals the mean of `predict`. Gaussian processes and networks have faster ways than `predict`, registered here.

    >>> x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    >>> gp = ExactGP()
    >>> report = gp.fit(x, x.sin())
    >>> bool((mean_function(gp)(x) - gp.predict(x).mean).abs().max() < 1e-12)
    True
    """
    return PredictedMean(snapshot(posterior))


@mean_function.register
def _(posterior: ExactGP) -> MeanFunction:
    try:
        parameters = posterior.kernel_parameters
    except ConfigurationError:  # a kernel of GPyTorch, whose mean only `predict` knows
        return PredictedMean(snapshot(posterior))
    return _kernel_mean(posterior.kernel, parameters, posterior.x, posterior.alpha, posterior.noise_var)


@mean_function.register
def _(posterior: SparseGP) -> MeanFunction:
    parameters, points = posterior.kernel_parameters, posterior.inducing_points
    return _kernel_mean(posterior.kernel, parameters, points, posterior.weights, posterior.noise_var)


@mean_function.register
def _(posterior: BootstrapEnsemble) -> MeanFunction:
    return MeanOfDraws(posterior.network.function(posterior.parameters_of_members))


@mean_function.register
def _(posterior: Laplace) -> MeanFunction:
    return MeanOfDraws(posterior.network.function(posterior.mode))


@mean_function.register
def _(posterior: SGHMC) -> MeanFunction:
    return MeanOfDraws(posterior.network.function(posterior.draws))


@mean_function.register(MeanField)
@mean_function.register(DropoutPosterior)
@mean_function.register(SWAG)
def _(posterior: Posterior) -> MeanFunction:
    # The very draws of `Posterior.predict`, drawn once instead of at every call.
    return MeanOfDraws(posterior.sample(PREDICTIVE_DRAWS, torch.Generator().manual_seed(0)))


def _kernel_mean(kernel: object, parameters: KernelParameters, points: Tensor, update: Tensor, noise_var: Tensor) -> MeanFunction:
    """Return k(x, Z)β of each output: a path without its prior."""
    if not isinstance(kernel, Kernel):
        raise ConfigurationError(f"a mean of kernels wants one of bayesdyn's own; got {type(kernel).__name__}")
    dtype = points.dtype
    parameters = KernelParameters(*(part.to(dtype) for part in parameters))
    outputs, inputs = parameters.lengthscale.shape
    none = points.new_zeros(outputs, 2, 1)
    nothing = PriorDraws(points.new_zeros(outputs, inputs, 1), none, points.new_zeros(outputs, inputs, 1))
    path = PathwiseFunction(kernel, parameters, nothing, points, update.to(dtype).unsqueeze(-1), noise_var.to(dtype))
    return MeanOfDraws(path)
