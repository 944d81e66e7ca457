"""Moments in closed form of a Gaussian process whose uncertainty and noise were scaled."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.gaussian_processes.moment_map import GPMoments
from bayesdyn.posteriors.scaling import Scales


class ScaledMoments(MomentMap):
    """The moments of f̄ + s_epi (f - f̄) for x ~ N(m, Σ), the noise scaled by s_ale where `gp` has it.

        mean and gain as before,   cov = cov f̄(x) + diag(s_epi² E[var f(x)] + s_ale² σn²)

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> noisy = GPMoments(0 * one[None], one[None], one, one[None], noise_var=one)
    >>> ScaledMoments(noisy, Scales(one, 3 * one)).moments(0 * one, 0 * one[None]).cov.item()
    9.0
    """

    def __init__(self, gp: GPMoments, scales: Scales) -> None:
        self.gp, self.scales = gp, scales

    def moments(self, mean: Float[Tensor, "*batch D"], cov: Float[Tensor, "*batch D D"]) -> Moments:
        """Return the moments; raises `ShapeError`, or `NumericalError` for a covariance that is none."""
        found = self.gp.moments(mean, cov)
        if self.gp.factors.uncertainty is None:
            own = torch.zeros_like(found.mean)
        else:
            own = self.gp.split(mean, cov).epistemic * (self.scales.epistemic.to(mean).square() - 1)
        if self.gp.noise_var is not None:
            own = own + self.gp.noise_var.to(mean) * (self.scales.aleatoric.to(mean).square() - 1)
        return found._replace(cov=found.cov + torch.diag_embed(own))
