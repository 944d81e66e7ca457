"""`GPyTorchKernel`: any kernel that GPyTorch can state, with its own parameters, priors and constraints."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import gpytorch
import torch
from jaxtyping import Float
from linear_operator import to_dense
from torch import Tensor

from bayesdyn.errors import ConfigurationError

# A softplus or sigmoid is flat below -20; above 1e4 nothing is gained and squares overflow sooner.
_LOWEST, _HIGHEST = -20.0, 1e4


@dataclass(frozen=True)
class GPyTorchKernel:
    """A kernel of GPyTorch for each output: `factory(D)` returns a new one for D inputs and one output, without a batch shape.

    The values that the factory sets are where a fit starts. They decide what is found where there are many optima: a period wants
    to be right to a few percent when the data span several. Priors of the kernel enter the objective, its constraints hold, and
    parameters with `requires_grad=False` stay as they are. Fitted kernels are kept as raw parameters, one row per output.

    Raises `ConfigurationError` for a kernel instead of a factory, and when the factory returns something else or a kernel with a
    batch shape.

    >>> kernels = gpytorch.kernels
    >>> kernel = GPyTorchKernel(lambda inputs: kernels.ScaleKernel(kernels.RQKernel(ard_num_dims=inputs)))
    >>> kernel.initial(inputs=3, outputs=2).shape
    torch.Size([2, 5])
    """

    factory: Callable[[int], gpytorch.kernels.Kernel]

    def __post_init__(self) -> None:
        # A kernel can be called too, with inputs, and would fail far from here.
        if isinstance(self.factory, gpytorch.kernels.Kernel) or not callable(self.factory):
            raise ConfigurationError(
                f"GPyTorchKernel takes a function that makes a kernel; got a {type(self.factory).__name__}. Pass a factory such as "
                "lambda inputs: RBFKernel(ard_num_dims=inputs)"
            )

    def build(self, inputs: int) -> gpytorch.kernels.Kernel:
        """Return a new kernel for D inputs in float64, with the values that the factory sets."""
        kernel = self.factory(inputs)
        if not isinstance(kernel, gpytorch.kernels.Kernel):
            raise ConfigurationError(f"the factory of a GPyTorchKernel returns a gpytorch Kernel; got {type(kernel).__name__}")
        if len(kernel.batch_shape) > 0:
            raise ConfigurationError(
                f"the factory of a GPyTorchKernel is called once per output and returns a kernel without a batch shape; got "
                f"batch_shape {list(kernel.batch_shape)}; leave batch_shape out"
            )
        return kernel.double()

    def initial(self, inputs: int, outputs: int) -> Float[Tensor, "E P"]:
        """Return the raw parameters that the factory sets, the same for every output."""
        return raw_values(self.build(inputs)).expand(outputs, -1).clone()

    def restore(self, raw: Float[Tensor, "E P"], inputs: int) -> list[gpytorch.kernels.Kernel]:
        """Return the kernels with these raw parameters, one per output, frozen, in the dtype and on the device of `raw`.

        Raises `ConfigurationError` if the factory makes kernels with another number of parameters.
        """
        kernels = []
        for row in raw.detach():
            kernel = self.build(inputs)
            count = sum(p.numel() for p in kernel.parameters())
            if count != len(row):
                raise ConfigurationError(
                    f"the factory makes kernels of {count} parameters, the stored ones have {len(row)}; use the factory of the fit"
                )
            kernel = kernel.to(raw)
            write_raw_values(kernel, row)
            kernels.append(kernel.requires_grad_(False))
        return kernels


def raw_values(kernel: gpytorch.kernels.Kernel) -> Float[Tensor, "P"]:
    """Return all raw parameters of a kernel as one vector, [0] for a kernel without any."""
    parts = [p.detach().flatten() for p in kernel.parameters()]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def write_raw_values(kernel: gpytorch.kernels.Kernel, values: Float[Tensor, "P"]) -> None:
    """Set all raw parameters of a kernel from one vector, by copying."""
    place = 0
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.copy_(values[place : place + parameter.numel()].view_as(parameter))
            place += parameter.numel()


def raw_bounds(kernel: gpytorch.kernels.Kernel) -> list[tuple[float, float]]:
    """Return the interval of every trainable raw number: that of the constraint itself where its transform does not enforce it."""
    bounds: list[tuple[float, float]] = []
    for _, parameter, constraint in kernel.named_parameters_and_constraints():
        if not parameter.requires_grad:
            continue
        if constraint is None:
            bounds += [(-math.inf, math.inf)] * parameter.numel()
        elif constraint.enforced:
            bounds += [(_LOWEST, _HIGHEST)] * parameter.numel()
        else:
            lower, upper = (b.expand_as(parameter).flatten().tolist() for b in (constraint.lower_bound, constraint.upper_bound))
            bounds += list(zip(lower, upper, strict=True))
    return bounds


def negative_log_prior(kernel: gpytorch.kernels.Kernel) -> Float[Tensor, ""]:
    """Return -Σ log p over the priors that the kernel carries, in nats; 0 without priors."""
    total = torch.zeros((), dtype=torch.float64)
    for _, owner, prior, closure, _ in kernel.named_priors():
        total = total - prior.log_prob(closure(owner)).sum()
    return total


def at_bound(kernel: gpytorch.kernels.Kernel) -> list[str]:
    """Name the trainable parameters at a finite bound, to within 1 % of the interval or, with one bound only, of that bound."""
    found = []
    for name, parameter, constraint in kernel.named_parameters_and_constraints():
        if constraint is None or not parameter.requires_grad:
            continue
        value, lower, upper = constraint.transform(parameter).detach(), constraint.lower_bound, constraint.upper_bound
        width = upper - lower
        near = 0.01 * torch.where(width.isfinite(), width, torch.where(lower.isfinite(), lower.abs(), upper.abs()))
        for side, hit, bound in (("lower", value <= lower + near, lower), ("upper", value >= upper - near, upper)):
            if bool((hit & bound.isfinite() & (bound != 0)).any()):
                found.append(
                    f"{name.replace('raw_', '')} = {float(bound.max() if side == 'upper' else bound.min()):g} ({side} bound)"
                )
    return found


def dense(kernel: gpytorch.kernels.Kernel, x1: Float[Tensor, "N D"], x2: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """Return k(x1, x2) as a plain tensor; GPyTorch centres on x1, so that x1 are the points that a model keeps, x2 its queries."""
    if kernel.active_dims is not None:
        x1, x2 = (x.index_select(-1, kernel.active_dims) for x in (x1, x2))
    return _dense.registry.get(type(kernel), _lazily)(kernel, x1, x2)


def _lazily(kernel: gpytorch.kernels.Kernel, x1: Tensor, x2: Tensor) -> Tensor:
    # The selection of columns has taken place, so the kernel's own call, which would select again, is passed over.
    return to_dense(kernel.forward(x1, x2)).expand(len(x1), len(x2))


@singledispatch
def _dense(kernel: gpytorch.kernels.Kernel, x1: Tensor, x2: Tensor) -> Tensor:
    # Sums, products and scales are worked out here: GPyTorch's lazy sums would factorise a part whenever another has low rank.
    return _lazily(kernel, x1, x2)


@_dense.register
def _(kernel: gpytorch.kernels.AdditiveKernel, x1: Tensor, x2: Tensor) -> Tensor:
    return sum((dense(part, x1, x2) for part in kernel.kernels[1:]), dense(kernel.kernels[0], x1, x2))


@_dense.register
def _(kernel: gpytorch.kernels.ProductKernel, x1: Tensor, x2: Tensor) -> Tensor:
    return math.prod((dense(part, x1, x2) for part in kernel.kernels[1:]), start=dense(kernel.kernels[0], x1, x2))


@_dense.register
def _(kernel: gpytorch.kernels.ScaleKernel, x1: Tensor, x2: Tensor) -> Tensor:
    # It has taken over the active_dims of the kernel that it scales.
    base = kernel.base_kernel
    return kernel.outputscale * _dense.registry.get(type(base), _lazily)(base, x1, x2)


def stacked(kernels: list[gpytorch.kernels.Kernel], x1: Float[Tensor, "N D"], x2: Float[Tensor, "M D"]) -> Float[Tensor, "E N M"]:
    """Return k_e(x1, x2) of every output's kernel."""
    return torch.stack([dense(kernel, x1, x2) for kernel in kernels])


def stacked_diagonal(kernels: list[gpytorch.kernels.Kernel], x: Float[Tensor, "N D"]) -> Float[Tensor, "E N"]:
    """Return k_e(x, x) of every output's kernel, NaN for rows that are not finite."""
    # GPyTorch centres on the mean of all rows, and one that is not finite would spoil it.
    finite = x.isfinite().all(-1)
    kept = torch.where(finite.unsqueeze(-1), x, torch.zeros_like(x))
    diagonal = torch.stack([kernel(kept, diag=True).expand(len(x)) for kernel in kernels])
    return torch.where(finite, diagonal, torch.full_like(diagonal, torch.nan))
