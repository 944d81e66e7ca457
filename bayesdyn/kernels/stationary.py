"""Covariance functions k(x, x') = s·κ(r) + b·xᵀx', r² = Σ_d (x_d - x'_d)²/ℓ_d²: values, slopes and spectral densities.

Every kernel is stated through q = -½r² log₂e, the base-2 logarithm of the RBF: q for all pairs is one matrix product, the RBF is
2^q, and powers of two are twice as fast as exponentials.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import gpytorch
import torch
from jaxtyping import Float
from torch import Tensor

LOG2_E = math.log2(math.e)
# Keeps the square root of a zero distance differentiable; 1e-15 in r is far below what float64 resolves in κ.
_TINY = 1e-30


class KernelParameters(NamedTuple):
    """Parameters of E independent kernels in units of x and y: ℓ [E, D], s [E], and b [E] (zeros without a linear part)."""

    lengthscale: Float[Tensor, "E D"]
    signal_var: Float[Tensor, "E"]
    linear_var: Float[Tensor, "E"]


class Kernel(ABC):
    """The shape κ of a stationary kernel, κ(0) = 1, and whether a linear part b·xᵀx' is added to it."""

    linear: ClassVar[bool]

    @abstractmethod
    def correlation(self, q: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return κ at q = -½r² log₂e <= 0; the memory of q may be reused for the result."""

    @abstractmethod
    def correlation_and_slope(self, q: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return κ and dκ/d(-½r²) at q = -½r² log₂e <= 0; both may share memory, with q and with each other."""

    @abstractmethod
    def spectral_scale(self, like: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """Return factors t, shaped as `like`, such that t·z with z ~ N(0, I_D) follows the spectral density of κ at ℓ = 1."""

    @abstractmethod
    def gpytorch_kernel(self, inputs: int, outputs: int) -> gpytorch.kernels.Kernel:
        """Return κ as a GPyTorch kernel with one length-scale per input and batch shape [outputs]."""


@dataclass(frozen=True)
class RBF(Kernel):
    """κ = exp(-½r²): smooth functions (Rasmussen & Williams 2006, eq. 4.9).

    >>> RBF().correlation(torch.tensor([0.0])).item()
    1.0
    """

    linear = False

    def correlation(self, q: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 2^q, in place."""
        return q.exp2_()

    def correlation_and_slope(self, q: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return 2^q, twice: the exponential is its own derivative."""
        correlation = q.exp2_()
        return correlation, correlation

    def spectral_scale(self, like: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """Return ones: the spectral density is standard normal."""
        return torch.ones_like(like)

    def gpytorch_kernel(self, inputs: int, outputs: int) -> gpytorch.kernels.Kernel:
        """Return GPyTorch's `RBFKernel`."""
        return gpytorch.kernels.RBFKernel(ard_num_dims=inputs, batch_shape=torch.Size([outputs]))


@dataclass(frozen=True)
class RBFLinear(Kernel):
    """κ = exp(-½r²) with a linear part b·xᵀx': a linear trend and smooth deviations from it, as in data with lagged inputs.

    >>> RBFLinear().linear
    True
    """

    linear = True

    def correlation(self, q: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 2^q, in place."""
        return q.exp2_()

    def correlation_and_slope(self, q: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return 2^q, twice: the exponential is its own derivative."""
        correlation = q.exp2_()
        return correlation, correlation

    def spectral_scale(self, like: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """Return ones: the spectral density is standard normal."""
        return torch.ones_like(like)

    def gpytorch_kernel(self, inputs: int, outputs: int) -> gpytorch.kernels.Kernel:
        """Return GPyTorch's `RBFKernel`, the stationary part."""
        return gpytorch.kernels.RBFKernel(ard_num_dims=inputs, batch_shape=torch.Size([outputs]))


@dataclass(frozen=True)
class Matern32(Kernel):
    """κ = (1 + √3 r) exp(-√3 r): once differentiable functions (Rasmussen & Williams 2006, eq. 4.17).

    >>> Matern32().correlation(torch.tensor([0.0])).item()
    1.0
    """

    linear = False

    def correlation(self, q: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return (1 + √3 r) exp(-√3 r)."""
        scaled = _scaled_distance(q, 3.0)
        return (1 + scaled) * torch.exp(-scaled)

    def correlation_and_slope(self, q: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return (1 + √3 r) exp(-√3 r) and 3 exp(-√3 r)."""
        scaled = _scaled_distance(q, 3.0)
        decay = torch.exp(-scaled)
        return (1 + scaled) * decay, 3 * decay

    def spectral_scale(self, like: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """Return √(3/u), u ~ χ²(3): the spectral density is Student's t with 3 degrees of freedom."""
        return _student_scale(3, like, generator)

    def gpytorch_kernel(self, inputs: int, outputs: int) -> gpytorch.kernels.Kernel:
        """Return GPyTorch's `MaternKernel` with ν = 3/2."""
        return gpytorch.kernels.MaternKernel(nu=1.5, ard_num_dims=inputs, batch_shape=torch.Size([outputs]))


@dataclass(frozen=True)
class Matern52(Kernel):
    """κ = (1 + √5 r + 5r²/3) exp(-√5 r): twice differentiable functions (Rasmussen & Williams 2006, eq. 4.17).

    >>> Matern52().correlation(torch.tensor([0.0])).item()
    1.0
    """

    linear = False

    def correlation(self, q: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return (1 + √5 r + 5r²/3) exp(-√5 r)."""
        scaled = _scaled_distance(q, 5.0)
        return (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)

    def correlation_and_slope(self, q: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return (1 + √5 r + 5r²/3) exp(-√5 r) and (5/3)(1 + √5 r) exp(-√5 r)."""
        scaled = _scaled_distance(q, 5.0)
        decay = torch.exp(-scaled)
        return (1 + scaled + scaled.square() / 3) * decay, (5 / 3) * (1 + scaled) * decay

    def spectral_scale(self, like: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """Return √(5/u), u ~ χ²(5): the spectral density is Student's t with 5 degrees of freedom."""
        return _student_scale(5, like, generator)

    def gpytorch_kernel(self, inputs: int, outputs: int) -> gpytorch.kernels.Kernel:
        """Return GPyTorch's `MaternKernel` with ν = 5/2."""
        return gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=inputs, batch_shape=torch.Size([outputs]))


def _scaled_distance(q: Tensor, factor: float) -> Tensor:
    # √factor · r with r² = -2q/log₂e.
    return (q * (-2 * factor / LOG2_E)).clamp_min(_TINY).sqrt()


def _student_scale(freedom: int, like: Tensor, generator: torch.Generator) -> Tensor:
    shape = (*like.shape, freedom)
    chi_squared = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device).square().sum(-1)
    return math.sqrt(freedom) * chi_squared.rsqrt()


def rbf_exponent(
    x1: Float[Tensor, "*k N D"], x2: Float[Tensor, "*l M D"], lengthscale: Float[Tensor, "E D"]
) -> Float[Tensor, "E N M"]:
    """Return q = -½ log₂e Σ_d (x1_d - x2_d)²/ℓ_d² <= 0 for all pairs and outputs; inputs are [N, D] or, one set each, [E, N, D].

    Inputs are centred on x1 first, since a common offset costs digits in the expanded square. So x1 are the points that a model
    keeps, and a column of the result depends on its own row of x2 alone, whatever the others hold.
    """
    centre = x1.mean(-2, keepdim=True)
    scale = lengthscale.unsqueeze(-2) / math.sqrt(LOG2_E)
    z1, z2 = (x1 - centre) / scale, (x2 - centre) / scale
    # [z1, 1, -½|z1|²]·[z2, -½|z2|², 1]: the squares ride along in the product, which saves a pass over all pairs.
    half1, half2 = (-0.5 * z.square().sum(-1, keepdim=True) for z in (z1, z2))
    left = torch.cat([z1, torch.ones_like(half1), half1], -1)
    right = torch.cat([z2, half2, torch.ones_like(half2)], -1)
    return torch.bmm(left, right.mT).clamp_max_(0.0)


def covariance(
    kernel: Kernel, parameters: KernelParameters, x1: Float[Tensor, "*k N D"], x2: Float[Tensor, "*l M D"]
) -> Float[Tensor, "E N M"]:
    """Return k(x1, x2) of every output; inputs are [N, D], or [E, N, D] for one set per output.

    >>> parameters = KernelParameters(torch.ones(1, 1), torch.tensor([2.0]), torch.zeros(1))
    >>> covariance(RBF(), parameters, torch.zeros(1, 1), torch.tensor([[0.0], [1.0]]))
    tensor([[[2.0000, 1.2131]]])
    """
    result = kernel.correlation(rbf_exponent(x1, x2, parameters.lengthscale)) * parameters.signal_var[:, None, None]
    if kernel.linear:
        result = result + parameters.linear_var[:, None, None] * (x1 @ x2.mT)
    return result


def prior_variance(parameters: KernelParameters, x: Float[Tensor, "*k N D"]) -> Float[Tensor, "E N"]:
    """Return k(x, x) = s + b·|x|² of every output, [E, N]."""
    return parameters.signal_var[:, None] + parameters.linear_var[:, None] * x.square().sum(-1)
