"""Behaviours that collect data: `ou_policy`, which wanders, and `pd_policy`, which steers; `collection` has `random_policy`."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from bayesdyn.data.collection import NumpyPolicy
from bayesdyn.errors import ConfigurationError, ShapeError


def ou_policy(
    env: gymnasium.Env[Any, Any], generator: torch.Generator | None = None, *, std: float = 0.5, memory: float = 0.8
) -> NumpyPolicy:
    r"""Return a policy that wanders: an Ornstein-Uhlenbeck process around the middle of the box, seeded 0 without a generator.

        x' = memory·x + std·√(1 - memory²) ε,   a = middle + x·half the width of the box, clipped to it

    so that `std` is the stationary standard deviation as a share of half the box, and 1/(1 - memory) about how many steps it takes
    to change its mind. It moves a system further than independent actions, which average out. It goes on from episode to episode.

    Raises `ConfigurationError` for actions that are no bounded box, std <= 0 or a memory outside [0, 1).

    Source: Uhlenbeck, Ornstein 1930; for exploration Lillicrap et al. 2016 (DDPG).

    >>> env = gymnasium.make("Pendulum-v1")
    >>> abs(ou_policy(env)(np.zeros(3)).item()) <= 2.0
    True
    """
    if not std > 0 or not 0 <= memory < 1:
        raise ConfigurationError(f"ou_policy wants std > 0 and 0 <= memory < 1; got {std} and {memory}")
    low, high, dtype = _box(env, "ou")
    source = generator or torch.Generator().manual_seed(0)
    x = std * torch.randn(len(low), generator=source, dtype=torch.float64)

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal x
        action = 0.5 * (low + high) + 0.5 * (high - low) * x.numpy()
        x = memory * x + std * (1 - memory**2) ** 0.5 * torch.randn(len(low), generator=source, dtype=torch.float64)
        return np.clip(action, low, high).astype(dtype)

    return act


def pd_policy(
    env: gymnasium.Env[Any, Any],
    gains: Sequence[Sequence[float]],
    generator: torch.Generator | None = None,
    *,
    target: Sequence[float] | None = None,
    noise: float = 0.1,
) -> NumpyPolicy:
    """Return a policy that steers to an observation, proportional to errors and to their rates where these are observed.

        a = clip(K (o* - o) + noise·half the width of the box·ε),   K [A, S], o* = 0 unless given

    Without the noise a controller's data cannot tell what another action would have done. Seeded 0 without a generator.

    Raises `ConfigurationError` for actions that are no bounded box or a negative noise, `ShapeError` for gains that do not fit.

    >>> env = gymnasium.make("Pendulum-v1")
    >>> pd_policy(env, [[0.0, 1.0, 0.5]], noise=0.0)(np.array([0.0, 1.0, 1.0])).tolist()
    [-1.5]
    """
    low, high, dtype = _box(env, "pd")
    if noise < 0:
        raise ConfigurationError(f"pd_policy wants noise >= 0; got {noise}")
    matrix = np.asarray(gains, dtype=np.float64)
    shape = env.observation_space.shape or ()
    if matrix.shape != (len(low), *shape):
        raise ShapeError(
            f"pd_policy wants one gain per action and observation, [{len(low)}, {', '.join(map(str, shape))}]; got "
            f"{list(matrix.shape)}"
        )
    goal = np.zeros(shape) if target is None else np.asarray(target, dtype=np.float64)
    source = generator or torch.Generator().manual_seed(0)

    def act(observation: np.ndarray) -> np.ndarray:
        disturbance = torch.randn(len(low), generator=source, dtype=torch.float64).numpy()
        action = matrix @ (goal - observation) + noise * 0.5 * (high - low) * disturbance
        return np.clip(action, low, high).astype(dtype)

    return act


def _box(env: gymnasium.Env[Any, Any], name: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return the bounds of the actions, and their dtype."""
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded() or len(space.shape) != 1:
        raise ConfigurationError(f"the behaviour {name!r} wants a bounded box of actions; got {space}: take 'random'")
    return space.low.astype(np.float64), space.high.astype(np.float64), space.dtype
