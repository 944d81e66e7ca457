"""Exact moment matching through Gaussian processes with squared-exponential kernels: the map that PILCO propagates beliefs with."""

from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_arrays import ArrayMap, ArrayMoments, PullBack
from bayesdyn.beliefs import MomentMap, Moments, check_belief
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.gaussian_processes.moment_factors import GPFactors, Uncertainty, check_factors
from bayesdyn.gaussian_processes.moment_jacobian import Prepared, jacobian_moments
from bayesdyn.gaussian_processes.moment_rbf import rbf_moments, rbf_weights
from bayesdyn.gaussian_processes.moment_taped import Parts, taped_parts
from bayesdyn.kernels import RBF

__all__ = ["CovarianceParts", "GPMoments", "TapedMoments", "Uncertainty", "rbf_moments", "rbf_weights"]


class CovarianceParts(NamedTuple):
    """cov f(x) = spread + diag(epistemic): the covariance of the mean function under the input's, and E[var f(x)] per output."""

    spread: Float[Tensor, "*batch E E"]
    epistemic: Float[Tensor, "*batch E"]


class GPMoments(MomentMap):
    r"""The moments of E independent Gaussian processes at x ~ N(m, Σ), for k(x, x') = σf² exp(-½ Σ_d (x - x')_d²/ℓ_d²).

        mean_e = E[m_e(x)],   cov_ab = cov(m_a(x), m_b(x)) + δ_ab (E[var f_a(x)] + σn²),   gain = Σ⁻¹ cov(x, f(x))
        m_e(x) = Σ_i β_ei k_e(x_i, x) + offset_e,   var f(x) = σf² - k(x)ᵀ A k(x)

    `x` are training inputs or inducing points, [N, D] or one set per output [E, N, D]; `lengthscale` [E, D], `signal_var` [E],
    `beta` [E, N]; `uncertainty` holds A and its factors, without it f is known to be its mean; `offset` [E] is a constant mean;
    `noise_var` [E], where given, is added to the covariance. Nothing is clamped: covariances are positive semi-definite up to
    rounding. Computes in the dtype of `x` and answers in that of the belief. Differentiable once in the belief, `taped` any number
    of times.

    Raises `ShapeError` for sizes that do not agree and `ConfigurationError` for another kernel than `RBF()`.
    Source: Deisenroth, Fox & Rasmussen, PAMI 2015, section 3.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> wave = GPMoments(0 * one[None], one[None], one, one[None])
    >>> round(wave.moments(0 * one, one[None]).mean.item() ** 2, 12)
    0.5
    """

    def __init__(
        self,
        x: Float[Tensor, "*e N D"],
        lengthscale: Float[Tensor, "E D"],
        signal_var: Float[Tensor, "E"],
        beta: Float[Tensor, "E N"],
        *,
        uncertainty: Uncertainty | None = None,
        offset: Float[Tensor, "E"] | None = None,
        noise_var: Float[Tensor, "E"] | None = None,
        kernel: object = RBF(),
    ) -> None:
        if kernel != RBF():
            raise ConfigurationError(
                f"moments in closed form want the squared-exponential kernel RBF(); got {kernel}; "
                "posterior.moment_map() matches moments of any posterior by sampling"
            )
        if x.dim() not in (2, 3):
            raise ShapeError(f"x wants shape [N, D] or [E, N, D]; got {list(x.shape)}")
        points = x.expand(len(beta), -1, -1) if x.dim() == 2 else x
        self.factors = GPFactors(points, lengthscale, signal_var, beta, uncertainty)
        check_factors(self.factors)
        self.offset = torch.zeros_like(signal_var) if offset is None else offset
        self.noise_var = noise_var

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E)."""
        return self.factors.points.shape[-1], len(self.factors.beta)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which moments are computed."""
        return self.factors.points.dtype

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return mean [..., E], covariance [..., E, E] and gain [..., D, E] of f(x) for x ~ N(mean, cov).

        Raises `ShapeError`, and `NumericalError` for a covariance that is not finite or far from positive semi-definite.
        """
        check_belief(mean, cov, self.sizes[0], f"a Gaussian process of {self.sizes[0]} inputs")
        if self.factors.points.device.type != "cpu":
            return self.taped().moments(mean, cov)
        inputs, outputs = self.sizes
        flat, flat_cov = mean.reshape(-1, inputs).to(self.dtype), cov.reshape(-1, inputs, inputs).to(self.dtype)
        centre, spread, gain = ArrayMap(partial(jacobian_moments, self._prepared)).at(flat, flat_cov)
        if self.noise_var is not None:
            spread = spread + torch.diag_embed(self.noise_var)
        batch, dtype = mean.shape[:-1], mean.dtype
        return Moments(
            (centre + self.offset).reshape(*batch, outputs).to(dtype),
            spread.reshape(*batch, outputs, outputs).to(dtype),
            gain.reshape(*batch, inputs, outputs).to(dtype),
        )

    def on_arrays(self) -> ArrayMap | None:
        """Return the same on arrays."""
        if self.factors.points.device.type != "cpu" or self.dtype != torch.float64:
            return None
        prepared, offset = self._prepared, self.offset.detach().numpy()
        noise = np.zeros(()) if self.noise_var is None else np.diag(self.noise_var.detach().numpy())

        def forward(mean: np.ndarray, cov: np.ndarray, gradient: bool) -> tuple[ArrayMoments, PullBack]:
            check_belief(mean, cov, self.sizes[0], f"a Gaussian process of {self.sizes[0]} inputs")
            found, pull_back = jacobian_moments(prepared, mean, cov, gradient)
            return ArrayMoments(found.mean + offset, found.cov + noise, found.gain), pull_back

        return ArrayMap(forward)

    def certain(self) -> "GPMoments":
        """Return the moments of the mean functions m_e alone, without `uncertainty` and noise."""
        points, lengthscale, signal_var, beta, _ = self.factors
        return GPMoments(points, lengthscale, signal_var, beta, offset=self.offset)

    def split(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> CovarianceParts:
        """Return the covariance of f(x) in its two parts, both at least 0; `noise_var` is in neither."""
        check_belief(mean, cov, self.sizes[0], f"a Gaussian process of {self.sizes[0]} inputs")
        parts, outputs = self._parts(mean, cov), self.sizes[1]
        batch = mean.shape[:-1]
        spread = parts.spread.reshape(*batch, outputs, outputs).to(mean.dtype)
        return CovarianceParts(spread, parts.epistemic.reshape(*batch, outputs).to(mean.dtype))

    def taped(self) -> "TapedMoments":
        """Return the same map as plain operations of torch: slower, with derivatives of any order."""
        return TapedMoments(self)

    def rescaled(
        self,
        x_mean: Float[Tensor, "D"],
        x_std: Float[Tensor, "D"],
        y_mean: Float[Tensor, "E"],
        y_std: Float[Tensor, "E"],
    ) -> "GPMoments":
        """Return the map in other units, y' = y_mean + y_std f((x' - x_mean)/x_std), exactly and at no cost per call.

        >>> one = torch.ones(1, dtype=torch.float64)
        >>> wave = GPMoments(0 * one[None], one[None], one, one[None])
        >>> wave.rescaled(0 * one, one, 3 * one, 2 * one).moments(0 * one, 0 * one[None]).mean.item()
        5.0
        """
        x_mean, x_std, y_mean, y_std = (t.to(self.factors.points) for t in (x_mean, x_std, y_mean, y_std))
        points, lengthscale, signal_var, beta, uncertainty = self.factors
        if uncertainty is not None:
            root, precision, reduction = uncertainty
            units = y_std[:, None, None]
            uncertainty = Uncertainty(root * units, precision / units**2, None if reduction is None else reduction * units)
        return GPMoments(
            points * x_std + x_mean,
            lengthscale * x_std,
            signal_var * y_std**2,
            beta / y_std.unsqueeze(-1),
            uncertainty=uncertainty,
            offset=y_mean + y_std * self.offset,
            noise_var=None if self.noise_var is None else self.noise_var * y_std**2,
        )

    def to(self, dtype: torch.dtype) -> "GPMoments":
        """Return the map with its factors in another dtype."""
        points, lengthscale, signal_var, beta, uncertainty = self.factors
        if uncertainty is not None:
            root, precision, reduction = uncertainty
            smaller = None if reduction is None else reduction.to(dtype)
            uncertainty = Uncertainty(root.to(dtype), precision.to(dtype), smaller)
        return GPMoments(
            points.to(dtype),
            lengthscale.to(dtype),
            signal_var.to(dtype),
            beta.to(dtype),
            uncertainty=uncertainty,
            offset=self.offset.to(dtype),
            noise_var=None if self.noise_var is None else self.noise_var.to(dtype),
        )

    @cached_property
    def _prepared(self) -> Prepared:
        return Prepared.of(self.factors)

    def _parts(self, mean: Tensor, cov: Tensor) -> Parts:
        size = self.sizes[0]
        return taped_parts(self.factors, mean.reshape(-1, size).to(self.dtype), cov.reshape(-1, size, size).to(self.dtype))

    def _answer(self, parts: Parts, mean: Tensor) -> Moments:
        own = parts.epistemic if self.noise_var is None else parts.epistemic + self.noise_var
        batch, (inputs, outputs) = mean.shape[:-1], self.sizes
        return Moments(
            (parts.mean + self.offset).reshape(*batch, outputs).to(mean.dtype),
            (parts.spread + torch.diag_embed(own)).reshape(*batch, outputs, outputs).to(mean.dtype),
            parts.gain.reshape(*batch, inputs, outputs).to(mean.dtype),
        )


class TapedMoments(MomentMap):
    """`GPMoments` by automatic differentiation alone: the oracle of its gradients, and second derivatives."""

    def __init__(self, gp: GPMoments) -> None:
        self.gp = gp

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the same as `GPMoments.moments`."""
        size = self.gp.sizes[0]
        check_belief(mean, cov, size, f"a Gaussian process of {size} inputs")
        flat, flat_cov = mean.reshape(-1, size).to(self.gp.dtype), cov.reshape(-1, size, size).to(self.gp.dtype)
        return self.gp._answer(taped_parts(self.gp.factors, flat, flat_cov), mean)
