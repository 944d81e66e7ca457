"""`Energy`: the negative log posterior density of K networks over θ, its gradient, and the noise given θ."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.networks.network import Network, Parameters

_FLOOR = 1e-6  # least mean squared residual, in whitened units: data met exactly would make the noise vanish


@dataclass(frozen=True)
class Energy:
    r"""U(θ) = Σ_n -log p(y_n | x_n, θ) + ½ Σ_i precision_i θ_i², in nats, of K networks that do not know of each other.

    x is [N, D], y [N, E]. The noise parameters are constants of U; `draw_noise` moves those that a variance per output sets.
    """

    network: Network
    x: Float[Tensor, "N D"]
    y: Float[Tensor, "N E"]
    precision: Float[Tensor, " P"]

    @classmethod
    def of(cls, network: Network, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> "Energy":
        """Return the energy under the network's own prior."""
        return cls(network, x, y, network.prior_precision().to(x))

    def gradient(
        self, parameters: Parameters, rows: Int[Tensor, "K B"] | None = None
    ) -> tuple[Float[Tensor, "K P"], Float[Tensor, " K"]]:
        """Return ∇U(θ) and the nll per data point: from all rows, or unbiased from B rows of each network's own."""
        x, y = (self.x.unsqueeze(0), self.y.unsqueeze(0)) if rows is None else (self.x[rows], self.y[rows])
        with torch.enable_grad():
            theta = parameters.theta.detach().requires_grad_()
            nll = self.network.nll(self.network.columns(theta, x), parameters.noise, y).mean(1)
            (slope,) = torch.autograd.grad(nll.sum(), theta)
        return torch.addcmul(len(self.x) * slope, self.precision, theta.detach()), nll.detach()

    def simulated_gradient(self, parameters: Parameters, generator: torch.Generator) -> Float[Tensor, "K P"]:
        r"""Return ∇ Σ_n -log p(ỹ_n | x_n, θ) for targets ỹ drawn from the networks: mean 0, covariance the Fisher information."""
        with torch.enable_grad():
            theta = parameters.theta.detach().requires_grad_()
            columns = self.network.columns(theta, self.x.unsqueeze(0))
            mean, log_var = self.network.noise.split(columns.detach(), parameters.noise)
            noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
            nll = self.network.nll(columns, parameters.noise, mean + (0.5 * log_var).exp() * noise)
            (slope,) = torch.autograd.grad(nll.sum(), theta)
        return slope

    @torch.no_grad()
    def squared_residuals(self, parameters: Parameters) -> Float[Tensor, "K E"]:
        """Return Σ_n (y_n - mean(x_n))² per network and output, at least 1e-6 per row."""
        columns = self.network.columns(parameters.theta, self.x.unsqueeze(0))
        mean, _ = self.network.noise.split(columns, parameters.noise)
        return (self.y - mean).square().sum(1).clamp_min(_FLOOR * len(self.x))

    @torch.no_grad()
    def draw_noise(self, parameters: Parameters, generator: torch.Generator) -> tuple[Parameters, Float[Tensor, " K"]]:
        r"""Draw the variance per output given θ (Gibbs), where the noise model has one; the others keep their parameters.

        Returned besides: the most that a precision grew by, max_e σ²_old/σ²_new (1 where nothing was drawn).

        Under std ~ HalfNormal(1), p(σ² | θ, D) ∝ InverseGamma(σ²; (N - 1)/2, ½ Σ residual²)·exp(-σ²/2): the first factor is drawn
        in closed form and the draw accepted with probability min(1, exp((σ²_old - σ²_new)/2)).
        """
        columns = self.network.columns(parameters.theta, self.x.unsqueeze(0))
        mean, log_var = self.network.noise.split(columns, parameters.noise)
        squares = (self.y - mean).square().sum(1).clamp_min(_FLOOR * len(self.x))
        old = log_var.exp().mean(1)
        # A chi-square number of N - 1 degrees of freedom, as a sum of squares: torch's gamma sampler takes no generator.
        normal = torch.randn(*squares.shape, len(self.x) - 1, generator=generator, device=generator.device).to(squares)
        new = squares / normal.square().sum(-1)
        chance = torch.rand(squares.shape, generator=generator, device=generator.device).to(squares)
        var = torch.where(chance.log() < 0.5 * (old - new), new, old)
        noise = self.network.noise.with_variance(parameters.noise, var)
        moved = self.network.noise.split(columns, noise)[1]
        return parameters._replace(noise=noise), (log_var - moved).exp().amax((1, 2))
