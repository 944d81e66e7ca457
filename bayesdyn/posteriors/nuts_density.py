"""The joint density of a network's weights, its noise and the data: as a Pyro model, and by hand for many chains at once."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.networks.network import Network, Parameters

_LOG_2PI = math.log(2 * math.pi)
_STARTS = 16  # draws from the prior per chain, of which the densest is its start


class NetworkDensity:
    r"""log p(y, θ, σ | x) of a network with θ ~ N(0, diag s²), σ_e ~ HalfNormal(1), y_ne ~ N(f_θ(x_n)_e, σ_e²).

    Rows of numbers z = (θ/s, log σ) [C, P + E], in which the prior is round, stand for C networks side by side:

        log p(z) = -½|θ/s|² + Σ_e [log 2 - ½σ_e² + log σ_e] + Σ_ne [-½ (y_ne - f_e(x_n))²/σ_e² - log σ_e] + constants

    with the Jacobian of σ = e^(log σ) in the fourth term. `model` states the same in Pyro; tracing it for every gradient of a long
    trajectory costs more than the gradient.

    >>> from bayesdyn.networks import Homoscedastic
    >>> density = NetworkDensity(Network(1, (), 1, noise=Homoscedastic()), torch.zeros(5, 1), torch.zeros(5, 1))
    >>> density(torch.zeros(3, 3)).shape
    torch.Size([3])
    """

    def __init__(self, network: Network, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> None:
        self.network, self.x, self.y = network, x.unsqueeze(0), y
        self.std = network.prior_precision().to(x).rsqrt()
        rows, outputs = y.shape
        self.constant = outputs * math.log(2) - 0.5 * _LOG_2PI * (network.size + outputs + rows * outputs)

    def __call__(self, z: Float[Tensor, "C P_and_E"]) -> Float[Tensor, " C"]:
        """Return log p(y, z | x) of each row, with all constants."""
        whitened, log_std = self._split(z)
        mean = self.network.columns(whitened * self.std, self.x)
        squares = (self.y - mean).square().sum(1)
        noise = (1 - len(self.y)) * log_std - 0.5 * ((2 * log_std).exp() + squares * (-2 * log_std).exp())
        return noise.sum(1) - 0.5 * whitened.square().sum(1) + self.constant

    def model(self) -> None:
        """State the density in Pyro: sites `theta` [C, P] and `noise_std` [C, E], for C networks in a plate around it."""
        import pyro
        from pyro.distributions import HalfNormal, Normal

        theta = pyro.sample("theta", Normal(torch.zeros_like(self.std), self.std).to_event(1))
        std = pyro.sample("noise_std", HalfNormal(torch.ones_like(self.y[0])).to_event(1))
        mean = self.network.columns(theta.reshape(-1, self.network.size), self.x)
        pyro.sample("y", Normal(mean, std.unsqueeze(-2)).to_event(2), obs=self.y)

    def starts(self, chains: int, generator: torch.Generator) -> Float[Tensor, "chains P_and_E"]:
        """Return for each chain the densest of 16 draws from the prior."""
        z = torch.randn(chains, _STARTS, len(self.std) + self.y.shape[1], generator=generator, dtype=self.y.dtype).to(self.y)
        z[..., len(self.std) :] = z[..., len(self.std) :].abs().log()
        with torch.no_grad():
            best = self(z.flatten(0, 1)).reshape(chains, _STARTS).argmax(1)
        return z[torch.arange(chains), best]

    def parameters(self, z: Float[Tensor, "K P_and_E"]) -> Parameters:
        """Return the networks that rows stand for, each with its own noise."""
        whitened, log_std = self._split(z)
        noise = self.network.noise.start(len(z), log_std.shape[1]).to(z)
        return Parameters(whitened * self.std, self.network.noise.with_variance(noise, (2 * log_std).exp()))

    def rows(self, parameters: Parameters) -> Float[Tensor, "K P_and_E"]:
        """Return the rows that stand for networks: the inverse of `parameters`."""
        columns = torch.zeros_like(parameters.noise)
        log_var = self.network.noise.split(columns, parameters.noise)[1]
        return torch.cat([parameters.theta / self.std, 0.5 * log_var[:, 0]], 1)

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[:, : len(self.std)], z[:, len(self.std) :]
