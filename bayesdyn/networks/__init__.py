"""Networks: one function class that evaluates any posterior over weights, and the training of many networks at once."""

from bayesdyn.networks.activations import ACTIVATIONS, Activation, find_activation
from bayesdyn.networks.concatenated import Concatenated
from bayesdyn.networks.function import NetworkFunction, affine, forward
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Heteroscedastic, Homoscedastic, Noise, OutOfBag
from bayesdyn.networks.training import Trained, Training, train

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Concatenated",
    "Heteroscedastic",
    "Homoscedastic",
    "Network",
    "NetworkFunction",
    "Noise",
    "OutOfBag",
    "Parameters",
    "Trained",
    "Training",
    "affine",
    "find_activation",
    "forward",
    "train",
]
