"""Ready-made settings by name: posteriors, and tasks with their codec, reward, planner and training.

A preset is a method in an environment. `environments` has what is so of an environment, whoever plans in it, one entry each;
`methods` has one function per method, from an environment's id to a `Task`. `scenarios` are those of the PILCO papers, and
`scenario_methods` has one function per way of learning them, from a scenario's name to a `ScenarioTask`.
"""

from collections.abc import Callable

from bayesdyn.errors import UnknownNameError
from bayesdyn.presets.environments import environments
from bayesdyn.presets.facts import Environment, Kind
from bayesdyn.presets.gp_mpc import GPMPCTask, gp_mpc
from bayesdyn.presets.icem import icem
from bayesdyn.presets.mb_mpc import mb_mpc
from bayesdyn.presets.names import find, posteriors
from bayesdyn.presets.pddm import pddm
from bayesdyn.presets.pets import pets
from bayesdyn.presets.pilco import LiftedCost, PolicyTask, doubtful_gp, pilco
from bayesdyn.presets.pilco_scenarios import Scenario, scenarios
from bayesdyn.presets.policy_methods import deep_pilco, mc_pilco
from bayesdyn.presets.rehearsal import RealRollouts, Rehearsal, real_rollouts, rehearsals, rehearse
from bayesdyn.presets.scenario_task import ScenarioTask
from bayesdyn.presets.task import Task

__all__ = [
    "Environment",
    "GPMPCTask",
    "Kind",
    "LiftedCost",
    "PolicyTask",
    "RealRollouts",
    "Rehearsal",
    "Scenario",
    "ScenarioTask",
    "Task",
    "deep_pilco",
    "doubtful_gp",
    "environments",
    "find",
    "gp_mpc",
    "icem",
    "mb_mpc",
    "mc_pilco",
    "methods",
    "pddm",
    "pets",
    "pilco",
    "posteriors",
    "real_rollouts",
    "rehearsals",
    "rehearse",
    "scenario_methods",
    "scenarios",
    "task",
    "tasks",
]

methods: dict[str, Callable[[str], Task]] = {"icem": icem, "pets": pets, "pddm": pddm, "mb-mpc": mb_mpc}
"""Methods by the names of the command line: environment id -> `Task`; the first is the one that we recommend."""

scenario_methods: dict[str, Callable[..., ScenarioTask]] = {
    "pilco": pilco,
    "mc-pilco": mc_pilco,
    "deep-pilco": deep_pilco,
    "gp-mpc": gp_mpc,
}
"""Ways of learning PILCO's scenarios by the names of the command line: (scenario, **changes of it) -> `ScenarioTask`."""

tasks: dict[str, Task] = {env_id: icem(env_id) for env_id in environments}
"""The recommended tasks by environment id."""


def task(env_id: str, method: str = "icem") -> Task:
    """Return the task of an environment for a method; raises `UnknownNameError`, with the known names, for one without settings.

    >>> task("bayesdyn/CartPoleSwingUp-v0").distance
    'tip_distance'
    """
    make = find("preset", method, methods)
    try:
        return make(env_id)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}. For another environment call bayesdyn.learn with a reward of your own") from None
