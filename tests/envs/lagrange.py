"""Accelerations from energies alone: Euler-Lagrange equations by automatic differentiation, with rolling as a constraint."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import hessian, jacrev, jvp

Energy = Callable[[Tensor, Tensor], Tensor]  # of q [K] and q̇ [K], in joules


def accelerations(kinetic: Energy, potential: Callable[[Tensor], Tensor], q: Tensor, speed: Tensor, force: Tensor) -> Tensor:
    """Return q̈ of M q̈ + (∂²T/∂q̇∂q) q̇ - ∂T/∂q + ∂V/∂q = Q."""
    mass, bias = _terms(kinetic, potential, q, speed)
    return torch.linalg.solve(mass, force - bias)


def constrained_accelerations(
    kinetic: Energy,
    potential: Callable[[Tensor], Tensor],
    constraint: Callable[[Tensor], Tensor],
    q: Tensor,
    speed: Tensor,
    force: Tensor,
) -> Tensor:
    """Return q̈ where A(q) q̇ = 0 has to hold, by multipliers: M q̈ + ... = Q + Aᵀλ, A q̈ = -Ȧ q̇; `constraint(q)` is A."""
    mass, bias = _terms(kinetic, potential, q, speed)
    a, rate = jvp(constraint, (q,), (speed,))
    rows = len(a)
    system = torch.cat((torch.cat((mass, -a.mT), 1), torch.cat((a, torch.zeros(rows, rows).double()), 1)))
    return torch.linalg.solve(system, torch.cat((force - bias, -rate @ speed)))[: len(q)]


def _terms(kinetic: Energy, potential: Callable[[Tensor], Tensor], q: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    mass = hessian(kinetic, 1)(q, speed)
    mixed = jacrev(jacrev(kinetic, 1), 0)(q, speed)
    return mass, mixed @ speed - jacrev(kinetic, 0)(q, speed) + jacrev(potential)(q)


def rods(cart: float | None, masses: tuple[float, ...], lengths: tuple[float, ...], up: float, gravity: float):
    """Return T(q, q̇) and V(q) of uniform rods in a chain, on a cart (q = x, θ...) or a fixed hinge (q = θ...)."""

    def centres(q: Tensor) -> Tensor:
        joint = torch.zeros(2).double() if cart is None else torch.stack((q[0], torch.zeros(()).double()))
        places = []
        for length, angle in zip(lengths, q if cart is None else q[1:], strict=True):
            along = length * torch.stack((-torch.sin(angle - up), torch.cos(angle - up)))
            places.append(joint + along / 2)
            joint = joint + along
        return torch.stack(places)

    mass, size = torch.tensor(masses, dtype=torch.float64), torch.tensor(lengths, dtype=torch.float64)

    def kinetic(q: Tensor, speed: Tensor) -> Tensor:
        _, rate = jvp(centres, (q,), (speed,))
        turning = speed if cart is None else speed[1:]
        spun = 0.5 * (mass * (rate.square().sum(-1) + size.square() / 12 * turning.square())).sum()
        return spun if cart is None else spun + 0.5 * cart * speed[0].square()

    def potential(q: Tensor) -> Tensor:
        return gravity * (mass * centres(q)[:, 1]).sum()

    return kinetic, potential
