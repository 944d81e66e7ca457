"""Posteriors over functions, p(θ|D): regression x -> y, interchangeable behind `Posterior`."""

from bayesdyn.posteriors.base import FitReport, Function, Posterior
from bayesdyn.posteriors.dropout import ConcreteDropout, MCDropout
from bayesdyn.posteriors.ensemble import BootstrapEnsemble
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.gp_training import GPTraining
from bayesdyn.posteriors.laplace import Laplace
from bayesdyn.posteriors.laplace_structures import DiagonalGGN, FullGGN, LastLayer
from bayesdyn.posteriors.maximum_likelihood import MaximumLikelihood
from bayesdyn.posteriors.mean_field import MeanField

__all__ = [
    "BootstrapEnsemble",
    "ConcreteDropout",
    "DiagonalGGN",
    "ExactGP",
    "FitReport",
    "FullGGN",
    "Function",
    "GPTraining",
    "Laplace",
    "LastLayer",
    "MCDropout",
    "MaximumLikelihood",
    "MeanField",
    "Posterior",
]
