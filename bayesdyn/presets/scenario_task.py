"""The seam between a way of learning and what runs and shows it: `ScenarioTask`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium

from bayesdyn.agents import Agent
from bayesdyn.loop import Monitor, Run, Trial
from bayesdyn.model import DynamicsModel
from bayesdyn.moments import Cost
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
