"""All rows of one fitted model: one step ahead, by horizon, and how it tells shifted data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Predictive
from bayesdyn.evaluation import metrics
from bayesdyn.evaluation.null_bands import Band, null_band
from bayesdyn.evaluation.open_loop import OpenLoop, Scale, Windows, replay, score_horizon, windows
from bayesdyn.evaluation.ranking import OwnNoise, horizon_ranking, ranking
from bayesdyn.evaluation.samples import rank_pit
from bayesdyn.evaluation.skill import Reference, crps_skill, valid_horizon
from bayesdyn.evaluation.table import ONE_STEP, Row
from bayesdyn.posteriors.base import FitReport
from bayesdyn.progress import Progress
from bayesdyn.rollout import SampledDynamics

_NUMBERS_AT_ONCE = 2**22
# Paths per draw from which the two parts of a spread are told apart, and simulated truths per open loop, which cost a rollout each.
_PATHS, _MOST_REPLICATES = 4, 100
PIT_PERCENT = range(5, 100, 5)


@runtime_checkable
class Model(Protocol):
    """What is compared: a `DynamicsModel`, or a reference that answers the same questions."""

    def fit(
        self, transitions: Transitions, *, generator: torch.Generator | None = None, progress: Progress | None = None
    ) -> FitReport:
        """Learn from all transitions."""

    def predict_target(self, state: Float[Tensor, "J S"], action: Float[Tensor, "J A"]) -> Predictive:
        """Return the predictive of the whitened target."""

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> SampledDynamics:
        """Draw n dynamics."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out transitions, the stretches of them that are replayed, and the name of the shift."""

    shift: str
    transitions: Transitions
    windows: Windows
    horizons: tuple[int, ...]

    @classmethod
    def of(cls, shift: str, transitions: Transitions, settings: OpenLoop) -> "HeldOut":
        """Cut the stretches; horizons longer than the longest episode are left out."""
        longest = max(len(e) for e in transitions.episodes())
        horizons = tuple(sorted(h for h in settings.horizons if h <= longest))
        return cls(shift, transitions, windows(transitions, max(horizons, default=1), settings.starts), horizons)


class _Value(NamedTuple):
    """A metric per output [E], or over all outputs (a scalar), perhaps with its null band."""

    metric: str
    value: Tensor
    band: Band | None = None


def one_step(
    model: Model, codec: BaseCodec, test: HeldOut, row: Row, replicates: int, generator: torch.Generator
) -> tuple[list[Row], Predictive, Tensor]:
    """Return the rows of section "one step ahead", the predictive and y, both in whitened target units and float64."""
    data = test.transitions
    y = codec.target(data.state, data.next_state)
    predictive = to_double(model.predict_target(data.state, data.action))
    overall = [
        _Value("nll", metrics.nll(predictive, y)),
        _Value("moment_matched_nll", metrics.moment_matched_nll(predictive, y)),
        _Value("epistemic_std", predictive.epistemic_variance.mean().sqrt()),
        _Value("aleatoric_std", predictive.aleatoric_variance.mean().sqrt()),
        _Value("shift_score", metrics.shift_score(predictive).mean()),
    ]
    error = metrics.rmse(predictive, y)
    sharpness = metrics.sharpness(predictive)
    plain = [
        _Value("nll", metrics.marginal_nll(predictive, y)),
        _Value("nrmse", error),
        _Value("rmse", error * codec.target_std),
        _Value("r2", metrics.r2(predictive, y)),
        _Value("crps", metrics.crps(predictive, y)),
        _Value("std", sharpness.total),
        _Value("epistemic_std", sharpness.epistemic),
        _Value("aleatoric_std", sharpness.aleatoric),
    ]
    scores = _calibration(predictive, y)
    drawn = model_replicates(model, codec, data, replicates, generator)
    band = null_band(lambda p, r: torch.stack(list(_calibration(p, r).values())), predictive, drawn) if replicates else None
    calibration = [
        _Value(name, value, Band(band.low[i], band.high[i]) if band else None) for i, (name, value) in enumerate(scores.items())
    ]
    base = replace(row, shift=test.shift, horizon=1, propagation=ONE_STEP, count=len(data))
    return _rows(base, [*overall, *plain, *calibration], codec), predictive, y


