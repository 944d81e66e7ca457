"""PILCO's unicycle as an environment: its reward, its end, and `bayesdyn/Unicycle-v0`."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from bayesdyn.envs.plant import Numbers, PlantEnv
from bayesdyn.envs.saturating import CostRows, Widths, each_width, saturate
from bayesdyn.envs.unicycle_drawing import draw_unicycle, unicycle_outline
from bayesdyn.envs.unicycle_plant import UnicyclePlant
from bayesdyn.errors import ConfigurationError

UNICYCLE_STEPS = 67
UNICYCLE_LIMITS = (10.0, 50.0)  # N m on the turntable and on the wheel
UNICYCLE_EXPLORATION = 0.2  # the share of these within which PILCO's random actions lie
_PUBLISHED_RADIUS = 0.22


@dataclass(frozen=True)
class UnicycleReward:
    r"""r = E_w exp(-d² / (2 w²)): one minus PILCO's saturating cost of height, place and heading, dimensionless.

    With wheel radius R, r = 0.81 m from its axle to the top, and the observation's xc, yc, θ, φ, ψf:

        d² = 8 (R cos θ + r cos θ cos ψf - R - r)² + ½ (xc - r sin ψf)² + ½ (yc - (r + R) sin θ)² + (φ / 4π)²

    The lengths are in metres and their weights in 1/m². The published R is 0.22 m, the plant's wheel has 0.225 m. Called with state
    [..., 10], action [..., 2] and next_state [..., 10], gives [...] in (0, 1]; depends on `next_state` only.
    Raises `ConfigurationError` unless widths and lengths are positive.
    Source: unicycle scenario of UCL-SML/pilco-matlab.

    >>> upright = torch.zeros(10)
    >>> UnicycleReward()(upright, torch.zeros(2), upright).item()
    1.0
    """

    widths: Widths = 1.0
    wheel_radius: float = _PUBLISHED_RADIUS
    length: float = 0.81

    def __post_init__(self) -> None:
        if not min(*self.each_width, self.wheel_radius, self.length) > 0:
            raise ConfigurationError(f"widths and lengths are positive; got {self}")

    @property
    def each_width(self) -> tuple[float, ...]:
        """The widths as a tuple."""
        return each_width(self.widths)

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 10"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        ahead, left, theta, phi, frame = next_state[..., 5:].unbind(-1)
        lean = theta.cos()
        drop = self.wheel_radius * (lean - 1) + self.length * (lean * frame.cos() - 1)
        place = (ahead - self.length * frame.sin()).square() + (left - (self.length + self.wheel_radius) * theta.sin()).square()
        return saturate(8 * drop.square() + 0.5 * place + (phi / (4 * math.pi)).square(), self.each_width)

    def rows(self, state_size: int = 10) -> CostRows:
        """Return the rows of d on θ, θ - ψf, θ + ψf and ψf, by cos θ cos ψf = ½ cos(θ - ψf) + ½ cos(θ + ψf)."""
        if state_size != 10:
            raise ConfigurationError(f"the unicycle's observation has 10 coordinates; got {state_size}")
        turns = torch.zeros(4, 10, dtype=torch.float64)
        turns[:3, 7] = 1.0
        turns[1:, 9] = torch.tensor([-1.0, 1.0, 1.0])
        rows, target = torch.zeros(4, 18, dtype=torch.float64), torch.zeros(18, dtype=torch.float64)
        target[[11, 13, 15, 17]] = 1.0
        rows[0, [11, 13, 15]] = math.sqrt(8) * rows.new_tensor([self.wheel_radius, self.length / 2, self.length / 2])
        rows[1, 5], rows[1, 16] = math.sqrt(0.5), -math.sqrt(0.5) * self.length
        rows[2, 6], rows[2, 10] = math.sqrt(0.5), -math.sqrt(0.5) * (self.length + self.wheel_radius)
        rows[3, 8] = 1 / (4 * math.pi)
        return CostRows(turns, rows, target)


@dataclass(frozen=True)
class UnicycleTermination:
    """Whether the next observation [..., 10] has |θ| or |ψf| beyond `limit` (rad): the unicycle lies on the ground.

    >>> UnicycleTermination()(torch.zeros(10), torch.zeros(2), torch.zeros(10)).item()
    False
    """

    limit: float = math.pi / 2

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch 10"]
    ) -> Bool[Tensor, "*batch"]:
        """Return whether each step ended the episode."""
        return (next_state[..., 7].abs() > self.limit) | (next_state[..., 9].abs() > self.limit)


class Unicycle(PlantEnv):
    """PILCO's unicycle: stay upright over the origin, 67 steps of 0.15 s; torques on turntable and wheel within ±10 and ±50 N m.

    Observation [10]: θ̇ φ̇ ψ̇w ψ̇f ψ̇t (rad/s), the origin ahead and to the left (xc, yc; m), roll θ, yaw φ and pitch ψf (rad);
    its noise is that of the plant's 12 coordinates, `observation_noise` one number or 12. The plant starts from N(0, diag(σ²)) with
    σ = 0.1 m for x and y and 0.02 for all else; `start_moments()` are those of the observation. The episode ends where |θ| or |ψf|
    exceeds π/2. The reward is `UnicycleReward(width)` on the true next observation. `official=True` has the published inertia
    (`UnicyclePlant`) and the reward's published wheel, `official=False` the described ones.

    `info` holds "state" (the observation without noise), "action", "plant_state" [12], and "top_distance" (m): that of the top,
    where the turntable is, from its place upright over the origin. `reset(options={"state": s})` takes a plant state [12].
    PILCO explores with actions within a fifth of the limits (`UNICYCLE_EXPLORATION`).
    Source: Deisenroth, Fox & Rasmussen, PAMI 2015; unicycle scenario of UCL-SML/pilco-matlab.

    >>> import gymnasium, bayesdyn.envs
    >>> env = gymnasium.make("bayesdyn/Unicycle-v0")
    >>> observation, info = env.reset(seed=0, options={"state": np.zeros(12)})
    >>> observation.shape, info["top_distance"]
    ((10,), 0.0)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 7}
    plant: UnicyclePlant

    def __init__(
        self,
        render_mode: str | None = None,
        observation_noise: Numbers = (0.01,) * 5 + (0.003,) * 7,
        width: Widths = 1.0,
        official: bool = True,
    ) -> None:
        plant = UnicyclePlant(official=official)
        radius = _PUBLISHED_RADIUS if official else plant.wheel_radius
        super().__init__(
            plant,
            UnicycleReward(width, radius, plant.frame_height + plant.turntable_height),
            action_limit=UNICYCLE_LIMITS,
            start_mean=0.0,
            start_std=(0.02,) * 5 + (0.1, 0.1) + (0.02,) * 5,
            observation_noise=observation_noise,
            termination=UnicycleTermination(),
            render_mode=render_mode,
        )

    def measure(self, state: np.ndarray) -> dict[str, float | np.ndarray]:
        """Return the top's distance (m) from its place upright over the origin, and the plant's state [12]."""
        outline = unicycle_outline(self.plant, state)
        return {"top_distance": float(np.linalg.norm(outline.top - outline.target)), "plant_state": state.copy()}

    def draw(self, state: np.ndarray, action: np.ndarray, time: float) -> Image.Image:
        """Return side and rear view at 480 x 320 pixels."""
        return draw_unicycle(unicycle_outline(self.plant, state), action, self.action_limit, time)
