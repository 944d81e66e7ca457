"""PILCO's cart with a double pendulum: the plant and the environment `bayesdyn/CartDoublePendulum-v0`."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.chain import UPRIGHT, Chain
from bayesdyn.envs.drawing import draw_chain
from bayesdyn.envs.plant import Numbers, Plant, PlantEnv
from bayesdyn.envs.saturating import TipReward, Widths
from bayesdyn.errors import ConfigurationError

CART_DOUBLE_STEPS = 100
CART_DOUBLE_LIMIT = 20.0
_PUBLISHED_LENGTHS = (1.0, 1.0)


@dataclass(frozen=True)
class CartDoublePendulumPlant(Plant):
    r"""A cart on a rail that carries two uniform rods in a chain, pushed by a horizontal force u (N) held for `dt` seconds.

    State: x (m), x_dot (m/s), theta1_dot, theta2_dot (rad/s), theta1, theta2 (rad against the vertical, 0 upright,
    counter-clockwise, unwrapped). With cart mass m₁, rods m₂, l₂ and m₃, l₃, friction b, d = θ₁ - θ₂, B = (½m₂ + m₃) l₂:

        [ m₁+m₂+m₃      -B cos θ₁       -½m₃l₃ cos θ₂ ] [ẍ ]   [ u - b ẋ - B θ̇₁² sin θ₁ - ½m₃l₃ θ̇₂² sin θ₂ ]
        [ -B cos θ₁     (⅓m₂+m₃) l₂²    ½m₃l₂l₃ cos d ] [θ̈₁] = [ B g sin θ₁ - ½m₃l₂l₃ θ̇₂² sin d             ]
        [ -½m₃l₃ cos θ₂  ½m₃l₂l₃ cos d  ⅓m₃l₃²        ] [θ̈₂]   [ ½m₃l₃ g sin θ₂ + ½m₃l₂l₃ θ̇₁² sin d         ]

    Units: kg, m, N s/m, m/s², s. Raises `ConfigurationError` for constants without meaning.
    Source: cart-double-pendulum scenario of PILCO; constants of UCL-SML/pilco-matlab.

    >>> upright = torch.zeros(100, 6).double()
    >>> CartDoublePendulumPlant().step(upright, torch.zeros(1).double()).abs().max().item()
    0.0
    """

    cart_mass: float = 0.5
    masses: tuple[float, float] = (0.5, 0.5)
    lengths: tuple[float, float] = (0.6, 0.6)
    friction: float = 0.1
    gravity: float = 9.82
    dt: float = 0.05

    state_names: ClassVar[tuple[str, ...]] = ("x", "x_dot", "theta1_dot", "theta2_dot", "theta1", "theta2")
    action_names: ClassVar[tuple[str, ...]] = ("force",)
    grid: ClassVar[tuple[int, int]] = (8, 8)

    def __post_init__(self) -> None:
        if not (min(self.cart_mass, *self.masses, *self.lengths, self.dt) > 0 and min(self.friction, self.gravity) >= 0):
            raise ConfigurationError(f"masses, lengths and dt are positive, friction and gravity not negative; got {self}")

    def derivative(self, state: Float[Tensor, "*batch 6"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 6"]:
        """Return (ẋ, ẍ, θ̈₁, θ̈₂, θ̇₁, θ̇₂) for the state (x, ẋ, θ̇₁, θ̇₂, θ₁, θ₂) and the force (N)."""
        x_dot, speeds = state[..., 1], state[..., 2:4]
        moment1, moment2, both = self._moments()
        (sin1, cos1), (sin2, cos2), (sin_d, cos_d) = self._angles(state)
        square1, square2 = speeds.square().unbind(-1)
        push = action[..., 0] - self.friction * x_dot - moment1 * square1 * sin1 - moment2 * square2 * sin2
        turn1 = moment1 * self.gravity * sin1 - both * square2 * sin_d
        turn2 = moment2 * self.gravity * sin2 + both * square1 * sin_d
        # The cart's row is eliminated by hand, the rest is two by two: a general solver costs more than all else here.
        total, (inertia1, inertia2) = self._total(), self._inertias()
        row1, row2 = -moment1 * cos1, -moment2 * cos2
        share1, share2 = row1 / total, row2 / total
        a, b, c = inertia1 - row1 * share1, both * cos_d - row1 * share2, inertia2 - row2 * share2
        right1, right2 = turn1 - share1 * push, turn2 - share2 * push
        determinant = a * c - b**2
        first, second = (c * right1 - b * right2) / determinant, (a * right2 - b * right1) / determinant
        x_ddot = push / total - share1 * first - share2 * second
        return torch.stack((x_dot, x_ddot, first, second, *speeds.unbind(-1)), -1)

    def energy(self, state: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch"]:
        """Return the kinetic energy plus that of height over the cart, in joules; constant without force and friction."""
        x_dot, first, second = state[..., 1], state[..., 2], state[..., 3]
        moment1, moment2, both = self._moments()
        (_, cos1), (_, cos2), (_, cos_d) = self._angles(state)
        inertia1, inertia2 = self._inertias()
        straight = 0.5 * (self._total() * x_dot**2 + inertia1 * first**2 + inertia2 * second**2)
        crossed = both * cos_d * first * second - x_dot * (moment1 * cos1 * first + moment2 * cos2 * second)
        return straight + crossed + self.gravity * (moment1 * cos1 + moment2 * cos2)

    def _angles(self, state: Tensor) -> list[tuple[Tensor, Tensor]]:
        theta1, theta2 = state[..., 4], state[..., 5]
        return [(angle.sin(), angle.cos()) for angle in (theta1, theta2, theta1 - theta2)]

    def _total(self) -> float:
        return self.cart_mass + sum(self.masses)

    def _moments(self) -> tuple[float, float, float]:
        (mass1, mass2), (length1, length2) = self.masses, self.lengths
        return (0.5 * mass1 + mass2) * length1, 0.5 * mass2 * length2, 0.5 * mass2 * length1 * length2

    def _inertias(self) -> tuple[float, float]:
        (mass1, mass2), (length1, length2) = self.masses, self.lengths
        return (mass1 / 3 + mass2) * length1**2, mass2 * length2**2 / 3


class CartDoublePendulum(PlantEnv):
    """PILCO's cart-double-pendulum: swing both rods up over x = 0 and hold them, 100 steps of 0.05 s, force within ±20 N.

    Start hanging at rest: mean (0, 0, 0, 0, π, π), standard deviations 0.1 and 0.01 of the angles. `observation_noise` is the
    standard deviation added to each coordinate. The reward is `TipReward` on the true next state; its published form takes rods of
    1 m where the plant's have 0.6 m, which `official=True` keeps, and `official=False` has the plant's. `info` holds "state",
    "action" and "tip_distance" in metres, always of the plant's rods.
    Source: Deisenroth, Fox & Rasmussen, PAMI 2015; cart-double-pendulum scenario of UCL-SML/pilco-matlab.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/CartDoublePendulum-v0")
    >>> round(env.reset(seed=0, options={"state": [0, 0, 0, 0, np.pi, np.pi]})[1]["tip_distance"], 6)
    2.4
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        render_mode: str | None = None,
        observation_noise: Numbers = 0.01,
        width: Widths = 0.5,
        official: bool = True,
    ) -> None:
        plant = CartDoublePendulumPlant()
        self.chain = Chain(plant.lengths, angles=(4, 5), up=UPRIGHT, cart=0)
        lengths = _PUBLISHED_LENGTHS if official else plant.lengths
        super().__init__(
            plant,
            TipReward(width, lengths, self.chain.angles, self.chain.up, self.chain.cart),
            action_limit=CART_DOUBLE_LIMIT,
            start_mean=[0.0, 0.0, 0.0, 0.0, math.pi, math.pi],
            start_std=[0.1, 0.1, 0.1, 0.1, 0.01, 0.01],
            observation_noise=observation_noise,
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return the tip's distance to its target in metres."""
        return {"tip_distance": float(self.chain.distance(torch.from_numpy(state)))}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        joints = self.chain.joints(torch.from_numpy(state))
        return draw_chain(joints, cart=True, force=float(action[0]), largest=CART_DOUBLE_LIMIT, time=time)