def _calibration(predictive: Predictive, y: Tensor) -> dict[str, Float[Tensor, "E"]]:
    """Return the scores that are shown with a null band, [E] each."""
    u = metrics.pit(predictive, y)
    error = (y - predictive.mean).abs()
    return {
        **{f"coverage{round(100 * level)}": metrics.coverage(u, level) for level in metrics.LEVELS},
        "mace": metrics.mace(u),
        "overconfidence": metrics.overconfidence(u),
        "mean_squared_z": metrics.mean_squared_z(predictive, y),
        "ence": metrics.ence(predictive, y),
        **pit_shares(u),
        **{f"{name}_epistemic": v for name, v in ranking(predictive.epistemic_variance, error).items()},
        **{f"{name}_total": v for name, v in ranking(predictive.variance, error).items()},
    }


def pit_shares(u: Float[Tensor, "J E"]) -> dict[str, Float[Tensor, "E"]]:
    """Return the calibration curve, `pit_below_NN` (the share of u <= NN %), and the histogram of u, `pit_tenth_1` to `_10`.

    >>> found = pit_shares(torch.tensor([[0.02], [0.04], [0.5], [0.99]]))
    >>> found["pit_below_05"].item(), found["pit_tenth_10"].item()
    (0.5, 0.25)
    """
    below = {f"pit_below_{percent:02d}": (u <= percent / 100).to(u.dtype).mean(0) for percent in PIT_PERCENT}
    tenth = (10 * u).floor().clamp(0, 9)
    return below | {f"pit_tenth_{k + 1}": (tenth == k).to(u.dtype).mean(0) for k in range(10)}


