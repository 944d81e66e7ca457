"""Scores of P exchangeable samples [P, ..., E] against y [..., E], unbiased in P where that is possible."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

_ELEMENTS_AT_ONCE = 2**22
# The expanded square, which cdist takes for many points, loses half the digits.
_EXACT = "donot_use_mm_for_euclid_dist"


def fair_crps(samples: Float[Tensor, "P *batch"], y: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return the fair CRPS (1/P) Σ|x_k - y| - Σ_k (2k - P - 1) x_(k) / (P(P - 1)) (Ferro 2014), unbiased in P.

    Raises `ConfigurationError` for fewer than 2 samples.

    >>> fair_crps(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0])).item()
    0.0
    """
    count = _count(samples)
    weight = (2 * torch.arange(1, count + 1) - count - 1).to(samples)
    weight = weight.reshape(-1, *(1,) * (samples.dim() - 1))
    spread = (weight * samples.sort(0).values).sum(0) / (count * (count - 1))
    return (samples - y).abs().mean(0) - spread


def energy_score(samples: Float[Tensor, "P *batch E"], y: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch"]:
    """Return the fair energy score (1/P) Σ_k|x_k - y| - (1/(P(P - 1))) Σ_{k<l}|x_k - x_l|, Euclidean over the outputs.

    Raises `ConfigurationError` for fewer than 2 samples.
    """
    count = _count(samples)
    if y.shape[-1] == 1:
        return fair_crps(samples[..., 0], y[..., 0])  # the same number, by sorting
    to_y = torch.linalg.vector_norm(samples - y, dim=-1).mean(0)
    flat = samples.reshape(count, -1, y.shape[-1]).movedim(0, 1)
    portion = max(_ELEMENTS_AT_ONCE // count**2, 1)
    totals = [torch.cdist(part, part, compute_mode=_EXACT).sum((-1, -2)) for part in flat.split(portion)]
    return to_y - torch.cat(totals).reshape(to_y.shape) / (2 * count * (count - 1))


def rank_pit(samples: Float[Tensor, "P *batch"], y: Float[Tensor, "*batch"], generator: torch.Generator) -> Float[Tensor, "*batch"]:
    """Return (#{x < y} + U (#{x = y} + 1)) / (P + 1), U uniform: exactly uniform when y is exchangeable with the samples."""
    uniform = torch.rand(y.shape, generator=generator, dtype=y.dtype, device=y.device)
    below, equal = (samples < y).sum(0), (samples == y).sum(0)
    return (below + uniform * (equal + 1)) / (samples.shape[0] + 1)


def spread_skill(samples: Float[Tensor, "P J *rest"], y: Float[Tensor, "J *rest"]) -> Float[Tensor, "*rest"]:
    """Return √((P + 1)/P · mean_j Var_j) / RMSE of the sample mean, 1 for a calibrated model (Fortin et al. 2014, equation 15)."""
    count = _count(samples)
    spread = ((count + 1) / count * samples.var(0).mean(0)).sqrt()
    return spread / (samples.mean(0) - y).square().mean(0).sqrt()


def split_variance(samples: Float[Tensor, "n p *batch"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Return the epistemic and the aleatoric variance of n draws x p noise paths each, by analysis of variance.

    epistemic = Var_i(mean_k) - (1/p) mean_i Var_k, floored at 0;  aleatoric = mean_i Var_k

    Without the correction the noise would count as ignorance, by aleatoric/p. Raises `ConfigurationError` unless n, p >= 2.
    """
    draws, paths = samples.shape[:2]
    if min(draws, paths) < 2:
        raise ConfigurationError(f"the split wants at least 2 draws and 2 paths per draw; got {draws} and {paths}")
    aleatoric = samples.var(1).mean(0)
    epistemic = (samples.mean(1).var(0) - aleatoric / paths).clamp_min(0.0)
    return epistemic, aleatoric


def _count(samples: Tensor) -> int:
    if samples.shape[0] < 2:
        raise ConfigurationError(f"this score wants at least 2 samples; got {samples.shape[0]}")
    return samples.shape[0]
