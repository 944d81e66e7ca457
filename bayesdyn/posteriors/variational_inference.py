"""Bayes by Backprop in Pyro: a network with its prior, its factorised Gaussian guide, and the loop that fits the guide."""

import math
from dataclasses import dataclass

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.distributions import Normal
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn import functional

from bayesdyn.errors import NumericalError
from bayesdyn.networks.local_reparameterisation import Estimator
from bayesdyn.networks.network import Network
from bayesdyn.networks.priors import Prior
from bayesdyn.posteriors.variational_schedule import VariationalTraining, WindowedLosses
from bayesdyn.progress import Progress


@dataclass(frozen=True)
class Problem:
    """What is inferred from N rows: network, prior, temperature T, and how E_q[nll] is estimated in training."""

    network: Network
    prior: Prior
    temperature: float
    estimator: Estimator
    rows: int


class BayesByBackprop(nn.Module):
    r"""Model and guide of one network, θ ~ prior, y ~ N(mean(x, θ), var(x, θ)), q(θ) = N(μ, softplus(ρ)²).

        loss = E_q[-log p(y | x, θ)] / N + (T/N)·KL(q ‖ p) + noise penalty

    in nats per data point. KL is analytic where the prior allows it. All parameters are this module's own; Pyro's parameter store
    is not used. The noise parameters are points without a prior. Pyro draws from torch's global random state, so callers fork it.
    """

    def __init__(
        self,
        problem: Problem,
        location: Float[Tensor, " P"],
        scale: Float[Tensor, " P"],
        noise: Float[Tensor, "1 rows E"],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.problem, self.generator = problem, generator
        self.location = nn.Parameter(location.clone())
        # Inverse of softplus; log(expm1) would lose small scales.
        self.raw_scale = nn.Parameter(scale + torch.log(-torch.expm1(-scale)))
        self.noise = nn.Parameter(noise.clone())
        self.register_buffer("prior_std", problem.network.prior_precision().to(location).rsqrt())
        self.elbo = TraceMeanField_ELBO()

    @property
    def scale(self) -> Float[Tensor, " P"]:
        """Standard deviation of each weight and bias under q."""
        return functional.softplus(self.raw_scale)

    def guide(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], batch_size: int, temperature: float) -> Tensor:
        """Draw θ ~ q."""
        with poutine.scale(scale=temperature):
            return pyro.sample("theta", Normal(self.location, self.scale).to_event(1))

    def model(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], batch_size: int, temperature: float) -> None:
        """Draw θ ~ p and observe y on a random subset of the rows, weighted up to all N."""
        problem = self.problem
        with poutine.scale(scale=temperature):
            theta = pyro.sample("theta", problem.prior.distribution(self.get_buffer("prior_std")).to_event(1))
        with pyro.plate("rows", len(x), subsample_size=min(batch_size, len(x)), device=str(x.device)) as index:
            # A plain draw of θ serves every estimator; one with noise per row goes by q's parameters instead.
            draw, location, scale = (row.unsqueeze(0) for row in (theta, self.location, self.scale))
            columns = problem.estimator.columns(problem.network, draw, location, scale, x[index], self.generator)
            mean, log_var = problem.network.noise.split(columns, self.noise)
            std = (0.5 * log_var).exp().expand_as(mean)
            pyro.sample("y", Normal(mean[0], std[0]).to_event(1), obs=y[index])

    def loss(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], batch_size: int, share: float = 1.0) -> Float[Tensor, ""]:
        """Return an unbiased estimate of the loss per data point, from `batch_size` rows, with a share of the KL term."""
        elbo = self.elbo.differentiable_loss(self.model, self.guide, x, y, batch_size, share * self.problem.temperature)
        return elbo / len(x) + self.problem.network.noise.penalty(self.noise).sum()

    @torch.no_grad()
    def kl(self) -> Float[Tensor, ""]:
        """Return KL(q ‖ p) in nats, without T and not divided by N."""
        return self.problem.prior.kl(self.location, self.scale, self.get_buffer("prior_std"), self.generator)


@dataclass(frozen=True)
class Inferred:
    """q(θ) = N(location, scale²) with its point noise parameters, and how the fit went."""

    location: Float[Tensor, " P"]
    scale: Float[Tensor, " P"]
    noise: Float[Tensor, "1 rows E"]
    kl: float  # nats per data point
    steps: int
    converged: bool
    curves: dict[str, tuple[float, ...]]


def infer(
    bayes: BayesByBackprop,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    *,
    training: VariationalTraining,
    steps: int,
    ramp: int,
    seed: int,
    progress: Progress | None = None,
) -> Inferred:
    """Minimise the loss over μ, ρ and the noise: at a constant rate until both of its parts stand still, then with a falling one.

    The KL has its full weight after `ramp` steps. The constant phase ends early when it has converged; the falling phase has a
    fixed length. torch's global random state and Pyro's settings are left as they were.

    Raises `NumericalError` when the loss stops being finite.
    """
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        return _descend(bayes, x, y, training, (steps, ramp), progress)


def _descend(
    bayes: BayesByBackprop, x: Tensor, y: Tensor, training: VariationalTraining, plan: tuple[int, int], progress: Progress | None
) -> Inferred:
    steps, ramp = plan
    rate, pace = training.learning_rate, training.scale_pace
    groups = [{"params": [bayes.location, bayes.noise], "pace": 1.0}, {"params": [bayes.raw_scale], "pace": pace}]
    optimiser = torch.optim.Adam(groups, lr=rate, fused=True)
    falling = training.falling_steps(steps)
    losses = WindowedLosses(max(1, steps // training.windows), training.tolerance)
    begun, step = steps - falling, 0
    while step < begun + falling:
        for group in optimiser.param_groups:
            share = (step - begun) / falling
            group["lr"] = rate * group["pace"] * (1.0 if share <= 0 else 0.5 * (1 + math.cos(math.pi * share)))
        optimiser.zero_grad()
        kl_share = min(1.0, (step + 1) / (ramp + 1))
        loss = bayes.loss(x, y, training.batch_size, kl_share)
        loss.backward()
        optimiser.step()
        step += 1
        if losses.add(loss.detach()):
            _close_window(losses, bayes, x, y, step, kl_share)
            if progress is not None:
                progress(step, begun + falling, losses.last)
            if ramp + 2 * losses.window < step < begun and losses.converged:
                begun = step
    kl = float(bayes.kl()) / len(x)
    tensors = (bayes.location.detach().clone(), bayes.scale.detach().clone(), bayes.noise.detach().clone())
    return Inferred(*tensors, kl, step, begun < steps - falling or losses.converged_by(begun), losses.curves)


def _close_window(losses: WindowedLosses, bayes: BayesByBackprop, x: Tensor, y: Tensor, step: int, kl_share: float) -> None:
    kl = float(bayes.kl()) / len(x)
    rest = kl_share * bayes.problem.temperature * kl + float(bayes.problem.network.noise.penalty(bayes.noise.detach()).sum())
    losses.close(step, kl, rest)
    if not math.isfinite(losses.last["nll"]):
        raise NumericalError(
            f"the variational loss is {losses.last['nll']} at step {step}; |x| reaches {float(x.abs().max()):.3g}, |y| "
            f"{float(y.abs().max()):.3g}; whiten both, or lower the learning rate"
        )
