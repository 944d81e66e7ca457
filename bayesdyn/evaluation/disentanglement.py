"""Are the two parts of the variance what they say? A toy with known noise, fitted at several sizes and at twice the noise."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation.scoring import to_double
from bayesdyn.evaluation.table import IN_DISTRIBUTION, Row
from bayesdyn.evaluation.toys import NoisySine
from bayesdyn.posteriors.base import Posterior

_SIZES = (50, 100, 200, 400, 800, 1600, 3200)
_DATA = "noisy-sine"

THRESHOLDS: Mapping[str, tuple[float, float]] = {
    "log_noise_rmse": (0.0, 0.5),
    "epistemic_slope": (-math.inf, -0.5),
    "aleatoric_per_tenfold": (0.8, 1.25),
    "gap_ratio": (3.0, math.inf),
    "aleatoric_ratio": (3.2, 4.8),
    "epistemic_ratio": (1.0, 4.5),
    "split_error": (0.0, 1e-6),
    "one_draw_epistemic": (0.0, 0.0),
}
"""What each figure should lie between, ends included: proposals, to be tightened when many posteriors have been measured."""


def log_variance_rmse(var: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Return √mean (log var - log truth)², nats of variance.

    >>> round(log_variance_rmse(torch.tensor([2.0, 0.5]), torch.ones(2)).item(), 4)  # log 2
    0.6931
    """
    return (var.log() - truth.log()).square().mean().sqrt()


def log_slope(size: Float[Tensor, "k"], value: Float[Tensor, "k"]) -> Float[Tensor, ""]:
    """Return the least-squares slope of log value over log size: -1 for a parametric variance, 0 for what data do not remove.

    >>> round(log_slope(torch.tensor([10.0, 100.0, 1000.0]), torch.tensor([3.0, 0.3, 0.03])).item(), 4)
    -1.0
    """
    x, y = size.log(), value.log()
    x = x - x.mean()
    return (x * y).sum() / x.square().sum()


@dataclass(frozen=True)
class Disentanglement:
    """How the toy is run: the numbers of rows N that are fitted, and the one at which the noise is looked at closely.

    Raises `ConfigurationError` unless there are two sizes or more, `rows` among them.

    >>> Disentanglement(sizes=(50, 100), rows=100).rows
    100
    """

    sizes: tuple[int, ...] = _SIZES
    rows: int = 800
    toy: NoisySine = NoisySine()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if len(set(self.sizes)) < 2 or min(self.sizes) < 2 or self.rows not in self.sizes:
            raise ConfigurationError(f"disentanglement wants two sizes N >= 2 or more, rows among them; got {self}")


