"""Is one better than the other? Intervals of paired differences: same data, same seed, one number each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from bayesdyn.errors import DataError

# A percentile bootstrap covers 83 % instead of 95 % with 5 pairs, and 92 % with 20.
_FEWEST_TO_RESAMPLE = 20
_RESAMPLES = 10_000


class PairedInterval(NamedTuple):
    """Mean difference, the ends of its 95 % interval (infinite for a single pair), and how many pairs stand behind it."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def tied(self) -> bool:
        """Whether 0 lies in the interval."""
        return self.low <= 0 <= self.high


def paired_interval(differences: Sequence[float], confidence: float = 0.95, seed: int = 0) -> PairedInterval:
    """Return the mean of paired differences and its interval: Student's t below 20 pairs, a percentile bootstrap from 20 on.

    mean ± t_{(1+c)/2, k-1} · s/√k for k < 20 pairs with sample standard deviation s

    Pairs have to be independent: one per seed or trajectory, not per window. Raises `DataError` for none, or one that is no number.

    >>> found = paired_interval([1.0, 2.0, 3.0])
    >>> round(found.low, 3), found.mean, round(found.high, 3), found.tied
    (-0.484, 2.0, 4.484, True)
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise DataError(f"an interval wants one or more finite differences; got {values.tolist()}")
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return PairedInterval(mean, -math.inf, math.inf, 1)
    if count < _FEWEST_TO_RESAMPLE:
        half = float(scipy.stats.t.ppf(0.5 + 0.5 * confidence, count - 1) * values.std(ddof=1) / math.sqrt(count))
        return PairedInterval(mean, mean - half, mean + half, count)
    drawn = values[np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))].mean(1)
    low, high = np.quantile(drawn, [0.5 - 0.5 * confidence, 0.5 + 0.5 * confidence])
    return PairedInterval(mean, float(low), float(high), count)
