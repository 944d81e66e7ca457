"""bayesdyn: learned dynamics that know how sure they are, and planners that act on it."""

from bayesdyn import (
    envs,
    errors,
    imagination,
    loop,
    moments,
    objectives,
    planners,
    policies,
    policy_search,
    posteriors,
    presets,
    testing,
)
from bayesdyn.codec import Codec, IdentityCodec, LagCodec
from bayesdyn.data import Episode, Transitions
from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.evaluation import compare
from bayesdyn.loop import learn
from bayesdyn.model import Dynamics, DynamicsModel
from bayesdyn.mpc import MPC
from bayesdyn.posteriors import Standardize
from bayesdyn.rollout import TS1, Mean, MomentMatching, PlainDynamics, Trajectory, TSInf, rollout

__all__ = [
    "MPC",
    "TS1",
    "Codec",
    "Dynamics",
    "DynamicsModel",
    "Episode",
    "Gaussian",
    "IdentityCodec",
    "LagCodec",
    "Mean",
    "MomentMatching",
    "PlainDynamics",
    "Predictive",
    "Standardize",
    "TSInf",
    "Trajectory",
    "Transitions",
    "compare",
    "envs",
    "errors",
    "imagination",
    "learn",
    "loop",
    "moments",
    "objectives",
    "planners",
    "policies",
    "policy_search",
    "posteriors",
    "presets",
    "rollout",
    "testing",
]
