"""What the report knows about an environment beyond its numbers: how long a step is, what counts as solved, how to draw it."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from bayesdyn.envs import CARTPOLE_ID, CartPolePlant
from bayesdyn.loop import Run, Trial
from bayesdyn.presets import task
from bayesdyn.report.animation import cartpole_frames

Frames = Callable[[Trial, float], list[Image.Image]]


@dataclass(frozen=True)
class Scenario:
    """An environment in words and pictures; `step_seconds`, `info` and `frames` are None where there is nothing to say.

    info      scalar of the environment's info that says how far the goal is, in `unit`
    solved    a trial is solved if `info` stays below this over its last ten steps
    frames    (trial, step_seconds) -> pictures
    """

    name: str
    task: str
    step_seconds: float | None = None
    info: str | None = None
    info_name: str = ""
    unit: str = ""
    solved: float = 0.0
    frames: Frames | None = None

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


_CARTPOLE = task(CARTPOLE_ID)
_KNOWN = {
    CARTPOLE_ID: Scenario(
        name="cart-pole swing-up",
        task="swing a hanging pole up by pushing its cart, and hold it there",
        step_seconds=CartPolePlant.dt,
        info=_CARTPOLE.distance,
        info_name="distance of the pole's tip from its goal",
        unit="m",
        solved=_CARTPOLE.solved_below,
        frames=cartpole_frames,
    )
}


def scenario(environment: str) -> Scenario:
    """Return what is known about an environment; for a stranger, its name.

    >>> scenario("bayesdyn/CartPoleSwingUp-v0").unit, scenario("Pendulum-v1").name
    ('m', 'Pendulum-v1')
    """
    return _KNOWN.get(environment, Scenario(name=environment, task="collect as much reward as possible"))
