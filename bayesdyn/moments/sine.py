"""Weighted sums of sines of linear phases, y = A sin(B x): the exact map behind trigonometric features and squashes."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesdyn.belief_arrays import ArrayMap, ArrayMoments, PullBack, Slopes
from bayesdyn.beliefs import Moments, check_belief
from bayesdyn.moments.points import PointMap
from bayesdyn.moments.waves import Array, Backend, Waves, backend, waves, waves_gradient


class Sine(PointMap):
    """The map y = A sin(B x) with phases B [n, D] and amplitudes A [E, n], both constants.

    With s = sin(p), p ~ N(Bμ, BΣBᵀ):   mean = A E s,   cov = A cov(s) Aᵀ,   gain = Bᵀ diag(E cos p) Aᵀ

    exactly. Differentiable once. Source: Deisenroth, Fox & Rasmussen, PAMI 2015,
    appendix.

    >>> half = Sine(torch.ones(1, 1), torch.tensor([[0.5]]))
    >>> half(torch.tensor([torch.pi / 2])).item()
    0.5
    >>> half.moments(torch.zeros(1), torch.zeros(1, 1)).gain.item()
    0.5
    """

    def __init__(self, phases: Float[Tensor, "n D"], amplitudes: Float[Tensor, "E n"]) -> None:
        self.phases, self.amplitudes = phases.detach(), amplitudes.detach()
        self._ready: dict[tuple[torch.dtype, torch.device], _Constants] = {}

    def __call__(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch E"]:
        """Return A sin(B x)."""
        return (x @ self.phases.to(x).mT).sin() @ self.amplitudes.to(x).mT

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the exact moments of y; raises `ShapeError` for a belief of another size."""
        check_belief(mean, cov, self.phases.shape[1], "a sum of sines")
        return Moments(*_Sine.apply(mean, cov, self._constants(mean.dtype, mean.device)))

    def on_arrays(self) -> ArrayMap | None:
        """Return the same on arrays."""
        return ArrayMap(self.forward)

    def forward(self, mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
        """Return the moments at arrays, and the way back."""
        constants = self._constants(torch.float64, _CPU)
        found, answer = _forward(constants, mean, cov)
        return ArrayMoments(*answer), lambda to: Slopes(*_backward(constants, found, *to))

    def _constants(self, dtype: torch.dtype, device: torch.device) -> "_Constants":
        kind = dtype, device
        if kind not in self._ready:
            self._ready[kind] = _constants(self, *kind)
        return self._ready[kind]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the constants behind: copies make their own."""
        return {**self.__dict__, "_ready": {}}


_CPU = torch.device("cpu")


class _Constants(NamedTuple):
    backend: Backend
    phases: Array  # [n, D]
    amplitudes: Array  # [E, n]
    identity: Array  # [n, n]


def _constants(sine: Sine, dtype: torch.dtype, device: torch.device) -> _Constants:
    tensors = [t.to(device, dtype) for t in (sine.phases, sine.amplitudes, torch.eye(len(sine.phases)))]
    chosen = backend(tensors[0])
    return _Constants(chosen, *(chosen.cut(t) for t in tensors))


def _forward(constants: _Constants, mean: Array, cov: Array) -> tuple[Waves, tuple[Array, Array, Array]]:
    (xp, *_), phases, amplitudes, _ = constants
    phase = mean @ phases.T
    found = waves(xp, xp.sin(phase), xp.cos(phase), phases @ cov @ phases.T)
    gain = (phases.T * found.slope[..., None, :]) @ amplitudes.T
    return found, (found.mean @ amplitudes.T, amplitudes @ found.cov @ amplitudes.T, gain)


def _backward(constants: _Constants, found: Waves, mean: Array, cov: Array, gain: Array) -> tuple[Array, Array]:
    _, phases, amplitudes, identity = constants
    slope = ((phases @ gain) * amplitudes.T).sum(-1)
    to_phase = waves_gradient(found, mean @ amplitudes, slope, amplitudes.T @ cov @ amplitudes, identity)
    return to_phase.mean @ phases, phases.T @ to_phase.cov @ phases


class _Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, cov: Tensor, constants: _Constants) -> tuple[Tensor, Tensor, Tensor]:
        _, _, cut, tensor = constants.backend
        ctx.found, answer = _forward(constants, cut(mean), cut(cov))
        ctx.constants = constants
        return tensor(answer[0]), tensor(answer[1]), tensor(answer[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean: Tensor, cov: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, None]:
        _, _, cut, tensor = ctx.constants.backend
        to_mean, to_cov = _backward(ctx.constants, ctx.found, cut(mean), cut(cov), cut(gain))
        return tensor(to_mean), tensor(to_cov), None
