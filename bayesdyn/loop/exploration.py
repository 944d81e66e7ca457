"""How the first trials act, before there is a model to plan with."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch

from bayesdyn.data import random_policy
from bayesdyn.data.collection import NumpyPolicy
from bayesdyn.errors import ConfigurationError
from bayesdyn.planners.icem import coloured_noise


@runtime_checkable
class Exploration(Protocol):
    """Makes the policy of one random trial."""

    def __call__(self, env: gymnasium.Env[Any, Any], generator: torch.Generator) -> NumpyPolicy:
        """Return a policy, observation [S] -> what `env.step` takes, all of whose random numbers come from `generator`."""


@dataclass(frozen=True)
class Uniform:
    """Actions drawn from the action space as its `sample` does: uniform where it is bounded, and `share` of that for small ones.

    Raises `ConfigurationError` unless 0 < share <= 1, and for a share of anything but a box.

    >>> env = gymnasium.make("Pendulum-v1")
    >>> Uniform()(env, torch.Generator().manual_seed(0))(np.zeros(3)).shape
    (1,)
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigurationError(f"Uniform wants 0 < share <= 1; got {self.share}")

    def __call__(self, env: gymnasium.Env[Any, Any], generator: torch.Generator) -> NumpyPolicy:
        """Return `random_policy`, its actions drawn towards the middle of the box."""
        policy, space = random_policy(env, generator), env.action_space
        if self.share == 1:
            return policy
        if not isinstance(space, gymnasium.spaces.Box):
            raise ConfigurationError(f"Uniform explores with a share of Box actions; got {space}: use share=1")
        middle = 0.5 * (space.low + space.high)
        return lambda observation: (middle + self.share * (policy(observation) - middle)).astype(space.dtype)


@dataclass(frozen=True)
class Coloured:
    """Noise around the middle of a box, of standard deviation std·(ub - lb)/2 and power f^-β over time, clipped to the box.

    It is what iCEM's first iteration tries: where good actions are small, uniform ones visit states that control never will. The
    noise comes in stretches of `steps` steps.

    Raises `ConfigurationError` for a std that is not positive and for other action spaces.

    >>> env = gymnasium.make("Pendulum-v1")
    >>> abs(float(Coloured(std=0.01)(env, torch.Generator().manual_seed(0))(np.zeros(3))[0])) < 0.2
    True
    """

    std: float = 0.5
    beta: float = 2.0
    steps: int = 100

    def __post_init__(self) -> None:
        if self.std <= 0 or self.steps < 1:
            raise ConfigurationError(f"Coloured wants std > 0 and steps >= 1; got {self}")

    def __call__(self, env: gymnasium.Env[Any, Any], generator: torch.Generator) -> NumpyPolicy:
        """Return the policy, which ignores what it observes."""
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise ConfigurationError(f"Coloured explores Box actions; got {space}: use Uniform()")
        middle, half = 0.5 * (space.low + space.high), 0.5 * (space.high - space.low)
        stretch: list[np.ndarray] = []

        def act(observation: np.ndarray) -> np.ndarray:
            if not stretch:
                noise = coloured_noise(self.steps, middle.shape, self.beta, generator, torch.float64)
                stretch.extend(noise.flip(0).numpy())
            return np.clip(middle + self.std * half * stretch.pop(), space.low, space.high).astype(space.dtype)

        return act
