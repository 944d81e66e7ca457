"""PILCO's cart-pole swing-up: the plant, its reward and the Gymnasium environment `bayesdyn/CartPoleSwingUp-v0`."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.chain import HANGING, Chain
from bayesdyn.envs.drawing import draw_cartpole
from bayesdyn.envs.plant import Numbers, Plant, PlantEnv
from bayesdyn.envs.saturating import TipReward
from bayesdyn.errors import ConfigurationError

POLE_LENGTH = 0.5
FORCE_LIMIT = 10.0
STEPS = 40


@dataclass(frozen=True)
class CartPolePlant(Plant):
    r"""A cart on a rail with a uniform rod hinged to it, pushed by a horizontal force u (N) that is held for `dt` seconds.

    State: x (m), x_dot (m/s), theta_dot (rad/s), theta (rad, 0 hanging, counter-clockwise, unwrapped). With cart mass M, rod mass m
    and length l, friction b, c = cos θ, s = sin θ:

        [ M + m      ½ m l c ] [ẍ]   [ u - b ẋ + ½ m l θ̇² s ]
        [ ½ m l c   ⅓ m l²   ] [θ̈] = [ -½ m g l s           ]

    Units: kg, m, N s/m, m/s², s. Raises `ConfigurationError` for constants without meaning. Source: Deisenroth, Fox & Rasmussen,
    PAMI 2015, cart-pole scenario; constants of UCL-SML/pilco-matlab.

    >>> hanging = torch.zeros(100, 4).double()
    >>> CartPolePlant().step(hanging, torch.zeros(1).double()).abs().max().item()
    0.0
    """

    cart_mass: float = 0.5
    pole_mass: float = 0.5
    length: float = POLE_LENGTH
    friction: float = 0.1
    gravity: float = 9.82
    dt: float = 0.1

    state_names: ClassVar[tuple[str, ...]] = ("x", "x_dot", "theta_dot", "theta")
    action_names: ClassVar[tuple[str, ...]] = ("force",)

    def __post_init__(self) -> None:
        if not (min(self.cart_mass, self.pole_mass, self.length, self.dt) > 0 and min(self.friction, self.gravity) >= 0):
            raise ConfigurationError(f"masses, length and dt are positive, friction and gravity not negative; got {self}")

    def derivative(self, state: Float[Tensor, "*batch 4"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 4"]:
        """Return (ẋ, ẍ, θ̈, θ̇) for the state (x, ẋ, θ̇, θ) and the force (N)."""
        _, x_dot, theta_dot, theta = state.unbind(-1)
        sin, cos = theta.sin(), theta.cos()
        half = 0.5 * self.pole_mass * self.length
        total, coupling, inertia = self.cart_mass + self.pole_mass, half * cos, half * self.length / 1.5
        push = action[..., 0] - self.friction * x_dot + half * theta_dot**2 * sin
        weight = -half * self.gravity * sin
        determinant = total * inertia - coupling**2
        x_ddot = (inertia * push - coupling * weight) / determinant
        theta_ddot = (total * weight - coupling * push) / determinant
        return torch.stack((x_dot, x_ddot, theta_ddot, theta_dot), -1)

    def energy(self, state: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
        """Return ½(M+m)ẋ² + ⅙ml²θ̇² + ½ml ẋθ̇ cos θ - ½mgl cos θ in joules; constant without force and friction."""
        _, x_dot, theta_dot, theta = state.unbind(-1)
        half = 0.5 * self.pole_mass * self.length
        kinetic = 0.5 * (self.cart_mass + self.pole_mass) * x_dot**2 + half * self.length / 3 * theta_dot**2
        return kinetic + half * (x_dot * theta_dot - self.gravity) * theta.cos()


def tip_position(state: Float[Tensor, "*batch 4"], length: float = POLE_LENGTH) -> Float[Tensor, "*batch 2"]:
    """Return the pole's tip (x + l sin θ, -l cos θ) in metres; the hinge's height is 0.

    >>> tip_position(torch.tensor([0.0, 0.0, 0.0, 0.0]))
    tensor([ 0.0000, -0.5000])
    """
    return _chain(length).tip(state)


def tip_distance(state: Float[Tensor, "*batch 4"], length: float = POLE_LENGTH) -> Float[Tensor, "*batch"]:
    """Return the distance in metres from the tip to its target (0, l): the pole upright over x = 0.

    >>> tip_distance(torch.tensor([0.0, 0.0, 0.0, 0.0])).item()
    1.0
    """
    return _chain(length).distance(state)


swing_up_reward = TipReward()


class CartPoleSwingUp(PlantEnv):
    """PILCO's task: swing the pole up over x = 0 and hold it, 40 steps of 0.1 s from hanging, force within ±10 N.

    Start N(0, 0.1² I) about hanging; `observation_noise` is the standard deviation added to each coordinate, one number or four, in
    the state's units (m, m/s, rad/s, rad); the reward, `TipReward(width)`, is paid on the true next state. `info` holds the true
    "state", the "action" applied and "tip_distance" in metres. Source: Deisenroth, Fox & Rasmussen, PAMI 2015.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/CartPoleSwingUp-v0")
    >>> observation, info = env.reset(seed=0, options={"state": [0.0, 0.0, 0.0, np.pi]})
    >>> info["tip_distance"] < 1e-15
    True
    """

    def __init__(self, render_mode: str | None = None, observation_noise: Numbers = 0.01, width: float = 0.25) -> None:
        super().__init__(
            CartPolePlant(),
            TipReward(width),
            action_limit=FORCE_LIMIT,
            start_mean=0.0,
            start_std=0.1,
            observation_noise=observation_noise,
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return the tip's distance to its target in metres."""
        return {"tip_distance": float(tip_distance(torch.from_numpy(state)))}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        return draw_cartpole(state, force=float(action[0]), time=time)


def _chain(length: float) -> Chain:
    return Chain((length,), angles=(3,), up=HANGING, cart=0)
