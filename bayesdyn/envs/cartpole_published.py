"""The cart-poles of Deep PILCO's ports and of MC-PILCO, whose published figures are not about PILCO's own."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.cartpole import FORCE_LIMIT, CartPolePlant, tip_distance
from bayesdyn.envs.chain import UPRIGHT, Chain
from bayesdyn.envs.drawing import draw_cartpole
from bayesdyn.envs.plant import Numbers, Plant, PlantEnv
from bayesdyn.envs.saturating import Widths, each_width, saturate
from bayesdyn.errors import ConfigurationError

DEEP_PILCO_STEPS = 25
DEEP_PILCO_LENGTH = 0.6
MC_PILCO_STEPS = 60
_CHAIN = Chain((DEEP_PILCO_LENGTH,), angles=(2,), up=UPRIGHT, cart=0)


@dataclass(frozen=True)
class DeepPILCOCartPolePlant(Plant):
    """PILCO's cart-pole with a pole of 0.6 m, moved by one explicit Euler step of `dt` seconds: a coarse map, not the true motion.

    State: x (m), x_dot (m/s), theta (rad, 0 upright, counter-clockwise, unwrapped), theta_dot (rad/s); action: force (N).
    s' = s + dt · ds/dt with the derivative of `CartPolePlant(length=0.6)`.
    Source: BrunoKM/deep-pilco-torch, `cartpole_swingup.py`, after zuoxingdong/DeepPILCO.

    >>> upright = torch.zeros(1, 4).double()
    >>> DeepPILCOCartPolePlant().step(upright, torch.zeros(1).double()).abs().max() < 1e-15
    tensor(True)
    """

    length: float = DEEP_PILCO_LENGTH
    dt: float = 0.1

    state_names: ClassVar[tuple[str, ...]] = ("x", "x_dot", "theta", "theta_dot")
    action_names: ClassVar[tuple[str, ...]] = ("force",)

    def __post_init__(self) -> None:
        if not min(self.length, self.dt) > 0:
            raise ConfigurationError(f"length and dt are positive; got {self}")

    def derivative(self, state: Float[Tensor, "*batch 4"], action: Float[Tensor, "*#batch 1"]) -> Float[Tensor, "*batch 4"]:
        """Return (ẋ, ẍ, θ̇, θ̈) for the state (x, ẋ, θ, θ̇) and the force (N)."""
        x, x_dot, theta, theta_dot = state.unbind(-1)
        hanging = torch.stack((x, x_dot, theta_dot, theta + math.pi), -1)
        rate = CartPolePlant(length=self.length).derivative(hanging, action)
        return rate[..., [0, 1, 3, 2]]

    def step(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the Euler step [..., 4] in the dtype of `state`; leading axes broadcast. Raises `ShapeError` for other sizes."""
        self.check_sizes(state, action)
        batch = torch.broadcast_shapes(state.shape[:-1], action.shape[:-1])
        start = state.double().expand(*batch, 4)
        return (start + self.dt * self.derivative(start, action.double())).to(state.dtype)


@dataclass(frozen=True)
class DeepPILCOReward:
    """r = E_w exp(-d² / (2 w²)), d the distance of (x + l sin θ, l cos θ) from (0, l): one minus the ports' cost.

    With the plant's equations the pole's tip is at x - l sin θ: the ports mirror it, which changes what is paid away from x = 0 and
    nothing at the goal. `TipReward(0.25, 0.6, angles=(2,), up=UPRIGHT, cart=0)` is the tip's own.
    Called with state [..., 4], action [..., 1] and next_state [..., 4], gives [...] in (0, 1]. Raises `ConfigurationError` unless
    widths and length are positive. Source: BrunoKM/deep-pilco-torch, `cartpole_swingup.py`.

    >>> upright = torch.zeros(4)
    >>> DeepPILCOReward()(upright, torch.zeros(1), upright).item()
    1.0
    """

    widths: Widths = 0.25
    length: float = DEEP_PILCO_LENGTH

    def __post_init__(self) -> None:
        if not min(*each_width(self.widths), self.length) > 0:
            raise ConfigurationError(f"widths and length are positive; got {self}")

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        x, theta = next_state[..., 0], next_state[..., 2]
        squared = (x + self.length * theta.sin()).square() + (self.length * (theta.cos() - 1)).square()
        return saturate(squared, each_width(self.widths))


