"""Between a planner's actions, which are vectors of numbers, and what an environment's `step` takes."""

from abc import ABC, abstractmethod
from functools import singledispatch
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import ActionSpace, Box, Choices


class Actions(ABC):
    """The actions of one environment: the space that planners search, and the translation of what they choose."""

    space: ActionSpace

    @abstractmethod
    def translate(self, action: np.ndarray) -> Any:
        """Return the planner's action [A] as the environment wants it, inside its space."""

    def record(self, executed: Any) -> np.ndarray:
        """Return what the environment was given as a planner's action [A], which is what models learn from."""
        return np.array(executed, dtype=np.float64).reshape(-1)


class BoxActions(Actions):
    """Continuous actions, clipped to the box: planners work in their own dtype, where a bound may round to just outside."""

    def __init__(self, space: spaces.Box) -> None:
        self.space = Box.of(space.low.tolist(), space.high.tolist(), torch.float64)
        self._box = space

    def translate(self, action: np.ndarray) -> np.ndarray:
        """Return the clipped action in the environment's dtype."""
        return np.clip(action.astype(self._box.dtype), self._box.low, self._box.high)


class DiscreteActions(Actions):
    """One choice of `n`: the planner counts from 0, the environment from its own start."""

    def __init__(self, space: spaces.Discrete) -> None:
        self.space = Choices.of([int(space.n)])
        self._start = int(space.start)

    def translate(self, action: np.ndarray) -> int:
        """Return the category's number."""
        return round(float(action[0])) + self._start

    def record(self, executed: Any) -> np.ndarray:
        """Return the number counted from 0."""
        return super().record(executed) - self._start


class MultiDiscreteActions(Actions):
    """Several choices at once."""

    def __init__(self, space: spaces.MultiDiscrete) -> None:
        self.space = Choices.of(space.nvec.reshape(-1).tolist())
        self._space = space

    def translate(self, action: np.ndarray) -> np.ndarray:
        """Return the categories' numbers."""
        return np.rint(action).astype(self._space.dtype).reshape(self._space.shape) + self._space.start

    def record(self, executed: Any) -> np.ndarray:
        """Return the numbers counted from 0."""
        return super().record(executed - self._space.start)


@singledispatch
def actions_of(space: gymnasium.Space[Any]) -> Actions:
    """Return how to act in a Gymnasium action space.

    Raises `ConfigurationError` for a space that no planner searches and for unbounded boxes.

    >>> actions_of(spaces.Discrete(3, start=5)).translate(np.array([2.0]))
    7
    """
    raise ConfigurationError(f"planners act in vector Box, Discrete and MultiDiscrete spaces; got {space}")


@actions_of.register
def _(space: spaces.Box) -> Actions:
    if len(space.shape) != 1:
        raise ConfigurationError(f"planners act in Box spaces that are vectors; got {space}")
    return BoxActions(space)


@actions_of.register
def _(space: spaces.Discrete) -> Actions:
    return DiscreteActions(space)


@actions_of.register
def _(space: spaces.MultiDiscrete) -> Actions:
    return MultiDiscreteActions(space)


def check_observations(env: gymnasium.Env[Any, Any]) -> None:
    """Raise `ConfigurationError` unless the observations are vectors."""
    observed = env.observation_space
    if not isinstance(observed, spaces.Box) or len(observed.shape) != 1:
        raise ConfigurationError(
            f"learn wants vector observations; got {observed}; wrap it in gymnasium.wrappers.FlattenObservation"
        )
