"""Two rods in a chain on a fixed hinge: PILCO's double pendulum, driven at both joints, and pendubot, driven at the inner one."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.plant import Plant
from bayesdyn.errors import ConfigurationError

TWO_LINK_STATE = ("theta1_dot", "theta2_dot", "theta1", "theta2")


@dataclass(frozen=True)
class TwoLinkPlant(Plant):
    r"""Two uniform rods, the second hinged to the end of the first; a subclass says which joints are driven.

    State: theta1_dot, theta2_dot (rad/s), theta1, theta2 (rad against the vertical, 0 upright, counter-clockwise, unwrapped). With
    masses m_k, lengths l_k, I_k = m_k l_k² / 12, h = ½ m₂ l₁ l₂, d = θ₁ - θ₂, joint torques u_k and friction b of both links:

        [ l₁²(¼m₁ + m₂) + I₁    h cos d         ] [θ̈₁]   [ g l₁ (½m₁ + m₂) sin θ₁ - h θ̇₂² sin d + u₁ - b θ̇₁ ]
        [ h cos d               ¼ l₂² m₂ + I₂   ] [θ̈₂] = [ ½ g m₂ l₂ sin θ₂ + h θ̇₁² sin d + u₂ - b θ̇₂       ]

    Units: kg, m, N m s, m/s², s. Raises `ConfigurationError` for constants without meaning.
    Source: double-pendulum and pendubot scenarios of PILCO; constants of UCL-SML/pilco-matlab.
    """

    masses: tuple[float, float] = (0.5, 0.5)
    lengths: tuple[float, float] = (0.5, 0.5)
    friction: float = 0.0
    gravity: float = 9.82

    state_names: ClassVar[tuple[str, ...]] = TWO_LINK_STATE

    def __post_init__(self) -> None:
        if not (min(*self.masses, *self.lengths, self.dt) > 0 and min(self.friction, self.gravity) >= 0):
            raise ConfigurationError(f"masses, lengths and dt are positive, friction and gravity not negative; got {self}")

    @abstractmethod
    def torques(self, action: Float[Tensor, "*batch A"]) -> tuple[Float[Tensor, "*batch"] | float, Float[Tensor, "*batch"] | float]:
        """Return the torques (N m) on the inner and on the outer link."""

    def derivative(self, state: Float[Tensor, "*batch 4"], action: Float[Tensor, "*#batch A"]) -> Float[Tensor, "*batch 4"]:
        """Return (θ̈₁, θ̈₂, θ̇₁, θ̇₂) for the state (θ̇₁, θ̇₂, θ₁, θ₂) and the torques (N m)."""
        speeds, angles = state[..., :2], state[..., 2:]
        (first, second), (sin1, sin2) = speeds.unbind(-1), angles.sin().unbind(-1)
        between = angles[..., 0] - angles[..., 1]
        (inner, outer), (torque1, torque2) = self._inertias(), self.torques(action)
        half, (weight1, weight2) = self._coupling(), self._weights()
        coupling, turn = half * between.cos(), half * between.sin()
        push1 = weight1 * sin1 - turn * second**2 + (torque1 - self.friction * first)
        push2 = weight2 * sin2 + turn * first**2 + (torque2 - self.friction * second)
        determinant = inner * outer - coupling**2
        accelerations = ((outer * push1 - coupling * push2) / determinant, (inner * push2 - coupling * push1) / determinant)
        return torch.stack((*accelerations, first, second), -1)

    def energy(self, state: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
        """Return the kinetic energy plus that of height over the hinge, in joules; constant without torques and friction."""
        first, second, theta1, theta2 = state.unbind(-1)
        (inner, outer), (weight1, weight2) = self._inertias(), self._weights()
        kinetic = 0.5 * (inner * first**2 + outer * second**2) + self._coupling() * (theta1 - theta2).cos() * first * second
        return kinetic + weight1 * theta1.cos() + weight2 * theta2.cos()

    def _inertias(self) -> tuple[float, float]:
        (mass1, mass2), (length1, length2) = self.masses, self.lengths
        return length1**2 * (mass1 / 3 + mass2), length2**2 * mass2 / 3

    def _coupling(self) -> float:
        return 0.5 * self.masses[1] * self.lengths[0] * self.lengths[1]

    def _weights(self) -> tuple[float, float]:
        (mass1, mass2), (length1, length2) = self.masses, self.lengths
        return self.gravity * length1 * (0.5 * mass1 + mass2), 0.5 * self.gravity * mass2 * length2


@dataclass(frozen=True)
class DoublePendulumPlant(TwoLinkPlant):
    """Two rods driven at both joints: action (inner, outer) torque in N m, each on its link against the world.

    State, equations, units and errors as `TwoLinkPlant`.

    >>> upright = torch.zeros(100, 4).double()
    >>> DoublePendulumPlant(lengths=(1.0, 1.0)).step(upright, torch.zeros(2).double()).abs().max().item()
    0.0
    """

    dt: float = 0.1

    action_names: ClassVar[tuple[str, ...]] = ("inner_torque", "outer_torque")
    # The outer rod turns three times in a step: the usual grid lets the energy drift by 1e-5 J over an episode, this one by 2e-11.
    grid: ClassVar[tuple[int, int]] = (12, 8)

    def torques(self, action: Float[Tensor, "*batch 2"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return both torques (N m)."""
        return action[..., 0], action[..., 1]


@dataclass(frozen=True)
class PendubotPlant(TwoLinkPlant):
    """Two rods driven at the inner joint only, action (torque) in N m: the outer one swings freely.

    State, equations, units and errors as `TwoLinkPlant`.

    >>> upright = torch.zeros(100, 4).double()
    >>> PendubotPlant().step(upright, torch.zeros(1).double()).abs().max().item()
    0.0
    """

    dt: float = 0.05

    action_names: ClassVar[tuple[str, ...]] = ("torque",)
    grid: ClassVar[tuple[int, int]] = (8, 8)

    def torques(self, action: Float[Tensor, "*batch 1"]) -> tuple[Float[Tensor, "*batch"], float]:
        """Return the inner torque (N m), and none at the outer joint."""
        return action[..., 0], 0.0
