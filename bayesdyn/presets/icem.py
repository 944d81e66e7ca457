"""Our recommendation: iCEM with few trajectories per candidate and a small ensemble or a Gaussian process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bayesdyn.envs import CARTPOLE_ID
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.networks import Training
from bayesdyn.planners import ICEM
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP, Posterior
from bayesdyn.presets.environments import environments
from bayesdyn.presets.facts import Kind
from bayesdyn.presets.names import find
from bayesdyn.presets.task import Task


def _gp() -> Posterior:
    return ExactGP(features=128, training=GPTraining(lengthscale=(0.05, 100.0), lengthscale_ratio=100.0))


def _small_ensemble() -> Posterior:
    return BootstrapEnsemble(hidden=(128, 128, 128), bootstrap=False, mean_first=0.0, training=Training(steps=1500))


@dataclass(frozen=True)
class _Row:
    """Settings for one environment or kind: the planner, draws per candidate, posteriors, trials, and which solve it when."""

    planner: ICEM
    draws: int = 10
    discount: float = 1.0
    default: str = "ensemble"
    ensemble: Callable[[], Posterior] = _small_ensemble
    trials: int = 6
    solves: tuple[tuple[str, int], ...] = ()


_KINDS: Mapping[Kind, _Row] = {
    Kind.SWING_UP: _Row(ICEM(horizon=20), draws=5),
    Kind.REACH: _Row(ICEM(horizon=25), draws=5, trials=20),
    Kind.PUSH: _Row(ICEM(horizon=25, std=0.15), trials=20),
    Kind.RUN: _Row(ICEM(horizon=25, beta=0.25), trials=20),
}
_TUNED: Mapping[str, _Row] = {
    CARTPOLE_ID: _Row(
        ICEM(horizon=12, candidates=64, elites=8, iterations=4),
        draws=8,
        discount=0.95,
        default="gp",
        ensemble=lambda: BootstrapEnsemble(bootstrap=False, mean_first=0.0, training=Training()),
        solves=(("gp", 3), ("ensemble", 6)),
    ),
}


def icem(env_id: str) -> Task:
    """Return what we recommend for an environment: iCEM, few trajectories per candidate, a small ensemble or a Gaussian process.

    Throughout: 100 candidates, 10 elites, 3 iterations, 97 sequences per plan; T·dt is about 1 s.

    Raises `UnknownNameError`, with the known ids, for an environment without a preset.

    >>> icem("bayesdyn/PETSCartPole-v0").planner.candidates
    100
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
        trials=row.trials,
        solves=row.solves,
    )
