"""The seam between a way of learning and what runs and shows it, `ScenarioTask`, and what all ways here share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium

from bayesdyn import loop
from bayesdyn.agents import Agent
from bayesdyn.codec import Codec
from bayesdyn.envs import make
from bayesdyn.loop import Monitor, Run, Trial
from bayesdyn.model import DynamicsModel
from bayesdyn.moments import Cost
from bayesdyn.moments.scenario_costs import Widths
from bayesdyn.posteriors import Posterior
from bayesdyn.presets.pilco_scenarios import Scenario


@runtime_checkable
class ScenarioTask(Protocol):
    """A scenario with a way of learning it; each entry of `scenario_methods` makes one."""

    @property
    def scenario(self) -> Scenario:
        """Where it learns."""

    @property
    def cost(self) -> Cost:
        """What it learns to keep low, a cost of the lifted state."""

    def make_env(self, **options: Any) -> gymnasium.Env[Any, Any]:
        """Make the Gymnasium environment."""

    def model(self) -> DynamicsModel:
        """Make an unfitted model."""

    def agent(self, model: DynamicsModel) -> Agent:
        """Make the agent that acts by the model."""

    def solved(self, trial: Trial) -> bool:
        """Whether a trial solved the scenario."""

    def learn(
        self,
        *,
        trials: int | None = None,
        seed: int = 0,
        run: str | Path | None = None,
        stop: Callable[[Trial], bool] | None = None,
        monitor: Monitor | None = None,
    ) -> Run:
        """Learn the scenario from scratch."""


class LearnedScenario(ABC):
    """What every way of learning a scenario shares; a subclass has the fields named here, and says how it acts and is looped.

    `widths` and `exploration` are those of the cost, the scenario's own widths if None. `posterior` makes what learns the dynamics,
    `options` are those of the environment, `warm_start` that of `learn`.
    """

    scenario: Scenario
    posterior: Callable[[], Posterior]
    widths: Widths | None
    exploration: float
    warm_start: bool
    options: Mapping[str, Any]

    @property
    def cost(self) -> Cost:
        """The cost of the lifted state."""
        return self.scenario.cost(self.scenario.widths if self.widths is None else self.widths, self.exploration)

    @abstractmethod
    def agent(self, model: DynamicsModel) -> Agent:
        """Make the agent that acts by the model."""

    @property
    @abstractmethod
    def controlled(self) -> int:
        """Controlled trials at most."""

    @property
    @abstractmethod
    def between(self) -> Mapping[str, Any]:
        """What this way asks of `learn` beside what all do."""

    def make_env(self, **options: Any) -> gymnasium.Env[Any, Any]:
        """Make the Gymnasium environment; raises what `bayesdyn.envs.make` raises."""
        return make(self.scenario.env_id, **{**self.options, **options})

    def model(self) -> DynamicsModel:
        """Make an unfitted model."""
        chosen = self.scenario
        return DynamicsModel(Codec(angles=chosen.angles, ignore=chosen.ignore, relative=chosen.relative), self.posterior())

    def solved(self, trial: Trial) -> bool:
        """Whether the tip stayed within `solved_below` metres of upright over the trial's last ten steps."""
        return trial.controlled and trial.last(self.scenario.distance) < self.scenario.solved_below

    def learn(
        self,
        *,
        trials: int | None = None,
        seed: int = 0,
        run: str | Path | None = None,
        stop: Callable[[Trial], bool] | None = None,
        monitor: Monitor | None = None,
    ) -> Run:
        """Learn the scenario from scratch, in as many trials as the task says: fit, learn or plan, act, add the data, repeat."""
        model, env = self.model(), self.make_env()
        try:
            return loop.learn(
                env,
                model,
                self.agent(model),
                trials=self.controlled if trials is None else trials,
                initial=self.scenario.initial,
                explore=self.scenario.explore,
                warm_start=self.warm_start,
                run=run,
                seed=seed,
                stop=stop,
                monitor=monitor,
                **self.between,
            )
        finally:
            env.close()
