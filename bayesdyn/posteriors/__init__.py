"""Posteriors over functions, p(θ|D): regression x -> y, interchangeable behind `Posterior`."""

from bayesdyn.functions import Function
from bayesdyn.gaussian_processes.sparse_objectives import FITC, Automatic, Collapsed
from bayesdyn.gaussian_processes.sparse_svgp import Stochastic
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.posteriors.base import FitReport, Posterior
from bayesdyn.posteriors.calibration_report import CalibrationReport
from bayesdyn.posteriors.dropout import ConcreteDropout, MCDropout
from bayesdyn.posteriors.ensemble import BootstrapEnsemble
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.laplace import Laplace
from bayesdyn.posteriors.laplace_structures import DiagonalGGN, FullGGN, LastLayer
from bayesdyn.posteriors.maximum_likelihood import MaximumLikelihood
from bayesdyn.posteriors.mean_field import MeanField
from bayesdyn.posteriors.nuts import NUTS, NUTSSampling
from bayesdyn.posteriors.physics import Physics, PhysicsReport
from bayesdyn.posteriors.physics_inference import NUTSInference, VariationalInference
from bayesdyn.posteriors.physics_integrators import RK4, AdaptiveODE
from bayesdyn.posteriors.physics_parameters import KnownNoise, LearnedNoise
from bayesdyn.posteriors.physics_residual import WithResidual
from bayesdyn.posteriors.quantile_map import CalibratedMarginals, QuantileMap
from bayesdyn.posteriors.recalibrated import Recalibrated
from bayesdyn.posteriors.scaling import CoverageScale, TotalScale, TwoScales
from bayesdyn.posteriors.sghmc import SGHMC, SGHMCSampling
from bayesdyn.posteriors.sparse_gp import SparseGP
from bayesdyn.posteriors.standardize import Standardize
from bayesdyn.posteriors.swag import SWAG
from bayesdyn.posteriors.swag_sgd import Averaging
from bayesdyn.posteriors.variational_schedule import VariationalTraining

__all__ = [
    "FITC",
    "NUTS",
    "RK4",
    "SGHMC",
    "SWAG",
    "AdaptiveODE",
    "Automatic",
    "Averaging",
    "BootstrapEnsemble",
    "CalibratedMarginals",
    "CalibrationReport",
    "Collapsed",
    "ConcreteDropout",
    "CoverageScale",
    "DiagonalGGN",
    "ExactGP",
    "FitReport",
    "FullGGN",
    "Function",
    "GPTraining",
    "KnownNoise",
    "Laplace",
    "LastLayer",
    "LearnedNoise",
    "MCDropout",
    "MaximumLikelihood",
    "MeanField",
    "NUTSInference",
    "NUTSSampling",
    "Physics",
    "PhysicsReport",
    "Posterior",
    "QuantileMap",
    "Recalibrated",
    "SGHMCSampling",
    "SparseGP",
    "Standardize",
    "Stochastic",
    "TotalScale",
    "TwoScales",
    "VariationalInference",
    "VariationalTraining",
    "WithResidual",
]
