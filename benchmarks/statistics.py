"""What is said of a figure measured once per seed: mean, standard deviation, interquartile mean, bootstrap intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import trim_mean

from benchmarks.acceptance import Acceptance

RESAMPLES = 10_000
FEWEST = 5  # a bootstrap of fewer seeds is far too narrow


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation over seeds, interquartile mean, and 95 % percentile bootstrap intervals of both means."""

    mean: float
    std: float
    interquartile_mean: float
    mean_interval: tuple[float, float]
    interquartile_interval: tuple[float, float]


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Summarise one figure per seed; the interquartile mean leaves out a quarter of the seeds, rounded down, at either end.

    A single seed has no spread: its standard deviation and intervals are NaN. Source: Agarwal et al., NeurIPS 2021, section 4.3.

    >>> summarise([0.0, 2.0, 4.0, 100.0]).interquartile_mean
    3.0
    """
    sample = np.asarray(values, dtype=np.float64)
    return Summary(
        mean=float(sample.mean()),
        std=float(sample.std(ddof=1)) if len(sample) > 1 else float("nan"),
        interquartile_mean=float(interquartile_mean(sample)),
        mean_interval=bootstrap(sample, np.mean, confidence),
        interquartile_interval=bootstrap(sample, interquartile_mean, confidence),
    )


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean of the middle half along an axis."""
    return np.asarray(trim_mean(values, 0.25, axis=axis))


def bootstrap(
    values: np.ndarray, statistic: Callable[..., np.ndarray], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of `statistic(values [R, N], axis=1) -> [R]` over N seeds, NaN for one seed."""
    if len(values) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(statistic(values[drawn], axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def inform_returns(acceptance: Acceptance, name: str, values: Sequence[float], reference: str = "") -> None:
    """Print one figure per seed as information, beside a reference, and for five seeds or more both means with their intervals."""
    summary = summarise(values)
    acceptance.add(name, values, reference, None)
    if len(values) >= FEWEST:
        for what, figure, (low, high) in (
            ("mean", summary.mean, summary.mean_interval),
            ("interquartile mean", summary.interquartile_mean, summary.interquartile_interval),
        ):
            acceptance.add(f"{name}, {what}", [figure], f"95 % interval {low:.4g} to {high:.4g}", None)
