"""First trials by a controller: a wandering one, a spring and damper, or one of your own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from bayesdyn.data.collection import NumpyPolicy
from bayesdyn.errors import ConfigurationError


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """Noise that forgets: an Ornstein-Uhlenbeck process around the middle of a box, seen once a step and clipped to the box.

        z_0 ~ N(0, 1),   z_t = ρ z_{t-1} + √(1 - ρ²) ε_t,   ρ = exp(-1/steps),   a_t = middle + std·(ub - lb)/2·z_t

    `steps` is how long it remembers. In the units of Lillicrap et al. 2016, θ = 0.15 is ρ = 0.85, or steps = 6.2. Unlike `Coloured`
    it does not repeat itself.

    Raises `ConfigurationError` for numbers that are not positive and for other action spaces.

    >>> env = gymnasium.make("Pendulum-v1")
    >>> OrnsteinUhlenbeck()(env, torch.Generator().manual_seed(0))(np.zeros(3)).shape
    (1,)
    """

    std: float = 0.5
    steps: float = 6.2

    def __post_init__(self) -> None:
        if not (self.std > 0 and self.steps > 0):
            raise ConfigurationError(f"OrnsteinUhlenbeck wants std > 0 and steps > 0; got {self}")

    def __call__(self, env: gymnasium.Env[Any, Any], generator: torch.Generator) -> NumpyPolicy:
        """Return the policy, which ignores what it observes."""
        box = _box(env, self)
        rho, z = math.exp(-1 / self.steps), _normal(box, generator)

        def act(observation: np.ndarray) -> np.ndarray:
            nonlocal z
            action, z = _clipped(box, self.std * z), rho * z + math.sqrt(1 - rho**2) * _normal(box, generator)
            return action

        return act


@dataclass(frozen=True)
class ProportionalDerivative:
    """A spring and a damper towards a target, with noise so that there is something to learn from, clipped to the box.

        a = middle + (ub - lb)/2 · (proportional·(target - s[positions]) - derivative·s[speeds] + std·ε),   ε ~ N(0, I)

    `positions` and `speeds` name one coordinate of the observation for each action; gains are in units of half the box per unit of
    position or speed, so that they do not depend on the actuator.

    Raises `ConfigurationError` for other numbers of coordinates than actions, for coordinates that are not observed and for other
    action spaces.

    >>> env = gymnasium.make("bayesdyn/PILCOPendulum-v0")  # it observes speed and angle, 0 hanging
    >>> hold = ProportionalDerivative(positions=(1,), speeds=(0,), target=(0.5,), std=0.0)
    >>> hold(env, torch.Generator())(np.array([0.0, 0.1])).round(3).tolist()
    [1.0]
    """

    positions: tuple[int, ...]
    speeds: tuple[int, ...]
    target: tuple[float, ...]
    proportional: float = 1.0
    derivative: float = 0.2
    std: float = 0.1

    def __call__(self, env: gymnasium.Env[Any, Any], generator: torch.Generator) -> NumpyPolicy:
        """Return the policy."""
        box = _box(env, self)
        counts = {len(self.positions), len(self.speeds), len(self.target), *box.shape}
        observed = env.observation_space.shape or (0,)
        if len(counts) != 1 or not all(0 <= i < observed[0] for i in (*self.positions, *self.speeds)):
            raise ConfigurationError(
                f"ProportionalDerivative wants a position, a speed and a target for each of the {box.shape[0]} actions, of "
                f"{observed[0]} observed coordinates; got {self}"
            )
        positions, speeds, target = list(self.positions), list(self.speeds), np.array(self.target)

        def act(observation: np.ndarray) -> np.ndarray:
            pull = self.proportional * (target - observation[positions]) - self.derivative * observation[speeds]
            return _clipped(box, pull + self.std * _normal(box, generator))

        return act


@dataclass(frozen=True)
class Given:
    """A policy of your own, observation [S] -> what `env.step` takes: a person's demonstration, a controller that exists.

    It is the same object in every trial; what it remembers is its own affair, and a killed run that is resumed does not know it.

    >>> env = gymnasium.make("Pendulum-v1")
    >>> Given(lambda observation: -observation[2:])(env, torch.Generator())(np.array([1.0, 0.0, 0.5])).tolist()
    [-0.5]
    """

    policy: Callable[[np.ndarray], Any]

    def __call__(self, env: gymnasium.Env[Any, Any], generator: torch.Generator) -> NumpyPolicy:
        """Return it."""
        return self.policy


def _box(env: gymnasium.Env[Any, Any], explore: object) -> gymnasium.spaces.Box:
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        raise ConfigurationError(f"{type(explore).__name__} explores Box actions; got {space}: use Uniform()")
    return space


def _normal(box: gymnasium.spaces.Box, generator: torch.Generator) -> np.ndarray:
    return torch.randn(box.shape, generator=generator, dtype=torch.float64).numpy()


def _clipped(box: gymnasium.spaces.Box, share: np.ndarray) -> np.ndarray:
    """Return the action at this share of the half width from the middle."""
    middle, half = 0.5 * (box.low + box.high), 0.5 * (box.high - box.low)
    return np.clip(middle + half * share, box.low, box.high).astype(box.dtype)
