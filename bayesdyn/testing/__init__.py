"""Checks that a posterior of your own keeps the contract of its seam."""

from bayesdyn.testing.posterior import check_posterior

__all__ = ["check_posterior"]
