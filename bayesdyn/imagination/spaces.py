"""Gymnasium's actions as the model's: vectors of numbers, categories counted from 0."""

from functools import singledispatch
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, DataError, ShapeError


@singledispatch
def model_actions(space: gymnasium.Space[Any], actions: np.ndarray, count: int) -> Float[Tensor, "count A"]:
    """Return `count` actions of a space as the rows that a model takes: clipped to a box, categories counted from 0.

    Raises `ConfigurationError` for a space without vectors of numbers, `ShapeError` for another number of actions and `DataError`
    for one that is no category or no finite number.

    >>> model_actions(spaces.Discrete(3, start=5), np.array([5, 7]), 2).tolist()
    [[0.0], [2.0]]
    """
    raise ConfigurationError(f"imagined environments act in Box, Discrete and MultiDiscrete spaces; got {space}")


@model_actions.register
def _(space: spaces.Box, actions: np.ndarray, count: int) -> Float[Tensor, "count A"]:
    clipped = np.clip(_shaped(space, actions, count), space.low, space.high)
    if not np.isfinite(clipped).all():
        raise DataError(f"imagined environments want finite actions; got {actions}")
    return _rows(clipped)


@model_actions.register
def _(space: spaces.Discrete, actions: np.ndarray, count: int) -> Float[Tensor, "count A"]:
    return _categories(space, _shaped(space, actions, count) - space.start, space.n)


@model_actions.register
def _(space: spaces.MultiDiscrete, actions: np.ndarray, count: int) -> Float[Tensor, "count A"]:
    return _categories(space, _shaped(space, actions, count) - space.start, space.nvec)


def _shaped(space: gymnasium.Space[Any], actions: np.ndarray, count: int) -> np.ndarray:
    wanted = (count, *(space.shape or ()))
    actions = np.asarray(actions)
    if actions.size != np.prod(wanted):
        raise ShapeError(f"{count} actions of {space} want the shape {list(wanted)}; got {list(actions.shape)}")
    return actions.reshape(wanted)


def _categories(space: gymnasium.Space[Any], numbers: np.ndarray, sizes: Any) -> Tensor:
    """Check categories counted from 0."""
    if not ((numbers >= 0) & (numbers < sizes) & (numbers == np.rint(numbers))).all():
        raise DataError(f"{space} has no such action: counted from its start, got {numbers.tolist()}")
    return _rows(numbers)


def _rows(actions: np.ndarray) -> Tensor:
    return torch.as_tensor(actions.reshape(len(actions), -1).astype(np.float64))
