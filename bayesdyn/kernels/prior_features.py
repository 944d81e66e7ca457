"""Random features for kernels of GPyTorch: finitely many functions φ with E φ(x)·φ(x') = k(x, x'), by kernel type and extendable.

A kernel is a sum of terms, each a product of affine feature maps (exact) and at most one set of random frequencies:

    k(x, x') = Σ_t Π_i a_ti(x)·a_ti(x') · E_ω cos(ω_tᵀ(x - x')),   a(x) = xᵀA + o

Sums add terms up; products multiply the affine maps and add frequencies, since E cos(ωᵀr) E cos(ω'ᵀr) = E cos((ω + ω')ᵀr) for
independent symmetric ω and ω'.
"""

import copy
import math
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Protocol, runtime_checkable

import gpytorch
import numpy as np
import torch
from gpytorch import kernels
from jaxtyping import Float, Int
from scipy.special import ive
from torch import Tensor

from bayesdyn.errors import BayesdynError
from bayesdyn.kernels.gpytorch_kernel import dense
from bayesdyn.linalg import jittered_cholesky, triangular_inverse

_MOST_AFFINE = 512


class UnknownSpectrumError(BayesdynError, LookupError):
    """No random features are registered for a kernel; `prior_terms.register(TheKernel)` adds them."""


