"""Checks that a posterior or a planner of your own keeps the contract of its seam."""

from bayesdyn.testing.planner import check_planner
from bayesdyn.testing.posterior import check_posterior

__all__ = ["check_planner", "check_posterior"]
