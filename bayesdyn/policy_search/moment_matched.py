"""PILCO's objective: the expected cost along the beliefs that moment matching predicts."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.belief_dynamics import Belief, BeliefDynamics, propagate
from bayesdyn.beliefs import MomentMap
from bayesdyn.errors import ConfigurationError
from bayesdyn.model import DynamicsModel
from bayesdyn.policies import Policy
from bayesdyn.policy_search.objective import Loss, PolicyObjective, check_finite


@dataclass(frozen=True)
class MomentMatched(PolicyObjective):
    r"""J = Σ_{t=1..T} γ^t E c(a_t), a_t the lifted state under N(μ_t, Σ_t), averaged over the start beliefs.

    `cost` is a moment map of the lifted state [s, sin θ_1, cos θ_1, ...], `start` N(μ_0, Σ_0) over the state, of which there may be
    K, [K, S] and [K, S, S]; the start itself costs nothing. `process_noise` adds the model's noise at each step, which PILCO takes
    for noise of the observations; `observation_noise`, variances [S], makes the policy see it. Beliefs have the dtype of the
    policy's parameters, whatever that of `start`.

    Exact for Gaussian processes with a squared-exponential kernel, by sampling for other posteriors.

    Raises `ConfigurationError` for a horizon below 1 or a discount outside (0, 1].
    Source: Deisenroth & Rasmussen, ICML 2011, eq. 2 and sections 2.2-2.4.

    >>> from bayesdyn.moments import QuadraticCost
    >>> start = Belief(torch.zeros(1), torch.eye(1))
    >>> MomentMatched(QuadraticCost([0.0], [[1.0]]), start, horizon=40).discount
    1.0
    """

    cost: MomentMap
    start: Belief
    horizon: int
    discount: float = 1.0
    process_noise: bool = False
    observation_noise: Float[Tensor, "S"] | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1 or not 0 < self.discount <= 1:
            raise ConfigurationError(f"MomentMatched wants horizon >= 1 and 0 < discount <= 1; got {self.horizon}, {self.discount}")

    def of(self, model: DynamicsModel, generator: torch.Generator) -> "MatchedLoss":
        """Return J under the model's moments; nothing is drawn."""
        return self.under(model.belief_dynamics(process_noise=self.process_noise, observation_noise=self.observation_noise))

    def under(self, dynamics: BeliefDynamics) -> "MatchedLoss":
        """Return J under given belief dynamics."""
        return MatchedLoss(self, dynamics)


class MatchedLoss(Loss):
    """J under one belief dynamics."""

    def __init__(self, settings: MomentMatched, dynamics: BeliefDynamics) -> None:
        self.settings, self.dynamics = settings, dynamics
        self.weights = settings.discount ** torch.arange(settings.horizon + 1, dtype=settings.start.mean.dtype)
        self.weights[0] = 0.0

    def __call__(self, policy: Policy) -> Tensor:
        """Return J; raises `NumericalError` where the belief explodes."""
        mean, _ = self.costs(self.beliefs(policy))
        return torch.tensordot(self.weights.to(mean), mean, 1).mean()

    def std(self, policy: Policy) -> Tensor:
        """Return Σ_t γ^t √var c(s_t), averaged over start beliefs: that of J's steps if they went up and down together."""
        with torch.no_grad():
            _, var = self.costs(self.beliefs(policy))
            return torch.tensordot(self.weights.to(var), var.clamp_min(0).sqrt(), 1).mean()

    def within(self, steps: int) -> "MatchedLoss":
        """Return J of the first steps, weighed as before."""
        return MatchedLoss(replace(self.settings, horizon=min(steps, self.settings.horizon)), self.dynamics)

    def beliefs(self, policy: Policy) -> Belief:
        """Return the beliefs at t = 0, ..., T under the policy, whose factorisations are made once."""
        # A float32 start under a float64 policy would cost the beliefs their digits, and then their positive variances.
        dtype = next((parameter.dtype for parameter in policy.parameters()), self.settings.start.mean.dtype)
        start = Belief(*(part.to(dtype) for part in self.settings.start))
        path = propagate(self.dynamics, policy.on_lifted(self.dynamics.lift), start, self.settings.horizon)
        check_finite(path.mean.detach() + path.cov.detach().sum(-1), "the predicted belief")
        return path

    def costs(self, path: Belief) -> tuple[Float[Tensor, "times *K"], Float[Tensor, "times *K"]]:
        """Return mean and variance of the cost of each belief, all steps in one call."""
        lifted = self.dynamics.lift.moments(*path)
        mean, cov, _ = self.settings.cost.moments(lifted.mean, lifted.cov)
        return mean.squeeze(-1), cov.squeeze((-2, -1))

    def predictions(self, policy: Policy) -> dict[str, Tensor]:
        """Return mean and standard deviation of cost and state at each step, of the first start belief."""
        with torch.no_grad():
            path = self.beliefs(policy)
            mean, var = self.costs(path)
        state_std = path.cov.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
        named = {"cost_mean": mean, "cost_std": var.clamp_min(0).sqrt(), "state_mean": path.mean, "state_std": state_std}
        several = self.settings.start.mean.dim() > 1
        return {name: values[:, 0] if several else values for name, values in named.items()}
