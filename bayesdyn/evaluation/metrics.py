"""Scores of predictives [m, J, E] against y [J, E]: pure functions of tensors, one number per output [E] unless said otherwise.

`Predictive` keeps its components apart, so every score is that of the mixture and not of its moment-matched Gaussian.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import DataError, ShapeError

LEVELS = (0.5, 0.8, 0.9, 0.95)
_CURVE = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
_ELEMENTS_AT_ONCE = 2**22
_BINS, _POINTS_PER_BIN = 20, 50
_SMALLEST_NOISE_VAR = 1e-6


def nll(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, ""]:
    """Return -(1/JE) Σ_j log (1/m) Σ_i Π_d N(y_jd | μ_ijd, v_ijd), nats per point and output: outputs inside the mixture.

    >>> standard = Predictive(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    >>> round(nll(standard, torch.zeros(1, 1)).item(), 4)
    0.9189
    """
    return -predictive.log_prob(y).mean() / y.shape[-1]


def marginal_nll(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, "E"]:
    """Return -(1/J) Σ_j log (1/m) Σ_i N(y_jd | μ_ijd, v_ijd), nats, of each output by itself."""
    return -predictive.marginal_log_prob(y).mean(0)


def moment_matched_nll(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, ""]:
    """Return the nats per point and output of N(mean, variance); far from `nll`, the mixture has modes or too few draws."""
    mean, var = predictive.moment_matched()
    return 0.5 * ((y - mean).square() / var + var.log() + math.log(2 * math.pi)).mean()


def rmse(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, "E"]:
    """Return √mean_j (y - mean)²; on targets whitened with training statistics this is the NRMSE."""
    return (y - predictive.mean).square().mean(0).sqrt()


def r2(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, "E"]:
    """Return 1 - Σ(y - mean)² / Σ(y - ȳ)²; not a number for a constant output."""
    return 1 - (y - predictive.mean).square().sum(0) / (y - y.mean(0)).square().sum(0)


def crps(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, "E"]:
    """Return the mean continuous ranked probability score ∫(F(t) - 1[t >= y])² dt of the mixture, exactly.

    (1/m) Σ_i A(y - μ_i, v_i) - (1/2m²) Σ_il A(μ_i - μ_l, v_i + v_l),  A(u, s²) = 2sφ(u/s) + u(2Φ(u/s) - 1)
    (Grimit et al. 2006, equation 5), in portions of points, since all pairs of components meet.
    """
    _check(predictive, y)
    m, rows, outputs = predictive.component_mean.shape
    portion = max(_ELEMENTS_AT_ONCE // (m * m * outputs), 1)
    total = torch.zeros_like(y[0])
    parts = (t.split(portion, 1) for t in (predictive.component_mean, predictive.component_var))
    for mean, var, value in zip(*parts, y.split(portion), strict=True):
        to_y = _expected_distance(value - mean, var).mean(0)
        between = _expected_distance(mean.unsqueeze(0) - mean.unsqueeze(1), var.unsqueeze(0) + var.unsqueeze(1)).mean((0, 1))
        total = total + (to_y - 0.5 * between).sum(0)
    return total / rows


def _expected_distance(shift: Tensor, var: Tensor) -> Tensor:
    """Return E|shift + √var ε|, ε standard normal; |shift| where the variance is 0."""
    std = var.sqrt().clamp_min(torch.finfo(var.dtype).tiny)
    z = shift / std
    return std * math.sqrt(2 / math.pi) * torch.exp(-0.5 * z.square()) + shift * (2 * torch.special.ndtr(z) - 1)


def pit(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, "J E"]:
    """Return u_jd = F_jd(y_jd), the probability integral transform: uniform for a calibrated model."""
    return predictive.cdf(y)


def coverage(u: Float[Tensor, "J *rest"], level: float) -> Float[Tensor, "*rest"]:
    """Return the share of PIT values in the central interval, (1 - level)/2 <= u <= (1 + level)/2."""
    return ((u >= 0.5 - 0.5 * level) & (u <= 0.5 + 0.5 * level)).to(u.dtype).mean(0)


def calibration_curve(u: Float[Tensor, "J *rest"]) -> tuple[Float[Tensor, "99"], Float[Tensor, "99 *rest"]]:
    """Return p = .01, ..., .99 and the share of PIT values u <= p."""
    levels = _CURVE.to(u)
    flat = u.reshape(u.shape[0], -1).mT.sort(-1).values.contiguous()
    counts = torch.searchsorted(flat, levels.expand(flat.shape[0], -1).contiguous(), right=True)
    return levels, (counts.mT.to(u.dtype) / u.shape[0]).reshape(-1, *u.shape[1:])


def mace(u: Float[Tensor, "J *rest"]) -> Float[Tensor, "*rest"]:
    """Return the mean absolute calibration error, mean over p of |share of u <= p - p|; 0.31/√J for a calibrated model.

    >>> round(mace(torch.linspace(0, 1, 1001).unsqueeze(1)).item(), 3)
    0.0
    """
    levels, share = calibration_curve(u)
    return (share - levels.reshape(-1, *(1,) * (u.dim() - 1))).abs().mean(0)


def overconfidence(u: Float[Tensor, "J *rest"]) -> Float[Tensor, "*rest"]:
    """Return the mean over c = 2p - 1 > 0 of c - coverage(c): positive where the model is too sure, negative where too wide."""
    levels, share = calibration_curve(u)
    upper, lower = share[50:], share[:49].flip(0)
    expected = (2 * levels[50:] - 1).reshape(-1, *(1,) * (u.dim() - 1))
    return (expected - (upper - lower)).mean(0)


def mean_squared_z(predictive: Predictive, y: Float[Tensor, "J E"]) -> Float[Tensor, "E"]:
    """Return mean z², z = (y - mean)/√variance: 1 for a calibrated model, above for one too sure."""
    return ((y - predictive.mean).square() / predictive.variance).mean(0)


def ence(predictive: Predictive, y: Float[Tensor, "J E"], bins: int | None = None) -> Float[Tensor, "E"]:
    """Return the expected normalised calibration error (1/B) Σ_b |RMV_b - RMSE_b|/RMV_b (Levi et al. 2022, equation 8).

    Bins of equal mass by predicted variance: 20, or fewer so that each has 50 points; about 1/√(πb) with b points per bin for a
    calibrated model.
    """
    _check(predictive, y)
    bins = bins or max(min(_BINS, len(y) // _POINTS_PER_BIN), 1)
    var, order = predictive.variance.sort(0)
    square = (y - predictive.mean).square().gather(0, order)
    parts = zip(var.tensor_split(bins), square.tensor_split(bins), strict=True)
    ratios = [((v.mean(0).sqrt() - s.mean(0).sqrt()) / v.mean(0).sqrt()).abs() for v, s in parts]
    return torch.stack(ratios).mean(0)


class Sharpness(NamedTuple):
    """Root mean predicted variances [E]: how wide the model says it is, in all and by its two parts."""

    total: Float[Tensor, "E"]
    epistemic: Float[Tensor, "E"]
    aleatoric: Float[Tensor, "E"]


def sharpness(predictive: Predictive) -> Sharpness:
    """Return √(mean variance), √(mean epistemic variance) and √(mean aleatoric variance)."""
    parts = (predictive.variance, predictive.epistemic_variance, predictive.aleatoric_variance)
    return Sharpness(*(part.mean(0).sqrt() for part in parts))


def ranks(values: Float[Tensor, "J *rest"]) -> Float[Tensor, "J *rest"]:
    """Return ranks 1..J along the first axis, ties sharing their mean rank.

    >>> ranks(torch.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    ascending, order = values.sort(0)
    places = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device).reshape(-1, *(1,) * (values.dim() - 1))
    return torch.zeros_like(values).scatter(0, order, mean_over_ties(ascending, places.expand_as(values)))


def mean_over_ties(ascending: Float[Tensor, "J *rest"], value: Float[Tensor, "J *rest"]) -> Float[Tensor, "J *rest"]:
    """Return values with those whose sorted keys are equal replaced by their mean, along the first axis.

    >>> mean_over_ties(torch.tensor([1.0, 3.0, 3.0]), torch.tensor([5.0, 6.0, 8.0])).tolist()
    [5.0, 7.0, 7.0]
    """
    group = torch.zeros(ascending.shape, dtype=torch.int64, device=ascending.device)
    group[1:] = (ascending[1:] != ascending[:-1]).cumsum(0)
    sums = torch.zeros_like(value).scatter_add_(0, group, value)
    sizes = torch.zeros_like(value).scatter_add_(0, group, torch.ones_like(value))
    return (sums / sizes).gather(0, group)


def spearman(score: Float[Tensor, "J *rest"], error: Float[Tensor, "J *rest"]) -> Float[Tensor, "*rest"]:
    """Return the rank correlation of an uncertainty with |error|; not a number where one of them is constant.

    Its ceiling is not 1: a perfect std whose logarithm spreads by 0.3 reaches 0.30.
    """
    a, b = ranks(score), ranks(error)
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()


def shift_score(predictive: Predictive) -> Float[Tensor, "J"]:
    """Return g = Σ_d log(1 + epistemic_d / max(aleatoric_d, 1e-6)), twice the Gaussian mutual information of y and θ, per point."""
    noise = predictive.aleatoric_variance.clamp_min(_SMALLEST_NOISE_VAR)
    return torch.log1p(predictive.epistemic_variance / noise).sum(-1)


def auroc(inside: Float[Tensor, "I"], shifted: Float[Tensor, "J"]) -> Float[Tensor, ""]:
    """Return P(score of a shifted point > score of a point inside), ties counted half.

    >>> auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])).item()
    0.875
    """
    if not len(inside) or not len(shifted):
        raise DataError(f"auroc wants points on both sides; got {len(inside)} inside and {len(shifted)} shifted")
    both = ranks(torch.cat([inside, shifted]))
    return (both[len(inside) :].mean() - 0.5 * (len(shifted) + 1)) / len(inside)


def false_positive_rate(inside: Float[Tensor, "I"], shifted: Float[Tensor, "J"], keep: float = 0.95) -> Float[Tensor, ""]:
    """Return the share of points inside whose score reaches the threshold that `keep` of the shifted points reach."""
    threshold = shifted.sort(descending=True).values[max(math.ceil(keep * len(shifted)), 1) - 1]
    return (inside >= threshold).to(inside.dtype).mean()


def _check(predictive: Predictive, y: Tensor) -> None:
    if predictive.component_mean.shape[1:] != y.shape:
        raise ShapeError(
            f"the predictive is of {list(predictive.component_mean.shape[1:])} points and outputs, y of {list(y.shape)}"
        )
