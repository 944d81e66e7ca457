"""Draws of whole Gaussian process functions: random features for the prior plus an exact update on the data (Matheron's rule)."""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ShapeError
from bayesdyn.functions import Function
from bayesdyn.kernels import LOG2_E, Kernel, KernelParameters

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


class _Tensors(NamedTuple):
    """What a pathwise function keeps, E·n leading where draws differ."""

    centre: Tensor  # [D]
    inverse_square: Tensor  # [D, E], -½ log₂e/ℓ²
    gram: Tensor  # [E, D + 2, N]
    frequencies: Tensor  # [E, D, F]
    weights: Tensor  # [E, 2F + N, n]
    shifted: Tensor  # [E n, D + 1, F]
    amplitude: Tensor  # [E n, 1, F]
    update: Tensor  # [E n, 1, N]
    slope: Tensor  # [n, D, E]
    noise_var: Tensor  # [E]


class PathwiseFunction(Function):
    """n draws f(x) = prior(x) + k(x, Z) v of E Gaussian processes (Wilson et al. 2020, eq. 11), differentiable in x.

    Z are the data or the inducing inputs, [N, D] or [E, N, D], and v [E, N, n] the update: (K + σ²I)⁻¹(y - prior(Z) - ε) for an
    exact GP. The variance of a draw is the noise variance σ² [E]; the draw itself is noise-free.

    Inputs that all draws share (x of leading size 1) are evaluated once, cosines, sines and kernel together in one product with all
    draws' weights. When every draw has inputs of its own, cos(t) w + sin(t) w' = A cos(t - φ) saves half of the features.
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
        scale = parameters.lengthscale / LOG2_E**0.5
        scaled = (points - centre) / scale.unsqueeze(-2)
        # q = -½|z - z_j|² = [x - c, 1, -½|z|²] · [z_j/ℓ; -½|z_j|²; 1]: one product for all pairs.
        half_square = -0.5 * scaled.square().sum(-1).unsqueeze(-2)
        gram = torch.cat([(scaled / scale.unsqueeze(-2)).mT, half_square, torch.ones_like(half_square)], -2)
        half = prior.frequencies.shape[-1]
        phase = centre @ prior.frequencies
        cosine, sine = prior.weights[:, :half], prior.weights[:, half:]
        # Inputs are centred, so the weights absorb the phase of the centre: t = ω·(x - c) + ω·c.
        rotated_cosine = cosine * phase.cos().unsqueeze(-1) + sine * phase.sin().unsqueeze(-1)
        rotated_sine = sine * phase.cos().unsqueeze(-1) - cosine * phase.sin().unsqueeze(-1)
        frequencies = prior.frequencies.unsqueeze(1).expand(-1, self.n, -1, -1)
        shift = -torch.atan2(rotated_sine, rotated_cosine).mT.unsqueeze(-2)
        slope = prior.slope + parameters.linear_var[:, None, None] * (points.mT @ update)
        weighted = update * parameters.signal_var[:, None, None]
        self._tensors = _Tensors(
            centre=centre,
            inverse_square=(-0.5 * scale.square().reciprocal()).mT.contiguous(),
            gram=gram,
            frequencies=prior.frequencies.clone(),
            weights=torch.cat([rotated_cosine, rotated_sine, weighted], 1),
            shifted=torch.cat([frequencies, shift], -2).flatten(0, 1),
            amplitude=torch.hypot(cosine, sine).mT.flatten(0, 1).unsqueeze(1),
            update=weighted.mT.flatten(0, 1).unsqueeze(1).contiguous(),
            slope=slope.permute(2, 1, 0).contiguous(),
            noise_var=noise_var.clone(),
        )

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x `[n or 1, ..., D]`.

        Raises `ShapeError` for another number of draws or features.
        """
        if x.dim() < 2 or x.shape[-1] != self.inputs or x.shape[0] not in (1, self.n):
            raise ShapeError(f"these {self.n} draws take x [{self.n} or 1, ..., {self.inputs}]; got {list(x.shape)}")
        parts = self._tensors
        flat = x.to(parts.centre.dtype).reshape(x.shape[0], -1, self.inputs)
        evaluate = self._own if x.shape[0] == self.n else self._shared
        row_bytes = parts.centre.element_size() * self.outputs * x.shape[0] * (2 * parts.weights.shape[1])
        chunk = max(1, _CHUNK_BYTES // row_bytes)
        pieces = [evaluate(piece) for piece in flat.split(chunk, 1)]
        mean = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
        mean = mean.reshape(self.n, *x.shape[1:-1], self.outputs).to(x.dtype)
        return Gaussian(mean, parts.noise_var.to(x.dtype).expand_as(mean))

    def _lift(self, x: Tensor) -> Tensor:
        # [x - c, 1, -½|z|²] for every output, [E, k, rows, D + 2].
        x0 = x - self._tensors.centre
        half_square = (x0.square() @ self._tensors.inverse_square).movedim(-1, 0).unsqueeze(-1)
        shape = (self.outputs, *x.shape[:-1])
        return torch.cat([x0.expand(*shape, -1), x0.new_ones(1).expand(*shape, 1), half_square], -1)

    def _own(self, x: Tensor) -> Tensor:
        parts, rows = self._tensors, x.shape[1]
        lifted = self._lift(x)
        q = torch.bmm(lifted.flatten(1, 2), parts.gram).view(self.outputs * self.n, rows, -1)
        if rows == 1:
            # With one input per draw, copying all draws' frequencies costs more than the product: here they are read once.
            shift = parts.shifted[:, -1].unflatten(0, (self.outputs, self.n))
            phase = torch.baddbmm(shift, lifted[..., 0, :-2], parts.frequencies).flatten(0, 1).unsqueeze(1)
        else:
            phase = torch.bmm(lifted.flatten(0, 1)[..., :-1], parts.shifted)
        # Row vectors on the left: the other orientation of this product is ten times slower on a CPU.
        prior = torch.bmm(parts.amplitude, phase.cos_().mT)
        mean = torch.baddbmm(prior, parts.update, self._kernel.correlation(q).mT)
        mean = mean.view(self.outputs, self.n, rows).permute(1, 2, 0)
        return mean + x @ parts.slope if self._kernel.linear else mean

    def _shared(self, x: Tensor) -> Tensor:
        parts = self._tensors
        lifted = self._lift(x).squeeze(1)
        phase = torch.bmm(lifted[..., :-2], parts.frequencies)
        correlation = self._kernel.correlation(torch.bmm(lifted, parts.gram))
        mean = torch.bmm(torch.cat([phase.cos(), phase.sin(), correlation], -1), parts.weights).permute(2, 1, 0)
        return mean + x @ parts.slope if self._kernel.linear else mean

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "PathwiseFunction":
        """Return the same draws in another precision or on another device.

        float32 is good for planning, twice as fast, and rounds k(x, Z)v to about 1e-7·Σ|k v|: with whitened targets some 1e-5 of
        their spread at a noise std of 0.1, but 2e-3 at the smallest noise std that training allows, 1e-3.
        """
        moved = copy.copy(self)
        moved._tensors = _Tensors(*(t.to(dtype=dtype, device=device) for t in self._tensors))
        return moved
