"""Learning from the rows that a model asks for: error curves of three acquisitions, and what they gain over rows at random."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, DataError, ShapeError
from bayesdyn.evaluation.metrics import shift_score
from bayesdyn.evaluation.scoring import Model, to_double
from bayesdyn.evaluation.seeds import seeded
from bayesdyn.evaluation.table import IN_DISTRIBUTION, ONE_STEP, Row

Acquisition = Callable[[Predictive], Tensor]
"""Predictive of J rows, whitened targets -> scores [J]: the rows with the largest are asked for."""

RANDOM = "random"
_START, _FIT, _TIES = range(3)


def information(predictive: Predictive) -> Float[Tensor, "J"]:
    """Return Σ_d ½ log(1 + epistemic_d/aleatoric_d), nats: the Gaussian mutual information of y and θ (MacKay 1992, section 3)."""
    return 0.5 * shift_score(predictive)


def total_variance(predictive: Predictive) -> Float[Tensor, "J"]:
    """Return Σ_d (epistemic_d + aleatoric_d): it takes noise for something to be learned."""
    return predictive.variance.sum(-1)


def at_random(predictive: Predictive) -> Float[Tensor, "J"]:
    """Return 0 everywhere, so that ties, which are broken at random, decide."""
    return torch.zeros_like(predictive.variance[..., 0])


ACQUISITIONS: Mapping[str, Acquisition] = {"information": information, "total_variance": total_variance, RANDOM: at_random}


def top_rows(score: Float[Tensor, "J"], count: int, generator: torch.Generator) -> Int[Tensor, "k"]:
    """Return the indices of the `count` largest scores; equal ones are taken at random, and what is no number comes last.

    >>> top_rows(torch.tensor([1.0, 3.0, 2.0]), 2, torch.Generator().manual_seed(0)).tolist()
    [1, 2]
    """
    shuffled = torch.randperm(len(score), generator=generator)
    known = torch.where(score.isnan(), -torch.inf, score)
    return shuffled[known[shuffled].argsort(descending=True, stable=True)[:count]]


def area(rows: Float[Tensor, "k"], error: Float[Tensor, "k *rest"]) -> Float[Tensor, "*rest"]:
    """Return the area under a learning curve, by trapezoids over the number of rows.

    >>> area(torch.tensor([10.0, 20.0]), torch.tensor([1.0, 0.5])).item()
    7.5
    """
    return torch.trapezoid(error.movedim(0, -1), rows)


def area_gain(rows: Float[Tensor, "k"], error: Float[Tensor, "k *rest"], random: Float[Tensor, "..."]) -> Float[Tensor, "*rest"]:
    """Return (area(random) - area(curve))/area(random): the share of the error that asking saves, below 0 where it costs.

    Raises `ShapeError` for curves of different shapes.
    """
    if error.shape != random.shape:
        raise ShapeError(f"learning curves want one shape; got {list(error.shape)} and {list(random.shape)}")
    return 1 - area(rows, error) / area(rows, random)


@dataclass(frozen=True)
class ActiveLearning:
    """How it is run: rows to start with, rows added per round, rounds.

    Raises `ConfigurationError` for numbers without a meaning.

    >>> ActiveLearning().sizes[-1]
    170
    """

    start: int = 20
    batch: int = 10
    rounds: int = 15

    def __post_init__(self) -> None:
        if self.start < 2 or min(self.batch, self.rounds) < 1:
            raise ConfigurationError(f"active learning wants start >= 2, batch and rounds >= 1; got {self}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows at each point of the curve."""
        return tuple(range(self.start, self.start + self.batch * self.rounds + 1, self.batch))


