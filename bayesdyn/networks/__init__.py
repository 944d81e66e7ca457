"""Networks: one function class that evaluates any posterior over weights, and the training of many networks at once."""

from bayesdyn.networks.activations import ACTIVATIONS, Activation, find_activation
from bayesdyn.networks.concatenated import Concatenated
from bayesdyn.networks.function import NetworkFunction, affine, forward
from bayesdyn.networks.linearised import LinearisedFunction
from bayesdyn.networks.local_reparameterisation import Estimator, Flipout, Local, Shared
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Heteroscedastic, Homoscedastic, Noise, OutOfBag
from bayesdyn.networks.priors import GaussianPrior, Prior, ScaleMixture
from bayesdyn.networks.training import Epochs, Trained, Training, train

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Concatenated",
    "Epochs",
    "Estimator",
    "Flipout",
    "GaussianPrior",
    "Heteroscedastic",
    "Homoscedastic",
    "LinearisedFunction",
    "Local",
    "Network",
    "NetworkFunction",
    "Noise",
    "OutOfBag",
    "Parameters",
    "Prior",
    "ScaleMixture",
    "Shared",
    "Trained",
    "Training",
    "affine",
    "find_activation",
    "forward",
    "train",
]
