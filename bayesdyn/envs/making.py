"""Make Gymnasium environments by id, with errors that say what to do."""

from collections.abc import Sequence
from typing import Any

import gymnasium

from bayesdyn.envs.observations import ExtendedObservation
from bayesdyn.errors import MissingExtraError, UnknownNameError

# What a missing module of an environment's backend is called here: the extra of this package that brings it.
_EXTRAS = {"mujoco": "mujoco", "imageio": "mujoco"}


def make(
    env_id: str,
    *,
    observe_reward: bool = False,
    observe_terminated: bool = False,
    observe_infos: Sequence[str] = (),
    **options: Any,
) -> gymnasium.Env[Any, Any]:
    """Return `gymnasium.make(env_id, **options)`, its observations extended by what `observe_...` asks for (`ExtendedObservation`).

    Raises `UnknownNameError` for an id that is not registered and `MissingExtraError`, naming the extra, for an environment whose
    backend is not installed; what `ExtendedObservation` raises.

    >>> make("bayesdyn/CartPoleSwingUp-v0").action_space.shape
    (1,)
    """
    env = _make(env_id, options)
    if observe_reward or observe_terminated or observe_infos:
        return ExtendedObservation(env, reward=observe_reward, terminated=observe_terminated, infos=observe_infos)
    return env


def _make(env_id: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    try:
        return gymnasium.make(env_id, **options)
    except gymnasium.error.UnregisteredEnv as error:
        raise UnknownNameError(f"Gymnasium knows no environment {env_id!r}: {error}") from error
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        extra = next((extra for module, extra in _EXTRAS.items() if module in str(error).lower()), None)
        advice = f"pip install 'bayesdyn[{extra}]'" if extra else "install what the message names"
        raise MissingExtraError(f"{env_id} lacks a dependency ({error}); {advice}") from error
