"""The ready-made comparison on real logs: a quarter-drone, other excitations as natural shifts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bayesdyn.codec import LagCodec
from bayesdyn.data import Transitions, lagged, quarter_drone, resample
from bayesdyn.evaluation.compare import ComparisonProgress, compare
from bayesdyn.evaluation.comparison import Comparison
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.kernels import RBFLinear
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP
from bayesdyn.posteriors.base import Posterior
from bayesdyn.posteriors.gp_training import GPTraining
from bayesdyn.rollout import Mean, TSInf

RATE, LAGS = 20.0, 4
_TRAINING_SECONDS = 70.0
# One start is enough here, and the marginal likelihood is flat long before 200 steps.
_GP_TRAINING = GPTraining(max_steps=60, restarts=0)


class DroneData(NamedTuple):
    """Lagged transitions of the quarter-drone logs at 20 Hz: y in degrees, u in %."""

    train: Transitions
    in_distribution: Transitions
    shifted: dict[str, Transitions]


def quarter_drone_data() -> DroneData:
    """Return multisine 0-70 s for training, multisine 70-100 s in distribution, and the logs `steps` and `seq` as shifts.

    >>> data = quarter_drone_data()
    >>> len(data.train), data.train.state_size, list(data.shifted)
    (1396, 7, ['steps', 'seq'])
    """
    multisine = resample(quarter_drone("multisine"), RATE)
    end = float(multisine.time[-1]) + 1.0
    return DroneData(
        lagged(multisine.slice(0.0, _TRAINING_SECONDS), LAGS, LAGS),
        lagged(multisine.slice(_TRAINING_SECONDS, end), LAGS, LAGS),
        {name: lagged(resample(quarter_drone(name), RATE), LAGS, LAGS) for name in ("steps", "seq")},
    )


def drone_posteriors() -> dict[str, Callable[[], Posterior]]:
    """Return the two posteriors that are compared by default.

    Lagged data need the linear part of the kernel: an RBF alone falls back to no change away from the data.
    """
    return {
        "ExactGP": lambda: ExactGP(RBFLinear(), training=_GP_TRAINING),
        "BootstrapEnsemble": BootstrapEnsemble,
    }


def quarter_drone_comparison(
    posteriors: Mapping[str, Callable[[], Posterior]] | None = None,
    *,
    seeds: Sequence[int] = (0,),
    open_loop: OpenLoop | None = None,
    folder: str | Path | None = None,
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
        folder=folder,
        progress=progress,
    )
