"""How the posterior of a few parameters is found: by Markov chains, or by a Normal fitted to it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.inference.monte_carlo import effective_sample_size, run_nuts, split_r_hat
from bayesdyn.progress import Progress

_WORST_R_HAT, _FEWEST_EFFECTIVE = 1.05, 100
_LEAST_EFFICIENCY = 0.1

Model = Callable[[], object]


@dataclass(frozen=True)
class Inferred:
    """Draws of a model's sites, [draws, *event] each, best mixed first to last, and what is known about their quality."""

    values: dict[str, Tensor]
    steps: int
    r_hat: dict[str, Tensor] = field(default_factory=dict)  # [*event] per site
    effective: dict[str, Tensor] = field(default_factory=dict)
    divergences: int = 0
    warnings: tuple[str, ...] = ()
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)


class Inference(ABC):
    """A way from a Pyro model (see `PyroDensity` for how it is written) to draws from its posterior; frozen."""

    @abstractmethod
    def infer(
        self, model: Model, last: dict[str, Tensor] | None, generator: torch.Generator, progress: Progress | None
    ) -> Inferred:
        """Return draws of the sites; `last`, draws of the last fit, is where to start from (None: from the priors)."""


@dataclass(frozen=True)
class NUTSInference(Inference):
    """The No-U-Turn sampler: exact in the limit of long chains; for up to about 20 parameters.

    A warm start goes on from the last fit's last draws, with `warm_warmup` transitions to adapt again.

    Raises `ConfigurationError` for counts without a meaning.

    >>> NUTSInference(chains=2).draws
    500
    """

    chains: int = 4
    warmup: int = 300
    warm_warmup: int = 150
    draws: int = 500
    target_accept: float = 0.8
    full_mass: bool = True
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        counts = (self.chains, self.warmup, self.warm_warmup, self.max_tree_depth)
        if min(counts) < 1 or self.draws < 4 or not 0 < self.target_accept < 1:
            raise ConfigurationError(f"NUTS wants positive counts, 4 draws or more and target_accept in (0, 1); got {self}")

    def infer(
        self, model: Model, last: dict[str, Tensor] | None, generator: torch.Generator, progress: Progress | None
    ) -> Inferred:
        """Run the chains; draws are merged in turn, so that the last ones are those of all chains."""
        warmup = self.warmup if last is None else min(self.warmup, self.warm_warmup)
        rows = torch.arange(self.chains) + 1
        samples = run_nuts(
            model,
            chains=self.chains,
            warmup=warmup,
            draws=self.draws,
            target_accept=self.target_accept,
            full_mass=self.full_mass,
            max_tree_depth=self.max_tree_depth,
            generator=generator,
            progress=progress,
            initial=None if last is None else {name: value[-rows % len(value)] for name, value in last.items()},
        )
        r_hat = {name: split_r_hat(value) for name, value in samples.values.items()}
        effective = {name: effective_sample_size(value) for name, value in samples.values.items()}
        divergences = int(samples.divergences.sum())
        return Inferred(
            {name: samples.merged(name) for name in samples.values},
            self.chains * (warmup + self.draws),
            r_hat,
            effective,
            divergences,
            self._warnings(r_hat, effective, divergences),
        )

    def _warnings(self, r_hat: dict[str, Tensor], effective: dict[str, Tensor], divergences: int) -> tuple[str, ...]:
        told = []
        for name, value in r_hat.items():
            if bool((value > _WORST_R_HAT).any()):
                told.append(f"chains disagree on {name} (R-hat {float(value.max()):.2f} > {_WORST_R_HAT}); allow longer chains")
        for name, value in effective.items():
            if bool((value < _FEWEST_EFFECTIVE).any()):
                told.append(f"{name} has only {float(value.min()):.0f} effective draws; allow longer chains")
        if divergences:
            told.append(
                f"{divergences} of {self.chains * self.draws} transitions diverged: the posterior is steep somewhere; raise "
                "target_accept, or use narrower priors"
            )
        return tuple(told)


@dataclass(frozen=True)
class VariationalInference(Inference):
    """A Normal with full covariance on the scale without bounds, at the smallest KL(q ‖ p): one mode, any number of parameters.

    `draws` are stored from it. `particles` draws estimate each gradient of the ELBO.

    Raises `ConfigurationError` for counts or rates without a meaning.

    >>> VariationalInference(steps=300).particles
    32
    """

    steps: int = 500
    learning_rate: float = 0.03
    particles: int = 32
    draws: int = 2000

    def __post_init__(self) -> None:
        if min(self.steps, self.particles, self.draws) < 1 or not self.learning_rate > 0:
            raise ConfigurationError(f"variational inference wants positive counts and learning rate; got {self}")

    def infer(
        self, model: Model, last: dict[str, Tensor] | None, generator: torch.Generator, progress: Progress | None
    ) -> Inferred:
        """Find the mode, take its curvature as the first covariance, and improve both."""
        from bayesdyn.inference.pyro_density import PyroDensity
        from bayesdyn.posteriors.physics_variational import fit_normal  # Pyro is slow to import

        density = PyroDensity(model, generator)
        start = None if last is None else density.flat(last).mean(0)
        fit = fit_normal(density, start, self.steps, self.learning_rate, self.particles, generator, progress)
        z, efficiency = fit.draws(density, self.draws, generator)
        warnings = []
        if not efficiency > _LEAST_EFFICIENCY:
            warnings.append(
                f"the Normal is far from the posterior (importance efficiency {efficiency:.2f} < {_LEAST_EFFICIENCY}); "
                "use NUTSInference, or check that all parameters can be told from the data"
            )
        names = density.constrained(z)
        effective = {name: torch.full(value.shape[1:], self.draws * efficiency).double() for name, value in names.items()}
        r_hat = {name: torch.full_like(effective[name], math.nan) for name in names}
        return Inferred(names, fit.steps, r_hat, effective, 0, tuple(warnings), {"elbo": fit.elbo})
