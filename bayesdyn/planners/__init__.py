"""Planners: they know the world as one callable, `evaluate(actions [T, B, c, A]) -> scores [B, c]`."""

from bayesdyn.planners.base import Evaluate, Iteration, Plan, Planner, WarmStart
from bayesdyn.planners.budget import Budget
from bayesdyn.planners.cem import CEM
from bayesdyn.planners.icem import ICEM
from bayesdyn.planners.shooting import RandomShooting
from bayesdyn.planners.spaces import ActionSpace, Box, Choices

__all__ = [
    "CEM",
    "ICEM",
    "ActionSpace",
    "Box",
    "Budget",
    "Choices",
    "Evaluate",
    "Iteration",
    "Plan",
    "Planner",
    "RandomShooting",
    "WarmStart",
]
