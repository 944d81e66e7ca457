"""Our recommendation: iCEM with few trajectories per candidate and a small ensemble or a Gaussian process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from bayesdyn.envs import CARTPOLE_ID
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.networks import Training
from bayesdyn.planners import ICEM
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP, Posterior
from bayesdyn.presets.environments import environments
from bayesdyn.presets.facts import Kind
from bayesdyn.presets.names import find
from bayesdyn.presets.task import Task

# On a few hundred rows the prior N(0, 1/fan_in) shrinks wide networks to constants; this decay leaves what the data say.
_DECAY = 1e-4


def _ensemble(hidden: tuple[int, ...], steps: int) -> Posterior:
    decay, training = (_DECAY,) * (len(hidden) + 1), Training(steps=steps)
    return BootstrapEnsemble(hidden=hidden, bootstrap=False, mean_first=0.0, decay=decay, training=training)


def _gp() -> Posterior:
    return ExactGP(features=128, training=GPTraining(lengthscale=(0.05, 100.0), lengthscale_ratio=100.0))


@dataclass(frozen=True)
class _Row:
    """Settings for one environment or kind; `ignore` are further coordinates that the dynamics do not depend on."""

    planner: ICEM
    ensemble: Callable[[], Posterior]
    draws: int = 5
    discount: float = 1.0
    default: str = "ensemble"
    ignore: tuple[int, ...] = ()
    trials: int = 6
    solves: tuple[tuple[str, int], ...] = ()


_KINDS: Mapping[Kind, _Row] = {
    Kind.SWING_UP: _Row(ICEM(horizon=20, iterations=2), partial(_ensemble, (128, 128), 1000)),
    Kind.REACH: _Row(ICEM(horizon=25), partial(_ensemble, (200,) * 3, 1500), trials=20),
    Kind.PUSH: _Row(ICEM(horizon=25, std=0.15), partial(_ensemble, (200,) * 3, 1500), trials=20),
    Kind.RUN: _Row(ICEM(horizon=25, beta=0.25), partial(_ensemble, (200,) * 3, 1500), trials=20),
}
_TUNED: Mapping[str, _Row] = {
    CARTPOLE_ID: _Row(
        ICEM(horizon=12, candidates=64, elites=8, iterations=4),
        lambda: BootstrapEnsemble(bootstrap=False, mean_first=0.0, training=Training()),
        draws=8,
        discount=0.95,
        default="gp",
        solves=(("gp", 3), ("ensemble", 6)),
    ),
    "bayesdyn/Reacher3D-v0": replace(_KINDS[Kind.REACH], planner=ICEM(horizon=25, std=0.05), ignore=(7, 8, 9)),
    "bayesdyn/DMCCartPole-v0": replace(_KINDS[Kind.SWING_UP], planner=ICEM(horizon=30, iterations=2), trials=9),
}


def icem(env_id: str) -> Task:
    """Return what we recommend for an environment: iCEM with 5 trajectories per candidate, a small ensemble or a Gaussian process.

    | | swing up | reach | push | run |
    |---|---|---|---|---|
    | horizon, iterations | 20, 2 | 25, 3 | 25, 3 | 25, 3 |
    | σ₀, β | 0.5, 2 | 0.5 (Reacher3D 0.05), 2 | 0.15, 2 | 0.5, 0.25 |
    | hidden layers, steps of a fit | 2 x 128, 1,000 | 3 x 200, 1,500 | 3 x 200, 1,500 | 3 x 200, 1,500 |

    Throughout: 100 candidates in the first iteration, 10 elites, 5 members, each trained on all rows from scratch after every
    trial. σ₀ is small where actions cost a lot. On the swing-up of PETS the span of a plan, 0.8 s, matters more than its budget,
    and two iterations do what three do in two thirds of the time; DeepMind's cart-pole, with a weaker motor, wants 1.2 s (30
    actions). PILCO's cart-pole has settings of its own. Reacher3D's goal is left out of the features: it moves nothing.

    Raises `UnknownNameError`, with the known ids, for an environment without a preset.

    Sources: Pinneri et al. 2020 for the planner; the settings are ours.

    >>> icem("bayesdyn/PETSCartPole-v0").planner.horizon
    20
    """
    environment = find("preset for environment", env_id, environments)
    row = _TUNED.get(env_id, _KINDS[environment.kind])
    return Task(
        environment=replace(environment, ignore=(*environment.ignore, *row.ignore)),
        planner=row.planner,
        default=row.default,
        settings={"gp": _gp, "ensemble": row.ensemble},
        draws=row.draws,
        discount=row.discount,
        trials=row.trials,
        solves=row.solves,
    )
