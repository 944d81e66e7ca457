"""`Langevin`: underdamped Langevin dynamics of K networks at once, with a step size that follows the curvature."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import NumericalError
from bayesdyn.networks.energy import Energy
from bayesdyn.networks.network import Parameters

_REACH = 1e-2  # of the difference of gradients that tells the curvature, relative to the length of θ
_FIRST_ITERATIONS, _ITERATIONS = 20, 2
_HOT = 10.0  # kinetic temperature of a chain that has left the region where its step is stable
_RESCUES = 50


class Figures(NamedTuple):
    """What one step tells of each chain: nll per data point and two temperatures that are 1 in equilibrium, on average."""

    nll: Float[Tensor, " K"]
    kinetic: Float[Tensor, " K"]
    configurational: Float[Tensor, " K"]


class Langevin:
    r"""dz = p dt, dp = -∇U dt - γp dt + √(2γT) dW in z = θ/(prior std), by one gradient per step of size h:

        p ← p - h∇U;    z ← z + ½hp;    p ← e^(-γh) p + √(T(1 - e^(-2γh))) ξ;    z ← z + ½hp

    In v = hp, lr = h²N and α = 1 - e^(-γh) this is stochastic-gradient HMC, v ← (1-α)v - lr∇(U/N) + noise, θ ← θ + v, with the
    drift split around friction and noise. That order (BAOAB) gives a Gaussian posterior its exact covariance at any stable step,
    where the plain order is off by O(lr). Each chain's step is h = reach/√λ, λ the largest curvature of U in z, found by power
    iteration on differences of gradients and looked at again by `follow_curvature`; h√λ < 2 is stable.

    Raises `NumericalError` when a chain keeps running away.

    Sources: Chen, Fox, Guestrin 2014, equation 13; Leimkuhler, Matthews 2013 (BAOAB), section 3.
    """

    def __init__(
        self,
        energy: Energy,
        parameters: Parameters,
        *,
        friction: float,
        reach: float,
        batch_size: int | None,
        generator: torch.Generator,
    ) -> None:
        self.energy, self.parameters, self.generator = energy, parameters, generator
        self.friction, self.reach, self.batch_size = friction, reach, batch_size
        self.std = energy.precision.rsqrt()
        self.momentum = self._normal()
        self.centre, self.rescues = parameters.theta, 0
        self._saved, self._kinetic = parameters, torch.ones_like(parameters.theta[:, 0])
        self._direction = self._normal()
        self.curvature = self._largest_curvature(_FIRST_ITERATIONS)

    @property
    def step_size(self) -> Float[Tensor, "K 1"]:
        """h of each chain."""
        return (self.reach / self.curvature.sqrt()).unsqueeze(1)

    def step(self, pace: float = 1.0, temperature: float = 1.0) -> Figures:
        """Move every chain by one step of size `pace`·h."""
        slope, nll = self.energy.gradient(self.parameters, self._rows())
        h = pace * self.step_size
        kick = h * self.std * slope
        # Half of a kick before the drift and half after it: momentum and position belong to one time only in between.
        self._kinetic = (self.momentum - 0.5 * kick).square().mean(1)
        figures = Figures(nll, self._kinetic, ((self.parameters.theta - self.centre) * slope).mean(1))
        keep = (-self.friction * h).exp()
        half = 0.5 * h * self.std
        self.momentum -= kick
        theta = self.parameters.theta + half * self.momentum
        self.momentum = keep * self.momentum + (temperature * (1 - keep.square())).sqrt() * self._normal()
        self.parameters = self.parameters._replace(theta=theta + half * self.momentum)
        return figures

    def draw_noise(self) -> None:
        """Draw the noise variance given θ, where there is one per output; steps shorten or lengthen with its std."""
        self.parameters, growth = self.energy.draw_noise(self.parameters, self.generator)
        self.curvature = 1 + growth * (self.curvature - 1)

    def follow_curvature(self, forget: float = 1.0) -> None:
        """Look at the curvature where the chains are now; λ falls by `forget` at the most, and rises at once.

        A chain that ran away since the last look goes back to where it was then, with a new momentum and half the step.
        """
        limit = _HOT * (1 + 10 / self.momentum.shape[1])
        lost = ~(self._kinetic < limit) | ~self.parameters.theta.isfinite().all(1)
        if bool(lost.any()):
            self._rescue(lost)
        found = self._largest_curvature(_ITERATIONS)
        self.curvature = torch.maximum(found, torch.where(lost, 1.0, forget) * self.curvature)
        self._saved = self.parameters

    def _rescue(self, lost: Tensor) -> None:
        self.rescues += int(lost.sum())
        if self.rescues > _RESCUES * len(lost):
            raise NumericalError(
                f"chains ran away {self.rescues} times; the step of reach = {self.reach} is too long for this posterior, take a "
                "smaller reach, and whiten x and y"
            )
        back = lost.unsqueeze(1)
        self.parameters = Parameters(
            torch.where(back, self._saved.theta, self.parameters.theta),
            torch.where(back.unsqueeze(2), self._saved.noise, self.parameters.noise),
        )
        self.momentum = torch.where(back, self._normal(), self.momentum)
        self._direction = torch.where(back, self._normal(), self._direction)
        self.curvature = torch.where(lost, 4 * self.curvature, self.curvature)

    def _largest_curvature(self, iterations: int) -> Float[Tensor, " K"]:
        theta, direction = self.parameters.theta, self._direction
        here, _ = self.energy.gradient(self.parameters)
        for _ in range(iterations):
            way = self.std * direction / direction.norm(dim=1, keepdim=True)
            size = _REACH * (1 + theta.norm(dim=1, keepdim=True)) / way.norm(dim=1, keepdim=True)
            there, _ = self.energy.gradient(self.parameters._replace(theta=theta + size * way))
            direction = self.std * (there - here) / size
        self._direction = direction
        value = direction.norm(dim=1)
        if not bool(value.isfinite().all()):
            raise NumericalError(f"the curvature of the log posterior is not finite ({value.tolist()}); whiten x and y")
        # The prior alone has a curvature of 1 in every direction.
        return value.clamp_min(1.0)

    def _rows(self) -> Tensor | None:
        rows, chains = len(self.energy.x), len(self.momentum)
        if self.batch_size is None or self.batch_size >= rows:
            return None
        order = torch.rand(chains, rows, generator=self.generator, device=self.generator.device).argsort(1)
        return order[:, : self.batch_size].to(self.energy.x.device)

    def _normal(self) -> Float[Tensor, "K P"]:
        like = self.parameters.theta
        return torch.randn(like.shape, generator=self.generator, device=self.generator.device, dtype=like.dtype).to(like)
