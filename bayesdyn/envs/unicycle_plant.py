"""PILCO's robotic unicycle: Kane's equations of wheel, frame and turntable, batched."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.envs.plant import Plant
from bayesdyn.errors import ConfigurationError

SPEEDS = ("theta_dot", "phi_dot", "wheel_dot", "frame_dot", "turntable_dot")
_BODY_OF = (6, 6, 6, 6, 4, 4)  # whose angular velocity turns the axes in which each of the six vectors is written


@dataclass(frozen=True)
class UnicyclePlant(Plant):
    r"""A wheel that rolls on the plane, a frame hinged to its axle, a turntable on top; torques V on turntable, U on wheel (N m).

    State: theta_dot, phi_dot, wheel_dot, frame_dot, turntable_dot (rad/s), x, y (m, where the wheel touches), theta (roll), phi
    (yaw), wheel, frame (pitch), turntable (rad, 0 upright, unwrapped). Axes: e₁ heading, e₂ left, e₃ in the wheel's plane, vertical
    k = -sin θ e₂ + cos θ e₃, a₁ = cos ψf e₁ - sin ψf e₃, a₃ = sin ψf e₁ + cos ψf e₃.

        ω_h = -θ̇ e₁ + φ̇ k    ω_w = ω_h + ψ̇w e₂    ω_f = ω_h + ψ̇f e₂    ω_t = ω_f + ψ̇t a₃
        v_w = ω_w × rw e₃    v_f = v_w + ω_f × rf a₃    v_t = v_w + ω_f × (rf + rt) a₃
        Σ_bodies [ m (v̇ + g k) · ∂v/∂q̇ᵣ + (I ω̇ + ω × I ω) · ∂ω/∂q̇ᵣ ] = Qᵣ,    Q = (0, 0, U, -U, V)
        ẋ = rw cos φ ψ̇w,    ẏ = rw sin φ ψ̇w

    Inertias (kg m²) about the bodies' own axes: wheel (e₁ and e₃, e₂), frame (a₁, e₂, a₃), turntable (a₁ and e₂, a₃). The published
    code has the wheel's moment about e₂ in I ω̇ of the frame, where its own belongs; `official=True` keeps this, so that figures
    compare, and `official=False` is the body as described, whose energy is constant without torques.

    What a learner sees is `observe(state)`: the speeds, the place of the origin seen from the unicycle
    (xc, yc) = -R(φ)(x, y), R = [cos φ, sin φ; -sin φ, cos φ], and θ, φ, ψf.

    Raises `ConfigurationError` for constants without meaning.
    Source: Deisenroth, Fox & Rasmussen, PAMI 2015, unicycle scenario; constants of UCL-SML/pilco-matlab.

    >>> upright = torch.zeros(100, 12).double()
    >>> UnicyclePlant().step(upright, torch.zeros(2).double()).abs().max().item()
    0.0
    """

    wheel_mass: float = 1.0
    frame_mass: float = 23.5
    turntable_mass: float = 10.0
    wheel_radius: float = 0.225
    frame_height: float = 0.54
    turntable_height: float = 0.27
    wheel_inertia: tuple[float, float] = (0.0242, 0.0484)
    frame_inertia: tuple[float, float, float] = (0.4608, 0.8292, 0.4248)
    turntable_inertia: tuple[float, float] = (1.3, 0.2)
    gravity: float = 9.82
    dt: float = 0.15
    official: bool = True

    state_names: ClassVar[tuple[str, ...]] = (*SPEEDS, "x", "y", "theta", "phi", "wheel", "frame", "turntable")
    action_names: ClassVar[tuple[str, ...]] = ("turntable_torque", "wheel_torque")

    def __post_init__(self) -> None:
        sizes = (*self.wheel_inertia, *self.frame_inertia, *self.turntable_inertia, self.wheel_radius, self.frame_height, self.dt)
        masses = (self.wheel_mass, self.frame_mass, self.turntable_mass, self.turntable_height)
        if not (min(*sizes, *masses) > 0 and self.gravity >= 0):
            raise ConfigurationError(f"masses, lengths, inertias and dt are positive, gravity not negative; got {self}")

    @property
    def observation_names(self) -> tuple[str, ...]:
        """What a learner sees."""
        return (*SPEEDS, "origin_ahead", "origin_left", "theta", "phi", "frame")

    def observe(self, state: Float[Tensor, "*batch 12"]) -> Float[Tensor, "*batch 10"]:
        """Return (θ̇, φ̇, ψ̇w, ψ̇f, ψ̇t, xc, yc, θ, φ, ψf)."""
        x, y, phi = state[..., 5], state[..., 6], state[..., 8]
        sin, cos = phi.sin(), phi.cos()
        origin = torch.stack((-cos * x - sin * y, sin * x - cos * y), -1)
        return torch.cat((state[..., :5], origin, state[..., 7:9], state[..., 10:11]), -1)

    def observed_moments(
        self, mean: Float[Tensor, "12"], std: Float[Tensor, "12"]
    ) -> tuple[Float[Tensor, "10"], Float[Tensor, "10 10"]]:
        """Return mean and covariance of what a learner sees if the state is N(mean, diag(std²)), in closed form.

        For φ ~ N(m, v): E R(φ) = e^{-v/2} R(m); E R A Rᵀ = ½ tr A I + e^{-2v} R(m) (A - ½ tr A I) R(m)ᵀ for symmetric A.
        """
        place, angle, var = mean[5:7], mean[8], std[8].square()
        one, quarter = torch.eye(2).to(mean), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).to(mean)
        turn = angle.cos() * one + angle.sin() * quarter
        origin = -(-0.5 * var).exp() * turn @ place
        square = place.outer(place) + std[5:7].square().diag()
        round_part = 0.5 * square.trace() * one
        turned = round_part + (-2 * var).exp() * turn @ (square - round_part) @ turn.mT
        seen_mean, seen_var = self.observe(mean), self.observe(std).square()
        cov = seen_var.diag()
        cov[5:7, 5:7] = turned - origin.outer(origin)
        cov[5:7, 8] = cov[8, 5:7] = var * (quarter @ origin)
        return torch.cat((seen_mean[:5], origin, seen_mean[7:])), cov

    def derivative(self, state: Float[Tensor, "*batch 12"], action: Float[Tensor, "*#batch 2"]) -> Float[Tensor, "*batch 12"]:
        """Return the accelerations, (ẋ, ẏ) and the five angular speeds for the state and the torques (V, U) in N m."""
        speeds = state[..., :5]
        inertia, (sin, cos) = self._inertia.to(state), (state[..., 7].sin(), state[..., 7].cos())
        partial, velocity, drift = self._motion(state)
        # Seen from resting axes, a vector that is constant in turning ones moves by ω × itself.
        drift = drift[..., :6, :] + torch.linalg.cross(velocity[..., _BODY_OF, :], velocity[..., :6, :])
        spin = velocity[..., 3:6, :]
        up = torch.stack((torch.zeros_like(sin), -sin, cos), -1).unsqueeze(-2)
        load = inertia * drift + torch.cat(
            (self.gravity * inertia[:3] * up, torch.linalg.cross(spin, self._true_inertia.to(state)[3:] * spin)), -2
        )
        turntable, wheel = action.unbind(-1)
        zero = torch.zeros_like(wheel)
        wanted = torch.stack((zero, zero, wheel, -wheel, turntable), -1) - (partial @ load.flatten(-2).unsqueeze(-1)).squeeze(-1)
        accelerations = torch.linalg.solve((partial * inertia.flatten()) @ partial.mT, wanted.unsqueeze(-1)).squeeze(-1)
        rolled = self.wheel_radius * speeds[..., 2]
        moved = torch.stack((rolled * state[..., 8].cos(), rolled * state[..., 8].sin()), -1)
        return torch.cat((accelerations, moved, speeds), -1)

    def energy(self, state: Float[Tensor, "*batch 12"]) -> Float[Tensor, "*batch"]:
        """Return Σ ½ m v² + ½ ω·Iω + m g h in joules; constant without torques if `official` is False."""
        _, velocity, _ = self._motion(state)
        kinetic = 0.5 * (self._true_inertia.to(state) * velocity[..., :6, :].square()).sum((-1, -2))
        frame, turntable = self.frame_mass, self.turntable_mass
        above = frame * self.frame_height + turntable * (self.frame_height + self.turntable_height)
        axle = (self.wheel_mass + frame + turntable) * self.wheel_radius
        return kinetic + self.gravity * (axle + above * state[..., 10].cos()) * state[..., 7].cos()

    def _motion(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ∂(v, ω)/∂q̇ [..., 5, 18], (v_w, v_f, v_t, ω_w, ω_f, ω_t, ω_h) [..., 7, 3] and what of their rates is not q̈.

        v and ω_w, ω_h are written in the axes e, ω_f and ω_t in a₁, e₂, a₃, where each body's inertia is diagonal.
        """
        speeds, lean, pitch = state[..., :5], state[..., 7], state[..., 10]
        one, zero = torch.ones_like(lean), torch.zeros_like(lean)
        (sin, cos), (sin_f, cos_f) = (lean.sin(), lean.cos()), (pitch.sin(), pitch.cos())
        outer, inner = torch.stack((one, sin, cos), -1), torch.stack((one, sin_f, cos_f), -1)
        outer_rate = speeds[..., :1] * torch.stack((zero, cos, -sin), -1)
        inner_rate = speeds[..., 3:4] * torch.stack((zero, cos_f, -sin_f), -1)
        products = outer.unsqueeze(-1) * inner.unsqueeze(-2)
        rates = outer_rate.unsqueeze(-1) * inner.unsqueeze(-2) + outer.unsqueeze(-1) * inner_rate.unsqueeze(-2)
        features = torch.stack((products.flatten(-2), rates.flatten(-2)), -2)
        # Each entry of ∂(v, ω)/∂q̇ is linear in the nine products of (1, sin θ, cos θ) and (1, sin ψf, cos ψf).
        both = (features @ self._partials.to(state)).unflatten(-1, (5, 21))
        velocity, drift = (speeds.unsqueeze(-2).unsqueeze(-2) @ both).squeeze(-2).unflatten(-1, (7, 3)).unbind(-3)
        return both[..., 0, :, :18], velocity, drift

    @cached_property
    def _partials(self) -> Tensor:
        """Coefficients [9, 5·21] of the products above for each speed and vector component."""
        table = torch.zeros(3, 3, 5, 7, 3, dtype=torch.float64)  # outer, inner, speed, vector, component
        one, sin, cos = 0, 1, 2
        roll, yaw, wheel, frame, turntable = range(5)
        for body, height in enumerate((0.0, self.frame_height, self.frame_height + self.turntable_height)):
            radius = self.wheel_radius
            table[one, one, roll, body, 1], table[sin, one, yaw, body, 0], table[one, one, wheel, body, 0] = radius, -radius, radius
            table[one, cos, roll, body, 1] = table[one, cos, frame, body, 0] = table[cos, sin, yaw, body, 1] = height
            table[sin, cos, yaw, body, 0] = table[one, sin, frame, body, 2] = -height
            table[sin, sin, yaw, body, 2] = height
        for body in (3, 6):
            table[one, one, roll, body, 0], table[sin, one, yaw, body, 1], table[cos, one, yaw, body, 2] = -1.0, -1.0, 1.0
        table[one, one, wheel, 3, 1] = 1.0
        for body in (4, 5):
            table[one, cos, roll, body, 0] = table[one, sin, roll, body, 2] = table[cos, sin, yaw, body, 0] = -1.0
            table[sin, one, yaw, body, 1], table[cos, cos, yaw, body, 2], table[one, one, frame, body, 1] = -1.0, 1.0, 1.0
        table[one, one, turntable, 5, 2] = 1.0
        return table.reshape(9, 105)

    @cached_property
    def _true_inertia(self) -> Tensor:
        """Masses and moments [6, 3], a row per vector."""
        (across, axle), (flat, upright) = self.wheel_inertia, self.turntable_inertia
        masses = [[mass] * 3 for mass in (self.wheel_mass, self.frame_mass, self.turntable_mass)]
        return torch.tensor([*masses, [across, axle, across], self.frame_inertia, [flat, flat, upright]], dtype=torch.float64)

    @cached_property
    def _inertia(self) -> Tensor:
        """What multiplies the accelerations [6, 3]."""
        inertia = self._true_inertia.clone()
        if self.official:
            inertia[4, 1] = self.wheel_inertia[1]
        return inertia