class DeepPILCOCartPole(PlantEnv):
    """The cart-pole of the ports of Deep PILCO: 25 Euler steps of 0.1 s, pole 0.6 m, θ = 0 upright, force within ±10 N, no noise.

    Start N((0, 0, π, 0), 0.02² I). The reward is `DeepPILCOReward`; `info` holds "state", "action" and "tip_distance" (m), of the
    tip by the plant's equations. The paper's own plant is not published; this is that of its ports.
    Source: Gal, McAllister & Rasmussen (2016); BrunoKM/deep-pilco-torch, `cartpole_swingup.py`.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/DeepPILCOCartPole-v0")
    >>> env.reset(seed=0, options={"state": np.zeros(4)})[1]["tip_distance"]
    0.0
    """

    def __init__(self, render_mode: str | None = None, observation_noise: Numbers = 0.0, width: Widths = 0.25) -> None:
        super().__init__(
            DeepPILCOCartPolePlant(),
            DeepPILCOReward(width),
            action_limit=FORCE_LIMIT,
            start_mean=[0.0, 0.0, math.pi, 0.0],
            start_std=0.02,
            observation_noise=observation_noise,
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return the tip's distance to its target in metres."""
        return {"tip_distance": float(_CHAIN.distance(torch.from_numpy(state)))}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        x, x_dot, theta, theta_dot = state
        turned = np.array([x, x_dot, theta_dot, theta + math.pi])
        return draw_cartpole(turned, force=float(action[0]), time=time, length=DEEP_PILCO_LENGTH)


@dataclass(frozen=True)
class MCPILCOReward:
    """r = exp(-((|θ| - π) / 3)² - x²) of the next state, the angle unwrapped: one minus MC-PILCO's cost.

    Called with state [..., 4], action [..., 1] and next_state [..., 4] (x, ẋ, θ̇, θ), gives [...] in (0, 1]. Raises
    `ConfigurationError` unless both scales are positive. Source: Amadio et al., T-RO 2022; merlresearch/MC-PILCO.

    >>> upright = torch.tensor([0.0, 0.0, 0.0, -math.pi])
    >>> MCPILCOReward()(upright, torch.zeros(1), upright).item()
    1.0
    """

    angle_scale: float = 3.0
    place_scale: float = 1.0

    def __post_init__(self) -> None:
        if not min(self.angle_scale, self.place_scale) > 0:
            raise ConfigurationError(f"scales are positive; got {self}")

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        angle = (next_state[..., 3].abs() - math.pi) / self.angle_scale
        return (-(angle.square() + (next_state[..., 0] / self.place_scale).square())).exp()


class MCPILCOCartPole(PlantEnv):
    """The cart-pole of MC-PILCO: PILCO's with g = 9.81 m/s², 60 steps of 0.05 s, force within ±10 N, and its own reward.

    Start N(0, 0.01² I), hanging; `observation_noise` 0.01 on each coordinate. The state is in the order of `CartPolePlant`
    (x, ẋ, θ̇, θ); the published code has (x, ẋ, θ, θ̇). `info` holds "state", "action" and "tip_distance" (m).
    Source: Amadio et al., T-RO 2022; merlresearch/MC-PILCO, `test_mcpilco_cartpole.py`.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/MCPILCOCartPole-v0")
    >>> round(env.reset(seed=0, options={"state": np.zeros(4)})[1]["tip_distance"], 6)
    1.0
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode: str | None = None, observation_noise: Numbers = 0.01) -> None:
        super().__init__(
            CartPolePlant(gravity=9.81, dt=0.05),
            MCPILCOReward(),
            action_limit=FORCE_LIMIT,
            start_mean=0.0,
            start_std=0.01,
            observation_noise=observation_noise,
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float]:
        """Return the tip's distance to its target in metres."""
        return {"tip_distance": float(tip_distance(torch.from_numpy(state)))}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return the scene at 480 x 320 pixels."""
        return draw_cartpole(state, force=float(action[0]), time=time)
