"""`compare`: every posterior on the same data, codec, seeds and scores; one long table, resumable cell by cell."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation.about import About, Size
from bayesdyn.evaluation.active_learning import ActiveLearning
from bayesdyn.evaluation.candidates import REFERENCES, candidates
from bayesdyn.evaluation.checks import check_calibration, check_decisions, check_options, check_sizes
from bayesdyn.evaluation.comparison import CellFolder, Comparison, merged
from bayesdyn.evaluation.decisions import DecisionTask
from bayesdyn.evaluation.disentanglement import Disentanglement
from bayesdyn.evaluation.null_bands import REPLICATES
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.evaluation.parts import Job, Part
from bayesdyn.evaluation.protocols import AskedRows, Toy
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
    note: str = "",
    step_seconds: float | None = None,
    seeds: Sequence[int] = (0,),
    open_loop: OpenLoop = OpenLoop(),  # noqa: B008 (frozen)
    references: bool = True,
    replicates: int = REPLICATES,
    calibration: Transitions | None = None,
    decisions: DecisionTask | None = None,
    toy: Disentanglement | None = None,
    active_learning: ActiveLearning | None = None,
    folder: str | Path | None = None,
    retry: bool = False,
    workers: Workers = InProcess(),  # noqa: B008 (frozen)
    progress: ComparisonProgress | None = None,
) -> Comparison:
    """Fit every posterior with every seed on `train` and score it one step ahead, in open loop, and on shifted data.

    `posteriors` and `codec` make unfitted objects. The scores are in units of the training targets' std unless their name says
    otherwise (`docs/reference/evaluation.md` lists them), and calibration has the band of a calibrated model beside it, from
    `replicates` simulated test sets (0: none). `references` adds linear regression and persistence. A posterior that cannot be
    fitted or scored becomes a row `failed` = 1 and a `Failure`; the others go on. `data` names the data; a page says the `note`
    beside it, and shows steps in seconds.

    More is asked where more is given. With `calibration`, episodes apart from all others, each posterior is recalibrated on them
    after it was scored, and scored again (`split="recalibrated"`). With `decisions`, plans are made with each and carried out.
    `toy` asks whether the two parts of the variance are what they say, on data of its own, and `active_learning` what it is worth
    to learn from the rows that a posterior asks for, out of `train`: those two take many fits, which are cells of their own.

    With a `folder`, each finished cell (posterior, seed) is kept there and never computed again, and `results.csv` holds the
    table; a kill loses the running cells only. Cells that failed are kept like others; `retry` computes them again. `workers`
    says where cells are computed: here, in several processes, on a Ray cluster. The numbers are the same to the last digit, but
    for the seconds of a fit.

    Raises `ConfigurationError` for options without a meaning, or a folder whose cells belong to other data or settings;
    `ShapeError` if sizes differ; `DataError` for too few rows, and for calibration data that are among the others.

    >>> import torch
    >>> from bayesdyn import Codec, posteriors
    >>> state = torch.linspace(-1, 1, 30, dtype=torch.float64).unsqueeze(1)
    >>> data = Transitions.from_arrays(state, 0 * state, 0.9 * state)
    >>> result = compare({"GP": posteriors.ExactGP}, data, data, Codec, open_loop=OpenLoop(horizons=(1,), starts=5), replicates=0)
    >>> result.posteriors, result.summary("GP", "nrmse", output="0").mean < 0.1
    (('GP', 'ridge-linear', 'persistence'), True)
    """
    chosen = candidates(posteriors, references)
    tests = _tests(in_distribution, shifted or {})
    check_options(seeds, replicates)
    check_sizes(train, {**tests, **({} if calibration is None else {"calibration": calibration})})
    if calibration is not None:
        check_calibration(calibration, train, tests)
    if decisions is not None:
        check_decisions(decisions, train)
    held_out = tuple(HeldOut.of(shift, transitions, open_loop) for shift, transitions in tests.items())
    parts: list[Part] = [Scores(data, train, held_out, codec, open_loop, replicates, calibration, decisions)]
    if toy is not None:
        parts.append(Toy(toy))
    if active_learning is not None:
        parts.append(AskedRows(active_learning, data, train, in_distribution, codec))
    jobs = [Job(part, candidate, seed) for candidate in chosen for seed in seeds for part in parts if part.concerns(candidate)]
    sizes = {name: Size.of(transitions) for name, transitions in tests.items()}
    about = About(note, step_seconds, Size.of(train), None if calibration is None else Size.of(calibration), sizes)
    store = None if folder is None else CellFolder(folder, about)
    return Comparison(merged(cells_of(jobs, workers, store, progress or (lambda state: None), retry=retry)), about)


def _tests(in_distribution: Transitions, shifted: Mapping[str, Transitions]) -> dict[str, Transitions]:
    if IN_DISTRIBUTION in shifted:
        raise ConfigurationError(f"{IN_DISTRIBUTION!r} names the data in distribution; give that shift another name")
    return {IN_DISTRIBUTION: in_distribution, **shifted}
