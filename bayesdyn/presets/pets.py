"""PETS: probabilistic ensembles, trajectory sampling, the cross-entropy method (Chua, Calandra, McAllister, Levine 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass

from bayesdyn.networks import Epochs
from bayesdyn.planners import CEM
from bayesdyn.posteriors import BootstrapEnsemble
from bayesdyn.presets.environments import environments
from bayesdyn.presets.facts import Kind
from bayesdyn.presets.names import find
from bayesdyn.presets.task import Task


@dataclass(frozen=True)
class _Row:
    """One environment of the paper; `decay` is in units of 1e-4."""

    horizon: int
    candidates: int
    hidden: tuple[int, ...]
    learning_rate: float
    decay: tuple[float, ...]
    trials: int


_SETTINGS: Mapping[Kind, _Row] = {
    Kind.SWING_UP: _Row(25, 400, (500,) * 3, 1e-3, (1, 2.5, 2.5, 5), 50),  # cartpole.py
    Kind.REACH: _Row(25, 400, (200,) * 4, 7.5e-4, (2.5, 5, 5, 5, 7.5), 100),  # reacher.py
    Kind.PUSH: _Row(25, 500, (200,) * 3, 1e-3, (2.5, 5, 5, 7.5), 100),  # pusher.py
    Kind.RUN: _Row(30, 500, (200,) * 4, 1e-3, (0.25, 0.5, 0.75, 0.75, 1), 300),  # halfcheetah.py
}


def pets(env_id: str) -> Task:
    """Return PETS for an environment: PE-TS∞ with CEM, warm-started fits of 5 epochs, one random trial.

    | | swing up | reach | push | run |
    |---|---|---|---|---|
    | of the paper's | cart-pole | Reacher3D | Pusher | HalfCheetah |
    | horizon, candidates | 25, 400 | 25, 400 | 25, 500 | 30, 500 |
    | hidden layers, learning rate | 3 x 500, 1e-3 | 4 x 200, 7.5e-4 | 3 x 200, 1e-3 | 4 x 200, 1e-3 |
    | weight decay by layer, 1e-4 | 1, 2.5, 2.5, 5 | 2.5, 5, 5, 5, 7.5 | 2.5, 5, 5, 7.5 | .25, .5, .75, .75, 1 |
    | trials | 50 | 100 | 100 | 300 |

    Throughout: 5 members, 20 particles (4 of each member), a tenth of the candidates as elites, 5 iterations, momentum 0.1, batches
    of 32 rows. An environment that the paper does not have takes the column of its kind.

    What differs: targets are whitened as inputs are; starting weights are not truncated; the log variance has a centre of its own;
    bootstrap rows are drawn once per row, not anew in each trial, and where training makes the rows that a member has not seen
    worse, it keeps the network that it started from; all candidates share their noise, and every candidate meets every member.

    Raises `UnknownNameError`, with the known ids, for an environment without a preset.

    Sources: the paper; kchua/handful-of-trials, `dmbrl/config/{cartpole,reacher,pusher,halfcheetah,default}.py`,
    `dmbrl/modeling/models/BNN.py`.

    >>> pets("bayesdyn/PETSCartPole-v0").planner.candidates
    400
    """
    environment = find("preset for environment", env_id, environments)
    row = _SETTINGS[environment.kind]
    return Task(
        environment=environment,
        planner=CEM(horizon=row.horizon, candidates=row.candidates, elites=row.candidates // 10, iterations=5, momentum=0.1),
        settings={
            "ensemble": lambda: BootstrapEnsemble(
                members=5,
                hidden=row.hidden,
                activation="silu",
                mean_first=0.0,
                decay=tuple(1e-4 * layer for layer in row.decay),
                training=Epochs(epochs=5, batch_size=32, learning_rate=row.learning_rate),
            )
        },
        draws=5,
        particles=4,
        trials=row.trials,
        warm_start=True,
    )
