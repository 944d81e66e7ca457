"""Moment maps on NumPy arrays with a reverse mode of their own: for long chains of few numbers, where torch's costs the most."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError


class ArrayMoments(NamedTuple):
    """`Moments` of B beliefs, or the gradient of a number with respect to each of the three."""

    mean: np.ndarray  # [B, E]
    cov: np.ndarray  # [B, E, E]
    gain: np.ndarray  # [B, D, E]


class Slopes(NamedTuple):
    """The gradient of a number with respect to the belief that a map was given, and to the map's parameters."""

    mean: np.ndarray  # [B, D]
    cov: np.ndarray  # [B, D, D]
    parameters: tuple[np.ndarray, ...] = ()


PullBack = Callable[[ArrayMoments], Slopes]
"""From the gradient with respect to what a map answered to that with respect to what it was given."""

Forward = Callable[[np.ndarray, np.ndarray, bool], tuple[ArrayMoments, PullBack]]
"""From beliefs [B, D], [B, D, D], and whether there will be a pull-back, to the moments and that: it may be called only if so."""


class ArrayMap(NamedTuple):
    """A moment map on arrays, and the tensors that it can be differentiated in, in the order of `Slopes.parameters`."""

    forward: Forward
    parameters: tuple[Tensor, ...] = ()

    def then(self, after: "ArrayMap") -> "ArrayMap":
        """Return the map z = after(self(x)), whose gain is the product of the gains."""

        def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
            between, back = self.forward(mean, cov, gradient)
            last, back_after = after.forward(between.mean, between.cov, gradient)

            def pull_back(to: ArrayMoments) -> Slopes:
                second = back_after(ArrayMoments(to.mean, to.cov, between.gain.swapaxes(-1, -2) @ to.gain))
                first = back(ArrayMoments(second.mean, second.cov, to.gain @ last.gain.swapaxes(-1, -2)))
                return Slopes(first.mean, first.cov, first.parameters + second.parameters)

            return ArrayMoments(last.mean, last.cov, between.gain @ last.gain), pull_back

        return ArrayMap(forward, self.parameters + after.parameters)

    def at(self, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, covariance and gain at tensors [B, D], [B, D, D] as one operation of torch, differentiable once."""
        mean, cov, gain = ArrayFunction.apply(self.forward, mean, cov, *self.parameters)
        return mean, cov, gain


class ArrayFunction(torch.autograd.Function):
    """Arrays (mean, cov, ...) -> (arrays, pull-back) as an operation of torch; once differentiable."""

    @staticmethod
    def forward(ctx: Any, forward: Callable[..., Any], mean: Tensor, cov: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        """Return what `forward` does."""
        with np.errstate(all="ignore"):
            found, ctx.pull_back = forward(mean.detach().numpy(), cov.detach().numpy(), any(ctx.needs_input_grad))
            ctx.kind = type(found)
        return tuple(torch.from_numpy(part if part.flags.writeable else part.copy()) for part in found)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients to mean, covariance and parameters."""
        check_first_derivative()
        with np.errstate(all="ignore"):
            found = ctx.pull_back(ctx.kind(*(part.numpy() for part in outer)))
        return None, *(torch.from_numpy(part) for part in (found.mean, found.cov, *found.parameters))


def fit_for_arrays(*tensors: Tensor) -> bool:
    """Return whether all tensors are float64 and on the CPU.

    >>> fit_for_arrays(torch.zeros(1))
    False
    """
    return all(tensor.dtype == torch.float64 and tensor.device.type == "cpu" for tensor in tensors)


def check_first_derivative() -> None:
    """Raise `ConfigurationError` inside a backward pass that is itself to be differentiated: the answer would lack terms."""
    if torch.is_grad_enabled():
        raise ConfigurationError(
            "moments in closed form are differentiable once; for second derivatives take GPMoments.taped() or taped_rbf_moments"
        )
