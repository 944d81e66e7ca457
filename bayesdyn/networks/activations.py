"""The non-linearities a network can use, each with its derivative and the in-place form that inference uses."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bayesdyn.errors import UnknownNameError


@dataclass(frozen=True)
class Activation:
    """An elementwise function in three forms, and its derivative.

    `apply` returns a new tensor, `overwrite` works in place and needs no gradient, `slope` is the derivative at each element.
    `with_slope(h, spare)` returns both in the memory of h and of a spare tensor of its shape, for training without allocations.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    overwrite: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    with_slope: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, h: Tensor) -> Tensor:
        """Return the activation of h, which is overwritten when no gradient flows through it."""
        return self.apply(h) if h.requires_grad else self.overwrite(h)


def _silu_in_place(h: Tensor) -> Tensor:
    return functional.silu(h, inplace=True)


def _silu_slope(h: Tensor) -> Tensor:
    gate = h.sigmoid()
    return gate * (1 + h * (1 - gate))


def _silu_with_slope(h: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(h, out=spare)
    value = h.mul_(gate)
    # gate + value·(1 - gate)
    return value, torch.addcmul(gate, value, gate, value=-1, out=gate).add_(value)


def _tanh_slope(h: Tensor) -> Tensor:
    return 1 - h.tanh().square()


def _tanh_with_slope(h: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
    value = h.tanh_()
    return value, torch.mul(value, value, out=spare).neg_().add_(1)


def _relu_slope(h: Tensor) -> Tensor:
    return (h > 0).to(h.dtype)


def _relu_with_slope(h: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
    return h, torch.sign(h.relu_(), out=spare)


ACTIVATIONS: dict[str, Activation] = {
    "silu": Activation("silu", functional.silu, _silu_in_place, _silu_slope, _silu_with_slope),
    "tanh": Activation("tanh", torch.tanh, torch.tanh_, _tanh_slope, _tanh_with_slope),
    "relu": Activation("relu", torch.relu, torch.relu_, _relu_slope, _relu_with_slope),
}


def find_activation(name: str) -> Activation:
    """Return the activation called `name`; `UnknownNameError` lists the known names.

    >>> find_activation("relu").apply(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError(f"no activation is called {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
