"""What the report knows about an environment beyond its numbers: how long a step is, what counts as solved, how to draw it."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from bayesdyn.envs import CARTPOLE_ID
from bayesdyn.loop import Run, Trial
from bayesdyn.presets import Environment, Kind, environments
from bayesdyn.report.animation import cartpole_frames

Frames = Callable[[Trial, float], list[Image.Image]]


@dataclass(frozen=True)
class Scenario:
    """An environment in words and pictures; `step_seconds`, `info` and `frames` are None where there is nothing to say.

    info      scalar of the environment's info that says how far the goal is, in `unit`
    solved    a trial is solved if `info` stays below this over its last ten steps
    frames    (trial, step_seconds) -> pictures
    differs   how the planner's reward differs from what the environment pays, if it does
    """

    name: str
    task: str
    step_seconds: float | None = None
    info: str | None = None
    info_name: str = ""
    unit: str = ""
    solved: float = 0.0
    frames: Frames | None = None
    differs: str = ""

    def distance(self, trial: Trial) -> float | None:
        """Return the largest distance to the goal over the trial's last ten steps, or None if it was not measured."""
        return trial.last(self.info) if self.info is not None and self.info in trial.infos else None

    def is_solved(self, trial: Trial) -> bool:
        """Whether the trial reached the goal and stayed there for its last ten steps."""
        distance = self.distance(trial)
        return trial.controlled and distance is not None and distance < self.solved

    def solved_at(self, run: Run) -> Trial | None:
        """Return the run's first solved trial."""
        return next((trial for trial in run.trials if self.is_solved(trial)), None)


_NAMES = {CARTPOLE_ID: ("cart-pole swing-up", "swing a hanging pole up by pushing its cart, and hold it there")}
_TASKS = {
    Kind.SWING_UP: "bring the pole up, and hold it there",
    Kind.REACH: "reach a target",
    Kind.PUSH: "push an object to its target",
    Kind.RUN: "run as far as possible",
}
_DISTANCES = {"tip_distance": ("distance of the pole's tip from its goal", "m")}
_FRAMES: dict[str, Frames] = {CARTPOLE_ID: cartpole_frames}


def scenario(environment: str) -> Scenario:
    """Return what the presets know about an environment; for a stranger, its name.

    >>> scenario("bayesdyn/PETSCartPole-v0").unit, scenario("Acrobot-v1").name
    ('m', 'Acrobot-v1')
    """
    return (
        _of(environments[environment])
        if environment in environments
        else Scenario(environment, "collect as much reward as possible")
    )


def _of(known: Environment) -> Scenario:
    name, task = _NAMES.get(known.env_id, (known.env_id, _TASKS[known.kind]))
    info_name, unit = ("", "") if known.distance is None else _DISTANCES[known.distance]
    return Scenario(
        name=name,
        task=task,
        step_seconds=known.step_seconds,
        info=known.distance,
        info_name=info_name,
        unit=unit,
        solved=known.solved_below,
        frames=_FRAMES.get(known.env_id),
        differs=known.differs,
    )
