"""Moment maps: what trigonometric features, squashes, affine maps and costs do to a Gaussian belief, exactly."""

from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.moments.affine import Columns, Linear
from bayesdyn.moments.costs import Cost, HingeCost, LinearCost, QuadraticCost, SaturatingCost
from bayesdyn.moments.lift import Lift, lift
from bayesdyn.moments.sine import Sine
from bayesdyn.moments.squash import Squash, SquashSat, SquashSin
from bayesdyn.moments.trig import Trig

__all__ = [
    "Columns",
    "Cost",
    "HingeCost",
    "Lift",
    "Linear",
    "LinearCost",
    "MomentMap",
    "Moments",
    "QuadraticCost",
    "SaturatingCost",
    "Sine",
    "Squash",
    "SquashSat",
    "SquashSin",
    "Trig",
    "lift",
]
