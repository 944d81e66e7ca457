"""What the items of the posterior contract share: toy data, and posteriors fitted once and looked at by many checks."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from math import exp, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.functions import Function
from bayesdyn.posteriors.base import FitReport, Posterior
from bayesdyn.testing.conformance import generator, global_randomness_untouched

PROBES = 64
ToyData = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def toy_data(rows: int, generator: torch.Generator) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 2"]]:
    """Return x ~ N(0, I) and two smooth functions of it, scaled to mean 0 and variance 1, plus noise of std 0.1, in float64.

    >>> x, y = toy_data(5, torch.Generator().manual_seed(0))
    >>> x.shape, y.shape
    (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    # E cos z = e^-½, Var cos z = ½(1 + e^-2) - e^-1 and Var sin z = ½(1 - e^-2) for z ~ N(0, 1).
    first = (x[:, 0].sin() + 0.5 * x[:, 1]) / sqrt(0.5 * (1 - exp(-2)) + 0.25)
    second = (x[:, 2].cos() - exp(-0.5) + 0.5 * x[:, 0]) / sqrt(0.5 * (1 + exp(-2)) - exp(-1) + 0.25)
    return x, torch.stack([first, second], -1) + 0.1 * noise


@dataclass(frozen=True)
class Refitted:
    """A posterior that was fitted on four times the rows, drawn from, then fitted on the case's own rows."""

    posterior: Posterior
    large: Predictive  # what the first fit said at the probes
    large_state: dict[str, Any]
    draws: Function  # drawn after the first fit
    answer: Gaussian  # what they said then


@dataclass(frozen=True)
class PosteriorCase:
    """One posterior class in one dtype, with the properties that its author states."""

    make: Callable[[], Posterior]
    dtype: torch.dtype
    data: ToyData
    rows: int
    feature_error: float
    exact_predict: bool

    @cached_property
    def _all(self) -> tuple[Tensor, Tensor]:
        x, y = self.data(4 * self.rows + PROBES, generator(0))
        return x.to(self.dtype), y.to(self.dtype)

    @property
    def x(self) -> Float[Tensor, "N D"]:
        """Training inputs."""
        return self._all[0][: self.rows]

    @property
    def y(self) -> Float[Tensor, "N E"]:
        """Training targets."""
        return self._all[1][: self.rows]

    @property
    def x_large(self) -> Float[Tensor, "M D"]:
        """Four times as many training inputs, of which `x` are the first."""
        return self._all[0][: 4 * self.rows]

    @property
    def y_large(self) -> Float[Tensor, "M E"]:
        """The targets of `x_large`."""
        return self._all[1][: 4 * self.rows]

    @property
    def probes(self) -> Float[Tensor, "P D"]:
        """Inputs in the support of the data that no fit has seen."""
        return self._all[0][4 * self.rows :]

    @property
    def probe_targets(self) -> Float[Tensor, "P E"]:
        """Noisy targets at the probes."""
        return self._all[1][4 * self.rows :]

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E)."""
        return self.x.shape[1], self.y.shape[1]

    def away(self, stds: float) -> Float[Tensor, "16 D"]:
        """Return 16 inputs that lie `stds` standard deviations from the data's mean in every feature."""
        signs = torch.randint(2, (16, self.sizes[0]), generator=generator(2)).to(self.dtype) * 2 - 1
        return self.x.mean(0) + stds * self.x.std(0) * signs

    def fit(self, posterior: Posterior, x: Tensor, y: Tensor, *, warm_start: bool = False) -> FitReport:
        """Fit with the case's generator."""
        with global_randomness_untouched("a fit"):
            return posterior.fit(x, y, warm_start=warm_start, generator=generator(1))

    @cached_property
    def fit_once(self) -> tuple[Posterior, FitReport]:
        """A posterior fitted on `x`, `y` and the report of that fit; no check may change it."""
        posterior = self.make()
        return posterior, self.fit(posterior, self.x, self.y)

    @property
    def fitted(self) -> Posterior:
        """The posterior of `fit_once`."""
        return self.fit_once[0]

    @cached_property
    def predictive(self) -> Predictive:
        """What the fitted posterior says at the probes."""
        return self.fitted.predict(self.probes)

    @cached_property
    def refitted(self) -> Refitted:
        """A posterior with a past: fitted on the large data, drawn from, warm started with more rows, fitted afresh on `x`, `y`."""
        posterior = self.make()
        self.fit(posterior, self.x_large, self.y_large)
        large, large_state = posterior.predict(self.probes), deepcopy(dict(posterior.state_dict()))
        draws = posterior.sample(3, generator(3))
        answer = draws(self.probes.unsqueeze(0))
        answer = Gaussian(answer.mean.detach().clone(), answer.var.detach().clone())
        self.fit(posterior, *self._all, warm_start=True)
        self.fit(posterior, self.x, self.y)
        return Refitted(posterior, large, large_state, draws, answer)
