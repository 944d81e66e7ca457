"""The environments that the presets know: one entry each, with nothing about how to plan in it."""

from bayesdyn.envs import CARTPOLE_ID, PETSCartPoleReward, TipReward
from bayesdyn.presets.facts import Environment, Kind

_KNOWN = (
    Environment(
        env_id=CARTPOLE_ID,
        kind=Kind.SWING_UP,
        steps=40,
        step_seconds=0.1,
        reward=TipReward((0.1, 0.3, 1.0)),
        angles=(3,),
        distance="tip_distance",
        solved_below=0.1,
    ),
    Environment(
        env_id="bayesdyn/PETSCartPole-v0",
        kind=Kind.SWING_UP,
        steps=200,
        step_seconds=0.04,
        reward=PETSCartPoleReward(),
        angles=(1,),
        distance="tip_distance",
        solved_below=0.1,
    ),
)

environments: dict[str, Environment] = {known.env_id: known for known in _KNOWN}
"""Environments by id. Codecs of the PETS tasks: kchua/handful-of-trials, `dmbrl/config`; the rest: modules of `bayesdyn.envs`."""
