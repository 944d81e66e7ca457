"""The cart-pole swing-up of PETS, without MuJoCo: its equations of motion, its reward, and `bayesdyn/PETSCartPole-v0`."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.drawing import draw_cartpole
from bayesdyn.envs.plant import Plant, PlantEnv
from bayesdyn.errors import ConfigurationError

PETS_STEPS = 200
PETS_ACTION_LIMIT = 3.0
PETS_POLE_LENGTH = 0.6

# The published pole is a capsule whose far end lies 1 mm beside the axis, so it hangs at this angle (rad) and not at 0.
_LEAN = math.atan2(0.001, PETS_POLE_LENGTH)
_ARROW_METRES = 0.0025  # per newton: forces here are thirty times those of PILCO's cart-pole


@dataclass(frozen=True)
class PETSCartPolePlant(Plant):
    r"""A cart on a rail with a heavy capsule hinged to it, moved by classical Runge-Kutta steps of `dt / substeps` seconds.

    State: x (m), theta (rad, 0 hanging, unwrapped), x_dot (m/s), theta_dot (rad/s). Action a, held for `dt` seconds and clipped to
    ±3: the force is F = `gear`·a (N). With cart mass M, pole mass m, distance l from hinge to centre of mass, moment of inertia I
    about that centre, damping b of both joints and φ = θ - atan(0.001 / 0.6):

        [ M + m       -m l cos φ ] [ẍ]   [ F - b ẋ - m l θ̇² sin φ ]
        [ -m l cos φ   I + m l²  ] [θ̈] = [ -b θ̇ - m g l sin φ     ]

    Equal to MuJoCo on the published model while |x| < 2.4; the rail's soft ends at ±2.5 m are left out. Computes in the state's
    dtype, is differentiable, and takes thousands of rows at once. Units: kg, m, kg m², N s/m (N m s), m/s², N, s.
    Raises `ConfigurationError` for constants without meaning.
    Source: Chua et al., NeurIPS 2018; constants of kchua/handful-of-trials (`env/assets/cartpole.xml`), capsules of 1,000 kg/m³.

    >>> hanging = torch.tensor([0.0, math.atan2(0.001, 0.6), 0.0, 0.0])
    >>> PETSCartPolePlant().step(hanging.expand(100, 4), torch.zeros(1)).sub(hanging).abs().max() < 1e-6
    tensor(True)
    """

    cart_mass: float = 10.47197551196598
    pole_mass: float = 5.018591641363306
    centre: float = math.hypot(0.3, 0.0005)
    inertia: float = 0.1887497668730885
    damping: float = 1.0
    gravity: float = 9.81
    gear: float = 100.0
    dt: float = 0.04
    substeps: int = 2

    state_names: ClassVar[tuple[str, ...]] = ("x", "theta", "x_dot", "theta_dot")
    action_names: ClassVar[tuple[str, ...]] = ("force",)

    def __post_init__(self) -> None:
        positive = (self.cart_mass, self.pole_mass, self.centre, self.inertia, self.gear, self.dt)
        if not (min(positive) > 0 and min(self.damping, self.gravity) >= 0 and self.substeps >= 1):
            raise ConfigurationError(
                f"masses, centre, inertia, gear and dt are positive, damping and gravity not negative, substeps >= 1; got {self}"
            )

    def derivative(self, state: Float[Tensor, "*batch 4"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 4"]:
        """Return (ẋ, θ̇, ẍ, θ̈) for the state (x, θ, ẋ, θ̇) and the action."""
        _, theta, x_dot, theta_dot = state.unbind(-1)
        x_ddot, theta_ddot = self._accelerations(theta, x_dot, theta_dot, self._force(action.to(state.dtype)))
        return torch.stack((x_dot, theta_dot, x_ddot, theta_ddot), -1)

    def step(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the state `dt` seconds later, [..., 4], computed in the dtype of `state`; leading axes broadcast.

        Raises `ShapeError` for other sizes.
        """
        self.check_sizes(state, action)
        force = self._force(action.to(state.dtype))
        batch = torch.broadcast_shapes(state.shape[:-1], force.shape)
        # A planner calls this on thousands of rows: one contiguous tensor per coordinate, nothing stacked between the stages.
        position, velocity = (
            [state[..., i].expand(batch).contiguous() for i in (0, 1)],
            [state[..., i].expand(batch) for i in (2, 3)],
        )
        h = self.dt / self.substeps
        for _ in range(self.substeps):
            position, velocity = self._runge_kutta(position, velocity, force, h)
        return torch.stack((*position, *velocity), -1)

    def _runge_kutta(
        self, position: list[Tensor], velocity: list[Tensor], force: Tensor, h: float
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the classical fourth-order step for q̈ = f(q, q̇), whose position stages are sums of the velocity's."""
        theta, (x_dot, theta_dot) = position[1], velocity
        x1, t1 = self._accelerations(theta, x_dot, theta_dot, force)
        w2 = theta_dot + 0.5 * h * t1
        x2, t2 = self._accelerations(theta + 0.5 * h * theta_dot, x_dot + 0.5 * h * x1, w2, force)
        w3 = theta_dot + 0.5 * h * t2
        x3, t3 = self._accelerations(theta + 0.5 * h * w2, x_dot + 0.5 * h * x2, w3, force)
        x4, t4 = self._accelerations(theta + h * w3, x_dot + h * x3, theta_dot + h * t3, force)
        stages = ((x1, x2, x3, x4), (t1, t2, t3, t4))
        moved = [q + h * v + h**2 / 6 * (a + b + c) for q, v, (a, b, c, _) in zip(position, velocity, stages, strict=True)]
        faster = [v + h / 6 * (a + 2 * (b + c) + d) for v, (a, b, c, d) in zip(velocity, stages, strict=True)]
        return moved, faster

    def _accelerations(self, theta: Tensor, x_dot: Tensor, theta_dot: Tensor, force: Tensor) -> tuple[Tensor, Tensor]:
        moment = self.pole_mass * self.centre
        total, inertia = self.cart_mass + self.pole_mass, self.inertia + moment * self.centre
        phi = theta - _LEAN
        sin, coupling = phi.sin(), moment * phi.cos()
        push = force - self.damping * x_dot - moment * theta_dot.square() * sin
        torque = -self.damping * theta_dot - moment * self.gravity * sin
        determinant = total * inertia - coupling.square()
        return (inertia * push + coupling * torque) / determinant, (total * torque + coupling * push) / determinant

    def _force(self, action: Tensor) -> Tensor:
        return self.gear * action[..., 0].clamp(-PETS_ACTION_LIMIT, PETS_ACTION_LIMIT)


@dataclass(frozen=True)
class PETSCartPoleReward:
    """r = exp(-‖e - (0, l)‖² / l²) - w ‖a‖², e = (x - l sin θ', -l cos θ') the pole's end in the next state, l = 0.6 m, w = 0.01.

    Called with state [..., 4], action [..., 1] and next_state [..., 4] (x, θ, ẋ, θ̇), gives [...]; `state` is not used.
    Source: Chua et al., NeurIPS 2018; kchua/handful-of-trials, `env/cartpole.py`.

    >>> upright = torch.tensor([0.0, math.pi, 0.0, 0.0])
    >>> round(PETSCartPoleReward()(upright, torch.ones(1), upright).item(), 4)
    0.99
    """

    length: float = PETS_POLE_LENGTH
    action_weight: float = 0.01

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "... 1"], next_state: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        x, theta = next_state[..., 0], next_state[..., 1]
        squared = (x - self.length * theta.sin()).square() + (self.length * (1 + theta.cos())).square()
        return (-squared / self.length**2).exp() - self.action_weight * action[..., 0].square()