def disentanglement_rows(
    make: Callable[[], Posterior], name: str, seed: int, settings: Disentanglement = Disentanglement()
) -> list[Row]:
    """Fit a posterior to 7 sin x + σ(x) ε of several sizes, and once more with 2σ, and return how its two variances behave.

    Of rows N, with means over the support (or the gap) taken before logarithms and ratios:

    * `epistemic_var`, `aleatoric_var` at each size, `count` = N; `epistemic_slope`, that of log epistemic over log N; and
      `aleatoric_per_tenfold`, 10 to the slope of log aleatoric, which is 1 for noise that stays;
    * `log_noise_rmse` of the aleatoric variance against σ², pointwise; `gap_ratio`, epistemic in the gap over that in the support;
    * `aleatoric_ratio` and `epistemic_ratio`, of the fit with 2σ on the same x and ε over the plain one: 4 is the truth for the
      first, and the parametric limit for the second, so a rise of both is no fault;
    * `split_error`, the largest |E y² - (E y)² - epistemic - aleatoric|; `one_draw_epistemic`, the largest variance between two
      calls of one θ, which is one function and not a sample of them.

    Data of one seed are the same for every posterior, and those of a size are the first of the next. Variances are of whitened y.

    >>> from bayesdyn.posteriors import ExactGP
    >>> rows = disentanglement_rows(ExactGP, "GP", 0, Disentanglement(sizes=(20, 40), rows=40))
    >>> [row.count for row in rows if row.metric == "epistemic_var"]
    [20, 40]
    """
    x, y = settings.toy.draw(max(settings.sizes), torch.Generator().manual_seed(seed))
    support, gap = settings.toy.support(), settings.toy.gap()
    row = Row(name, _DATA, IN_DISTRIBUTION, seed, "test", "", count=settings.rows)
    epistemic, aleatoric = [], []
    figures: dict[str, float] = {}
    for size in sorted(set(settings.sizes)):
        posterior = _fitted(make, x[:size], y[:size], seed)
        at = _predict(posterior, support)
        epistemic.append(at.epistemic_variance.mean())
        aleatoric.append(at.aleatoric_variance.mean())
        if size == settings.rows:
            wider = 2 * y - settings.toy.mean(x)
            doubled = _predict(_fitted(make, x[:size], wider[:size], seed), support)
            figures = _at_one_size(at, _predict(posterior, gap), doubled, settings.toy.std(support).square())
            figures["one_draw_epistemic"] = _variance_of_one_draw(posterior, support, seed)
    sizes = torch.tensor(sorted(set(settings.sizes)), dtype=torch.float64)
    curves = {"epistemic_var": torch.stack(epistemic), "aleatoric_var": torch.stack(aleatoric)}
    figures["epistemic_slope"] = float(log_slope(sizes, curves["epistemic_var"]))
    figures["aleatoric_per_tenfold"] = float(10 ** log_slope(sizes, curves["aleatoric_var"]))
    rows = [
        replace(row, metric=metric, value=float(value), count=int(size))
        for metric, curve in curves.items()
        for size, value in zip(sizes, curve, strict=True)
    ]
    return rows + [replace(row, metric=metric, value=value) for metric, value in figures.items()]


def verdicts(rows: Sequence[Row]) -> dict[str, bool]:
    """Return for each figure of `THRESHOLDS` whether its mean over the rows (seeds) lies within them.

    >>> verdicts([Row("GP", "noisy-sine", "none", 0, "test", "gap_ratio", value=5.0)])
    {'gap_ratio': True}
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.metric in THRESHOLDS:
            found.setdefault(row.metric, []).append(row.value)
    means = {metric: sum(values) / len(values) for metric, values in found.items()}
    return {metric: THRESHOLDS[metric][0] <= mean <= THRESHOLDS[metric][1] for metric, mean in means.items()}


def _at_one_size(at: Predictive, gap: Predictive, doubled: Predictive, truth: Tensor) -> dict[str, float]:
    epistemic = at.epistemic_variance.mean()
    return {
        "log_noise_rmse": float(log_variance_rmse(at.aleatoric_variance, truth)),
        "gap_ratio": float(gap.epistemic_variance.mean() / epistemic),
        "aleatoric_ratio": float(doubled.aleatoric_variance.mean() / at.aleatoric_variance.mean()),
        "epistemic_ratio": float(doubled.epistemic_variance.mean() / epistemic),
        "split_error": float((_raw_variance(at) - at.epistemic_variance - at.aleatoric_variance).abs().max()),
    }


def _raw_variance(predictive: Predictive) -> Tensor:
    """Return E y² - (E y)² of the mixture, which knows nothing of the two parts."""
    second = (predictive.component_var + predictive.component_mean.square()).mean(0)
    return second - predictive.mean.square()


def _fitted(make: Callable[[], Posterior], x: Tensor, y: Tensor, seed: int) -> Posterior:
    posterior = make()
    posterior.fit(x.to(posterior.dtype), y.to(posterior.dtype), generator=torch.Generator().manual_seed(seed))
    return posterior


def _variance_of_one_draw(posterior: Posterior, x: Tensor, seed: int) -> float:
    """Return the largest variance between two calls of one θ."""
    draw, at = posterior.sample(1, torch.Generator().manual_seed(seed)), x.to(posterior.dtype).unsqueeze(0)
    with torch.no_grad():
        return float(torch.cat([draw(at).mean, draw(at).mean]).double().var(0, correction=0).max())


def _predict(posterior: Posterior, x: Tensor) -> Predictive:
    with torch.no_grad():
        return to_double(posterior.predict(x.to(posterior.dtype)))
