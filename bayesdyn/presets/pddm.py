"""PDDM: an ensemble of deterministic networks and filtered, reward-weighted refinement (Nagabandi et al. 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass

from bayesdyn.networks import Epochs, Homoscedastic
from bayesdyn.planners import PDDM
from bayesdyn.posteriors import BootstrapEnsemble
from bayesdyn.presets.environments import environments
from bayesdyn.presets.facts import Kind
from bayesdyn.presets.names import find
from bayesdyn.presets.task import Task


@dataclass(frozen=True)
class _Row:
    """One environment of the paper: `random_steps` before the first fit, `steps` after it."""

    planner: PDDM
    random_steps: int
    steps: int


_CHEETAH = _Row(PDDM(horizon=20, candidates=700, kappa=1.0, sigma=0.9, beta=0.9), 200 * 100, 50 * 30 * 100)
_CUBE = _Row(PDDM(horizon=7, candidates=1000, kappa=10.0, sigma=0.9, beta=0.6), 100 * 30, 200 * 40 * 70)
_SETTINGS: Mapping[Kind, _Row] = {Kind.SWING_UP: _CHEETAH, Kind.REACH: _CHEETAH, Kind.PUSH: _CUBE, Kind.RUN: _CHEETAH}


def pddm(env_id: str) -> Task:
    """Return PDDM for an environment: 3 deterministic networks, trained anew each trial for 40 epochs, and the PDDM planner.

    | | push: its cube | all else: its half-cheetah |
    |---|---|---|
    | horizon, candidates | 7, 1,000 | 20, 700 |
    | κ, σ, β | 10, 0.9, 0.6 | 1, 0.9, 0.9 |
    | random steps before, planned steps after | 100 x 30, 200 x 40 x 70 | 200 x 100, 50 x 30 x 100 |

    Throughout: two hidden ReLU layers of 250, batches of 512 rows, learning rate 1e-3, differences whitened, no bootstrap. Steps
    are rounded up to whole episodes of the environment.

    What differs: the fit follows every trial, not every 30 or 40 rollouts; no random rollouts or noise are added to the data later;
    the squared error is weighted by one learned variance per output, with which trajectories are also drawn; weights start from
    N(0, 1/fan_in); actions are never clipped after whitening.

    Raises `UnknownNameError`, with the known ids, for an environment without a preset.

    Sources: the paper, section 4 and appendix; google-research/pddm, `config/{cheetah,cube}.txt`, `policies/mppi.py`.

    >>> pddm("bayesdyn/PETSCartPole-v0").planner.candidates
    700
    """
    environment = find("preset for environment", env_id, environments)
    row = _SETTINGS[environment.kind]
    return Task(
        environment=environment,
        planner=row.planner,
        settings={
            "ensemble": lambda: BootstrapEnsemble(
                members=3,
                hidden=(250, 250),
                activation="relu",
                noise=Homoscedastic(),
                bootstrap=False,
                decay=(0.0, 0.0, 0.0),
                training=Epochs(epochs=40, batch_size=512, learning_rate=1e-3),
            )
        },
        draws=3,
        initial=environment.episodes(row.random_steps),
        trials=environment.episodes(row.steps),
    )