class PETSCartPole(PlantEnv):
    """PETS's cart-pole: swing the pole up over x = 0 and hold it, 200 steps of 0.04 s, actions in ±3, no noise, no termination.

    Start N(0, 0.1² I) about hanging at rest. The observation is the state (x, θ, ẋ, θ̇); the reward is `PETSCartPoleReward` on the
    next state. `info` holds "state", "action" and "tip_distance" in metres.
    Planning with the true dynamics earns about 181. Source: Chua et al., NeurIPS 2018.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/PETSCartPole-v0")
    >>> observation, info = env.reset(seed=0, options={"state": [0.0, np.pi, 0.0, 0.0]})
    >>> info["tip_distance"] < 1e-15
    True
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(
            PETSCartPolePlant(),
            PETSCartPoleReward(),
            action_limit=PETS_ACTION_LIMIT,
            start_mean=0.0,
            start_std=0.1,
            observation_noise=0.0,
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return the distance (m) of the pole's end to its target (0, 0.6)."""
        x, theta = float(state[0]), float(state[1])
        return {"tip_distance": math.hypot(x - PETS_POLE_LENGTH * math.sin(theta), PETS_POLE_LENGTH * (1 + math.cos(theta)))}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        x, theta, x_dot, theta_dot = state
        # The shared picture has the angle the other way round, and forces of tens of newtons.
        turned = np.array([x, x_dot, -theta_dot, -theta])
        force = PETSCartPolePlant().gear * float(action[0])
        return draw_cartpole(turned, force=force, time=time, length=PETS_POLE_LENGTH, force_metres=_ARROW_METRES)
