"""How uncertainty travels through time: trajectory sampling, moment matching, or not at all (the mean)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.belief_dynamics import Belief, BeliefDynamics, Held
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError
from bayesdyn.numerics import fresh_generator


@runtime_checkable
class SampledDynamics(Protocol):
    """n draws of the dynamics: (state [n or 1, ..., S], action [n or 1, ..., A]) -> Gaussian over the next state [n, ..., S]."""

    @property
    def n(self) -> int:
        """Number of draws of θ."""

    @property
    def beliefs(self) -> BeliefDynamics | None:
        """How Gaussian beliefs move in closed form, None where only samples can say."""

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        """Return the next state's Gaussian for each draw."""


@runtime_checkable
class Sampler(Protocol):
    """Anything that draws dynamics: a `DynamicsModel` or your own (`precision` is passed only where `MPC` was given one)."""

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> SampledDynamics:
        """Draw n dynamics."""


@dataclass(frozen=True)
class PlainDynamics:
    """A plain callable (state, action) -> Gaussian as n draws of the dynamics: a known plant, a simulator, your own model.

    >>> PlainDynamics(lambda s, a: Gaussian(s + a, torch.zeros_like(s)))(torch.ones(1, 2), torch.ones(1, 2)).mean.tolist()
    [[2.0, 2.0]]
    """

    step: Callable[[Tensor, Tensor], Gaussian]
    n: int = 1
    beliefs: BeliefDynamics | None = None

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        """Return the callable's Gaussian, [n, ..., S]."""
        return self.step(state, action)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        precision: torch.dtype | None = None,
    ) -> "PlainDynamics":
        """Return itself as n draws, all alike: what is known is a model to plan with, too.

        Raises `ConfigurationError` for a `precision`, which only networks have.
        """
        if precision is not None:
            raise ConfigurationError(f"a plain callable computes as it was written; leave precision={precision} out")
        return replace(self, n=n)


@dataclass(frozen=True)
class Noiseless:
    """Sampled dynamics without their noise: for models whose noise is that of the observations, not of the process.

    >>> drift = PlainDynamics(lambda s, a: Gaussian(s + a, torch.ones_like(s)))
    >>> Noiseless(drift)(torch.ones(1, 2), torch.ones(1, 2)).var.tolist()
    [[0.0, 0.0]]
    """

    dynamics: SampledDynamics

    @property
    def n(self) -> int:
        """Number of draws of θ."""
        return self.dynamics.n

    @property
    def beliefs(self) -> BeliefDynamics | None:
        """None: in closed form the noise is part of the belief or not as the model was asked."""
        return None

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        """Return the mean of each draw, with variance 0."""
        mean = self.dynamics(state, action).mean
        return Gaussian(mean, torch.zeros_like(mean))


# Relative to each coordinate's own variance, in float64: above the rounding of a singular correlation matrix, below what shows.
_JITTER = 1e-12


@dataclass(frozen=True, eq=False)
class Noise:
    """The random numbers of a rollout, drawn once so that all candidates and iterations of a plan share them.

    normal   [T, n, p, S]   process noise ε
    refit    [T, n, p, S]   moment matching: whitened normals of the refitted belief, mean 0 and covariance I over the n·p slots
    slots    [T, n·p]       TS1: which slot's trajectory each slot's draw moves at step t
    start    [n, p, S]      where each trajectory starts, for starts that are not known; whitened where the refits are
    """

    normal: Float[Tensor, "T n p S"]
    refit: Float[Tensor, "T n p S"] | None = None
    slots: Int[Tensor, "T slots"] | None = None
    start: Float[Tensor, "n p S"] | None = None

    def within(self, steps: int) -> "Noise":
        """Return the numbers of the first steps."""
        refit, slots = (None if part is None else part[:steps] for part in (self.refit, self.slots))
        return Noise(self.normal[:steps], refit=refit, slots=slots, start=self.start)

    def to(self, dtype: torch.dtype, device: torch.device) -> "Noise":
        """Return the same numbers for states of `dtype` on `device`; `refit` stays in float64."""
        normal = self.normal.to(device=device, dtype=dtype)
        if normal is self.normal:
            return self
        start = None if self.start is None else self.start.to(device=device, dtype=dtype)
        refit, slots = (None if part is None else part.to(device) for part in (self.refit, self.slots))
        return Noise(normal, refit=refit, slots=slots, start=start)


class Step(NamedTuple):
    """One step of all trajectories: `sample` is s' as the reward sees it, `carried` the state that goes on."""

    sample: Float[Tensor, "n p *batch S"]
    carried: Float[Tensor, "n p *batch S"]


