"""What a policy search minimises: the seam `PolicyObjective`, and a policy's value as a function of its parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bayesdyn.errors import NumericalError
from bayesdyn.model import DynamicsModel
from bayesdyn.policies import Policy


class Loss(ABC):
    """J(policy), the expected total cost under one fitted model with all random numbers drawn: deterministic, differentiable."""

    @abstractmethod
    def __call__(self, policy: Policy) -> Tensor:
        """Return J, a scalar; raises `NumericalError` where the trajectory leaves the finite numbers."""

    @abstractmethod
    def std(self, policy: Policy) -> Tensor:
        """Return the standard deviation of the total cost from each start, noise included, or a bound above it; no gradient."""

    def within(self, steps: int) -> "Loss":
        """Return J of the first steps alone, itself where it cannot tell; a search may begin with it (`GrowingHorizon`)."""
        return self

    @abstractmethod
    def predictions(self, policy: Policy) -> dict[str, Tensor]:
        """Return what is expected at each step, [T+1, ...] each: cost_mean, cost_std, state_mean, state_std."""


class PolicyObjective(ABC):
    """How a policy is judged by a model; `of` draws what is random about it, once for a whole search."""

    horizon: int

    @abstractmethod
    def of(self, model: DynamicsModel, generator: torch.Generator) -> Loss:
        """Return the loss under the model as it is now; raises `ConfigurationError` for a model that it cannot judge by."""


def as_vector(policy: nn.Module) -> np.ndarray:
    """Return the parameters as one vector of float64."""
    return nn.utils.parameters_to_vector(policy.parameters()).detach().double().cpu().numpy()


def set_vector(policy: nn.Module, point: np.ndarray) -> None:
    """Set the parameters from one vector."""
    first = next(policy.parameters())
    nn.utils.vector_to_parameters(torch.as_tensor(point, device=first.device).to(first.dtype), policy.parameters())


def vector_objective(loss: Loss, policy: Policy) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return (J, dJ/dparameters) as a function of the parameter vector, which it leaves in the policy."""
    parameters = list(policy.parameters())

    def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
        set_vector(policy, point)
        with torch.enable_grad():
            value = loss(policy)
            slopes = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        return float(value.detach()), torch.cat([slope.flatten() for slope in slopes]).double().cpu().numpy()

    return evaluate


def check_finite(path: Tensor, what: str) -> None:
    """Raise `NumericalError` naming the first step at which `path` [T+1, ...] is not finite."""
    broken = (~path.detach().flatten(1).isfinite()).any(1)
    if bool(broken.any()):
        raise NumericalError(
            f"{what} is not finite at step {int(broken.nonzero()[0])} of {len(path) - 1}: it exploded. Shorten the horizon, start "
            "from smaller actions, or collect data where the policy goes"
        )
