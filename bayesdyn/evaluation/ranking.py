"""Does uncertainty rank the error? Risk-coverage and sparsification curves, and the same question at every horizon.

Scores q [J, ...] are uncertainties, errors [J, ...] are absolute. Equal scores stand for a random order, in expectation: a score
that says nothing is worth exactly what a random one is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ShapeError
from bayesdyn.evaluation.metrics import mean_over_ties, spearman
from bayesdyn.evaluation.null_bands import Band
from bayesdyn.evaluation.samples import split_variance
from bayesdyn.rollout import Noise, Propagation, SampledDynamics
from bayesdyn.rollout.propagation import Step

_ENDS = torch.tensor([0.05, 0.95], dtype=torch.float64)


def aurc(score: Float[Tensor, "J *rest"], error: Float[Tensor, "J *rest"]) -> Float[Tensor, "*rest"]:
    """Return the area under the risk-coverage curve, mean_k (1/k) Σ_{j<=k} error_(j), sorted by ascending score.

    Source: Geifman et al. 2019, "Bias-reduced uncertainty estimation", section 2.

    >>> aurc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0])).item()
    1.5
    """
    return _running_mean(score, error).mean(0)


def excess_aurc(score: Float[Tensor, "J *rest"], error: Float[Tensor, "J *rest"]) -> Float[Tensor, "*rest"]:
    """Return AURC less that of the order by the error itself: 0 for a perfect order, in units of the error."""
    return aurc(score, error) - aurc(error, error)


def sparsification(score: Float[Tensor, "J *rest"], error: Float[Tensor, "J *rest"]) -> Float[Tensor, "J *rest"]:
    """Return the RMSE of what remains when the share f = 0, 1/J, ..., 1 - 1/J of the largest scores is removed.

    >>> sparsification(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 7.0])).tolist()
    [5.0, 1.0]
    """
    return _running_mean(score, error.square()).sqrt().flip(0)


def ause(score: Float[Tensor, "J *rest"], error: Float[Tensor, "J *rest"]) -> Float[Tensor, "*rest"]:
    """Return the area under the sparsification error, (area(score) - area(oracle)) / (area(random) - area(oracle)).

    0 for the order by the error itself, 1 for an order that says nothing, above 1 for one that misleads; not a number where all
    errors are equal (Ilg et al. 2018, section 5, here relative to random).

    >>> error = torch.tensor([1.0, 2.0, 3.0])
    >>> ause(error, error).item(), round(ause(torch.ones(3), error).item(), 6)
    (0.0, 1.0)
    """
    oracle = sparsification(error, error).mean(0)
    random = error.square().mean(0).sqrt()
    return (sparsification(score, error).mean(0) - oracle) / (random - oracle)


def ranking(score: Float[Tensor, "..."], error: Float[Tensor, "..."]) -> dict[str, Float[Tensor, "..."]]:
    """Return `spearman`, `aurc`, `excess_aurc` and `ause` [...] of an uncertainty [J, ...] against |error| [J, ...].

    Raises `ShapeError` if both differ in shape.
    """
    if score.shape != error.shape:
        raise ShapeError(f"an uncertainty ranks errors of its own shape; got {list(score.shape)} and {list(error.shape)}")
    size = error.abs()
    return {f.__name__: f(score, size) for f in (spearman, aurc, excess_aurc, ause)}


def _running_mean(score: Tensor, value: Tensor) -> Tensor:
    """Return (1/k) Σ_{j<=k} value_(j), k = 1..J, by ascending score; values of equal scores are replaced by their mean."""
    ascending, order = score.sort(0)
    ordered = mean_over_ties(ascending, value.gather(0, order))
    count = torch.arange(1, len(value) + 1, dtype=value.dtype, device=value.device)
    return ordered.cumsum(0) / count.reshape(-1, *(1,) * (value.dim() - 1))


@dataclass(frozen=True, eq=False)
class OwnNoise(Propagation):
    """One θ per trajectory as in `TSInf`, and noise of its own for every start: given θ, starts are independent, as real ones are.

    Planning wants noise that all candidates share; simulated test data want this. The noise comes from `generator` as it is needed,
    so trajectories are as repeatable as the generator's state.

    >>> from bayesdyn import Gaussian, PlainDynamics, rollout
    >>> noisy = PlainDynamics(lambda s, a: Gaussian(s + a, torch.ones_like(s)))
    >>> own = OwnNoise(torch.Generator().manual_seed(0))
    >>> found = rollout(noisy, torch.zeros(9, 1), torch.zeros(1, 1, 1), lambda s, a, s2: s2[..., 0], propagation=own)
    >>> len(found.returns.unique())
    9
    """

    generator: torch.Generator

    def step(
        self, dynamics: SampledDynamics, state: Float[Tensor, "..."], action: Float[Tensor, "..."], noise: Noise, t: int
    ) -> Step:
        """Move each trajectory with its own draw and noise of its own."""
        moved = dynamics(state, action)
        shape = (*noise.normal.shape[1:3], *moved.mean.shape[2:])
        normal = torch.randn(shape, generator=self.generator, dtype=moved.mean.dtype, device=self.generator.device)
        sample = moved.sample(normal.to(moved.mean.device))
        return Step(sample, sample)


def horizon_ranking(
    particles: Float[Tensor, "n p W E"], replicates: Float[Tensor, "R W E"] | None = None
) -> dict[str, tuple[Float[Tensor, "E"], Band | None]]:
    """Return how the epistemic and the total std at one horizon rank the error of the particle mean, with their null bands.

    `particles` are n draws x p >= 2 paths as deviations from what was logged, W starts; their split is `split_variance`'s.
    `replicates` are deviations of simulated truths, one θ each and noise of their own for every start: what the same uncertainty
    would score if the model were right. Metrics are those of `ranking`, suffixed `_epistemic` and `_total`.

    Raises `ConfigurationError` for fewer than 2 draws or paths.
    """
    epistemic, aleatoric = split_variance(particles)
    mean = particles.mean((0, 1))
    scores = {"epistemic": epistemic, "total": epistemic + aleatoric}

    def all_of(error: Tensor) -> dict[str, Tensor]:
        """Rank errors [W, ..., E]."""
        wide = {name: score.reshape(len(score), *(1,) * (error.dim() - 2), -1).expand_as(error) for name, score in scores.items()}
        return {f"{name}_{part}": v for part, score in wide.items() for name, v in ranking(score, error).items()}

    found = all_of(mean)
    if replicates is None:
        return {name: (value, None) for name, value in found.items()}
    simulated = all_of((replicates - mean).movedim(0, 1))
    return {name: (value, Band(*simulated[name].nanquantile(_ENDS.to(mean), 0))) for name, value in found.items()}
