"""`Network`: the shape of a network and its prior; the parameters of many such networks are one flat tensor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.networks.activations import find_activation
from bayesdyn.networks.concatenated import Concatenated
from bayesdyn.networks.function import NetworkFunction, forward
from bayesdyn.networks.noise import Heteroscedastic, Noise

_LOG_2PI = math.log(2 * math.pi)


class Parameters(NamedTuple):
    """K networks: weights and biases in one row each, `theta` [K, P], and `noise` [K, rows, E]."""

    theta: Float[Tensor, "K P"]
    noise: Float[Tensor, "K rows E"]

    def select(self, index: Tensor) -> "Parameters":
        """Return the networks with these indices."""
        return Parameters(self.theta[index], self.noise[index])


@dataclass(frozen=True)
class Network:
    r"""Layer widths, activation and noise model of a fully connected network; it holds no parameters.

    Prior: W_l ~ N(0, 1/fan_in_l) and b_l ~ N(0, 1) elementwise. A flat row θ [P] is W_1, b_1, W_2, b_2, ..., each W stored
    [in, out].

    Raises `ConfigurationError` for widths below 1 and `UnknownNameError` for an unknown activation.

    >>> network = Network(inputs=4, hidden=(64, 64), outputs=2)
    >>> network.widths, network.size
    ((4, 64, 64, 4), 4740)
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: str = "silu"
    noise: Noise = field(default_factory=Heteroscedastic)

    def __post_init__(self) -> None:
        if min(self.widths) < 1:
            raise ConfigurationError(f"every layer wants a width of at least 1; got {self.widths}")
        find_activation(self.activation)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of every layer from the features to the last columns."""
        return (self.inputs, *self.hidden, self.noise.columns(self.outputs))

    @property
    def size(self) -> int:
        """Number of weights and biases P."""
        return sum((before + 1) * after for before, after in zip(self.widths, self.widths[1:], strict=False))

    def unflatten(self, theta: Float[Tensor, "K P"]) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights [K, in, out] and biases [K, 1, out] per layer, as views of theta."""
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        # One split, because its gradient is one concatenation; slices would each have a gradient of the size of theta.
        parts = theta.split([size for before, after in pairs for size in (before * after, after)], dim=-1)
        weights = [part.unflatten(-1, pair) for part, pair in zip(parts[::2], pairs, strict=True)]
        return weights, [part.unsqueeze(-2) for part in parts[1::2]]

    def prior_precision(self) -> Float[Tensor, " P"]:
        """Return 1/variance of the prior of each weight and bias: fan_in and 1."""
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return torch.cat([torch.cat([torch.full((i * o,), float(i)), torch.ones(o)]) for i, o in pairs])

    def decay_precision(self, decay: Sequence[float], rows: int) -> Float[Tensor, " P"]:
        r"""Return the precision that adds Σ_l decay_l·½|W_l|² to the loss (2/E)·nll per data point at N rows; biases go free.

        Unlike a prior's it grows with the data: N·(E/2)·decay_l. Raises `ConfigurationError` unless every layer has its decay.
        """
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        if len(decay) != len(pairs):
            raise ConfigurationError(f"weight decay wants one number for each of {len(pairs)} layers; got {list(decay)}")
        scale = 0.5 * rows * self.outputs
        return torch.cat(
            [torch.cat([torch.full((i * o,), scale * d), torch.zeros(o)]) for (i, o), d in zip(pairs, decay, strict=True)]
        )

    def initial(self, members: int, generator: torch.Generator) -> Parameters:
        """Return K networks to start from: weights drawn from the prior, biases 0."""
        theta = torch.randn(members, self.size, generator=generator, device=generator.device).cpu()
        theta = theta * self.prior_precision().rsqrt()
        for bias in self.unflatten(theta)[1]:
            bias.zero_()
        return Parameters(theta, self.noise.start(members, self.outputs))

    def columns(
        self, theta: Float[Tensor, "K P"], x: Float[Tensor, "k R D"], masks: Sequence[Float[Tensor, "_ _ _"] | None] | None = None
    ) -> Float[Tensor, "K R columns"]:
        """Return the last layer of K networks at rows of their own (k = K) or shared rows (k = 1).

        Mask l, [K, 1 or R, width], multiplies the output of hidden layer l.
        """
        weights, biases = self.unflatten(theta)
        return forward(x, weights, biases, find_activation(self.activation), masks)

    def nll(
        self, columns: Float[Tensor, "K R columns"], noise: Float[Tensor, "K rows E"], y: Float[Tensor, "k R E"]
    ) -> Float[Tensor, "K R"]:
        """Return -log p(y | x, θ) in nats, summed over outputs, for each network and row."""
        mean, log_var = self.noise.split(columns, noise)
        return 0.5 * ((y - mean).square() * (-log_var).exp() + log_var + _LOG_2PI).sum(-1)

    def penalty(self, parameters: Parameters, rows: int, precision: Float[Tensor, " P"]) -> Float[Tensor, " K"]:
        """Return -log p(θ)/N up to its constant, (1/2N) Σ precision·θ², plus the noise model's own term, per network."""
        return 0.5 / rows * (parameters.theta.square() @ precision) + self.noise.penalty(parameters.noise)

    def function(
        self, parameters: Parameters, n: int | None = None, masks: Sequence[Float[Tensor, "_ 1 _"] | None] | None = None
    ) -> NetworkFunction:
        """Return the K networks as n draws, as many as there are networks or masks [n, 1, width] unless given."""
        weights, biases = self.unflatten(parameters.theta)
        return NetworkFunction(weights, biases, self.noise, parameters.noise, activation=self.activation, masks=masks, n=n)

    def deal(self, parameters: Parameters, n: int, generator: torch.Generator) -> Function:
        """Return n draws from K stored networks: n // K of each in blocks, the n mod K left over from a random subset.

        So every network is equally likely, also for n < K.
        """
        stored = parameters.theta.shape[0]
        whole, rest = n - n % stored, n % stored
        parts = [self.function(parameters, whole)] if whole else []
        if rest:
            chosen = torch.randperm(stored, generator=generator, device=generator.device)[:rest]
            parts.append(self.function(parameters.select(chosen.to(parameters.theta.device))))
        return parts[0] if len(parts) == 1 else Concatenated(parts)