def model_replicates(
    model: Model, codec: BaseCodec, data: Transitions, count: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "J E"]]:
    """Yield what one draw of the dynamics each would have produced at all rows, as whitened targets: the joint null."""
    portion = max(_NUMBERS_AT_ONCE // data.state.numel(), 1)
    for first in range(0, count, portion):
        draws = min(portion, count - first)
        dynamics = model.sample(draws, generator)
        dtype = model.predict_target(data.state[:1], data.action[:1]).component_mean.dtype
        state, action = data.state.to(dtype), data.action.to(dtype)
        moments = dynamics(state.unsqueeze(0), action.unsqueeze(0))
        noise = torch.randn(moments.mean.shape, generator=generator, dtype=dtype)
        for successor in moments.sample(noise).double():
            yield codec.target(data.state, successor)


def by_horizon(
    model: Model,
    codec: BaseCodec,
    test: HeldOut,
    scale: Scale,
    row: Row,
    settings: OpenLoop,
    seed: int,
    references: Mapping[str, Reference] | None = None,
) -> list[Row]:
    """Return the rows of the open loop, for every propagation on the same draws and noise; skill is against each reference."""
    rows = []
    bars = {name: reference.crps(test.windows) for name, reference in (references or {}).items()}
    for name, propagation in settings.propagations.items():
        generator = torch.Generator().manual_seed(seed)
        dynamics = model.sample(settings.particles, generator, dtype=settings.dtype)
        moved = replay(dynamics, test.windows, codec, propagation=propagation, dtype=settings.dtype, generator=generator)
        base = replace(row, shift=test.shift, propagation=name, count=test.windows.states.shape[1])
        for horizon in test.horizons:
            truth = test.windows.states[horizon][:, codec.outputs]
            scores = score_horizon(moved[horizon].flatten(0, 1), truth, scale, generator)
            values = [_Value(metric, value) for metric, value in scores.items()]
            if "crps" in scores:
                score = scores["crps"] * scale.target_std
                values += [_Value(f"skill_{n}", crps_skill(score, bar[horizon])) for n, bar in bars.items() if horizon in bar]
            rows += _rows(replace(base, horizon=horizon), values, codec)
        valid = _Value("valid_horizon", valid_horizon(moved.mean((1, 2)), scale.test_std))
        rows += _rows(replace(base, horizon=max(test.horizons, default=1)), [valid], codec)
    return rows


def ranking_by_horizon(
    model: Model, codec: BaseCodec, test: HeldOut, row: Row, settings: OpenLoop, replicates: int, seed: int
) -> list[Row]:
    """Return how √epistemic and √total rank the error at each horizon, in target units and with their null bands.

    Beside them `coverage50_null` and `coverage90_null`: what intervals of these particles cover of simulated truths.

    The particles are draws x 4 paths of `TSInf`, which alone keeps a θ to its trajectory and so can tell the two parts apart.
    """
    generator = torch.Generator().manual_seed(seed)
    # The model's own: in less, rounding would put an order into an uncertainty that is the same everywhere.
    dtype = model.predict_target(test.transitions.state[:1], test.transitions.action[:1]).component_mean.dtype
    draws = max(settings.particles // _PATHS, 2)
    spread = replay(model.sample(draws, generator), test.windows, codec, particles=_PATHS, dtype=dtype, generator=generator)
    simulated = None
    if replicates:
        truths = model.sample(min(replicates, _MOST_REPLICATES), generator)
        simulated = replay(truths, test.windows, codec, propagation=OwnNoise(generator), dtype=dtype, generator=generator)[:, :, 0]
    rows, base = [], replace(row, shift=test.shift, propagation="TSInf", count=test.windows.states.shape[1])
    for horizon in test.horizons:
        null = None if simulated is None else simulated[horizon] / codec.target_std
        found = horizon_ranking(spread[horizon] / codec.target_std, null)
        values = [_Value(metric, value, band) for metric, (value, band) in found.items()]
        if simulated is not None:
            values += calibrated_coverage(spread[horizon].flatten(0, 1), simulated[horizon], generator)
        rows += _rows(replace(base, horizon=horizon), values, codec)
    return rows


def calibrated_coverage(
    particles: Float[Tensor, "P W E"], replicates: Float[Tensor, "R W E"], generator: torch.Generator
) -> list[_Value]:
    """Return the share of each replicate that the particles' central intervals hold, mean and band over replicates."""
    u = torch.stack([rank_pit(particles, replicate, generator) for replicate in replicates], 1)
    ends = torch.tensor([0.05, 0.95], dtype=u.dtype)
    values = []
    for level in (0.5, 0.9):
        inside = metrics.coverage(u, level)
        values.append(_Value(f"coverage{round(100 * level)}_null", inside.mean(0), Band(*inside.quantile(ends, 0))))
    return values


def detection(row: Row, inside: Predictive, shifted: Mapping[str, Predictive]) -> list[Row]:
    """Return how well the shift score g tells shifted points from those in distribution."""
    rows = []
    here = metrics.shift_score(inside)
    for shift, predictive in shifted.items():
        there = metrics.shift_score(predictive)
        base = replace(row, shift=shift, horizon=1, propagation=ONE_STEP, count=len(there))
        rows += [
            replace(base, metric="auroc", value=float(metrics.auroc(here, there))),
            replace(base, metric="fpr95", value=float(metrics.false_positive_rate(here, there))),
        ]
    return rows


def pointwise(predictive: Predictive, y: Float[Tensor, "J E"]) -> dict[str, np.ndarray]:
    """Return what figures are drawn from: PIT, error and stds [J, E] in target units, and the shift score [J]."""
    values = {
        "pit": metrics.pit(predictive, y),
        "error": y - predictive.mean,
        "epistemic_std": predictive.epistemic_variance.sqrt(),
        "aleatoric_std": predictive.aleatoric_variance.sqrt(),
        "shift_score": metrics.shift_score(predictive),
    }
    return {name: value.numpy() for name, value in values.items()}


def to_double(predictive: Predictive) -> Predictive:
    """Return the predictive in float64, in which scores are computed, without a graph."""
    parts = (predictive.component_mean, predictive.component_epistemic_var, predictive.component_aleatoric_var)
    return Predictive(*(part.detach().double() for part in parts))


def _rows(base: Row, values: list[_Value], codec: BaseCodec) -> list[Row]:
    rows = []
    for metric, value, band in values:
        if value.dim() == 0:
            rows.append(replace(base, metric=metric, value=float(value)))
            continue
        for i, output in enumerate(codec.outputs):
            row = replace(base, metric=metric, output=str(output), value=float(value[i]))
            rows.append(row if band is None else replace(row, null_low=float(band.low[i]), null_high=float(band.high[i])))
    return rows
