"""Draws of whole Gaussian process functions: random features for the prior plus an exact update on the data (Matheron's rule)."""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ShapeError
from bayesdyn.kernels import Kernel, KernelParameters
from bayesdyn.posteriors.base import Function

_CHUNK_BYTES = 64 * 2**20


class PriorDraws(NamedTuple):
    """n draws of the prior: f(x) = √(2s/M) Σ_m [cos(ω_mᵀx) w_m + sin(ω_mᵀx) w'_m] + √b·xᵀw''.

    `frequencies` ω [E, D, M/2] are shared by all draws; `weights` [E, M, n] hold √(2s/M)·w, then √(2s/M)·w'; `slope` [E, D, n] is
    √b·w''.
    """

    frequencies: Float[Tensor, "E D F"]
    weights: Float[Tensor, "E M n"]
    slope: Float[Tensor, "E D n"]

    def __call__(self, x: Float[Tensor, "*k N D"]) -> Float[Tensor, "E N n"]:
        """Evaluate every draw at inputs that all draws share, [N, D] or [E, N, D]."""
        phase = x @ self.frequencies
        features = torch.cat([phase.cos(), phase.sin()], -1)
        return torch.baddbmm(features @ self.weights, x.expand(self.slope.shape[0], -1, -1), self.slope)


def draw_prior(kernel: Kernel, parameters: KernelParameters, n: int, features: int, generator: torch.Generator) -> PriorDraws:
    """Draw n prior functions from `features` random features (Rahimi & Recht 2007); the linear part is exact.

    Frequencies are ω = t·z/ℓ with z ~ N(0, I_D) and one factor t per frequency, shared by all its dimensions, so that ω follows the
    spectral density of the kernel; pairs of cosine and sine make the prior variance exactly s.
    """
    outputs, inputs = parameters.lengthscale.shape
    half = features // 2
    dtype, device = parameters.lengthscale.dtype, parameters.lengthscale.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)

    z = normal(outputs, inputs, half)
    scale = kernel.spectral_scale(z[:, :1], generator)
    weights, slope = normal(outputs, 2 * half, n), normal(outputs, inputs, n)
    amplitude = (parameters.signal_var / half).sqrt()
    return PriorDraws(
        z * scale / parameters.lengthscale.unsqueeze(-1),
        weights * amplitude[:, None, None],
        slope * parameters.linear_var.sqrt()[:, None, None],
    )


class PathwiseFunction(Function):
    """n draws f(x) = prior(x) + k(x, Z) v of E Gaussian processes (Wilson et al. 2020, eq. 11), differentiable in x.

    Z are the data or the inducing inputs, [N, D] or [E, N, D], and v [E, N, n] the update: (K + σ²I)⁻¹(y - prior(Z) - ε) for an
    exact GP. The variance of a draw is the noise variance σ² [E]; the draw itself is noise-free.
    """

    def __init__(
        self,
        kernel: Kernel,
        parameters: KernelParameters,
        prior: PriorDraws,
        points: Float[Tensor, "*k N D"],
        update: Float[Tensor, "E N n"],
        noise_var: Float[Tensor, "E"],
    ) -> None:
        self.outputs, self.inputs = parameters.lengthscale.shape
        self.n = update.shape[-1]
        self._kernel = kernel
        centre = points.reshape(-1, self.inputs).mean(0)
        scaled = (points - centre) / parameters.lengthscale.unsqueeze(-2)
        inverse_square = parameters.lengthscale.square().reciprocal()
        # h = -½|z - z_j|² = [x - c, (x - c)², 1] · [z_j/ℓ; -½/ℓ²; -½|z_j|²]: one product for all pairs.
        rows = [
            (scaled / parameters.lengthscale.unsqueeze(-2)).mT,
            (-0.5 * inverse_square).unsqueeze(-1).expand(-1, -1, scaled.shape[-2]),
            -0.5 * scaled.square().sum(-1).unsqueeze(-2),
        ]
        phase = (centre @ prior.frequencies).unsqueeze(-1)
        half = prior.frequencies.shape[-1]
        cosine, sine = prior.weights[:, :half], prior.weights[:, half:]
        # cos(t) w + sin(t) w' = A cos(t - φ): half the transcendental functions when every draw has inputs of its own.
        shift = torch.atan2(sine, cosine) - phase
        linear = prior.slope + parameters.linear_var[:, None, None] * (points.mT @ update)
        self._tensors: tuple[Tensor, ...] = (
            centre,
            torch.cat(rows, -2).contiguous(),
            prior.frequencies,
            shift.permute(0, 2, 1).unsqueeze(-2).contiguous(),
            torch.hypot(cosine, sine).permute(0, 2, 1).contiguous(),
            (update * parameters.signal_var[:, None, None]).permute(0, 2, 1).contiguous(),
            linear.permute(2, 1, 0).contiguous(),
            noise_var.clone(),
        )

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x `[n or 1, ..., D]`.

        Raises `ShapeError` for another number of draws or features.
        """
        if x.dim() < 2 or x.shape[-1] != self.inputs or x.shape[0] not in (1, self.n):
            raise ShapeError(f"these {self.n} draws take x [{self.n} or 1, ..., {self.inputs}]; got {list(x.shape)}")
        centre = self._tensors[0]
        flat = x.to(centre.dtype).reshape(x.shape[0], -1, self.inputs)
        shift, update = self._tensors[3], self._tensors[5]
        row_bytes = centre.element_size() * self.n * self.outputs * (shift.shape[-1] + update.shape[-1])
        chunk = max(1, _CHUNK_BYTES // row_bytes)
        pieces = [self._evaluate(piece) for piece in flat.split(chunk, 1)] if flat.shape[1] > chunk else [self._evaluate(flat)]
        mean = (torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]).reshape(self.n, *x.shape[1:-1], self.outputs)
        return Gaussian(mean.to(x.dtype), self._tensors[-1].to(x.dtype).expand_as(mean))

    def _evaluate(self, x: Tensor) -> Tensor:
        centre, gram, frequencies, shift, amplitude, update, linear, _ = self._tensors
        k, rows, _ = x.shape
        x0 = x - centre
        shared = x0.reshape(1, k * rows, -1).expand(self.outputs, -1, -1)
        phase = torch.bmm(shared, frequencies).view(self.outputs, k, rows, -1) - shift
        prior = (phase.cos_() * amplitude.unsqueeze(-2)).sum(-1)
        lifted = torch.cat([x0, x0.square(), torch.ones_like(x0[..., :1])], -1)
        lifted = lifted.reshape(1, k * rows, -1).expand(self.outputs, -1, -1)
        h = torch.bmm(lifted, gram).view(self.outputs, k, rows, -1)
        correction = (self._kernel.correlation(h) * update.unsqueeze(-2)).sum(-1)
        return (prior + correction).permute(1, 2, 0) + x @ linear

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "PathwiseFunction":
        """Return the same draws in another precision or on another device."""
        moved = copy.copy(self)
        moved._tensors = tuple(t.to(dtype=dtype, device=device) for t in self._tensors)
        return moved
