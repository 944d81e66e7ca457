"""Posteriors over functions, p(θ|D): regression x -> y, interchangeable behind `Posterior`."""

from bayesdyn.posteriors.base import FitReport, Function, Posterior

__all__ = ["FitReport", "Function", "Posterior"]
