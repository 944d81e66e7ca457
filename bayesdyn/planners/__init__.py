"""Planners: they know the world as one callable, `evaluate(actions [T, B, c, A]) -> scores [B, c]`."""

from bayesdyn.planners.base import Box, Evaluate, Iteration, Plan, Planner, WarmStart
from bayesdyn.planners.cem import CEM
from bayesdyn.planners.icem import ICEM
from bayesdyn.planners.shooting import RandomShooting

__all__ = ["CEM", "ICEM", "Box", "Evaluate", "Iteration", "Plan", "Planner", "RandomShooting", "WarmStart"]
