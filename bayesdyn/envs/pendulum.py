"""PILCO's pendulum: the plant and the environment `bayesdyn/PILCOPendulum-v0`."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.plant import Plant
from bayesdyn.errors import ConfigurationError


@dataclass(frozen=True)
class PendulumPlant(Plant):
    r"""A uniform rod hinged at one end, turned by a torque u (N m) that is held for `dt` seconds.

    State: theta_dot (rad/s), theta (rad, 0 hanging, counter-clockwise, unwrapped). With mass m, length l and friction b:

        ⅓ m l² θ̈ = u - b θ̇ - ½ m g l sin θ

    Units: kg, m, N m s, m/s², s. Raises `ConfigurationError` for constants without meaning.
    Source: pendulum scenario of PILCO; constants of UCL-SML/pilco-matlab.

    >>> hanging = torch.zeros(100, 2).double()
    >>> PendulumPlant().step(hanging, torch.zeros(1).double()).abs().max().item()
    0.0
    """

    mass: float = 1.0
    length: float = 1.0
    friction: float = 0.01
    gravity: float = 9.82
    dt: float = 0.1

    state_names: ClassVar[tuple[str, ...]] = ("theta_dot", "theta")
    action_names: ClassVar[tuple[str, ...]] = ("torque",)

    def __post_init__(self) -> None:
        if not (min(self.mass, self.length, self.dt) > 0 and min(self.friction, self.gravity) >= 0):
            raise ConfigurationError(f"mass, length and dt are positive, friction and gravity not negative; got {self}")

    def derivative(self, state: Float[Tensor, "*batch 2"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 2"]:
        """Return (θ̈, θ̇) for the state (θ̇, θ) and the torque (N m)."""
        theta_dot, theta = state.unbind(-1)
        weight = 0.5 * self.mass * self.gravity * self.length * theta.sin()
        torque = action[..., 0] - self.friction * theta_dot - weight
        return torch.stack((torque / (self.mass * self.length**2 / 3), theta_dot), -1)

    def energy(self, state: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """Return ⅙ml²θ̇² - ½mgl cos θ in joules; constant without torque and friction."""
        theta_dot, theta = state.unbind(-1)
        return self.mass * self.length * (self.length * theta_dot**2 / 6 - 0.5 * self.gravity * theta.cos())
