"""Weighted sums of sines of linear phases, y = A sin(B x): the exact map behind trigonometric features and squashes."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesdyn.beliefs import Moments, check_belief
from bayesdyn.moments.points import PointMap
from bayesdyn.moments.waves import Array, Backend, backend, waves, waves_gradient


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
        kind = mean.dtype, mean.device
        if kind not in self._ready:
            self._ready[kind] = _constants(self, *kind)
        return Moments(*_Sine.apply(mean, cov, self._ready[kind]))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the constants behind: copies make their own."""
        return {**self.__dict__, "_ready": {}}


class _Constants(NamedTuple):
    backend: Backend
    phases: Array  # [n, D]
    amplitudes: Array  # [E, n]
    identity: Array  # [n, n]


def _constants(sine: Sine, dtype: torch.dtype, device: torch.device) -> _Constants:
    tensors = [t.to(device, dtype) for t in (sine.phases, sine.amplitudes, torch.eye(len(sine.phases)))]
    chosen = backend(tensors[0])
    return _Constants(chosen, *(chosen.cut(t) for t in tensors))


class _Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, cov: Tensor, constants: _Constants) -> tuple[Tensor, Tensor, Tensor]:
        (xp, _, cut, tensor), phases, amplitudes, _ = constants
        phase = cut(mean) @ phases.T
        found = waves(xp, xp.sin(phase), xp.cos(phase), phases @ cut(cov) @ phases.T)
        ctx.found, ctx.constants = found, constants
        joint, gain = amplitudes @ found.cov @ amplitudes.T, (phases.T * found.slope[..., None, :]) @ amplitudes.T
        return tensor(found.mean @ amplitudes.T), tensor(joint), tensor(gain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean: Tensor, cov: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, None]:
        (_, _, cut, tensor), phases, amplitudes, identity = ctx.constants
        slope = ((phases @ cut(gain)) * amplitudes.T).sum(-1)
        to_phase = waves_gradient(ctx.found, cut(mean) @ amplitudes, slope, amplitudes.T @ cut(cov) @ amplitudes, identity)
        return tensor(to_phase.mean @ phases), tensor(phases.T @ to_phase.cov @ phases), None
