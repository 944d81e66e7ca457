"""The ready-made comparison on real logs: a quarter-drone, other excitations as natural shifts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bayesdyn.codec import LagCodec
from bayesdyn.data import Transitions, lagged, quarter_drone, resample
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation.active_learning import ActiveLearning
from bayesdyn.evaluation.compare import ComparisonProgress, compare
from bayesdyn.evaluation.comparison import Comparison
from bayesdyn.evaluation.disentanglement import Disentanglement
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.evaluation.workers import InProcess, Workers
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import RBFLinear
from bayesdyn.networks import Training
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP
from bayesdyn.posteriors.base import Posterior
from bayesdyn.rollout import Mean, TSInf

RATE, LAGS = 20.0, 4
# The multisine runs from 20 s to 85 s; all three logs hold the arm at 45 degrees from 85 s on and land at 90 s.
_TRAINING_END, _EXCITATION_END = 70.0, 85.0
_CALIBRATION_EPISODES, _LEAST_CALIBRATION = 5, 12.0
# Scores no longer change after 20 steps of one search, and two small layers score as well here as three large ones.
_GP_TRAINING = GPTraining(lengthscale=(0.05, 100.0), lengthscale_ratio=100.0, max_steps=40, restarts=0)
_HIDDEN = (100, 100)


class DroneData(NamedTuple):
    """Lagged transitions of the quarter-drone logs at 20 Hz: y in degrees, u in %."""

    train: Transitions
    in_distribution: Transitions
    shifted: dict[str, Transitions]
    calibration: Transitions | None = None


def quarter_drone_data(calibration: float = 0.0) -> DroneData:
    """Return multisine 0-70 s for training, 70-85 s in distribution, and as shifts its `landing` (85-100 s), `steps` and `seq`.

    The landing is apart because no training row is like it: it falls by 5.3 degrees a step, against 2.4 in training. `calibration`
    is how many seconds before 70 s are kept from training, five episodes to recalibrate on: 15 s are 280 rows.

    Raises `ConfigurationError` for fewer than 12 s, of which no 200 rows come, or more than half of the training part.

    >>> data = quarter_drone_data()
    >>> len(data.train), data.train.state_size, list(data.shifted)
    (1396, 7, ['landing', 'steps', 'seq'])
    """
    if calibration and not _LEAST_CALIBRATION <= calibration <= _TRAINING_END / 2:
        raise ConfigurationError(
            f"the quarter-drone's calibration wants 0 or {_LEAST_CALIBRATION:g} to {_TRAINING_END / 2:g} seconds; got {calibration}"
        )
    multisine = resample(quarter_drone("multisine"), RATE)
    landing = multisine.slice(_EXCITATION_END, float(multisine.time[-1]) + 1.0)
    others = {name: resample(quarter_drone(name), RATE) for name in ("steps", "seq")}
    end = _TRAINING_END - calibration
    apart = multisine.slice(end, _TRAINING_END).segments(calibration / _CALIBRATION_EPISODES) if calibration else []
    return DroneData(
        lagged(multisine.slice(0.0, end), LAGS, LAGS),
        lagged(multisine.slice(_TRAINING_END, _EXCITATION_END), LAGS, LAGS),
        {name: lagged(log, LAGS, LAGS) for name, log in {"landing": landing, **others}.items()},
        Transitions.concat([lagged(piece, LAGS, LAGS) for piece in apart]) if apart else None,
    )


def drone_posteriors() -> dict[str, Callable[[], Posterior]]:
    """Return the two posteriors that are compared by default.

    Lagged data need the linear part of the kernel: an RBF alone falls back to no change away from the data.
    """
    return {
        "ExactGP": lambda: ExactGP(RBFLinear(), training=_GP_TRAINING),
        "BootstrapEnsemble": lambda: BootstrapEnsemble(hidden=_HIDDEN, mean_first=0.0, training=Training()),
    }


def quarter_drone_comparison(
    posteriors: Mapping[str, Callable[[], Posterior]] | None = None,
    *,
    seeds: Sequence[int] = (0,),
    open_loop: OpenLoop | None = None,
    toy: Disentanglement | None = None,
    active_learning: ActiveLearning | None = None,
    folder: str | Path | None = None,
    workers: Workers = InProcess(),  # noqa: B008 (frozen)
    progress: ComparisonProgress | None = None,
) -> Comparison:
    """Compare posteriors on the quarter-drone logs: 4 + 4 lags at 20 Hz, trained on one excitation, tested on three.

    Takes `drone_posteriors()` and the options of `compare` unless told otherwise; a few minutes on two cores per seed.
    """
    data = quarter_drone_data()
    return compare(
        drone_posteriors() if posteriors is None else posteriors,
        data.train,
        data.in_distribution,
        lambda: LagCodec(LAGS, LAGS),
        shifted=data.shifted,
        data="quarter-drone",
        seeds=seeds,
        open_loop=open_loop or OpenLoop(propagations={"TSInf": TSInf(), "Mean": Mean()}),
        toy=toy,
        active_learning=active_learning,
        folder=folder,
        workers=workers,
        progress=progress,
    )
