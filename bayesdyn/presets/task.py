"""`Task`: an environment with all that learning to act in it takes, one frozen object per method and environment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium

from bayesdyn import loop
from bayesdyn.codec import BaseCodec
from bayesdyn.loop import Exploration, Monitor, Run, Trial, Uniform
from bayesdyn.model import DynamicsModel
from bayesdyn.mpc import MPC
from bayesdyn.planners import Planner
from bayesdyn.posteriors import Posterior
from bayesdyn.presets.facts import Environment
from bayesdyn.presets.names import find, posteriors
from bayesdyn.rewards import Reward
from bayesdyn.rollout import Propagation, Sampler, TSInf


@dataclass(frozen=True)
class Task:
    """An environment with all that learning to act in it takes.

    `default` names the posterior of the method; `settings` has the posteriors, by name, that want other settings here than the
    defaults of their class. `draws`, `particles`, `propagation` and `discount` are those of `MPC`; `initial`, `explore`, `trials`,
    `replan_every` and `warm_start` those of `learn`. `mechanism` makes a codec that knows more than the environment's own options
    say. `solves` says in how many trials which posteriors are known to solve the task.

    >>> from bayesdyn import presets
    >>> task = presets.icem("bayesdyn/CartPoleSwingUp-v0")
    >>> task.env_id, task.planner.horizon
    ('bayesdyn/CartPoleSwingUp-v0', 12)
    """

    environment: Environment
    planner: Planner
    default: str = "ensemble"
    draws: int = 10
    particles: int = 1
    propagation: Propagation = field(default_factory=TSInf)
    discount: float = 1.0
    settings: Mapping[str, Callable[[], Posterior]] = field(default_factory=dict)
    mechanism: Callable[[], BaseCodec] | None = None
    initial: int = 1
    explore: Exploration = field(default_factory=Uniform)
    trials: int = 6
    replan_every: int | None = 1
    warm_start: bool = False
    solves: tuple[tuple[str, int], ...] = ()

    @property
    def env_id(self) -> str:
        """The environment's id."""
        return self.environment.env_id

    @property
    def reward(self) -> Reward:
        """What the planner maximises."""
        return self.environment.reward

    @property
    def distance(self) -> str | None:
        """The environment's info that says how far from solved it is."""
        return self.environment.distance

    @property
    def solved_below(self) -> float:
        """The distance that counts as solved."""
        return self.environment.solved_below

    def make_env(self, **options: Any) -> gymnasium.Env[Any, Any]:
        """Make the Gymnasium environment; raises what `bayesdyn.envs.make` raises."""
        return self.environment.make(**options)

    def solved(self, trial: Trial) -> bool:
        """Whether the distance stayed below `solved_below` over the trial's last ten steps."""
        return self.distance is not None and trial.last(self.distance) < self.solved_below

    def codec(self) -> BaseCodec:
        """Make the codec, the method's own or that of the environment."""
        return self.environment.codec() if self.mechanism is None else self.mechanism()

    def posterior(self, name: str | None = None) -> Posterior:
        """Make an unfitted posterior, the method's own or one named in `posteriors`, with the settings that it wants here.

        Raises `UnknownNameError` for another name.
        """
        return find("posterior", name or self.default, {**posteriors, **self.settings})()

    def model(self, posterior: str | None = None) -> DynamicsModel:
        """Make an unfitted model with the method's own posterior or a named one; raises `UnknownNameError` for another name."""
        return DynamicsModel(self.codec(), self.posterior(posterior))

    def agent(self, model: Sampler, latency: float | None = None) -> MPC:
        """Make the agent that plans with the model, each plan within `latency` milliseconds if given."""
        return MPC(
            model,
            self.planner,
            self.reward,
            draws=self.draws,
            particles=self.particles,
            propagation=self.propagation,
            termination=self.environment.termination,
            discount=self.discount,
            latency=latency,
        )

    def learn(
        self,
        posterior: str | None = None,
        *,
        latency: float | None = None,
        trials: int | None = None,
        seed: int = 0,
        keep_fans: bool = True,
        run: str | Path | None = None,
        stop: Callable[[Trial], bool] | None = None,
        monitor: Monitor | None = None,
    ) -> Run:
        """Learn the task from scratch with the options of this method (`bayesdyn.learn`), in as many trials as it says."""
        model, env = self.model(posterior), self.make_env()
        agent = self.agent(model, latency)
        try:
            return loop.learn(
                env,
                model,
                agent,
                trials=self.trials if trials is None else trials,
                initial=self.initial,
                explore=self.explore,
                replan_every=self.replan_every,
                warm_start=self.warm_start,
                keep_fans=keep_fans,
                warm_up=None if latency is None else agent.warm_up,
                run=run,
                seed=seed,
                stop=stop,
                monitor=monitor,
            )
        finally:
            env.close()