@runtime_checkable
class Features(Protocol):
    """M functions φ of x."""

    def __call__(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """Return φ(x)."""

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Features":
        """Return the same functions computed in another dtype or on another device."""


@dataclass(frozen=True)
class Affine:
    """The feature map a(x) = xᵀA + o, with A [D, b] and o [b]."""

    matrix: Float[Tensor, "D b"]
    offset: Float[Tensor, "b"]


@dataclass(frozen=True)
class Term:
    """Features of one term: the outer product of its affine maps and of √(1/F)[cos ωᵀx, sin ωᵀx], ω [D, F]."""

    affine: tuple[Affine, ...]
    frequencies: Float[Tensor, "D F"] | None = None

    def __call__(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """Return φ(x)."""
        result = x.new_ones(len(x), 1)
        for part in self.affine:
            result = _outer(result, x @ part.matrix + part.offset)
        if self.frequencies is None:
            return result
        phase = x @ self.frequencies
        return _outer(result, torch.cat([phase.cos(), phase.sin()], -1) / math.sqrt(phase.shape[-1]))

    def times(self, other: "Term") -> "Term":
        """Return the term of the product kernel."""
        both = [f for f in (self.frequencies, other.frequencies) if f is not None]
        return Term(self.affine + other.affine, sum(both[1:], both[0]) if both else None)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Term":
        """Return the same functions computed in another dtype or on another device."""
        affine = tuple(Affine(*(t.to(dtype=dtype, device=device) for t in (a.matrix, a.offset))) for a in self.affine)
        return Term(affine, None if self.frequencies is None else self.frequencies.to(dtype=dtype, device=device))


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)


@dataclass(frozen=True)
class NystromTerm:
    """φ(x) = L⁻¹k(R, x), LLᵀ = k(R, R): exact between reference points R, and short of variance away from them."""

    kernel: gpytorch.kernels.Kernel
    points: Float[Tensor, "M D"]
    inverse_chol: Float[Tensor, "M M"]

    @classmethod
    def at(cls, kernel: gpytorch.kernels.Kernel, points: Float[Tensor, "M D"]) -> "NystromTerm":
        """Return the features of a kernel with these reference points."""
        factor, _ = jittered_cholesky(dense(kernel, points, points))
        return cls(kernel, points, triangular_inverse(factor))

    def __call__(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """Return φ(x)."""
        return (self.inverse_chol @ dense(self.kernel, self.points, x)).mT

    def missing(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        """Return the share of the prior variance k(x, x) that these features lack, 1 - |φ(x)|²/k(x, x)."""
        return (1 - self(x).square().sum(-1) / self.kernel(x, diag=True)).clamp_min(0.0)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "NystromTerm":
        """Return the same functions computed in another dtype or on another device."""
        return NystromTerm(
            copy.deepcopy(self.kernel).to(dtype=dtype, device=device),
            self.points.to(dtype=dtype, device=device),
            self.inverse_chol.to(dtype=dtype, device=device),
        )


@dataclass(frozen=True)
class Request:
    """What features are asked for: inputs D, the columns that the kernel sees, frequencies per term, and where they come from."""

    inputs: int
    columns: Int[Tensor, "d"]
    count: int
    generator: torch.Generator
    like: Tensor

    def normal(self, rows: int) -> Float[Tensor, "rows F"]:
        """Return standard normals."""
        shape = (rows, self.count)
        return torch.randn(shape, generator=self.generator, dtype=self.like.dtype, device=self.generator.device).to(self.like)

    def uniform(self, rows: int) -> Float[Tensor, "rows F"]:
        """Return uniform numbers from [0, 1), drawn in float64 whatever the dtype: they choose from many classes."""
        shape = (rows, self.count)
        return torch.rand(shape, generator=self.generator, dtype=torch.float64, device=self.generator.device).to(self.like.device)

    def sign(self, rows: int) -> Float[Tensor, "rows F"]:
        """Return fair signs."""
        return torch.where(self.uniform(rows) < 0.5, 1.0, -1.0).to(self.like)

    def gamma(self, shape: float) -> Float[Tensor, "1 F"]:
        """Return Gamma(shape, 1) variables. torch's own take no generator, so NumPy's are seeded by a number of this one."""
        seed = int(torch.randint(2**63 - 1, (), generator=self.generator, device=self.generator.device))
        return torch.as_tensor(np.random.default_rng(seed).standard_gamma(shape, (1, self.count))).to(self.like)

    def term(self, frequencies: Float[Tensor, "d F"]) -> Term:
        """Return the term of frequencies over the kernel's own columns."""
        full = self.like.new_zeros(self.inputs, frequencies.shape[-1])
        return Term((), full.index_add(0, self.columns, frequencies.to(self.like)))

    def affine(self, matrix: Float[Tensor, "d b"], offset: Float[Tensor, "b"]) -> Term:
        """Return the term of an affine map of the kernel's own columns."""
        full = self.like.new_zeros(self.inputs, matrix.shape[-1])
        return Term((Affine(full.index_add(0, self.columns, matrix.to(self.like)), offset.to(self.like)),))

    def per_column(self, values: Tensor) -> Float[Tensor, "d 1"]:
        """Return a parameter [1, d] or [1, 1] as one value per column."""
        return values.detach().reshape(-1, 1).expand(len(self.columns), 1)


def draw_terms(kernel: gpytorch.kernels.Kernel, inputs: int, count: int, generator: torch.Generator, like: Tensor) -> list[Term]:
    """Return terms whose features have the covariance of `kernel` on average, each with `count` frequencies, in `like`'s dtype.

    Raises `UnknownSpectrumError` if the kernel, or a part of it, has no registered features.
    """
    return _selected(kernel, Request(inputs, torch.arange(inputs, device=like.device), count, generator, like))


def _selected(kernel: gpytorch.kernels.Kernel, request: Request) -> list[Term]:
    if kernel.active_dims is not None:
        request = replace(request, columns=request.columns[kernel.active_dims])
    return _registered(kernel, request)


def _registered(kernel: gpytorch.kernels.Kernel, request: Request) -> list[Term]:
    # By the exact type: a subclass may compute something else.
    return prior_terms.registry.get(type(kernel), _unknown)(kernel, request)


@singledispatch
def prior_terms(kernel: gpytorch.kernels.Kernel, request: Request) -> list[Term]:
    """Return the terms of a kernel over `request.columns`; `@prior_terms.register` adds a kernel by its type, not its subclasses.

    >>> class Rough(kernels.MaternKernel): ...
    >>> @prior_terms.register
    ... def _(kernel: Rough, request: Request) -> list[Term]:
    ...     return [request.term(request.normal(len(request.columns)))]
    """
    return _unknown(kernel, request)


def _unknown(kernel: gpytorch.kernels.Kernel, request: Request) -> list[Term]:
    raise UnknownSpectrumError(
        f"no random features are registered for {type(kernel).__name__}; register them with prior_terms.register, or use a kernel "
        "made of RBF, Matern, RQ, Periodic, Cosine (of one input), SpectralMixture, Linear, Polynomial, Constant, sums and products"
    )


@prior_terms.register
def _rbf(kernel: kernels.RBFKernel, request: Request) -> list[Term]:
    return [request.term(request.normal(len(request.columns)) / request.per_column(kernel.lengthscale))]


@prior_terms.register
def _matern(kernel: kernels.MaternKernel, request: Request) -> list[Term]:
    # Student's t with 2ν degrees of freedom: one χ² per frequency, shared by its dimensions (Rasmussen & Williams 2006, eq. 4.15).
    freedom = round(2 * kernel.nu)
    scale = math.sqrt(freedom) * request.normal(freedom).square().sum(0).rsqrt() if freedom == 2 * kernel.nu else None
    if scale is None:
        raise UnknownSpectrumError(f"random features of a Matern kernel want ν of a half, 3/2 or 5/2; got {kernel.nu}")
    return [request.term(request.normal(len(request.columns)) * scale / request.per_column(kernel.lengthscale))]


@prior_terms.register
def _rational_quadratic(kernel: kernels.RQKernel, request: Request) -> list[Term]:
    # (1 + r²/2α)^-α = E exp(-½τr²), τ ~ Gamma(α, rate α) (Rasmussen & Williams 2006, eq. 4.20).
    alpha = kernel.alpha.item()
    scale = (request.gamma(alpha) / alpha).sqrt()
    return [request.term(request.normal(len(request.columns)) * scale / request.per_column(kernel.lengthscale))]


@prior_terms.register
def _periodic(kernel: kernels.PeriodicKernel, request: Request) -> list[Term]:
    # exp(-2 sin²(πr/p)/ℓ) = e^-κ exp(κ cos(2πr/p)) = Σ_j e^-κ I_|j|(κ) cos(2πjr/p), κ = 1/ℓ: integer multiples of 1/p, with these
    # weights as probabilities (Jacobi-Anger expansion).
    lengthscale, period = request.per_column(kernel.lengthscale), request.per_column(kernel.period_length)
    orders = []
    for ell, uniform in zip(lengthscale.double().flatten().tolist(), request.uniform(len(request.columns)), strict=True):
        most = math.ceil(12 + 12 * ell**-0.5)
        weight = torch.as_tensor(ive(np.abs(np.arange(-most, most + 1)), 1 / ell), device=uniform.device).cumsum(0)
        orders.append(torch.searchsorted(weight / weight[-1], uniform).clamp_max(2 * most) - most)
    return [request.term(2 * math.pi * torch.stack(orders).to(period) / period)]


@prior_terms.register
def _cosine(kernel: kernels.CosineKernel, request: Request) -> list[Term]:
    if len(request.columns) != 1:
        raise UnknownSpectrumError("the cosine of a distance is no covariance beyond one input; give CosineKernel one active_dims")
    return [request.term(math.pi * request.sign(1) / request.per_column(kernel.period_length))]


@prior_terms.register
def _spectral_mixture(kernel: kernels.SpectralMixtureKernel, request: Request) -> list[Term]:
    # A product over dimensions of Σ_q w_q exp(-2π²r²v_q²) cos(2πμ_q r): each dimension chooses its own q (Wilson & Adams 2013).
    weight, columns = kernel.mixture_weights.detach(), torch.arange(len(request.columns), device=request.like.device).unsqueeze(-1)
    chosen = torch.searchsorted((weight / weight.sum()).double().cumsum(0), request.uniform(len(request.columns)))
    chosen = chosen.clamp_max(len(weight) - 1)
    mean, scale = (t.detach().squeeze(-2)[chosen, columns] for t in (kernel.mixture_means, kernel.mixture_scales))
    ways = len(request.columns)
    term = request.term(2 * math.pi * (request.sign(ways) * mean + request.normal(ways) * scale))
    return [_constant(weight.sum() ** ways, request).times(term)]


@prior_terms.register
def _linear(kernel: kernels.LinearKernel, request: Request) -> list[Term]:
    size = len(request.columns)
    return [request.affine(torch.diag(request.per_column(kernel.variance.sqrt()).flatten()), request.like.new_zeros(size))]


@prior_terms.register
def _polynomial(kernel: kernels.PolynomialKernel, request: Request) -> list[Term]:
    size, power = len(request.columns) + 1, int(kernel.power)
    if power != kernel.power or size**power > _MOST_AFFINE:
        raise UnknownSpectrumError(f"a polynomial kernel of power {kernel.power} in {size - 1} inputs has too many features")
    base = request.affine(
        torch.eye(size - 1, size, dtype=request.like.dtype, device=request.like.device), _last(kernel.offset, size)
    )
    term = base
    for _ in range(power - 1):
        term = term.times(base)
    return [term]


def _last(offset: Tensor, size: int) -> Tensor:
    root = offset.detach().reshape(1).sqrt()
    return torch.cat([root.new_zeros(size - 1), root])


@prior_terms.register
def _constant_kernel(kernel: kernels.ConstantKernel, request: Request) -> list[Term]:
    return [_constant(kernel.constant.detach().reshape(()), request)]


@prior_terms.register
def _scale(kernel: kernels.ScaleKernel, request: Request) -> list[Term]:
    # GPyTorch selects active_dims of the base kernel once, here and not below.
    amplitude = _constant(kernel.outputscale.detach().reshape(()), request)
    return [amplitude.times(term) for term in _registered(kernel.base_kernel, request)]


@prior_terms.register
def _sum(kernel: kernels.AdditiveKernel, request: Request) -> list[Term]:
    return [term for part in kernel.kernels for term in _selected(part, request)]


@prior_terms.register
def _product(kernel: kernels.ProductKernel, request: Request) -> list[Term]:
    result = [Term(())]
    for part in kernel.kernels:
        result = [one.times(other) for one in result for other in _selected(part, request)]
    return result


def _constant(value: Float[Tensor, ""], request: Request) -> Term:
    return request.affine(request.like.new_zeros(len(request.columns), 1), value.sqrt().reshape(1))
