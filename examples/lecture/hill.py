"""A hill with a cliff behind its top: the task of `distribution_mismatch`, and its picture."""

from typing import Any

import gymnasium
import numpy as np
from matplotlib.axes import Axes

from bayesdyn.plots import NEUTRAL

STEPS, EDGE, FLOOR = 24, 2.0, -2.0


class Hill(gymnasium.Env):
    """A walker at x (m) on a hill, step 0.5·a m; it sees x and its height, which is the reward. Behind the edge is a fall."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x, self.t = -3.0 + 0.2 * self.np_random.standard_normal(), 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        if self.x < EDGE:  # who has fallen stays where he lies
            self.x += 0.5 * float(action[0]) + 0.02 * self.np_random.standard_normal()
        self.t += 1
        return self.observe(), float(height(self.x)), False, self.t == STEPS, {}

    def observe(self) -> np.ndarray:
        return np.array([self.x, height(self.x)])


def height(x: np.ndarray | float) -> np.ndarray:
    """Return the hill's height in metres: 2 at the top, x = 0, and slopes of ±1 around it."""
    return np.where(np.asarray(x) < EDGE, 2.5 - np.hypot(x, 0.5), FLOOR)


def draw_hill(axes: Axes, first: np.ndarray) -> None:
    """Draw the ground and the positions of the first data."""
    ground = np.array([*np.linspace(-5, EDGE - 1e-6, 200), EDGE, 5.5])
    axes.fill_between(ground, height(ground), FLOOR - 1, color=NEUTRAL, alpha=0.25, linewidth=0)
    axes.plot(first, height(first), "|", color=NEUTRAL, markersize=12)
    arrow = {"arrowstyle": "->", "color": NEUTRAL}
    axes.annotate("first data", (first.mean(), height(first.mean()) + 0.3), (-4.8, 2.2), color=NEUTRAL, arrowprops=arrow)
    axes.set(xlim=(-5, 5.5), ylim=(FLOOR - 0.6, 4.6))
