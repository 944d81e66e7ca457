"""Posteriors over functions, p(θ|D): regression x -> y, interchangeable behind `Posterior`."""

from bayesdyn.posteriors.base import FitReport, Function, Posterior
from bayesdyn.posteriors.ensemble import BootstrapEnsemble
from bayesdyn.posteriors.exact_gp import ExactGP

__all__ = ["BootstrapEnsemble", "ExactGP", "FitReport", "Function", "Posterior"]
