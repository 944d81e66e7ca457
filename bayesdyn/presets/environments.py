"""The environments that the presets know: one entry each, with nothing about how to plan in it."""

from bayesdyn.envs import (
    CARTPOLE_ID,
    DMCCartPoleReward,
    DMCPendulumShapedReward,
    DMCReacherShapedReward,
    HalfCheetahReward,
    HalfCheetahV5Reward,
    InvertedDoublePendulumV5Reward,
    InvertedDoublePendulumV5Termination,
    PendulumV1Reward,
    PETSCartPoleReward,
    PusherReward,
    PusherV5Reward,
    Reacher3DReward,
    ReacherV5Reward,
    TipReward,
    fixed_pusher_model,
)
from bayesdyn.presets.facts import Environment, Kind

_PILCO = (
    Environment(
        env_id=CARTPOLE_ID,
        kind=Kind.SWING_UP,
        steps=40,
        step_seconds=0.1,
        reward=TipReward((0.1, 0.3, 1.0)),
        angles=(3,),
        distance="tip_distance",
        solved_below=0.1,
        differs="averaged over three widths, which gives a slope far from the goal",
    ),
)
_PETS = (
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
    Environment(env_id="bayesdyn/Reacher3D-v0", kind=Kind.REACH, steps=150, step_seconds=0.02, reward=Reacher3DReward()),
    Environment(
        env_id="bayesdyn/PETSPusher-v0",
        kind=Kind.PUSH,
        steps=150,
        step_seconds=0.04,
        reward=PusherReward(),
        differs="positions after the step, the environment pays for those before it",
    ),
    Environment(
        env_id="bayesdyn/PETSHalfCheetah-v0",
        kind=Kind.RUN,
        steps=1000,
        step_seconds=0.05,
        reward=HalfCheetahReward(),
        angles=(2,),
        ignore=(0,),
        absolute=(0,),
    ),
)
_GYMNASIUM = (
    Environment(env_id="Pendulum-v1", kind=Kind.SWING_UP, steps=200, step_seconds=0.05, reward=PendulumV1Reward()),
    Environment(env_id="Reacher-v5", kind=Kind.REACH, steps=50, step_seconds=0.02, reward=ReacherV5Reward()),
    Environment(
        env_id="Pusher-v5",
        kind=Kind.PUSH,
        steps=100,
        step_seconds=0.05,
        reward=PusherV5Reward(),
        options=lambda: {"xml_file": fixed_pusher_model()},
    ),
    Environment(
        env_id="InvertedDoublePendulum-v5",
        kind=Kind.SWING_UP,
        steps=1000,
        step_seconds=0.05,
        reward=InvertedDoublePendulumV5Reward(),
        termination=InvertedDoublePendulumV5Termination(),
    ),
    Environment(
        env_id="HalfCheetah-v5",
        kind=Kind.RUN,
        steps=1000,
        step_seconds=0.05,
        reward=HalfCheetahV5Reward(speed=17),
        angles=(1,),
        ignore=(17,),
        absolute=(17,),
        options=lambda: {"observe_infos": ("x_velocity",)},
    ),
)
_LAST_REWARD = "of the simulator steps that hold an action the last one's reward stands for all"
_DMC = (
    Environment(
        env_id="bayesdyn/DMCCartPole-v0",
        kind=Kind.SWING_UP,
        steps=250,
        step_seconds=0.04,
        reward=DMCCartPoleReward(),
        options=lambda: {"action_repeat": 4},
        differs=_LAST_REWARD,
    ),
    Environment(
        env_id="bayesdyn/DMCPendulum-v0",
        kind=Kind.SWING_UP,
        steps=500,
        step_seconds=0.04,
        reward=DMCPendulumShapedReward(),
        options=lambda: {"action_repeat": 2},
        differs="with a slope, by energy and height, which the task's sparse reward lacks",
    ),
    Environment(
        env_id="bayesdyn/DMCReacher-v0",
        kind=Kind.REACH,
        steps=500,
        step_seconds=0.04,
        reward=DMCReacherShapedReward(),
        options=lambda: {"action_repeat": 2},
        differs="with a slope, by distance, which the task's sparse reward lacks; for the easy target",
    ),
)

environments: dict[str, Environment] = {known.env_id: known for known in (*_PILCO, *_PETS, *_GYMNASIUM, *_DMC)}
"""Environments by id. Codecs of the PETS tasks: kchua/handful-of-trials, `dmbrl/config`; the rest: modules of `bayesdyn.envs`."""
