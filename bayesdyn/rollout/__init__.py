"""Trajectories under sampled dynamics: `rollout` and the propagation strategies."""

from bayesdyn.rollout.propagation import (
    TS1,
    Mean,
    MomentMatching,
    Noise,
    Noiseless,
    PlainDynamics,
    Propagation,
    SampledDynamics,
    Sampler,
    TSInf,
)
from bayesdyn.rollout.rollout import TerminalValue, Trajectory, rollout

__all__ = [
    "TS1",
    "Mean",
    "MomentMatching",
    "Noise",
    "Noiseless",
    "PlainDynamics",
    "Propagation",
    "SampledDynamics",
    "Sampler",
    "TSInf",
    "TerminalValue",
    "Trajectory",
    "rollout",
]
