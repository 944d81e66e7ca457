"""Dropout of hidden units: binary and relaxed masks, and the penalty that makes their rates learnable."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.networks.network import Network


class Masks(ABC):
    """Turns one uniform number per unit into a factor on that unit; `learned` says that gradients reach the log odds."""

    learned: ClassVar[bool]

    @abstractmethod
    def kept(self, log_odds: Float[Tensor, ""], uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return how much of each unit is kept, in [0, 1], when it is dropped with probability p, log_odds = log p/(1 - p)."""

    def draw(
        self, log_odds: Float[Tensor, " H"], widths: Sequence[int], shape: tuple[int, int], generator: torch.Generator
    ) -> list[Float[Tensor, "n R width"]]:
        """Return a mask per hidden layer, kept/(1 - p), so that its mean is 1, independent for each of (n, R) and each unit."""
        masks = []
        for odds, width in zip(log_odds, widths, strict=True):
            uniform = torch.rand(*shape, width, generator=generator, device=generator.device, dtype=torch.float32)
            masks.append(self.kept(odds, uniform.to(log_odds)) * (1 + odds.exp()))
        return masks


@dataclass(frozen=True)
class Binary(Masks):
    """Each unit is kept whole or dropped: the masks of draws, and of training when the rates are fixed.

    >>> Binary().kept(torch.tensor(0.0), torch.tensor([0.2, 0.7]))
    tensor([0., 1.])
    """

    learned: ClassVar[bool] = False

    def kept(self, log_odds: Float[Tensor, ""], uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 1 where u >= p, else 0."""
        return (uniform >= log_odds.sigmoid()).to(uniform)


@dataclass(frozen=True)
class Relaxed(Masks):
    """The concrete relaxation, for training only: differentiable in the rate, and binary in the limit of temperature 0.

    Source: Gal, Hron, Kendall 2017 (Concrete Dropout), equation 5.

    >>> [round(k, 3) for k in Relaxed().kept(torch.tensor(0.0), torch.tensor([0.2, 0.5, 0.7])).tolist()]
    [1.0, 0.5, 0.0]
    """

    temperature: float = 0.1
    learned: ClassVar[bool] = True

    def kept(self, log_odds: Float[Tensor, ""], uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 1 - sigmoid((log p/(1 - p) + log u/(1 - u))/t)."""
        return (-(log_odds + uniform.logit(eps=1e-6)) / self.temperature).sigmoid()


def entropy(log_odds: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return H(p) = -p log p - (1 - p) log(1 - p) in nats.

    >>> round(entropy(torch.tensor(0.0)).item(), 4)
    0.6931
    """
    softplus = torch.nn.functional.softplus
    return log_odds.sigmoid() * softplus(-log_odds) + (-log_odds).sigmoid() * softplus(log_odds)


def weight_penalty(
    network: Network, theta: Float[Tensor, "1 P"], log_odds: Float[Tensor, " H"], lengthscale: float
) -> Float[Tensor, ""]:
    r"""Return Σ_l λ²D_l|W_l|²/(2(1 - p_l)): layer l has fan-in D_l, and units that feed it drop at rate p_l (0 for features)."""
    weights = network.unflatten(theta)[0]
    squares = torch.stack([weight.shape[1] * weight.square().sum() for weight in weights])
    kept = torch.cat([torch.ones_like(log_odds[:1]), (-log_odds).sigmoid()])
    return 0.5 * lengthscale**2 * (squares / kept).sum()


def rate_entropy(network: Network, log_odds: Float[Tensor, " H"]) -> Float[Tensor, ""]:
    """Return Σ_l K_l·H(p_l), where K_l is the width of hidden layer l: a constant unless the rates are learned."""
    return (entropy(log_odds) * log_odds.new_tensor(network.hidden)).sum()
