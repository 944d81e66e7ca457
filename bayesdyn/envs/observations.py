"""Rewards, terminations and infos as coordinates of the observation, so that a model learns them like any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from jaxtyping import Bool, Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError


@dataclass(frozen=True)
class ObservedReward:
    """r = the coordinate `index` of the next state, where `ExtendedObservation` puts the reward.

    Of a learned model's next state it is the learned reward, drawn with the same θ and noise as the rest. Called with state, action
    and next_state [..., > index], gives [...].

    >>> import torch
    >>> ObservedReward(1)(torch.zeros(2), torch.zeros(1), torch.tensor([[0.0, 5.0], [0.0, 6.0]]))
    tensor([5., 6.])
    """

    index: int

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch S"]
    ) -> Float[Tensor, "*batch"]:
        """Return the reward of each step."""
        return next_state[..., self.index]


@dataclass(frozen=True)
class ObservedTermination:
    """done = [the coordinate `index` of the next state > `threshold`], where `ExtendedObservation` puts the flag, 0 or 1.

    Called with state, action and next_state [..., > index], gives [...].

    >>> import torch
    >>> ObservedTermination(1)(torch.zeros(2), torch.zeros(1), torch.tensor([[0.0, 0.1], [0.0, 0.8]]))
    tensor([False,  True])
    """

    index: int
    threshold: float = 0.5

    def __call__(
        self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], next_state: Float[Tensor, "*batch S"]
    ) -> Bool[Tensor, "*batch"]:
        """Return whether the episode ends with each step."""
        return next_state[..., self.index] > self.threshold


class ExtendedObservation(gymnasium.Wrapper[np.ndarray, Any, np.ndarray, Any], RecordConstructorArgs):
    """Appends to the observation the last reward, whether the step terminated, and named scalars of `info`, all 0 after a reset.

        o' = [o, r if `reward`, terminated if `terminated`, info[name] for name in `infos`]

    A model of these observations learns the reward as one more target: `Codec(**env.codec_options())` predicts the new coordinates
    as they are and does not feed on them, `env.observed_reward()` and `env.observed_termination()` read them from the next state.
    Angles and other indices of the observation stay as they were. Observations are float64, so that true rewards are read exactly.

    Raises `ConfigurationError` for an observation that is no vector, for nothing to append, a name twice, or an info that the
    environment's `step` does not give or that is no number.

    >>> env = ExtendedObservation(gymnasium.make("Pendulum-v1"), reward=True)
    >>> env.reset(seed=0)[0].shape, env.codec_options(), env.observed_reward()
    ((4,), {'ignore': [3], 'absolute': [3]}, ObservedReward(index=3))
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], *, reward: bool = False, terminated: bool = False, infos: Sequence[str] = ()
    ) -> None:
        RecordConstructorArgs.__init__(self, reward=reward, terminated=terminated, infos=tuple(infos))
        super().__init__(env)
        shape = env.observation_space.shape
        if shape is None or len(shape) != 1:
            raise ConfigurationError(
                f"only a vector observation can be extended; got {env.observation_space}; wrap the environment in "
                "gymnasium.wrappers.FlattenObservation first"
            )
        if not (reward or terminated or infos) or len(set(infos)) < len(infos):
            raise ConfigurationError(f"choose reward, terminated or names of infos, each once; got infos={list(infos)}")
        inner: Any = env.observation_space
        self._size = shape[0]
        self._has_reward, self._has_terminated, self._infos = reward, terminated, tuple(infos)
        low = [*[-np.inf] * reward, *[0.0] * terminated, *[-np.inf] * len(infos)]
        high = [*[np.inf] * reward, *[1.0] * terminated, *[np.inf] * len(infos)]
        self.observation_space = gymnasium.spaces.Box(
            np.concatenate((inner.low, low)).astype(np.float64),
            np.concatenate((inner.high, high)).astype(np.float64),
            dtype=np.float64,
        )
        self._appended = len(low)

    def codec_options(self) -> dict[str, list[int]]:
        """Return `Codec`'s options that predict the appended coordinates as they are and ignore them as features."""
        appended = list(range(self._size, self._size + self._appended))
        return {"ignore": appended, "absolute": list(appended)}

    def observed_reward(self) -> ObservedReward:
        """Return the reward callable that reads its coordinate; raises `ConfigurationError` without `reward=True`."""
        if not self._has_reward:
            raise ConfigurationError("the observation holds no reward; make the wrapper with reward=True")
        return ObservedReward(self._size)

    def observed_termination(self) -> ObservedTermination:
        """Return the termination callable that reads its coordinate; raises `ConfigurationError` without `terminated=True`."""
        if not self._has_terminated:
            raise ConfigurationError("the observation holds no termination; make the wrapper with terminated=True")
        return ObservedTermination(self._size + self._has_reward)

    def index_of(self, info: str) -> int:
        """Return the coordinate of a named info; raises `ConfigurationError` for one that is not appended."""
        if info not in self._infos:
            raise ConfigurationError(f"the observation holds the infos {list(self._infos)}; got {info!r}")
        return self._size + self._has_reward + self._has_terminated + self._infos.index(info)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment and return its observation with zeros appended."""
        observation, info = self.env.reset(seed=seed, options=options)
        return np.concatenate((observation, np.zeros(self._appended))), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the environment and return its observation with what this step gave appended."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        seen = [float(reward)] * self._has_reward + [float(terminated)] * self._has_terminated
        extended = np.concatenate((observation, seen, [_number(info, name) for name in self._infos]))
        return extended, float(reward), terminated, truncated, info


def _number(info: dict[str, Any], name: str) -> float:
    try:
        return float(info[name])
    except KeyError as error:
        raise ConfigurationError(f"step gives no info {name!r}; it gives {sorted(info)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"info {name!r} wants to be a number; got {info[name]!r}") from error
