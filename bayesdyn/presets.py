"""Ready-made settings by name: posteriors, and tasks with their codec, reward and planner."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

import gymnasium

from bayesdyn.codec import Codec
from bayesdyn.envs import CARTPOLE_ID, TipReward, make
from bayesdyn.errors import UnknownNameError
from bayesdyn.loop import Trial
from bayesdyn.model import DynamicsModel
from bayesdyn.mpc import MPC, Sampler
from bayesdyn.networks import Training
from bayesdyn.planners import ICEM, Planner
from bayesdyn.posteriors import (
    NUTS,
    SGHMC,
    SWAG,
    BootstrapEnsemble,
    ConcreteDropout,
    ExactGP,
    GPTraining,
    Laplace,
    MaximumLikelihood,
    MCDropout,
    MeanField,
    Posterior,
    SparseGP,
)
from bayesdyn.rewards import Reward

Named = TypeVar("Named")

posteriors: dict[str, Callable[[], Posterior]] = {
    "gp": ExactGP,
    "sparse-gp": SparseGP,
    "ensemble": BootstrapEnsemble,
    "mean-field": MeanField,
    "mc-dropout": MCDropout,
    "concrete-dropout": ConcreteDropout,
    "laplace": Laplace,
    "swag": SWAG,
    "sghmc": SGHMC,
    "nuts": NUTS,
    "maximum-likelihood": MaximumLikelihood,
}
"""Posteriors by the names of the command line; each call makes an unfitted one with the defaults of its class."""


@dataclass(frozen=True)
class Task:
    """An environment with all that learning to act in it takes.

    `distance` names the environment's info that says how far from solved it is, `solved_below` the distance that counts as solved.
    `settings` has the posteriors that want other settings for this task than the defaults of their class, `trials` in how many
    trials which posteriors are known to solve it.
    """

    env_id: str
    angles: tuple[int, ...]
    reward: Reward
    planner: Planner
    draws: int = 10
    discount: float = 1.0
    settings: Mapping[str, Callable[[], Posterior]] = field(default_factory=dict)
    trials: tuple[tuple[str, int], ...] = ()
    distance: str | None = None
    solved_below: float = 0.0

    def make_env(self, **options: Any) -> gymnasium.Env[Any, Any]:
        """Make the Gymnasium environment; raises what `bayesdyn.envs.make` raises."""
        return make(self.env_id, **options)

    def solved(self, trial: Trial) -> bool:
        """Whether the distance stayed below `solved_below` over the trial's last ten steps."""
        return self.distance is not None and trial.last(self.distance) < self.solved_below

    def codec(self) -> Codec:
        """Make the codec."""
        return Codec(angles=self.angles)

    def posterior(self, name: str) -> Posterior:
        """Make an unfitted posterior of a name in `posteriors`, with this task's settings; raises `UnknownNameError`."""
        return find("posterior", name, {**posteriors, **self.settings})()

    def model(self, posterior: str) -> DynamicsModel:
        """Make an unfitted model with a posterior named in `posteriors`; raises `UnknownNameError` for another name."""
        return DynamicsModel(self.codec(), self.posterior(posterior))

    def agent(self, model: Sampler) -> MPC:
        """Make the agent that plans with the model."""
        return MPC(model, self.planner, self.reward, draws=self.draws, discount=self.discount)


tasks: dict[str, Task] = {
    CARTPOLE_ID: Task(
        env_id=CARTPOLE_ID,
        angles=(3,),
        reward=TipReward((0.1, 0.3, 1.0)),
        planner=ICEM(horizon=12, candidates=64, elites=8, iterations=4),
        draws=8,
        discount=0.95,
        settings={
            "gp": lambda: ExactGP(features=128, training=GPTraining(lengthscale=(0.05, 100.0), lengthscale_ratio=100.0)),
            "ensemble": lambda: BootstrapEnsemble(bootstrap=False, mean_first=0.0, training=Training()),
        },
        trials=(("gp", 3), ("ensemble", 6)),
        distance="tip_distance",
        solved_below=0.1,
    ),
}
"""Tasks by environment id."""


def task(env_id: str) -> Task:
    """Return the task of an environment; raises `UnknownNameError`, with the known ids, for one without settings.

    >>> task("bayesdyn/CartPoleSwingUp-v0").distance
    'tip_distance'
    """
    try:
        return find("preset for environment", env_id, tasks)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}. For another environment call bayesdyn.learn with a reward of your own") from None


def find(what: str, name: str, known: Mapping[str, Named]) -> Named:
    """Look a name up; raises `UnknownNameError` that lists the known names and suggests the nearest.

    >>> find("posterior", "gpp", {"gp": 1})
    Traceback (most recent call last):
    ...
    bayesdyn.errors.UnknownNameError: there is no posterior 'gpp'; did you mean 'gp'? Known: gp
    """
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        raise UnknownNameError(f"there is no {what} {name!r};{hint} Known: {', '.join(known)}")
    return known[name]
