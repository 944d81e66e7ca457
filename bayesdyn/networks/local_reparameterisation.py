"""Estimators of E_q[log p(y | x, θ)] for a factorised Gaussian q(θ): whose noise is shared by which rows of a minibatch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.networks.activations import find_activation
from bayesdyn.networks.function import affine
from bayesdyn.networks.network import Network


class Estimator(ABC):
    r"""Turns one draw θ ~ q = N(μ, diag σ²) into the last layer's columns at the rows of a minibatch.

    All estimators have the same distribution of columns at any one row, hence one expected loss; they differ in how much the rows
    depend on each other, hence in the variance of the loss. Training only: a function drawn from a posterior has one θ for all x.
    """

    @abstractmethod
    def columns(
        self,
        network: Network,
        theta: Float[Tensor, "1 P"],
        location: Float[Tensor, "1 P"],
        scale: Float[Tensor, "1 P"],
        x: Float[Tensor, "R D"],
        generator: torch.Generator,
    ) -> Float[Tensor, "1 R columns"]:
        """Return the columns at x for the draw `theta`; noise beyond that draw comes from `generator`, on the device of x."""


@dataclass(frozen=True)
class Shared(Estimator):
    """One θ for all rows of the minibatch: the plain estimator of Bayes by Backprop.

    Source: Blundell, Cornebise, Kavukcuoglu, Wierstra 2015, section 3.2.

    >>> network, theta = Network(1, (), 1), torch.ones(1, 4)
    >>> Shared().columns(network, theta, theta, 0 * theta, torch.ones(3, 1), torch.Generator())
    tensor([[[2., 2.], [2., 2.], [2., 2.]]])
    """

    def columns(
        self,
        network: Network,
        theta: Float[Tensor, "1 P"],
        location: Float[Tensor, "1 P"],
        scale: Float[Tensor, "1 P"],
        x: Float[Tensor, "R D"],
        generator: torch.Generator,
    ) -> Float[Tensor, "1 R columns"]:
        """Return the network θ at x."""
        return network.columns(theta, x.unsqueeze(0))


@dataclass(frozen=True)
class Local(Estimator):
    r"""Noise of its own for each row and unit: a = hμ + μ_b + √(h²σ² + σ_b²)·ε, the law of hW + b at one row.

    Its loss has the smallest variance, because the rows' noise averages out. It leaves θ unused.

    Source: Kingma, Salimans, Welling 2015, section 2.3, eq. 6.

    >>> network, mu = Network(1, (), 1), torch.ones(1, 4)
    >>> Local().columns(network, mu, mu, 0 * mu, torch.ones(1, 1), torch.Generator())
    tensor([[[2., 2.]]])
    """

    def columns(
        self,
        network: Network,
        theta: Float[Tensor, "1 P"],
        location: Float[Tensor, "1 P"],
        scale: Float[Tensor, "1 P"],
        x: Float[Tensor, "R D"],
        generator: torch.Generator,
    ) -> Float[Tensor, "1 R columns"]:
        """Return the columns with every layer's pre-activations drawn from their own Gaussians."""
        activation, h = find_activation(network.activation), x.unsqueeze(0)
        means, variances = network.unflatten(location), network.unflatten(scale.square())
        layers = list(zip(*means, *variances, strict=True))
        tiny = torch.finfo(x.dtype).tiny
        for number, (weight, bias, weight_var, bias_var) in enumerate(layers):
            mean = affine(h, weight, bias)
            # A variance of exactly 0 would have an infinite gradient of its root.
            std = affine(h.square(), weight_var, bias_var).clamp_min(tiny).sqrt()
            h = mean + std * _normal(mean, generator)
            if number < len(layers) - 1:
                h = activation.apply(h)
        return h


@dataclass(frozen=True)
class Flipout(Estimator):
    r"""One θ with signs of its own for each row: a = hμ + μ_b + ((h∘r)ΔW + Δb)∘t, Δ = θ - μ, r and t = ±1 with equal chances.

    Rows are uncorrelated given Δ, at the price of a second matrix product; unlike `Local`, it does not need a Gaussian q.

    Source: Wen, Vicol, Ba, Tran, Grosse 2018, section 3.1, eq. 4.

    >>> network, mu = Network(1, (), 1), torch.ones(1, 4)
    >>> Flipout().columns(network, mu, mu, 0 * mu, torch.ones(1, 1), torch.Generator())
    tensor([[[2., 2.]]])
    """

    def columns(
        self,
        network: Network,
        theta: Float[Tensor, "1 P"],
        location: Float[Tensor, "1 P"],
        scale: Float[Tensor, "1 P"],
        x: Float[Tensor, "R D"],
        generator: torch.Generator,
    ) -> Float[Tensor, "1 R columns"]:
        """Return the columns with the deviation of every layer flipped by the rows' signs."""
        activation, h = find_activation(network.activation), x.unsqueeze(0)
        means, deviations = network.unflatten(location), network.unflatten(theta - location)
        layers = list(zip(*means, *deviations, strict=True))
        for number, (weight, bias, weight_deviation, bias_deviation) in enumerate(layers):
            mean = affine(h, weight, bias)
            deviation = affine(h * _signs(h, generator), weight_deviation, bias_deviation)
            h = mean + deviation * _signs(mean, generator)
            if number < len(layers) - 1:
                h = activation.apply(h)
        return h


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    bits = torch.randint(2, like.shape, generator=generator, device=like.device)
    return (2 * bits - 1).to(like.dtype)
