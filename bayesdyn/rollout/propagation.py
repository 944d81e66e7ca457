"""How uncertainty travels through time: trajectory sampling, moment matching, or not at all (the mean)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError


@runtime_checkable
class SampledDynamics(Protocol):
    """n draws of the dynamics: (state [n or 1, ..., S], action [n or 1, ..., A]) -> Gaussian over the next state [n, ..., S]."""

    @property
    def n(self) -> int:
        """Number of draws of θ."""

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        """Return the next state's Gaussian for each draw."""


@dataclass(frozen=True)
class PlainDynamics:
    """A plain callable (state, action) -> Gaussian as n draws of the dynamics: a known plant, a simulator, your own model.

    >>> PlainDynamics(lambda s, a: Gaussian(s + a, torch.zeros_like(s)))(torch.ones(1, 2), torch.ones(1, 2)).mean.tolist()
    [[2.0, 2.0]]
    """

    step: Callable[[Tensor, Tensor], Gaussian]
    n: int = 1

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        """Return the callable's Gaussian, [n, ..., S]."""
        return self.step(state, action)


_JITTER = 1e-9


@dataclass(frozen=True)
class Noise:
    """The random numbers of a rollout, drawn once so that all candidates and iterations of a plan share them.

    normal   [T, n, p, S]   process noise ε
    refit    [T, n, p, S]   moment matching: whitened normals of the refitted belief, mean 0 and covariance I over the n·p slots
    slots    [T, n·p]       TS1: which slot's draw moves slot i at step t
    """

    normal: Float[Tensor, "T n p S"]
    refit: Float[Tensor, "T n p S"] | None = None
    slots: Int[Tensor, "T slots"] | None = None


class Step(NamedTuple):
    """One step of all trajectories: `sample` is s' as the reward sees it, `carried` the state that goes on."""

    sample: Tensor
    carried: Tensor


class Propagation(ABC):
    """Moves all trajectories one step: state [n or 1, p or 1, ..., S] -> [n, p, ..., S]."""

    def draw_noise(self, horizon: int, n: int, p: int, size: int, generator: torch.Generator | None, dtype: torch.dtype) -> Noise:
        """Draw the random numbers of a rollout with n draws, p particles and states of `size` coordinates."""
        return Noise(torch.randn(horizon, n, p, size, generator=generator, dtype=dtype))

    @abstractmethod
    def step(self, dynamics: SampledDynamics, state: Tensor, action: Tensor, noise: Noise, t: int) -> Step:
        """Return the states after step t."""


@dataclass(frozen=True)
class TSInf(Propagation):
    """Trajectory sampling with one θ per trajectory (TS∞ of Chua et al. 2018, section 5.1).

    s'_{jk} = μ_{θ_j}(s_{jk}, a) + √var_{θ_j}(s_{jk}, a) ∘ ε_{tjk}
    """

    def step(self, dynamics: SampledDynamics, state: Tensor, action: Tensor, noise: Noise, t: int) -> Step:
        """Move each trajectory with its own draw."""
        sample = dynamics(state, action).sample(_spread(noise.normal[t], state))
        return Step(sample, sample)


@dataclass(frozen=True)
class TS1(Propagation):
    """Trajectory sampling with θ redrawn at every step from the n draws (TS1 of Chua et al. 2018, section 5.1).

    A fresh permutation π_t of the n·p slots, the same for all candidates, decides whose draw moves which trajectory.
    """

    def draw_noise(self, horizon: int, n: int, p: int, size: int, generator: torch.Generator | None, dtype: torch.dtype) -> Noise:
        """Add a permutation of the slots for each step."""
        slots = torch.rand(horizon, n * p, generator=generator).argsort(-1)
        return Noise(torch.randn(horizon, n, p, size, generator=generator, dtype=dtype), slots=slots)

    def step(self, dynamics: SampledDynamics, state: Tensor, action: Tensor, noise: Noise, t: int) -> Step:
        """Move each trajectory with the draw that the permutation deals it."""
        if noise.slots is None:
            raise ConfigurationError("TS1 wants noise with slots; draw it with TS1().draw_noise(...)")
        n, p = noise.normal.shape[1:3]
        order = noise.slots[t]
        spread = state.expand(n, p, *state.shape[2:])
        dealt = spread.flatten(0, 1)[order].unflatten(0, (n, p))
        moved = dynamics(dealt, action)
        back = order.argsort()
        mean, var = (moment.flatten(0, 1)[back].unflatten(0, (n, p)) for moment in moved)
        sample = Gaussian(mean, var).sample(_spread(noise.normal[t], state))
        return Step(sample, sample)


