"""Data of any Gymnasium environment, collected by a named behaviour; the other behaviours are shifts: `environment_set`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from math import pi
from typing import Any

import gymnasium
import torch

from bayesdyn.codec import BaseCodec, Codec
from bayesdyn.data import Transitions, collect, ou_policy, pd_policy, random_policy
from bayesdyn.data.collection import NumpyPolicy
from bayesdyn.envs import CARTPOLE_ID, make
from bayesdyn.errors import ConfigurationError, UnknownNameError
from bayesdyn.evaluation.data_sets import DataSet, episodes_set
from bayesdyn.presets import environments

SHORT_NAMES = {
    "pendulum": "bayesdyn/PILCOPendulum-v0",
    "cart-pole": CARTPOLE_ID,
    "double-pendulum": "bayesdyn/DoublePendulum-v0",
}
"""Environments by short names."""

EPISODES = 20


@dataclass(frozen=True)
class Steering:
    """A proportional-derivative controller of one environment: gains [A, S], and the observation that it steers to."""

    gains: tuple[tuple[float, ...], ...]
    target: tuple[float, ...]


# Observations: (θ̇, θ) from hanging; (x, ẋ, θ̇, θ) from hanging; (cos θ, sin θ, θ̇) from upright.
_STEERING = {
    "bayesdyn/PILCOPendulum-v0": Steering(((1.0, 4.0),), (0.0, pi / 2)),
    CARTPOLE_ID: Steering(((6.0, 4.0, 0.0, 0.0),), (1.0, 0.0, 0.0, 0.0)),
    "Pendulum-v1": Steering(((0.0, 10.0, 2.0),), (1.0, 0.0, 0.0)),
}
# What a comparison needs to know of environments that no preset plans in.
_ANGLES = {"bayesdyn/PILCOPendulum-v0": (1,), "bayesdyn/DoublePendulum-v0": (2, 3)}

Environment = gymnasium.Env[Any, Any]


def environment_set(
    name: str, *, behaviour: str = "random", episodes: int = EPISODES, steps: int | None = None, seed: int = 0
) -> DataSet:
    """Collect episodes of an environment, by a Gymnasium id or one of `SHORT_NAMES`, and cut them as `episodes_set` does.

    `behaviour` is "random" (as the action space samples), "ou" (`ou_policy`) or "pd" (`pd_policy`, for environments whose gains are
    known). What the other behaviours do, a quarter as many episodes each, is a shift by their name. `steps` bounds an episode.

    Raises `UnknownNameError` for an environment or a behaviour that there is not, `ConfigurationError` for a behaviour that this
    environment cannot have and for observations that are no vectors, and `MissingExtraError` for a backend that is not installed.

    >>> data = environment_set("pendulum", episodes=6)
    >>> len(data.train), list(data.shifted)
    (160, ['ou', 'pd'])
    """
    if episodes < 2:
        raise ConfigurationError(f"an environment wants at least 2 episodes, to learn from one and test on another; got {episodes}")
    env_id = SHORT_NAMES.get(name, name)
    limit: dict[str, Any] = {} if steps is None else {"max_episode_steps": steps}
    env = make(env_id, **limit)
    try:
        behaviours = _behaviours(env, env_id)
        if behaviour not in _BEHAVIOURS:
            raise UnknownNameError.among("behaviour", behaviour, _BEHAVIOURS)
        if behaviour not in behaviours:
            raise ConfigurationError(f"{env_id} has no behaviour {behaviour!r}; it has {', '.join(behaviours)}")
        codec = _codec(env, env_id)
        recorded = collect(env, behaviours[behaviour](seed), episodes=episodes, seed=seed)
        found = episodes_set(env_id, recorded, codec, seed=seed)
        # Seeds far from those of the first environment, so that no episode is recorded twice.
        shifts = {
            other: Transitions.from_episodes(
                collect(env, made(seed), episodes=max(episodes // 4, 1), seed=seed + 1_000_003 * place)
            )
            for place, (other, made) in enumerate(behaviours.items(), start=1)
            if other != behaviour
        }
    finally:
        env.close()
    note = f"collected by {behaviour!r}, {found.note}; other behaviours are shifts"
    return DataSet(env_id, found.train, found.in_distribution, codec, found.calibration, shifts, note=note)


_BEHAVIOURS = ("random", "ou", "pd")


def _behaviours(env: Environment, env_id: str) -> dict[str, Callable[[int], NumpyPolicy]]:
    """Return what can act in an environment, by name, each made from a seed."""
    found: dict[str, Callable[[int], NumpyPolicy]] = {"random": lambda seed: random_policy(env, _generator(seed))}
    if _has_box(env.action_space):
        found["ou"] = lambda seed: ou_policy(env, _generator(seed))
    if env_id in _STEERING:
        steering = _STEERING[env_id]
        found["pd"] = lambda seed: pd_policy(env, steering.gains, _generator(seed), target=steering.target)
    return found


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _codec(env: Environment, env_id: str) -> Callable[[], BaseCodec]:
    if env_id in environments:
        return environments[env_id].codec
    choices = _choices(env.action_space)
    return lambda: Codec(angles=_ANGLES.get(env_id, ()), choices=choices)


@singledispatch
def _has_box(space: gymnasium.Space[Any]) -> bool:
    """Say whether the actions are a bounded box."""
    return False


@_has_box.register
def _(space: gymnasium.spaces.Box) -> bool:
    return space.is_bounded() and len(space.shape) == 1


@singledispatch
def _choices(space: gymnasium.Space[Any]) -> dict[int, int]:
    """Return the number of categories of each action column that has them."""
    return {}


@_choices.register
def _(space: gymnasium.spaces.Discrete) -> dict[int, int]:
    return {0: int(space.n)}


@_choices.register
def _(space: gymnasium.spaces.MultiDiscrete) -> dict[int, int]:
    return {column: int(size) for column, size in enumerate(space.nvec.reshape(-1).tolist())}
