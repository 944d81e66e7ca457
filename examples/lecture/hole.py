"""Noisy values of sin 2x with a hole in the middle, and what an ensemble of fewer members would have said."""

import numpy as np
import torch
from torch import Tensor

from bayesdyn.distributions import Predictive

NOISE, HOLE, FAR, REPEATS = 0.2, 0.6, 1.8, 20


def draw_data(rows: int, generator: torch.Generator, hole: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return x with |x| between `hole` and 1.8, and sin 2x with noise, [rows, 1] each."""
    u = 2 * torch.rand(rows, 1, generator=generator, dtype=torch.float64) - 1
    x = u.sign() * (hole + (FAR - hole) * u.abs())
    return x, (2 * x).sin() + NOISE * torch.randn(rows, 1, generator=generator, dtype=torch.float64)


def loss(whole: Predictive, y: Tensor, count: int, generator: torch.Generator) -> float:
    """Return the nll per row of so many members, a mean over random choices of them."""
    nll = []
    for _ in range(REPEATS):
        some = torch.randperm(whole.components, generator=generator)[:count]
        part = Predictive(whole.component_mean[some], whole.component_epistemic_var[some], whole.component_aleatoric_var[some])
        nll.append(-float(part.log_prob(y).mean()))
    return float(np.mean(nll))
