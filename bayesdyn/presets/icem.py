"""Our recommendation: iCEM with few trajectories per candidate and a small ensemble or a Gaussian process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from bayesdyn.codec import BaseCodec
from bayesdyn.envs import CARTPOLE_ID
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.loop import Coloured, Exploration, Uniform
from bayesdyn.networks import Epochs, Training
from bayesdyn.planners import ICEM
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP, Posterior
from bayesdyn.presets.arms import pusher_codec, reacher3d_codec
from bayesdyn.presets.environments import environments
from bayesdyn.presets.facts import Kind
from bayesdyn.presets.names import find
from bayesdyn.presets.task import Task

# On a few hundred rows the prior N(0, 1/fan_in) shrinks wide networks to constants; this decay leaves what the data say.
_DECAY = 1e-4


def _ensemble(hidden: tuple[int, ...], steps: int) -> Posterior:
    decay, training = (_DECAY,) * (len(hidden) + 1), Training(steps=steps)
    return BootstrapEnsemble(hidden=hidden, bootstrap=False, mean_first=0.0, decay=decay, training=training)


def _reacher() -> Posterior:
    return BootstrapEnsemble(hidden=(200,) * 3, mean_first=0.5, decay=(_DECAY,) * 4, training=Training(batch_size=128))


def _pusher() -> Posterior:
    training = Training(batch_size=128)
    return BootstrapEnsemble(hidden=(200,) * 3, bootstrap=False, mean_first=0.0, decay=(_DECAY,) * 4, training=training)


def _running() -> Posterior:
    decay = tuple(1e-4 * layer for layer in (0.25, 0.5, 0.75, 1.0))
    return BootstrapEnsemble(hidden=(200,) * 3, bootstrap=False, mean_first=0.0, decay=decay, training=Epochs(epochs=10))


def _gp() -> Posterior:
    return ExactGP(features=128, training=GPTraining(lengthscale=(0.05, 100.0), lengthscale_ratio=100.0))


@dataclass(frozen=True)
class _Row:
    """Settings for one environment or kind."""

    planner: ICEM
    ensemble: Callable[[], Posterior]
    draws: int = 5
    discount: float = 1.0
    default: str = "ensemble"
    mechanism: Callable[[], BaseCodec] | None = None
    explore: Exploration = field(default_factory=Uniform)
    warm_start: bool = False
    trials: int = 6
    solves: tuple[tuple[str, int], ...] = ()


_KINDS: Mapping[Kind, _Row] = {
    Kind.SWING_UP: _Row(ICEM(horizon=20, iterations=2), partial(_ensemble, (128, 128), 1000)),
    Kind.REACH: _Row(ICEM(horizon=25), partial(_ensemble, (200,) * 3, 1500), trials=20),
    Kind.PUSH: _Row(ICEM(horizon=25, std=0.15), partial(_ensemble, (200,) * 3, 1500), trials=20),
    Kind.RUN: _Row(ICEM(horizon=20, candidates=60, iterations=2, beta=0.5), _running, warm_start=True, trials=20),
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
    "bayesdyn/Reacher3D-v0": replace(
        _KINDS[Kind.REACH],
        planner=ICEM(horizon=25, candidates=60, std=0.05),
        ensemble=_reacher,
        mechanism=reacher3d_codec,
        explore=Coloured(std=0.05),
    ),
    "bayesdyn/PETSPusher-v0": replace(
        _KINDS[Kind.PUSH],
        planner=ICEM(horizon=25, candidates=60, std=0.15),
        ensemble=_pusher,
        mechanism=pusher_codec,
        explore=Coloured(std=0.15),
    ),
    "bayesdyn/DMCCartPole-v0": replace(_KINDS[Kind.SWING_UP], planner=ICEM(horizon=30, iterations=2), trials=9),
}


def icem(env_id: str) -> Task:
    """Return what we recommend for an environment: iCEM with 5 trajectories per candidate, a small ensemble or a Gaussian process.

    | | swing up | reach | push | run |
    |---|---|---|---|---|
    | horizon, iterations | 20, 2 | 25, 3 | 25, 3 | 20, 2 |
    | σ₀, β | 0.5, 2 | 0.5 (Reacher3D 0.05), 2 | 0.15, 2 | 0.5, 0.5 |
    | hidden layers, steps of a fit | 2 x 128, 1,000 | 3 x 200, 1,500 | 3 x 200, 1,500 | 3 x 200, 10 epochs, warm start |

    Throughout: 100 candidates in the first iteration (60 to run), 10 elites, 5 members, each trained on all rows, from scratch
    after every trial unless said otherwise. σ₀ is small where actions cost a lot. On the swing-up of PETS the span of a plan,
    0.8 s, matters more than its budget, and two iterations do what three do in two thirds of the time; DeepMind's cart-pole, with
    a weaker motor, wants 1.2 s (30 actions). PILCO's cart-pole has settings of its own.

    The arms of PETS have codecs of their own (`KinematicCodec`): joint speeds are predicted, angles follow from them and the tip
    from the angles. They take 60 candidates and batches of 128 rows. Their first trial is coloured noise of the planner's own
    size, since uniform torques throw an arm into its limits, where no plan will go. Reacher3D's members have bootstrap samples and
    learn their means first: on rows of their own they stop in time and disagree about as much as they err, where members that saw
    all rows agreed that a joint at its limit would move. Networks for running are trained as PETS trains its own, for twice as many
    epochs.

    Raises `UnknownNameError`, with the known ids, for an environment without a preset.

    Sources: Pinneri et al. 2020 for the planner; the settings are ours.

    >>> icem("bayesdyn/PETSCartPole-v0").planner.horizon
    20
    """
    environment = find("preset for environment", env_id, environments)
    row = _TUNED.get(env_id, _KINDS[environment.kind])
    return Task(
        environment=environment,
        planner=row.planner,
        default=row.default,
        settings={"gp": _gp, "ensemble": row.ensemble},
        draws=row.draws,
        discount=row.discount,
        mechanism=row.mechanism,
        explore=row.explore,
        warm_start=row.warm_start,
        trials=row.trials,
        solves=row.solves,
    )