def learning_curve(
    make: Callable[[BaseCodec], Model],
    codec: Callable[[], BaseCodec],
    pool: Transitions,
    test: Transitions,
    acquisition: Acquisition,
    seed: int,
    settings: ActiveLearning = ActiveLearning(),
) -> Float[Tensor, "k E"]:
    """Return the test RMSE at each size, over the std of the pool's targets: the whole pool sets the scale, not what was picked.

    A model and its codec are fitted anew in every round. Of one seed the first rows, the ties and the fits' random numbers are the
    same whatever the acquisition, so that curves are paired. Raises `DataError` for a pool that is smaller than the last size.

    >>> from bayesdyn import Codec, DynamicsModel, posteriors
    >>> state = torch.rand(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> pool = Transitions.from_arrays(state, 0 * state, state.sin())
    >>> make = lambda codec: DynamicsModel(codec, posteriors.ExactGP())
    >>> learning_curve(make, Codec, pool, pool, information, 0, ActiveLearning(5, 5, 1)).shape
    torch.Size([2, 1])
    """
    if len(pool) < settings.sizes[-1]:
        raise DataError(f"{settings} wants a pool of {settings.sizes[-1]} rows; got {len(pool)}")
    whole = codec()
    whole.fit(pool)
    chosen = torch.randperm(len(pool), generator=seeded(seed, _START))[: settings.start]
    curve = []
    for turn, size in enumerate(settings.sizes):
        now = codec()
        model = make(now)
        model.fit(pool.select(chosen.sort().values), generator=seeded(seed, _FIT, turn))
        curve.append(_error(model, now, test) / whole.target_std)
        if size < settings.sizes[-1]:
            left = torch.ones(len(pool), dtype=torch.bool).scatter(0, chosen, False).nonzero().flatten()
            rest = pool.select(left)
            with torch.no_grad():
                score = acquisition(to_double(model.predict_target(rest.state, rest.action)))
            chosen = torch.cat([chosen, left[top_rows(score, settings.batch, seeded(seed, _TIES, turn))]])
    return torch.stack(curve)


def active_learning_rows(
    make: Callable[[BaseCodec], Model],
    codec: Callable[[], BaseCodec],
    pool: Transitions,
    test: Transitions,
    row: Row,
    settings: ActiveLearning = ActiveLearning(),
    acquisitions: Mapping[str, Acquisition] = ACQUISITIONS,
) -> list[Row]:
    """Return the learning curve of every acquisition, and what each gains over rows at random with the same seed.

    `row` says posterior, data and seed. By output, with the acquisition as `objective`: `active_nrmse` at each size, which is its
    `count`; `active_area`, the area under the curve over its width; and `active_gain` of all but `random`, which is always run. One
    seed says little about a gain: take at least five, and `paired_interval` of theirs.
    """
    curves = {
        name: learning_curve(make, codec, pool, test, acquisition, row.seed, settings)
        for name, acquisition in {**acquisitions, RANDOM: at_random}.items()
    }
    whole = codec()
    whole.fit(pool)
    base = replace(row, shift=IN_DISTRIBUTION, split="test", horizon=1, propagation=ONE_STEP)
    sizes = torch.tensor(settings.sizes, dtype=torch.float64)
    rows = []
    for name, curve in curves.items():
        here = replace(base, objective=name, count=settings.sizes[-1])
        gain = area_gain(sizes, curve, curves[RANDOM])
        mean = area(sizes, curve) / (sizes[-1] - sizes[0])
        for i, output in enumerate(whole.outputs):
            mine = replace(here, output=str(output))
            rows += [replace(mine, metric="active_nrmse", value=float(curve[k, i]), count=n) for k, n in enumerate(settings.sizes)]
            rows.append(replace(mine, metric="active_area", value=float(mean[i])))
            if name != RANDOM:
                rows.append(replace(mine, metric="active_gain", value=float(gain[i])))
    return rows


def _error(model: Model, codec: BaseCodec, test: Transitions) -> Float[Tensor, "E"]:
    """Return the RMSE of the mean, in physical units."""
    with torch.no_grad():
        mean = to_double(model.predict_target(test.state, test.action)).mean
    missed = (mean - codec.target(test.state, test.next_state)) * codec.target_std
    return missed.square().mean(0).sqrt()
