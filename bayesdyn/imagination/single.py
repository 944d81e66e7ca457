"""A learned model as a Gymnasium environment, one imagined episode at a time."""

from typing import Any

import gymnasium
import numpy as np
import torch

from bayesdyn.errors import NotFittedError
from bayesdyn.imagination.episodes import Episodes
from bayesdyn.imagination.spaces import model_actions
from bayesdyn.imagination.worlds import StartStates, Worlds
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import Sampler


class ImaginedEnv(gymnasium.Env[np.ndarray, Any]):
    """Imagined episodes for any library that trains in Gymnasium environments: every episode under one θ ~ p(θ|D) of its own.

    θ is drawn at `reset` and kept to the episode's end; the noise of p(s'|s, a, θ) comes from the environment's own random state.
    `reward` and `termination` are callables (s, a, s'), on tensors with a leading axis; `start_states` holds states [M, S] to begin
    in (those of the data, say) or is a callable (count, generator) -> [count, S]. Actions are clipped to `action_space`; categories
    reach the model counted from 0 (`Codec(choices=...)`). Episodes are truncated after `horizon` steps.

    Where the model gives no finite number the episode is terminated with `failure_reward` and the last finite observation, and
    info["nonfinite"] says so; on tasks with negative rewards set it below what the rest of an episode can cost, or a policy may
    learn to break the model. info["draw"] numbers the θ since the last reset with a seed.

    >>> import bayesdyn as bd
    >>> class Drift:
    ...     def sample(self, n, generator=None, *, dtype=None):
    ...         return bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    >>> force = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    >>> env = ImaginedEnv(Drift(), lambda s, a, s2: -s2[..., 0].abs(), torch.zeros(1, 1), force, horizon=2)
    >>> observation, info = env.reset(seed=0)
    >>> env.step(np.array([0.5], np.float32))
    (array([0.5], dtype=float32), -0.5, False, False, {'draw': 0, 'nonfinite': False})
    """

    def __init__(
        self,
        model: Sampler,
        reward: Reward,
        start_states: StartStates,
        action_space: gymnasium.Space[Any],
        horizon: int,
        *,
        termination: Termination | None = None,
        observation_space: gymnasium.spaces.Box | None = None,
        failure_reward: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.metadata = {"render_modes": []}
        worlds = Worlds(
            model,
            reward,
            start_states,
            draws=1,
            termination=termination,
            failure_reward=failure_reward,
            dtype=dtype,
        )
        self._episodes = Episodes(worlds, 1, horizon)
        self.action_space = action_space
        self.observation_space = observation_space or unbounded_observations(worlds)
        self._generator: torch.Generator | None = None
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a θ and a first state."""
        super().reset(seed=seed)
        if seed is not None:
            self._episodes.worlds.forget()
        self._generator = torch.Generator().manual_seed(int(self.np_random.integers(2**63 - 1)))
        self._episodes.restart(torch.ones(1, dtype=torch.bool), self._generator)
        self._running = True
        return self._observation(), self._info(finite=True)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Imagine one step.

        Raises `NotFittedError` before `reset` and after the end of an episode, `DataError` for an action that the space has not.
        """
        if self._generator is None or not self._running:
            raise NotFittedError("there is no imagined episode to step; call reset first, and after every end of an episode")
        lived = self._episodes.step(model_actions(self.action_space, np.asarray(action), 1), self._generator)
        terminated, truncated = bool(lived.terminated), bool(lived.truncated)
        self._running = not (terminated or truncated)
        return self._observation(), float(lived.reward), terminated, truncated, self._info(bool(lived.finite))

    def _observation(self) -> np.ndarray:
        return self._episodes.state[0].float().numpy().copy()

    def _info(self, finite: bool) -> dict[str, Any]:
        return {"draw": int(self._episodes.draw), "nonfinite": not finite}


def unbounded_observations(worlds: Worlds) -> gymnasium.spaces.Box:
    """Return the space of float32 vectors as long as the first states are."""
    size = worlds.begin(1, torch.Generator().manual_seed(0)).shape[-1]
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
