"""What Markov chains learn about their target while they warm up: step sizes and a metric."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_GAMMA, _DELAY, _DECAY = 0.05, 10.0, 0.75  # γ, t₀ and κ of Hoffman & Gelman 2014, section 3.2.1
_FIRST, _WINDOW, _LAST = 75, 25, 50  # transitions of the phases of a warm-up, as in Stan


class Metric(ABC):
    """z = u Lᵀ, where L Lᵀ is the covariance that the chains have seen: in u the target is round and the metric the identity."""

    @abstractmethod
    def unwhiten(self, u: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return z."""

    @abstractmethod
    def whiten(self, z: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return u."""

    @abstractmethod
    def adapted(self, seen: Float[Tensor, "draws P"]) -> "Metric":
        """Return the metric of the draws seen."""


class DiagonalMetric(Metric):
    """Standard deviations [P]; a coordinate that has not moved keeps its old one.

    >>> DiagonalMetric(torch.ones(2)).adapted(torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 0.0]])).std
    tensor([3., 1.])
    """

    def __init__(self, std: Float[Tensor, " P"]) -> None:
        self.std = std

    def unwhiten(self, u: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return z = σ u."""
        return u * self.std

    def whiten(self, z: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return u = z / σ."""
        return z / self.std

    def adapted(self, seen: Float[Tensor, "draws P"]) -> "DiagonalMetric":
        """Return the metric of the draws seen."""
        return DiagonalMetric(_spread(seen, self.std))


class DenseMetric(Metric):
    """A Cholesky factor L [P, P]: correlated parameters become independent ones.

    >>> metric = DenseMetric(torch.eye(2)).adapted(torch.randn(500, 2).cumsum(1))
    >>> metric.factor.shape
    torch.Size([2, 2])
    """

    def __init__(self, factor: Float[Tensor, "P P"]) -> None:
        self.factor = factor

    def unwhiten(self, u: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return z = u Lᵀ."""
        return u @ self.factor.mT

    def whiten(self, z: Float[Tensor, "*batch P"]) -> Float[Tensor, "*batch P"]:
        """Return u = z L⁻ᵀ."""
        return torch.linalg.solve_triangular(self.factor, z.unsqueeze(-1), upper=False).squeeze(-1)

    def adapted(self, seen: Float[Tensor, "draws P"]) -> "DenseMetric":
        """Return the metric of the draws seen, correlations shrunk by draws/(draws + P + 5), which keeps L regular."""
        std = _spread(seen, self.factor.square().sum(1).sqrt())
        whitened = (seen - seen.mean(0)) / std
        correlation = whitened.mT @ whitened / len(seen)
        off_diagonal = correlation - correlation.diag().diag()
        share = len(seen) / (len(seen) + len(std) + 5)
        identity = torch.eye(len(std), dtype=seen.dtype, device=seen.device)
        return DenseMetric(std.unsqueeze(1) * torch.linalg.cholesky(identity + share * off_diagonal))


def _spread(seen: Tensor, before: Tensor) -> Tensor:
    std = seen.std(0)
    return torch.where((std > 0) & std.isfinite(), std, before)


class StepSize:
    """Dual averaging: log ε_t = μ - √t/γ·H̄_t pulls the acceptance of each chain to the target, log ε̄ = Σ of weights t^-κ is kept.

    Source: Hoffman, Gelman 2014, section 3.2.1.

    >>> step = StepSize(torch.ones(2), target=0.8)
    >>> step.update(torch.tensor([0.2, 1.0]))
    >>> step.current[0] < step.current[1]
    tensor(True)
    """

    def __init__(self, start: Float[Tensor, " C"], target: float) -> None:
        self.target = target
        self.restart(start)

    def restart(self, start: Float[Tensor, " C"]) -> None:
        """Forget what was learned and begin at these step sizes."""
        self.current, self._anchor = start, (10 * start).log()
        self._error, self._average, self._count = torch.zeros_like(start), torch.zeros_like(start), 0

    def update(self, accepted: Float[Tensor, " C"]) -> None:
        """Take the mean acceptance of one transition into account."""
        self._count += 1
        share, weight = 1 / (self._count + _DELAY), self._count**-_DECAY
        self._error = (1 - share) * self._error + share * (self.target - accepted)
        log_step = self._anchor - math.sqrt(self._count) / _GAMMA * self._error
        self._average = weight * log_step + (1 - weight) * self._average
        self.current = log_step.exp()

    def freeze(self) -> None:
        """Use the averaged step size from now on."""
        self.current = self._average.exp()


@dataclass(frozen=True)
class Windows:
    """Which transitions (from 1) are seen by the metric, and after which ones it is renewed."""

    adapting: range
    ends: tuple[int, ...]


def metric_windows(warmup: int) -> Windows:
    """Return windows that double in length between a first phase, which finds the target, and a last one for the step size.

    75, then 25, 50, 100, ..., then 50 transitions, the last window stretched to the end. Fewer than 150 are divided
    into 40, 40 and 20 %: a metric that has seen the way to the target is worse than none.

    >>> metric_windows(300)
    Windows(adapting=range(76, 251), ends=(100, 150, 250))
    """
    short = warmup < _FIRST + _WINDOW + _LAST
    first, last = (round(0.4 * warmup), round(0.2 * warmup)) if short else (_FIRST, _LAST)
    size = warmup - first - last if short else _WINDOW
    stop, end, ends = warmup - last, first, []
    while end < stop:
        end = stop if end + 3 * size > stop else end + size
        ends.append(end)
        size *= 2
    return Windows(range(first + 1, stop + 1), tuple(ends))