@dataclass(frozen=True)
class Mean(Propagation):
    """Certainty equivalence: the mean model, no noise, one trajectory. The baseline that the lecture warns of.

    s' = (1/n) Σ_j μ_{θ_j}(s, a)
    """

    def step(self, dynamics: SampledDynamics, state: Tensor, action: Tensor, noise: Noise, t: int) -> Step:
        """Move the one trajectory by the mean over draws."""
        mean = dynamics(state, action).mean.mean((0, 1), keepdim=True)
        return Step(mean, mean)


@dataclass(frozen=True)
class MomentMatching(Propagation):
    """A Gaussian belief over the state, refitted at every step from samples.

    With particles x_i = m + chol(P) z_i (z whitened over the n·p slots, so that the particles have exactly the belief's moments)

        m' = E_i μ_i(x_i),   P' = Cov_i μ_i(x_i) + diag(E_i var_i(x_i))

    where particle i is moved by draw j(i); the reward sees x_i with its own sampled successor. It mixes θ at each step and keeps no
    multimodality. `full_covariance=False` keeps the diagonal only (`MM` of Chua et al. 2018).

    Raises `ConfigurationError` if n·p is not larger than the state size.
    """

    full_covariance: bool = True

    def draw_noise(self, horizon: int, n: int, p: int, size: int, generator: torch.Generator | None, dtype: torch.dtype) -> Noise:
        """Add the whitened normals of the refits."""
        if n * p <= size:
            raise ConfigurationError(
                f"moment matching by sampling wants more particles than state coordinates; got {n} draws x {p} particles "
                f"for {size} coordinates; raise draws or particles"
            )
        normal = torch.randn(horizon, n, p, size, generator=generator, dtype=dtype)
        raw = torch.randn(horizon, n * p, size, generator=generator, dtype=torch.float64)
        raw = raw - raw.mean(1, keepdim=True)
        factor = torch.linalg.cholesky(raw.mT @ raw / (n * p))
        white = torch.linalg.solve_triangular(factor, raw.mT, upper=False).mT
        return Noise(normal, refit=white.to(dtype).unflatten(1, (n, p)))

    def step(self, dynamics: SampledDynamics, state: Tensor, action: Tensor, noise: Noise, t: int) -> Step:
        """Move the particles and refit the belief."""
        if noise.refit is None:
            raise ConfigurationError("MomentMatching wants noise with refit normals; draw it with MomentMatching().draw_noise(...)")
        moved = dynamics(state, action)
        sample = moved.sample(_spread(noise.normal[t], state))
        centre = moved.mean.mean((0, 1), keepdim=True)
        deviation = moved.mean - centre
        count = deviation.shape[0] * deviation.shape[1]
        own = moved.var.mean((0, 1))
        white = _spread(noise.refit[t], state)
        if self.full_covariance:
            covariance = torch.einsum("np...i,np...j->...ij", deviation, deviation) / count + torch.diag_embed(own)
            spread = torch.einsum("...ij,np...j->np...i", _factor(covariance), white.expand(*sample.shape))
        else:
            spread = (deviation.square().mean((0, 1)) + own).sqrt() * white
        return Step(sample, (centre + spread).expand(sample.shape))


def _spread(noise: Float[Tensor, "n p S"], state: Tensor) -> Tensor:
    """Give [n, p, S] the batch axes of the state, [n, p, 1, ..., S]."""
    return noise.reshape(*noise.shape[:2], *(1,) * (state.dim() - 3), noise.shape[-1])


def _factor(covariance: Float[Tensor, "*batch S S"]) -> Float[Tensor, "*batch S S"]:
    """Cholesky factor by way of the correlation matrix, so that the jitter is relative to each coordinate's own variance."""
    tiny = torch.finfo(covariance.dtype).tiny ** 0.5
    std = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(tiny).sqrt()
    correlation = covariance / (std.unsqueeze(-1) * std.unsqueeze(-2))
    jitter = max(_JITTER, 10 * torch.finfo(covariance.dtype).eps)
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return std.unsqueeze(-1) * torch.linalg.cholesky_ex(correlation + jitter * eye).L
