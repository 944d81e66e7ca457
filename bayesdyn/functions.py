"""`Function`: draws of θ, frozen; what a posterior samples and a planner calls."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, DataError, ShapeError


class Function(ABC):
    """n functions f_θ drawn from p(θ|D): frozen tensors, no modes, no hidden state.

    Calling it maps x `[n or 1, ..., D]` to a `Gaussian` of shape `[n, ..., E]`: the value of each draw and its noise variance.
    The same x gives the same answer, bit for bit, whatever happens to the posterior afterwards; row i depends on draw i only.
    Differentiable in x.
    """

    n: int
    inputs: int
    outputs: int

    @abstractmethod
    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x; raises `ShapeError` unless x is `[n or 1, ..., D]` (`check_inputs` does that)."""

    @abstractmethod
    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Function":
        """Return the same draws with their tensors cast or moved; the original is unchanged."""

    def for_many_rows(self) -> "Function":
        """Return the same draws in the form that answers many rows per draw fastest: these, unless a subclass knows better."""
        return self

    def with_precision(self, precision: torch.dtype) -> "Function":
        """Return the same draws, computed in `precision` where they can take it (the hidden layers of networks).

        Raises `ConfigurationError` where they cannot: most lose their meaning in half precision.
        """
        raise ConfigurationError(
            f"{type(self).__name__} cannot compute in {precision}; only networks can, and with torch.bfloat16; leave precision out"
        )

    def check_inputs(self, x: Tensor) -> None:
        """Raise `DataError` or `ShapeError` unless x is a tensor `[n or 1, ..., D]`.

        Broadcasting would accept other sizes and answer something else.
        """
        check_floating("x", x)
        if x.dim() < 2 or x.shape[0] not in (1, self.n) or x.shape[-1] != self.inputs:
            wanted = f"[{self.n} or 1, ..., {self.inputs}]"
            raise ShapeError(f"{self.n} draws of {self.inputs} features want x of shape {wanted}; got {list(x.shape)}")


def check_floating(name: str, values: Any) -> None:
    """Raise `DataError` for anything but a tensor of floating-point numbers.

    >>> check_floating("x", [1.0])
    Traceback (most recent call last):
    ...
    bayesdyn.errors.DataError: x wants to be a torch tensor; got a list; torch.as_tensor(...) makes one
    """
    if not isinstance(values, Tensor):
        raise DataError(f"{name} wants to be a torch tensor; got a {type(values).__name__}; torch.as_tensor(...) makes one")
    if not values.is_floating_point():
        raise DataError(f"{name} wants floating-point numbers; got {values.dtype}; convert it with .float() or .double()")
