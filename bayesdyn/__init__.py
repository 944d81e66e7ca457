"""bayesdyn: learned dynamics that know how sure they are, and planners that act on it."""

from bayesdyn import envs, errors, loop, objectives, planners, posteriors, testing
from bayesdyn.codec import Codec, LagCodec
from bayesdyn.data import Episode, Transitions
from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.evaluation import compare
from bayesdyn.loop import learn
from bayesdyn.model import Dynamics, DynamicsModel
from bayesdyn.mpc import MPC
from bayesdyn.rollout import TS1, Mean, MomentMatching, PlainDynamics, Trajectory, TSInf, rollout

__all__ = [
    "MPC",
    "TS1",
    "Codec",
    "Dynamics",
    "DynamicsModel",
    "Episode",
    "Gaussian",
    "LagCodec",
    "Mean",
    "MomentMatching",
    "PlainDynamics",
    "Predictive",
    "TSInf",
    "Trajectory",
    "Transitions",
    "compare",
    "envs",
    "errors",
    "learn",
    "loop",
    "objectives",
    "planners",
    "posteriors",
    "rollout",
    "testing",
]
