"""Covariance functions: four that are evaluated by our own code, and any kernel that GPyTorch can state."""

from bayesdyn.kernels.gpytorch_kernel import GPyTorchKernel
from bayesdyn.kernels.prior_features import NystromTerm, Term, UnknownSpectrumError, draw_terms, prior_terms
from bayesdyn.kernels.stationary import (
    LOG2_E,
    RBF,
    Kernel,
    KernelParameters,
    Matern32,
    Matern52,
    RBFLinear,
    covariance,
    prior_variance,
    rbf_exponent,
)

__all__ = [
    "LOG2_E",
    "RBF",
    "GPyTorchKernel",
    "Kernel",
    "KernelParameters",
    "Matern32",
    "Matern52",
    "NystromTerm",
    "RBFLinear",
    "Term",
    "UnknownSpectrumError",
    "covariance",
    "draw_terms",
    "prior_terms",
    "prior_variance",
    "rbf_exponent",
]
