"""One value and gradient of a policy under TorchRL's PILCO pieces: `GPWorldModel`, `RBFController`, `ExponentialQuadraticCost`.

Its easier case: no angle is lifted, so its Gaussian processes have 5 inputs (x, x', θ', θ, u), and its squash is a sine.
"""

from collections.abc import Callable
from unittest import mock

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.modules import GPWorldModel, RBFController
from torchrl.modules.models import gp
from torchrl.objectives.pilco import ExponentialQuadraticCost

STATES, ACTIONS = 4, 1


def make_model(x: Tensor, y: Tensor, lengthscale: Tensor, signal_var: Tensor, noise_var: Tensor) -> GPWorldModel:
    """Return its model with given hyper-parameters: x [N, 5], y [N, 4], lengthscale [4, 5], variances [4]."""
    # Only its own fit needs BoTorch.
    with mock.patch.object(gp, "_has_botorch", True):
        model = GPWorldModel(STATES, ACTIONS)
    scaled = x / lengthscale[:, None]
    gram = signal_var[:, None, None] * (-0.5 * torch.cdist(scaled, scaled).square()).exp()
    inverse = torch.linalg.inv(gram + torch.diag_embed(noise_var[:, None].expand(-1, len(x))))
    model.X_tilde_train, model.ell, model.alpha_sq = x, lengthscale, signal_var[:, None]
    model.sigma_sq_eps, model._cached_inv_K_noisy = noise_var, inverse
    model._cached_beta = (inverse @ y.mT[..., None]).squeeze(-1)
    return model


def value_and_gradient(model: GPWorldModel, basis: int, horizon: int, limit: float) -> Callable[[], float]:
    """Return a call that evaluates the summed cost of a trajectory of beliefs and its gradient to the controller."""
    policy = RBFController(STATES, ACTIONS, limit, n_basis=basis).double()
    target = torch.tensor([0.0, 0.0, 0.0, torch.pi], dtype=torch.float64)
    cost = ExponentialQuadraticCost(target, torch.diag(torch.tensor([16.0, 0.0, 0.0, 4.0], dtype=torch.float64)), reduction="none")

    def evaluate() -> float:
        mean = torch.zeros(STATES, dtype=torch.float64)
        cov = 0.01 * torch.eye(STATES, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64)
        for _ in range(horizon):
            action_mean, action_cov, gain = policy(mean, cov)
            step = TensorDict(
                {
                    ("action", "mean"): action_mean,
                    ("action", "var"): action_cov,
                    ("action", "cross_covariance"): gain,
                    ("observation", "mean"): mean,
                    ("observation", "var"): cov,
                }
            )
            after = model.uncertain_forward(step)["next", "observation"]
            mean, cov = after["mean"], after["var"]
            total = total + cost(TensorDict({("observation", "mean"): mean, ("observation", "var"): cov}))["loss_cost"]
        torch.autograd.grad(total, list(policy.parameters()))
        return float(total.detach())

    return evaluate
