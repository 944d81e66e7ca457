"""What the report knows about an environment beyond its numbers: how long a step is, what counts as solved, how to draw it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bayesdyn import presets
from bayesdyn.data.describe import describe
from bayesdyn.envs import CARTPOLE_ID, HANGING, UPRIGHT, Chain
from bayesdyn.envs.drawing import SUCCESS_METRES, VIEW_METRES
from bayesdyn.loop import Run, Trial
from bayesdyn.presets import Environment, Kind, environments
from bayesdyn.report.animation import ChainFrames, Frames, UnicycleFrames


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


@dataclass(frozen=True)
class _Place:
    """A scenario of the PILCO papers in words; `frames` are made for the options of the environment."""

    name: str
    task: str
    step_seconds: float
    frames: Callable[[Mapping[str, Any]], Frames]


def _cart_pole(length: float = 0.5, angle: int = 3, up: float = HANGING) -> Frames:
    return ChainFrames(Chain((length,), (angle,), up, cart=0), limit=10.0, view=VIEW_METRES, success=SUCCESS_METRES)


def _two_links(limit: float) -> Callable[[Mapping[str, Any]], Frames]:
    return lambda options: ChainFrames(Chain(tuple(options.get("lengths", (0.5, 0.5))), (2, 3), UPRIGHT), limit)


_SWING_UP = "swing a hanging pole up by pushing its cart, and hold it there"
_PLACES: dict[str, _Place] = {
    CARTPOLE_ID: _Place("cart-pole swing-up", _SWING_UP, 0.1, lambda options: _cart_pole()),
    "bayesdyn/MCPILCOCartPole-v0": _Place("MC-PILCO's cart-pole", _SWING_UP, 0.05, lambda options: _cart_pole()),
    "bayesdyn/DeepPILCOCartPole-v0": _Place(
        "Deep PILCO's cart-pole", _SWING_UP, 0.1, lambda options: _cart_pole(0.6, angle=2, up=UPRIGHT)
    ),
    "bayesdyn/PILCOPendulum-v0": _Place(
        "pendulum swing-up",
        "swing a hanging rod up with a motor too weak to lift it, and hold it there",
        0.1,
        lambda options: ChainFrames(Chain((1.0,), (1,), HANGING), limit=2.5),
    ),
    "bayesdyn/DoublePendulum-v0": _Place(
        "double-pendulum swing-up",
        "swing two hanging rods up with a motor at each joint, and hold them there",
        0.1,
        _two_links(2.0),
    ),
    "bayesdyn/Pendubot-v0": _Place(
        "pendubot swing-up",
        "swing two hanging rods up with one motor, at the inner joint, and hold them there",
        0.05,
        _two_links(3.5),
    ),
    "bayesdyn/CartDoublePendulum-v0": _Place(
        "cart-double-pendulum swing-up",
        "swing two rods in a chain up by pushing the cart that they hang from, and hold them there",
        0.05,
        lambda options: ChainFrames(Chain((0.6, 0.6), (4, 5), UPRIGHT, cart=0), limit=20.0),
    ),
    "bayesdyn/Unicycle-v0": _Place(
        "unicycle",
        "stay upright over one spot with a motor at the wheel and one at a turntable",
        0.15,
        lambda options: UnicycleFrames(),
    ),
}
_TASKS = {
    Kind.SWING_UP: "bring the pole up, and hold it there",
    Kind.REACH: "reach a target",
    Kind.PUSH: "push an object to its target",
    Kind.RUN: "run as far as possible",
}
_DISTANCES = {
    "tip_distance": ("distance of the pole's tip from its goal", "m"),
    "top_distance": ("distance of the top from its goal", "m"),
}


def scenario(environment: str, options: Mapping[str, Any] | None = None) -> Scenario:
    """Return what the presets know about an environment made with `options`; for a stranger, its name.

    >>> scenario("bayesdyn/PETSCartPole-v0").unit, scenario("bayesdyn/Unicycle-v0").solved, scenario("Acrobot-v1").name
    ('m', 0.3, 'Acrobot-v1')
    """
    if environment in environments:
        return _drawn(_of(environments[environment]), environment, options or {})
    known = next((known for known in presets.scenarios.values() if known.env_id == environment), None)
    stranger = Scenario(environment, "collect as much reward as possible")
    if known is None:
        return _drawn(stranger, environment, options or {})
    info_name, unit = _DISTANCES[known.distance]
    told = replace(stranger, info=known.distance, info_name=info_name, unit=unit, solved=known.solved_below)
    return _drawn(told, environment, options or {})


def with_preset_reward(run: Run) -> bool:
    """Whether the agent of a run planned with the reward that the presets have for its environment."""
    known, agent = environments.get(run.config["environment"]), run.config.get("agent")
    return known is not None and isinstance(agent, Mapping) and agent.get("reward") == describe(known.reward)


def _of(known: Environment) -> Scenario:
    info_name, unit = ("", "") if known.distance is None else _DISTANCES[known.distance]
    return Scenario(
        name=known.env_id,
        task=_TASKS[known.kind],
        step_seconds=known.step_seconds,
        info=known.distance,
        info_name=info_name,
        unit=unit,
        solved=known.solved_below,
        differs=known.differs,
    )


def _drawn(told: Scenario, environment: str, options: Mapping[str, Any]) -> Scenario:
    """Return a scenario with its name, task and pictures, where they are known."""
    place = _PLACES.get(environment)
    if place is None:
        return told
    return replace(told, name=place.name, task=place.task, step_seconds=place.step_seconds, frames=place.frames(options))
