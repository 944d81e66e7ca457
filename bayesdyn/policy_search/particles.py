"""Policy search on sampled trajectories with common random numbers: MC-PILCO's way, and Deep PILCO's with refitted beliefs."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bayesdyn.belief_dynamics import Belief
from bayesdyn.errors import ConfigurationError
from bayesdyn.model import DynamicsModel
from bayesdyn.policies import Policy
from bayesdyn.policy_search.objective import Loss, PolicyObjective, check_finite
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import Noise, Noiseless, Propagation, SampledDynamics, Trajectory, TSInf, rollout


@dataclass(frozen=True)
class Particles(PolicyObjective):
    r"""J = -E_θ E_traj Σ_t γ^t r(s_t, a_t, s_{t+1}) over `draws` functions θ ~ p(θ|D) and `particles` trajectories under each.

    The functions, the starts s_0 ~ N(μ_0, Σ_0) and the noise are drawn once per loss, so that J is deterministic and differentiable
    and a quasi-Newton search applies; `Adam(redraw_every=k)` draws anew. Any posterior and any differentiable reward will do.

    * `TSInf` (default): each trajectory keeps its own function, a path of the process or one dropout mask, for good.
    * `MomentMatching`: after each step the states are refitted to a Gaussian and redrawn, Deep PILCO's way (Gal, McAllister &
      Rasmussen 2016) with the full covariance; it wants more trajectories than the state has coordinates.
    * `TS1`: functions change hands at every step; MC-PILCO (Amadio et al. 2022) draws independent marginals, its limit.

    Without `process_noise` states move by the functions alone: the noise of a model fitted on noisy states is that of observations.

    Raises `ConfigurationError` for counts or a horizon below 1 or a discount outside (0, 1].

    >>> start = Belief(torch.zeros(1), torch.eye(1))
    >>> Particles(lambda s, a, s2: -s2[..., 0].square(), start, horizon=40).draws
    100
    """

    reward: Reward
    start: Belief
    horizon: int
    draws: int = 100
    particles: int = 1
    propagation: Propagation = field(default_factory=TSInf)
    discount: float = 1.0
    process_noise: bool = True
    termination: Termination | None = None
    sample_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.horizon, self.draws, self.particles) < 1 or not 0 < self.discount <= 1:
            raise ConfigurationError(
                "Particles wants horizon, draws and particles >= 1 and 0 < discount <= 1; "
                f"got {self.horizon}, {self.draws}, {self.particles} and {self.discount}"
            )

    def of(self, model: DynamicsModel, generator: torch.Generator) -> "ParticleLoss":
        """Draw functions, starts and noise."""
        mean = self.start.mean
        dynamics = model.sample(self.draws, generator, dtype=mean.dtype, **self.sample_options)
        noise = self.propagation.draw_noise(self.horizon, self.draws, self.particles, mean.shape[-1], generator, mean.dtype)
        return ParticleLoss(self, dynamics, noise)


class ParticleLoss(Loss):
    """J on one set of functions, starts and noise."""

    def __init__(self, settings: Particles, dynamics: SampledDynamics, noise: Noise) -> None:
        self.settings, self.noise = settings, noise
        self.dynamics = dynamics if settings.process_noise else Noiseless(dynamics)

    def __call__(self, policy: Policy) -> Tensor:
        """Return J; raises `NumericalError` where a trajectory leaves the finite numbers."""
        trajectory = self.trajectory(policy)
        return -trajectory.returns.mean()

    def std(self, policy: Policy) -> Tensor:
        """Return the standard deviation of the returns over all trajectories."""
        with torch.no_grad():
            return self.trajectory(policy).returns.std(correction=0)

    def within(self, steps: int) -> "ParticleLoss":
        """Return J of the first steps of the same trajectories."""
        shorter, steps = copy.copy(self), min(steps, self.settings.horizon)
        shorter.settings, shorter.noise = replace(self.settings, horizon=steps), self.noise.within(steps)
        return shorter

    def trajectory(self, policy: Policy) -> Trajectory:
        """Return the trajectories under a policy."""
        settings = self.settings
        trajectory = rollout(
            self.dynamics,
            settings.start.mean,
            policy.prepared(),
            settings.reward,
            start_cov=settings.start.cov,
            horizon=settings.horizon,
            particles=settings.particles,
            propagation=settings.propagation,
            noise=self.noise,
            termination=settings.termination,
            discount=settings.discount,
        )
        check_finite(trajectory.states, "the predicted trajectory")
        return trajectory

    def predictions(self, policy: Policy) -> dict[str, Tensor]:
        """Return mean and standard deviation over trajectories of cost (minus the reward; NaN at the start) and state."""
        with torch.no_grad():
            trajectory = self.trajectory(policy)
        cost, states = -trajectory.rewards.flatten(1), trajectory.states.flatten(1, 2)
        first = torch.full_like(cost[:1], torch.nan)  # a reward is that of a step, and none leads to the start
        cost = torch.cat([first, cost])
        spread = {"cost_std": cost.std(1, correction=0), "state_std": states.std(1, correction=0)}
        return {"cost_mean": cost.mean(1), "state_mean": states.mean(1), **spread}
