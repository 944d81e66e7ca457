"""Moment maps: what trigonometric features, squashes, affine maps and costs do to a Gaussian belief, exactly."""

from bayesdyn.beliefs import MomentMap, Moments
from bayesdyn.moments.affine import Columns, Linear
from bayesdyn.moments.combined_costs import Average, CostOf, Sum
from bayesdyn.moments.costs import Cost, HingeCost, LinearCost, QuadraticCost, SaturatingCost
from bayesdyn.moments.lift import Lift, lift
from bayesdyn.moments.points import PointMap
from bayesdyn.moments.scenario_costs import (
    cart_double_pendulum_cost,
    cart_double_pendulum_cost_true_lengths,
    cart_pole_cost,
    double_pendulum_cost,
    pendubot_cost,
    pendulum_cost,
    unicycle_cost,
    unicycle_cost_true_lengths,
)
from bayesdyn.moments.sine import Sine
from bayesdyn.moments.squash import Squash, SquashSat, SquashSin
from bayesdyn.moments.trig import Trig

__all__ = [
    "Average",
    "Columns",
    "Cost",
    "CostOf",
    "HingeCost",
    "Lift",
    "Linear",
    "LinearCost",
    "MomentMap",
    "Moments",
    "PointMap",
    "QuadraticCost",
    "SaturatingCost",
    "Sine",
    "Squash",
    "SquashSat",
    "SquashSin",
    "Sum",
    "Trig",
    "cart_double_pendulum_cost",
    "cart_double_pendulum_cost_true_lengths",
    "cart_pole_cost",
    "double_pendulum_cost",
    "lift",
    "pendubot_cost",
    "pendulum_cost",
    "unicycle_cost",
    "unicycle_cost_true_lengths",
]
