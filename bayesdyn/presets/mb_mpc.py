"""MB-MPC: one deterministic network and random shooting (Nagabandi, Kahn, Fearing, Levine 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass

from bayesdyn.networks import Epochs, Homoscedastic
from bayesdyn.planners import RandomShooting
from bayesdyn.posteriors import MaximumLikelihood
from bayesdyn.presets.environments import environments
from bayesdyn.presets.facts import Kind
from bayesdyn.presets.names import find
from bayesdyn.presets.task import Task
from bayesdyn.rollout import Mean


@dataclass(frozen=True)
class _Row:
    """One environment of the paper: `random_steps` before the first fit, `steps` after it."""

    horizon: int
    candidates: int
    epochs: int
    random_steps: int
    steps: int


_CHEETAH = _Row(horizon=20, candidates=1000, epochs=60, random_steps=10 * 1000, steps=7 * 10 * 1000)
_SWIMMER = _Row(horizon=20, candidates=5000, epochs=30, random_steps=25 * 333, steps=6 * 10 * 333)
_SETTINGS: Mapping[Kind, _Row] = {Kind.SWING_UP: _SWIMMER, Kind.REACH: _SWIMMER, Kind.PUSH: _SWIMMER, Kind.RUN: _CHEETAH}


def mb_mpc(env_id: str) -> Task:
    """Return MB-MPC for an environment: one deterministic 1 x 500 ReLU network, random shooting, certainty equivalence.

    | | run: its half-cheetah | all else: its swimmer |
    |---|---|---|
    | horizon, candidates | 20, 1,000 | 20, 5,000 |
    | epochs of a fit | 60 | 30 |
    | random steps before, planned steps after | 10 x 1,000, 70 x 1,000 | 25 x 333, 60 x 333 |

    Throughout: batches of 512 rows, learning rate 1e-3, differences whitened, no held-out rows. Steps are rounded up to whole
    episodes of the environment.

    What differs: the fit follows every trial, not every tenth; a batch takes rows as they come, not a fixed share of new ones; no
    noise is added to the data; the squared error is weighted by one learned variance per output.

    Raises `UnknownNameError`, with the known ids, for an environment without a preset.

    Sources: the paper, section IV; nagaban2/nn_dynamics, `yaml_files/{cheetah,swimmer}_forward.yaml`.

    >>> mb_mpc("bayesdyn/PETSCartPole-v0").initial
    42
    """
    environment = find("preset for environment", env_id, environments)
    row = _SETTINGS[environment.kind]
    return Task(
        environment=environment,
        planner=RandomShooting(horizon=row.horizon, candidates=row.candidates),
        default="maximum-likelihood",
        settings={
            "maximum-likelihood": lambda: MaximumLikelihood(
                hidden=(500,),
                activation="relu",
                noise=Homoscedastic(),
                held_out=0.0,
                training=Epochs(epochs=row.epochs, batch_size=512, learning_rate=1e-3),
            )
        },
        draws=1,
        propagation=Mean(),
        initial=environment.episodes(row.random_steps),
        trials=environment.episodes(row.steps),
        warm_start=True,
    )