class Propagation(ABC):
    """Moves all trajectories one step: state [n or 1, p or 1, ..., S] -> [n, p, ..., S].

    At the first step all trajectories stand at the same state, [1, 1, ..., S], so that it is evaluated once for all particles.
    `spreads` says whether trajectories of several draws come apart.
    """

    spreads: ClassVar[bool] = True

    def draw_noise(self, horizon: int, n: int, p: int, size: int, generator: torch.Generator | None, dtype: torch.dtype) -> Noise:
        """Draw the random numbers of a rollout with n draws, p particles and states of `size` coordinates.

        Without a generator they are drawn afresh; the global random state is left alone.
        """
        generator = generator or fresh_generator()
        normal = torch.randn(horizon, n, p, size, generator=generator, dtype=dtype, device=generator.device)
        return Noise(normal, start=torch.randn(n, p, size, generator=generator, dtype=dtype, device=generator.device))

    def fewest(self, size: int) -> int:
        """Return how many trajectories n·p states of `size` coordinates need at least."""
        return 1

    @abstractmethod
    def step(
        self, dynamics: SampledDynamics, state: Float[Tensor, "..."], action: Float[Tensor, "..."], noise: Noise, t: int
    ) -> Step:
        """Return the states after step t."""

    def halt(self, before: Float[Tensor, "..."], carried: Float[Tensor, "..."], alive: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the states that go on, `carried`, where a trajectory is alive; one that has ended stays where it ended."""
        return torch.where(alive.unsqueeze(-1), carried, before)


@dataclass(frozen=True)
class TSInf(Propagation):
    """Trajectory sampling with one θ per trajectory (TS∞ of Chua et al. 2018, section 5.1).

    s'_{jk} = μ_{θ_j}(s_{jk}, a) + √var_{θ_j}(s_{jk}, a) ∘ ε_{tjk}
    """

    def step(
        self, dynamics: SampledDynamics, state: Float[Tensor, "..."], action: Float[Tensor, "..."], noise: Noise, t: int
    ) -> Step:
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
        generator = generator or fresh_generator()
        slots = torch.rand(horizon, n * p, generator=generator, device=generator.device).argsort(-1)
        return replace(super().draw_noise(horizon, n, p, size, generator, dtype), slots=slots)

    def step(
        self, dynamics: SampledDynamics, state: Float[Tensor, "..."], action: Float[Tensor, "..."], noise: Noise, t: int
    ) -> Step:
        """Move each trajectory with the draw that the permutation deals it."""
        if noise.slots is None:
            raise ConfigurationError("TS1 wants noise with slots; draw it with TS1().draw_noise(...)")
        n, p = noise.normal.shape[1:3]
        order = noise.slots[t]
        moved = dynamics(_deal(state, order), _deal(action, order))
        back = order.argsort()
        mean, var = (_deal(moment.expand(n, p, *moment.shape[2:]), back) for moment in moved)
        sample = Gaussian(mean, var).sample(_spread(noise.normal[t], state))
        return Step(sample, sample)


@dataclass(frozen=True)
class Mean(Propagation):
    """Certainty equivalence: the mean model, no noise, one trajectory. The baseline that the lecture warns of.

    s' = (1/n) Σ_j μ_{θ_j}(s, a)
    """

    spreads: ClassVar[bool] = False

    def step(
        self, dynamics: SampledDynamics, state: Float[Tensor, "..."], action: Float[Tensor, "..."], noise: Noise, t: int
    ) -> Step:
        """Move the one trajectory by the mean over draws."""
        mean = dynamics(state, action).mean.mean((0, 1), keepdim=True)
        return Step(mean, mean)


@dataclass(frozen=True)
class MomentMatching(Propagation):
    """A Gaussian belief over the state, N(m, P), refitted at every step.

    Where the dynamics move beliefs in closed form (a Gaussian process with an RBF kernel, under a sequence of actions), m' and P'
    are theirs (`BeliefDynamics`). Elsewhere, with particles x_i = m + chol(P) z_i, z whitened over the n·p slots so that they have
    exactly the belief's moments,

        m' = E_i μ_i(x_i),   P' = Cov_i μ_i(x_i) + diag(E_i var_i(x_i))

    where particle i is moved by draw j(i). The reward sees x_i with its own sampled successor, which the closed form draws given
    x_i. It mixes θ at each step and keeps no multimodality. `full_covariance=False` keeps the diagonal only (`MM` of Chua et al.
    2018). Refits are computed in float64.

    A termination ends the reward of the particles that meet it; the belief, which cannot tell them apart, goes on with all.

    Raises `ConfigurationError` if n·p is not larger than the state size.
    """

    full_covariance: bool = True

    def fewest(self, size: int) -> int:
        """Return size + 1, so that the particles span all directions."""
        return size + 1

    def draw_noise(self, horizon: int, n: int, p: int, size: int, generator: torch.Generator | None, dtype: torch.dtype) -> Noise:
        """Add the whitened normals of the refits."""
        if n * p < self.fewest(size):
            raise ConfigurationError(
                f"moment matching by sampling wants more particles than state coordinates; got {n} draws x {p} particles "
                f"for {size} coordinates; raise draws or particles"
            )
        generator = generator or fresh_generator()
        normal = super().draw_noise(horizon, n, p, size, generator, dtype).normal
        raw = torch.randn(horizon + 1, n, p, size, generator=generator, dtype=torch.float64, device=generator.device)
        # Centred within each draw, where that leaves enough of them, z does not go with θ by chance: Cov(z, f_θ) = 0 exactly.
        raw = raw - raw.mean(2 if n * (p - 1) > size else (1, 2), keepdim=True)
        raw = raw.flatten(1, 2)
        factor = torch.linalg.cholesky(raw.mT @ raw / (n * p))
        white = torch.linalg.solve_triangular(factor, raw.mT, upper=False).mT
        white = white.unflatten(1, (n, p))
        return Noise(normal, refit=white[:-1], start=white[-1].to(dtype))

    def step(
        self, dynamics: SampledDynamics, state: Float[Tensor, "..."], action: Float[Tensor, "..."], noise: Noise, t: int
    ) -> Step:
        """Move the particles and refit the belief."""
        if noise.refit is None:
            raise ConfigurationError("MomentMatching wants noise with refit normals; draw it with MomentMatching().draw_noise(...)")
        if dynamics.beliefs is not None and bool((action == action[:1, :1]).all()):
            return self._move(dynamics.beliefs, state, action[0, 0], _spread(noise.refit[t], state))
        moved = dynamics(state, action)
        sample = moved.sample(_spread(noise.normal[t], state))
        return Step(sample, self._refit(moved, _spread(noise.refit[t], state)).to(sample.dtype))

    def halt(self, before: Float[Tensor, "..."], carried: Float[Tensor, "..."], alive: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return `carried`: a refitted particle is not the one that ended."""
        return carried

    def _move(self, beliefs: BeliefDynamics, state: Tensor, action: Tensor, white: Tensor) -> Step:
        """Return the particles of the belief that closed form gives."""
        exact = state.double()
        mean = exact.mean((0, 1))
        away = exact - mean
        cov = torch.einsum("np...i,np...j->...ij", away, away) / (away.shape[0] * away.shape[1])
        after = beliefs.moments(Belief(mean, cov), Held(action.double().expand(*mean.shape[:-1], action.shape[-1])))
        rest = after.cov - after.gain.mT @ cov @ after.gain
        if not self.full_covariance:
            after, rest = (after._replace(cov=_diagonal(after.cov)), _diagonal(rest))
        sample = after.mean + torch.einsum("np...i,...ij->np...j", away, after.gain) + _coloured(rest, white)
        return Step(sample.to(state.dtype), (after.mean + _coloured(after.cov, white)).to(state.dtype))

    def _refit(self, moved: Gaussian, white: Tensor) -> Tensor:
        """Return particles [n, p, ..., S] with exactly the mean and the covariance of the belief."""
        mean, own = moved.mean.double(), moved.var.double().mean((0, 1))
        centre = mean.mean((0, 1), keepdim=True)
        deviation = mean - centre
        variance = deviation.square().mean((0, 1)) + own
        known = variance <= torch.finfo(variance.dtype).tiny
        # sqrt at 0 has no gradient, so known coordinates take another way.
        scale = torch.where(known, torch.ones_like(variance), variance).sqrt()
        std = torch.where(known, torch.zeros_like(variance), scale)
        if not self.full_covariance:
            return centre + std * white
        unit = deviation / scale
        correlation = torch.einsum("np...i,np...j->...ij", unit, unit) / (unit.shape[0] * unit.shape[1])
        correlation = correlation + torch.diag_embed(own / scale.square() + _JITTER)
        # The unchecked variant: a candidate that is not finite stays so, and the others are not lost with it.
        factor = torch.linalg.cholesky_ex(correlation).L
        return centre + std * torch.einsum("...ij,np...j->np...i", factor, white)


def _diagonal(cov: Tensor) -> Tensor:
    return torch.diag_embed(cov.diagonal(dim1=-2, dim2=-1))


def _coloured(cov: Tensor, white: Tensor) -> Tensor:
    """Return chol(cov) z for whitened z [n, p, ..., S]; coordinates without variance stay where they are."""
    var = cov.diagonal(dim1=-2, dim2=-1)
    known = var <= torch.finfo(var.dtype).tiny
    scale = torch.where(known, torch.ones_like(var), var).sqrt()
    correlation = cov / (scale.unsqueeze(-1) * scale.unsqueeze(-2)) + torch.diag_embed(known.to(cov) + _JITTER)
    factor = torch.linalg.cholesky_ex(correlation).L
    return torch.where(known, torch.zeros_like(var), scale) * torch.einsum("...ij,np...j->np...i", factor, white)


def _spread(noise: Float[Tensor, "n p S"], state: Tensor) -> Tensor:
    """Give [n, p, S] the batch axes of the state, [n, p, 1, ..., S]."""
    return noise.reshape(*noise.shape[:2], *(1,) * (state.dim() - 3), noise.shape[-1])


def _deal(values: Tensor, order: Int[Tensor, "slots"]) -> Tensor:
    """Reorder the slots of [n, p, ...]; [1, 1, ...] is the same in every slot."""
    if values.shape[:2] == (1, 1):
        return values
    return values.flatten(0, 1)[order].unflatten(0, values.shape[:2])
