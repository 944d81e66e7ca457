"""`compare`: every posterior on the same data, codec, seeds and scores; one long table, resumable cell by cell."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.evaluation.baselines import Persistence, RidgeLinear
from bayesdyn.evaluation.comparison import Cell, CellFolder, Comparison
from bayesdyn.evaluation.fan import fan
from bayesdyn.evaluation.null_bands import REPLICATES
from bayesdyn.evaluation.open_loop import OpenLoop, Scale
from bayesdyn.evaluation.scoring import HeldOut, Model, by_horizon, detection, one_step, pointwise, ranking_by_horizon
from bayesdyn.evaluation.skill import Reference
from bayesdyn.evaluation.skill import references as horizon_references
from bayesdyn.evaluation.table import IN_DISTRIBUTION, Row
from bayesdyn.model import DynamicsModel
from bayesdyn.posteriors.base import FitReport, Posterior

REFERENCES = ("ridge-linear", "persistence")
_FIT, _NULL, _OPEN_LOOP, _FAN, _RANKING = range(5)


class CellProgress(NamedTuple):
    """Where a comparison stands: cell `cell` of `cells`, `done` of `total` steps of its stage.

    Stages are `fit`, the name of the data being scored, and `done`, `kept` (found in the folder) or `failed`.
    """

    posterior: str
    seed: int
    stage: str
    done: int
    total: int
    cell: int
    cells: int


# To be raised whenever a cell gets other rows, so that no folder mixes them.
SCORES = 2

ComparisonProgress = Callable[[CellProgress], None]
_Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Task:
    """Everything that all cells share."""

    data: str
    train: Transitions
    tests: tuple[HeldOut, ...]
    codec: Callable[[], BaseCodec]
    settings: OpenLoop
    replicates: int

    @cached_property
    def references(self) -> dict[str, Reference]:
        """What skill is measured against, the same for all cells."""
        return horizon_references(self.train, self.codec, self.settings.horizons)

    def fingerprint(self, codec: BaseCodec, model: Model) -> str:
        """Return a hash of scores, data, settings and the model's options, by which a folder's cells are known to belong."""
        digest = hashlib.sha256(repr((SCORES, self.data, self.settings, self.replicates, _options(codec, model))).encode())
        for part in (self.train, *(test.transitions for test in self.tests)):
            for tensor in (part.state, part.action, part.next_state, part.episode):
                digest.update(tensor.numpy().tobytes())
        digest.update(repr([test.shift for test in self.tests]).encode())
        return digest.hexdigest()[:32]


def compare(
    posteriors: Mapping[str, Callable[[], Posterior]],
    train: Transitions,
    in_distribution: Transitions,
    codec: Callable[[], BaseCodec],
    *,
    shifted: Mapping[str, Transitions] | None = None,
    data: str = "data",
    seeds: Sequence[int] = (0,),
    open_loop: OpenLoop = OpenLoop(),  # noqa: B008 (frozen)
    references: bool = True,
    replicates: int = REPLICATES,
    folder: str | Path | None = None,
    progress: ComparisonProgress | None = None,
) -> Comparison:
    """Fit every posterior with every seed on `train` and score it one step ahead, in open loop, and on shifted data.

    `posteriors` and `codec` make unfitted objects. The scores are in units of the training targets' std unless their name says
    otherwise (`docs/reference/evaluation.md` lists them), and calibration has the band of a calibrated model beside it, from
    `replicates` simulated test sets (0: none). `references` adds linear regression and persistence. A posterior that cannot be
    fitted or scored becomes a row `failed` = 1 and a `Failure`; the others go on.

    With a `folder`, each finished cell (posterior, seed) is kept there and never computed again, and `results.csv` holds the table;
    a kill loses the running cell only.

    Raises `ConfigurationError` for options without a meaning, or a folder whose cells belong to other data or settings;
    `ShapeError` if test and training sizes differ.

    >>> from bayesdyn import Codec, posteriors
    >>> state = torch.linspace(-1, 1, 30, dtype=torch.float64).unsqueeze(1)
    >>> data = Transitions.from_arrays(state, 0 * state, 0.9 * state)
    >>> result = compare({"GP": posteriors.ExactGP}, data, data, Codec, open_loop=OpenLoop(horizons=(1,), starts=5), replicates=0)
    >>> result.posteriors, result.summary("GP", "nrmse", output="0").mean < 0.1
    (('GP', 'ridge-linear', 'persistence'), True)
    """
    shifted = shifted or {}
    if not posteriors:
        raise ConfigurationError("compare wants at least one posterior, as a name and a callable that makes it")
    models = _models(posteriors, references)
    _check(models, train, {IN_DISTRIBUTION: in_distribution, **shifted}, IN_DISTRIBUTION in shifted, seeds, replicates)
    named = [(IN_DISTRIBUTION, in_distribution), *shifted.items()]
    tests = tuple(HeldOut.of(shift, transitions, open_loop) for shift, transitions in named)
    task = _Task(data, train, tests, codec, open_loop, replicates)
    store = None if folder is None else CellFolder(folder)
    jobs = [(name, seed) for name in models for seed in seeds]
    cells: list[Cell] = []
    for index, (name, seed) in enumerate(jobs):

        def report(stage: str, done: int, total: int, job: tuple[str, int] = (name, seed), index: int = index) -> None:
            if progress is not None:
                progress(CellProgress(*job, stage, done, total, index, len(jobs)))

        cells.append(_cell(task, name, seed, models[name], store, report))
        if store is not None:
            store.write_results(cells)
    return Comparison(tuple(cells))


def _models(posteriors: Mapping[str, Callable[[], Posterior]], references: bool) -> dict[str, Callable[[BaseCodec], Model]]:
    def of(make: Callable[[], Posterior]) -> Callable[[BaseCodec], Model]:
        return lambda codec: DynamicsModel(codec, make())

    models = {name: of(make) for name, make in posteriors.items()}
    if references:
        clash = set(models) & set(REFERENCES)
        if clash:
            raise ConfigurationError(f"{sorted(clash)} name references; rename those posteriors or set references=False")
        models[REFERENCES[0]] = of(RidgeLinear)
        models[REFERENCES[1]] = Persistence
    return models


def _check(
    models: Mapping[str, object],
    train: Transitions,
    tests: Mapping[str, Transitions],
    taken: bool,
    seeds: Sequence[int],
    replicates: int,
) -> None:
    if taken:
        raise ConfigurationError(f"{IN_DISTRIBUTION!r} names the data in distribution; give that shift another name")
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigurationError(f"compare wants at least one seed, each once and none negative; got {list(seeds)}")
    if replicates < 0:
        raise ConfigurationError(f"compare wants replicates >= 0; got {replicates}")
    want = (train.state_size, train.action_size)
    for shift, test in tests.items():
        if (test.state_size, test.action_size) != want:
            raise ShapeError(f"training data have (S, A) = {want}, test data {shift!r} {(test.state_size, test.action_size)}")


def _cell(task: _Task, name: str, seed: int, make: Callable[[BaseCodec], Model], store: CellFolder | None, report: _Report) -> Cell:
    """Return one cell: from the folder, or computed and kept there."""
    codec = task.codec()
    model = make(codec)
    fingerprint = task.fingerprint(codec, model)
    kept = None if store is None else store.load(name, seed, fingerprint)
    if kept is not None:
        report("kept", 1, 1)
        return kept
    row = Row(name, task.data, IN_DISTRIBUTION, seed, "test", "failed", count=len(task.train))
    try:
        cell = _compute(task, row, model, codec, report)
    except (ConfigurationError, ShapeError):
        raise
    except Exception as error:  # whatever breaks one fit must not take the others' results along
        cell = Cell(name, seed, (replace(row, value=1.0),), failure=f"{type(error).__name__}: {error}")
    if store is not None:
        store.save(cell, fingerprint)
    report("failed" if cell.failure else "done", 1, 1)
    return cell


def _compute(task: _Task, row: Row, model: Model, codec: BaseCodec, report: _Report) -> Cell:
    fit = model.fit(
        task.train,
        generator=torch.Generator().manual_seed(_seed(row.seed, _FIT)),
        progress=lambda done, total, figures: report("fit", done, total),
    )
    rows = [replace(row, value=0.0), *_fit_rows(row, fit)]
    arrays: dict[str, np.ndarray] = {}
    predictives = {}
    with torch.no_grad():
        for index, test in enumerate(task.tests):
            report(test.shift, index, len(task.tests))
            null = torch.Generator().manual_seed(_seed(row.seed, _NULL))
            found, predictive, y = one_step(model, codec, test, row, task.replicates, null)
            predictives[test.shift] = predictive
            scale = Scale.of(codec, task.train, test.transitions)
            rolled = _seed(row.seed, _OPEN_LOOP)
            rows += found + by_horizon(model, codec, test, scale, row, task.settings, rolled, task.references)
            ranked = _seed(row.seed, _RANKING)
            rows += ranking_by_horizon(model, codec, test, row, task.settings, task.replicates, ranked)
            drawn = {**pointwise(predictive, y), **fan(model, codec, test.windows, _seed(row.seed, _FAN))}
            arrays |= {f"{test.shift}/{name}": values for name, values in drawn.items()}
    inside = predictives.pop(IN_DISTRIBUTION)
    rows += detection(row, inside, predictives)
    return Cell(row.posterior, row.seed, tuple(rows), arrays, fit.warnings)


def _fit_rows(row: Row, fit: FitReport) -> list[Row]:
    figures = {"fit_seconds": fit.seconds, "fit_steps": fit.steps, "train_nll": fit.nll, "train_penalty": fit.penalty}
    return [replace(row, split="train", metric=metric, value=float(value)) for metric, value in figures.items()]


def _seed(seed: int, purpose: int) -> int:
    """Return a seed for one purpose, independent of those for others."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0] >> 1)


def _options(codec: BaseCodec, model: Model) -> str:
    """Return the options of a codec, a model and its parts as text; addresses of objects in memory are left out."""
    parts = [codec, model, *vars(model).get("_modules", {}).values()]
    public = [
        (type(part).__qualname__, sorted((k, repr(v)) for k, v in vars(part).items() if not k.startswith("_"))) for part in parts
    ]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(public))
