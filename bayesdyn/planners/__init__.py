"""Planners: they know the world as one callable, `evaluate(actions [T, B, c, A]) -> scores [B, c]`."""

from bayesdyn.planners.base import Evaluate, Iteration, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget, Pace
from bayesdyn.planners.cem import CEM
from bayesdyn.planners.discrete_cem import DiscreteCEM
from bayesdyn.planners.discrete_mppi import DiscreteMPPI
from bayesdyn.planners.gradient import GradientPlanner
from bayesdyn.planners.icem import ICEM
from bayesdyn.planners.mppi import MPPI
from bayesdyn.planners.pddm import PDDM
from bayesdyn.planners.shooting import RandomShooting
from bayesdyn.planners.spaces import ActionSpace, Box, Choices

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PDDM",
    "ActionSpace",
    "Box",
    "Budget",
    "Choices",
    "DiscreteCEM",
    "DiscreteMPPI",
    "Evaluate",
    "GradientPlanner",
    "Iteration",
    "Pace",
    "Plan",
    "Planner",
    "RandomShooting",
    "WarmStart",
]
