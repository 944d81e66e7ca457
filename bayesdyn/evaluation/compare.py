"""`compare`: every posterior on the same data, codec, seeds and scores; one long table, resumable cell by cell."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.evaluation.candidates import REFERENCES, candidates
from bayesdyn.evaluation.comparison import CellFolder, Comparison, merged
from bayesdyn.evaluation.null_bands import REPLICATES
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.evaluation.parts import Job, Part
from bayesdyn.evaluation.schedule import CellProgress, ComparisonProgress, cells_of
from bayesdyn.evaluation.scores import Scores
from bayesdyn.evaluation.scoring import HeldOut
from bayesdyn.evaluation.table import IN_DISTRIBUTION
from bayesdyn.evaluation.workers import InProcess, Workers
from bayesdyn.posteriors.base import Posterior

__all__ = ["REFERENCES", "CellProgress", "ComparisonProgress", "compare"]


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
    workers: Workers = InProcess(),  # noqa: B008 (frozen)
    progress: ComparisonProgress | None = None,
) -> Comparison:
    """Fit every posterior with every seed on `train` and score it one step ahead, in open loop, and on shifted data.

    `posteriors` and `codec` make unfitted objects. The scores are in units of the training targets' std unless their name says
    otherwise (`docs/reference/evaluation.md` lists them), and calibration has the band of a calibrated model beside it, from
    `replicates` simulated test sets (0: none). `references` adds linear regression and persistence. A posterior that cannot be
    fitted or scored becomes a row `failed` = 1 and a `Failure`; the others go on.

    With a `folder`, each finished cell (posterior, seed) is kept there and never computed again, and `results.csv` holds the table;
    a kill loses the running cells only. `workers` says where cells are computed: here, in several processes, on a Ray cluster. The
    numbers are the same to the last digit, but for the seconds of a fit.

    Raises `ConfigurationError` for options without a meaning, or a folder whose cells belong to other data or settings;
    `ShapeError` if test and training sizes differ.

    >>> import torch
    >>> from bayesdyn import Codec, posteriors
    >>> state = torch.linspace(-1, 1, 30, dtype=torch.float64).unsqueeze(1)
    >>> data = Transitions.from_arrays(state, 0 * state, 0.9 * state)
    >>> result = compare({"GP": posteriors.ExactGP}, data, data, Codec, open_loop=OpenLoop(horizons=(1,), starts=5), replicates=0)
    >>> result.posteriors, result.summary("GP", "nrmse", output="0").mean < 0.1
    (('GP', 'ridge-linear', 'persistence'), True)
    """
    shifted = shifted or {}
    chosen = candidates(posteriors, references)
    _check(train, {IN_DISTRIBUTION: in_distribution, **shifted}, IN_DISTRIBUTION in shifted, seeds, replicates)
    named = [(IN_DISTRIBUTION, in_distribution), *shifted.items()]
    tests = tuple(HeldOut.of(shift, transitions, open_loop) for shift, transitions in named)
    parts: list[Part] = [Scores(data, train, tests, codec, open_loop, replicates)]
    jobs = [Job(part, candidate, seed) for candidate in chosen for seed in seeds for part in parts if part.concerns(candidate)]
    store = None if folder is None else CellFolder(folder)
    return Comparison(merged(cells_of(jobs, workers, store, progress or (lambda state: None))))


def _check(train: Transitions, tests: Mapping[str, Transitions], taken: bool, seeds: Sequence[int], replicates: int) -> None:
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
