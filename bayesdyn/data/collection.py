"""Episodes from a Gymnasium environment: `collect`, `random_policy`."""

import copy
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import gymnasium
import numpy as np
import torch

from bayesdyn.data.episodes import Episode
from bayesdyn.errors import ConfigurationError

# What to do, given what was observed [S]; the answer goes to env.step as it is.
NumpyPolicy = Callable[[np.ndarray], Any]


def collect(
    env: gymnasium.Env[Any, Any],
    policy: NumpyPolicy,
    *,
    steps: int | None = None,
    episodes: int | None = None,
    seed: int | None = 0,
) -> list[Episode]:
    """Run a policy in an environment and return what happened, one `Episode` per reset, the reset's observation included.

    Stops after `steps` steps in all or `episodes` episodes, whichever comes first; at least one has to be given. `seed` goes to the
    first reset only, so later episodes start elsewhere; None leaves the environment's own random state running on. An episode
    that `steps` cuts short is kept, as not terminated.

    Raises `ConfigurationError` for observations that aren't vectors or without a limit, `DataError` for non-finite observations.

    >>> env = gymnasium.make("Pendulum-v1")
    >>> [len(e) for e in collect(env, random_policy(env), steps=250)]
    [200, 50]
    """
    _check_collect(env, steps, episodes)
    done: list[Episode] = []
    taken = 0
    while (steps is None or taken < steps) and (episodes is None or len(done) < episodes):
        episode = _run_episode(env, policy, None if steps is None else steps - taken, None if done else seed)
        done.append(episode)
        taken += len(episode)
    return done


def random_policy(env: gymnasium.Env[Any, Any], generator: torch.Generator | None = None) -> NumpyPolicy:
    """Return a policy that draws from the action space as its `sample` does (uniform where bounded), seeded 0 without a generator.

    The environment's own random state isn't touched.
    """
    generator = generator or torch.Generator().manual_seed(0)
    space = copy.deepcopy(env.action_space)
    space.seed(int(torch.randint(2**31 - 1, (), generator=generator)))
    return lambda observation: space.sample()


def _run_episode(env: gymnasium.Env[Any, Any], policy: NumpyPolicy, limit: int | None, seed: int | None) -> Episode:
    observation, _ = env.reset(seed=seed)
    # Copies, because some environments return one buffer again and again.
    states = [np.array(observation, dtype=np.float64)]
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated) and (limit is None or len(actions) < limit):
        action = policy(np.array(observation))
        actions.append(np.array(action, dtype=np.float64).reshape(-1) - _first(env.action_space))
        observation, reward, terminated, truncated, _ = env.step(action)
        states.append(np.array(observation, dtype=np.float64))
        rewards.append(float(reward))
    return Episode.from_arrays(np.stack(states), np.stack(actions), rewards, bool(terminated))


@singledispatch
def _first(space: gymnasium.Space[Any]) -> Any:
    """Return the number of the first category: discrete actions count from 0 in the data, wherever the environment begins."""
    return 0.0


@_first.register
def _(space: gymnasium.spaces.Discrete) -> Any:
    return float(space.start)


@_first.register
def _(space: gymnasium.spaces.MultiDiscrete) -> Any:
    return np.asarray(space.start, dtype=np.float64).reshape(-1)


def _check_collect(env: gymnasium.Env[Any, Any], steps: int | None, episodes: int | None) -> None:
    if steps is None and episodes is None:
        raise ConfigurationError("collect wants a number of steps, of episodes, or both")
    for name, count in (("steps", steps), ("episodes", episodes)):
        if count is not None and count < 1:
            raise ConfigurationError(f"collect wants {name} >= 1; got {count}")
    shape = env.observation_space.shape
    if shape is None or len(shape) != 1:
        advice = "wrap the environment in gymnasium.wrappers.FlattenObservation"
        raise ConfigurationError(f"collect wants observations that are vectors; got {env.observation_space}: {advice}")
