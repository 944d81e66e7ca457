"""The mode of a Laplace approximation: noise held fixed in training, then its Jacobian and Gauss-Newton steps in float64."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.networks.linearised import jacobian
from bayesdyn.networks.network import Network
from bayesdyn.networks.noise import Noise
from bayesdyn.posteriors.laplace_evidence import Hyperparameters, Mode
from bayesdyn.posteriors.laplace_structures import Curvature, Structure

_MOST_VALUES = 2**28  # of a Jacobian, 2 GB
_HALVINGS = 8


@dataclass(frozen=True)
class Held(Noise):
    """A noise model whose parameters training leaves alone: only the evidence moves them.

    Learned with the weights, one variance for all rows runs away where a network can interpolate: the smaller it is the closer
    the mode follows the targets, and no evidence leads back from a mode without residuals.

    >>> from bayesdyn.networks.noise import Homoscedastic
    >>> noise = Held(Homoscedastic())
    >>> noise.split(torch.zeros(1, 4, 2), noise.start(1, 2).requires_grad_())[1].requires_grad
    False
    """

    noise: Noise

    def columns(self, outputs: int) -> int:
        """Those of the noise model."""
        return self.noise.columns(outputs)

    def start(self, members: int, outputs: int) -> Float[Tensor, "K rows E"]:
        """Those of the noise model."""
        return self.noise.start(members, outputs)

    def split(
        self, raw: Float[Tensor, "L R columns"], parameters: Float[Tensor, "K rows E"]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return what the noise model says, without a gradient to its parameters."""
        return self.noise.split(raw, parameters.detach())


def layer_of_parameter(network: Network) -> Int[Tensor, " P"]:
    """Return the layer of every weight and bias, in the order of θ.

    >>> layer_of_parameter(Network(1, (1,), 1)).tolist()
    [0, 0, 1, 1, 1, 1]
    """
    pairs = zip(network.widths, network.widths[1:], strict=False)
    return torch.cat([torch.full(((i + 1) * o,), layer) for layer, (i, o) in enumerate(pairs)])


def check_memory(structure: Structure, network: Network, rows: int) -> None:
    """Raise `ConfigurationError` when the Jacobian of so many rows would take more than 2 GB."""
    size, columns = int((layer_of_parameter(network) >= structure.first_layer(network)).sum()), network.widths[-1]
    if rows * columns * size > _MOST_VALUES:
        raise ConfigurationError(
            f"the Jacobian of {rows} rows, {columns} columns and {size} parameters would take "
            f"{rows * columns * size * 8 / 1e9:.1f} GB; take narrower layers or structure=LastLayer()"
        )


def linearise(
    structure: Structure, network: Network, theta: Float[Tensor, "1 P"], x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]
) -> Mode:
    """Return what the evidence needs to know of the network at θ."""
    first = structure.first_layer(network)
    derivative = jacobian(network, theta, x, columns=network.widths[-1], first_layer=first)
    size = derivative.shape[-1]
    return Mode(
        derivative,
        network.columns(theta, x.unsqueeze(0))[0],
        y,
        theta[0, -size:],
        network.prior_precision().to(theta)[-size:],
        layer_of_parameter(network)[-size:].to(x.device) - first,
    )


def gauss_newton_step(
    structure: Structure,
    network: Network,
    theta: Float[Tensor, "1 P"],
    x: Float[Tensor, "N D"],
    mode: Mode,
    at: Hyperparameters,
    curvature: Curvature,
) -> Float[Tensor, "1 P"]:
    """Return θ - tH⁻¹g, with g the gradient of -log p(D, θ) and the first t of 1, ½, ¼, ... that lowers it, else θ.

    A network without hidden layers and noise of one size is at its mode after one step.
    """
    delta = at.scale[mode.layer] * mode.precision

    def loss(columns: Tensor, uncertain: Tensor) -> Tensor:
        return network.nll(columns.unsqueeze(0), at.noise, mode.y.unsqueeze(0)).sum() + 0.5 * (delta * uncertain.square()).sum()

    with torch.enable_grad():
        columns = mode.columns.detach().requires_grad_()
        value = loss(columns, mode.theta)
        (slope,) = torch.autograd.grad(value, columns)
    begin = float(value.detach())
    gradient = mode.jacobian.flatten(0, 1).mT @ slope.flatten() + delta * mode.theta
    std = delta.rsqrt()
    direction = std * structure.spread(curvature, structure.spread(curvature, std * gradient))
    for halving in range(_HALVINGS):
        moved = theta.clone()
        moved[0, -len(direction) :] -= 0.5**halving * direction
        if float(loss(network.columns(moved, x.unsqueeze(0))[0], moved[0, -len(direction) :])) < begin:
            return moved
    return theta
