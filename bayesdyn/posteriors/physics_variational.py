"""A Normal with full covariance, fitted to a density by its ELBO."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import NumericalError
from bayesdyn.inference.density_mode import find_mode, inverse_curvature_factor
from bayesdyn.inference.pyro_density import PyroDensity
from bayesdyn.progress import Progress

_REPORTS = 50


@dataclass(frozen=True)
class FullRankNormal:
    """q(z) = N(mean, factor factorᵀ), and the ELBO on the way to it."""

    mean: Float[Tensor, " P"]
    factor: Float[Tensor, "P P"]
    steps: int
    elbo: tuple[float, ...]

    def draws(self, density: PyroDensity, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "count P"], float]:
        """Return draws, and the share of them that importance weights p/q would leave effective (1: q is the posterior)."""
        noise = _normal(self.mean, count, generator)
        z = self.mean + noise @ self.factor.mT
        with torch.no_grad():
            weight = (density(z) + 0.5 * noise.square().sum(1)).nan_to_num(-math.inf).softmax(0)
        return z, float(1 / (count * weight.square().sum()))


def fit_normal(
    density: PyroDensity,
    start: Float[Tensor, " P"] | None,
    steps: int,
    learning_rate: float,
    particles: int,
    generator: torch.Generator,
    progress: Progress | None,
) -> FullRankNormal:
    r"""Maximise E_q log p(z) + H[q] over q = N(μ + L m, (L T)(L T)ᵀ), where μ is the mode and L Lᵀ the inverse curvature there.

    In these coordinates Laplace's approximation is m = 0, T = I, and Adam's steps are in units of posterior stds. The density of q
    is not differentiated through its own parameters ("sticking the landing"), so the gradient has no noise where q = p.

    Raises `NumericalError` where no start has a finite density.

    Source: Roeder, Wu, Duvenaud 2017, section 3.
    """
    mode = find_mode(density, density.starts(1, generator)[0] if start is None else start)
    base = inverse_curvature_factor(density, mode)
    shift = torch.zeros_like(mode, requires_grad=True)
    raw = torch.zeros_like(base, requires_grad=True)
    optimiser = torch.optim.Adam([shift, raw], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    trace, every = [], max(1, steps // _REPORTS)
    for step in range(1, steps + 1):
        half = _normal(mode, (particles + 1) // 2, generator)
        noise = torch.cat([half, -half])
        local = shift + noise @ _triangle(raw).mT
        fixed = _triangle(raw.detach())
        whitened = torch.linalg.solve_triangular(fixed, (local - shift.detach()).mT, upper=False).mT
        log_q = -0.5 * whitened.square().sum(1) - fixed.diagonal().log().sum()
        elbo = (density(mode + local @ base.mT) - log_q).mean()
        optimiser.zero_grad()
        (-elbo).backward()
        optimiser.step()
        schedule.step()
        if step % every == 0 or step == steps:
            trace.append(float(elbo.detach()))
            if progress is not None:
                progress(step, steps, {"elbo": trace[-1]})
    if not math.isfinite(trace[-1]):
        raise NumericalError("the ELBO is no longer finite: the model has no finite density at some values; narrow the priors")
    with torch.no_grad():
        return FullRankNormal(mode + base @ shift, base @ _triangle(raw), steps, tuple(trace))


def _triangle(raw: Float[Tensor, "P P"]) -> Float[Tensor, "P P"]:
    return raw.tril(-1) + raw.diagonal().exp().diag()


def _normal(like: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.randn((count, len(like)), generator=generator, dtype=like.dtype, device=generator.device).to(like.device)
