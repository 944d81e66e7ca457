"""Priors over the weights of a network: elementwise, in units of the network's own prior std (1/√fan_in, and 1 for biases)."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

_LOG_2PI = math.log(2 * math.pi)
_KL_DRAWS = 32


class Prior(ABC):
    """p(θ) with independent elements; `std` [P] is the network's prior std of each."""

    @abstractmethod
    def distribution(self, std: Float[Tensor, " P"]) -> Any:
        """Return p(θ) as a Pyro distribution of batch shape [P]."""

    @abstractmethod
    def kl(
        self, location: Float[Tensor, " P"], scale: Float[Tensor, " P"], std: Float[Tensor, " P"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return KL(N(μ, σ²) ‖ p) in nats, summed over elements; exactly where it has a closed form, else by sampling."""


@dataclass(frozen=True)
class GaussianPrior(Prior):
    r"""θ_i ~ N(0, (width·std_i)²), with KL(q ‖ p) = Σ_i log(s_i/σ_i) + (σ_i² + μ_i²)/(2 s_i²) - ½, s = width·std.

    Raises `ConfigurationError` unless width > 0.

    >>> one = torch.ones(1)
    >>> GaussianPrior().kl(one, one, one, torch.Generator())
    tensor(0.5000)
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ConfigurationError(f"a prior wants a width above 0; got {self.width}")

    def distribution(self, std: Float[Tensor, " P"]) -> Any:
        """Return N(0, (width·std)²)."""
        from pyro.distributions import Normal

        return Normal(torch.zeros_like(std), self.width * std)

    def kl(
        self, location: Float[Tensor, " P"], scale: Float[Tensor, " P"], std: Float[Tensor, " P"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the closed form."""
        prior = self.width * std
        return ((prior / scale).log() + 0.5 * (scale.square() + location.square()) / prior.square() - 0.5).sum()


@dataclass(frozen=True)
class ScaleMixture(Prior):
    r"""θ_i ~ share·N(0, (wide·std_i)²) + (1 - share)·N(0, (narrow·std_i)²): few large weights, many small ones.

    Its KL has no closed form and is estimated, in training from the θ of the step.

    Raises `ConfigurationError` unless 0 < share < 1 and wide > narrow > 0.

    Source: Blundell, Cornebise, Kavukcuoglu, Wierstra 2015, section 3.3, eq. 7.

    >>> ScaleMixture(share=0.5, wide=1.0, narrow=0.1).distribution(torch.ones(3)).batch_shape
    torch.Size([3])
    """

    share: float = 0.5
    wide: float = 1.0
    narrow: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.share < 1 and self.wide > self.narrow > 0):
            raise ConfigurationError(f"a scale mixture wants 0 < share < 1 and wide > narrow > 0; got {self}")

    def distribution(self, std: Float[Tensor, " P"]) -> Any:
        """Return the mixture of two zero-mean normals for each element."""
        from pyro.distributions import Categorical, MixtureSameFamily, Normal

        widths = std.unsqueeze(-1) * std.new_tensor([self.wide, self.narrow])
        shares = std.new_tensor([self.share, 1 - self.share]).expand_as(widths)
        return MixtureSameFamily(Categorical(shares), Normal(torch.zeros_like(widths), widths))

    def kl(
        self, location: Float[Tensor, " P"], scale: Float[Tensor, " P"], std: Float[Tensor, " P"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return -H(q) in closed form minus E_q log p from 32 draws per element."""
        noise = torch.randn((_KL_DRAWS, len(location)), generator=generator, device=generator.device).to(location)
        expected = self.distribution(std).log_prob(location + scale * noise).mean(0)
        return (-scale.log() - 0.5 * (1 + _LOG_2PI) - expected).sum()
