"""Moments by Monte Carlo, with the standard error of each number."""

import torch

from bayesdyn.beliefs import Moments


def check_by_sampling(function, found: Moments, mean, cov, samples=200_000, errors=5.0):
    """Assert that mean, cov and Σ @ gain agree with those of `samples` draws within `errors` standard errors, entry by entry.

    The standard error of a mean of products is their std over √n; five of them are passed by chance once in 10^6 numbers.
    """
    generator = torch.Generator().manual_seed(0)
    values, vectors = torch.linalg.eigh(cov)
    normals = torch.randn(samples, len(mean), generator=generator, dtype=torch.float64)
    away = normals @ (vectors * values.clamp_min(0).sqrt()).mT
    y = function(mean + away)
    y = y.unsqueeze(-1) if y.dim() == 1 else y
    centred = y - found.mean
    for products, expected in (
        (y, found.mean),
        (centred.unsqueeze(-1) * centred.unsqueeze(-2), found.cov),
        (away.unsqueeze(-1) * centred.unsqueeze(-2), cov @ found.gain),
    ):
        error = products.std(0) / samples**0.5
        gap = (products.mean(0) - expected).abs()
        assert bool((gap <= errors * error + 1e-12).all()), (gap / error).max()
