"""The mode of a density over a few real numbers, and the scales around it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_MODE_STEPS = 300
_FLATTEST = 1e-12  # least curvature, relative to the largest

LogDensity = Callable[[Tensor], Tensor]  # z [C, P] -> [C]


def find_mode(log_density: LogDensity, start: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Return the maximum that L-BFGS reaches from `start`, or `start` itself where it leaves the finite densities.

    >>> find_mode(lambda z: -(z - 3).square().sum(-1), torch.zeros(2, dtype=torch.float64)).allclose(torch.tensor(3.0).double())
    True
    """
    z = start.clone().requires_grad_()
    search = torch.optim.LBFGS([z], max_iter=_MODE_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = -log_density(z.unsqueeze(0))[0]
        value.backward()
        return value

    search.step(loss)
    found = z.detach()
    return found if bool(found.isfinite().all()) else start


def inverse_curvature_factor(log_density: LogDensity, mode: Float[Tensor, " P"]) -> Float[Tensor, "P P"]:
    """Return the triangular L with L Lᵀ = |-∇² log p|⁻¹ at the mode (Laplace's approximation), saddles taken as modes.

    >>> inverse_curvature_factor(lambda z: -8 * z.square().sum(-1), torch.zeros(1, dtype=torch.float64))
    tensor([[0.2500]], dtype=torch.float64)
    """
    curvature = -torch.autograd.functional.hessian(lambda z: log_density(z.unsqueeze(0))[0], mode)
    values, vectors = torch.linalg.eigh(0.5 * (curvature + curvature.mT))
    root = vectors * values.abs().clamp_min(_FLATTEST * values.abs().max()).rsqrt()
    # R of the QR of rootᵀ is a triangular factor of root rootᵀ, without squaring its condition.
    upper = torch.linalg.qr(root.mT).R
    return (upper * upper.diagonal().sign().unsqueeze(1)).mT
