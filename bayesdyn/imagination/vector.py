"""A learned model as a vector environment of Gymnasium: many imagined episodes, one call of the model per step."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from bayesdyn.errors import NotFittedError, ShapeError
from bayesdyn.imagination.episodes import Episodes, Lived
from bayesdyn.imagination.single import unbounded_observations
from bayesdyn.imagination.spaces import model_actions
from bayesdyn.imagination.worlds import StartStates, Worlds
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import Sampler

# So many draws of θ are held at once where the user does not say.
_DRAWS = 64


class ImaginedVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` imagined episodes at once, each under one θ ~ p(θ|D) from its start to its end, moved by one call of the model.

    What `ImaginedEnv` says of rewards, first states, actions, horizon and numbers that are not finite holds here, too. `draws` θ
    are held at once, by default one for each episode and at most 64. They are new whenever all episodes begin together, at `reset`
    or after the same step, and then shared out evenly; an episode that begins alone takes one of those at hand at random, so where
    episodes end at different times, call `reset` now and then.

    `autoreset_mode` is Gymnasium's: NEXT_STEP (the step after an end resets and ignores its action), SAME_STEP (the last
    observation is in info["final_obs"]) or DISABLED (reset(options={"reset_mask": [num_envs] of bool})). info["draw"] numbers the θ
    of the episodes whose observations are returned, counted from the last reset with a seed.

    >>> import bayesdyn as bd
    >>> class Drift:
    ...     def sample(self, n, generator=None, *, dtype=None):
    ...         return bd.PlainDynamics(lambda s, a: bd.Gaussian(s + a, torch.zeros_like(s)))
    >>> force = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    >>> envs = ImaginedVectorEnv(3, Drift(), lambda s, a, s2: -s2[..., 0].abs(), torch.zeros(1, 1), force, horizon=2)
    >>> observation, info = envs.reset(seed=0)
    >>> envs.step(np.array([[0.5], [0.0], [2.0]], np.float32))[0].tolist()
    [[0.5], [0.0], [1.0]]
    """

    def __init__(
        self,
        num_envs: int,
        model: Sampler,
        reward: Reward,
        start_states: StartStates,
        action_space: gymnasium.Space[Any],
        horizon: int,
        *,
        draws: int | None = None,
        termination: Termination | None = None,
        observation_space: gymnasium.spaces.Box | None = None,
        failure_reward: float = 0.0,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        worlds = Worlds(
            model,
            reward,
            start_states,
            draws=min(num_envs, _DRAWS) if draws is None else draws,
            termination=termination,
            failure_reward=failure_reward,
            dtype=dtype,
        )
        self._episodes = Episodes(worlds, num_envs, horizon)
        self.num_envs = num_envs
        self.metadata = {"render_modes": [], "autoreset_mode": autoreset_mode}
        self.single_action_space = action_space
        self.single_observation_space = observation_space or unbounded_observations(worlds)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._step_ended = {
            AutoresetMode.NEXT_STEP: self._reset_in_next_step,
            AutoresetMode.SAME_STEP: self._reset_in_same_step,
            AutoresetMode.DISABLED: self._reset_by_hand,
        }[autoreset_mode]
        self._generator: torch.Generator | None = None
        self._ended = torch.ones(num_envs, dtype=torch.bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all episodes, or those that `options["reset_mask"]` names, [num_envs] of bool.

        Raises `ShapeError` for a mask of another kind and `NotFittedError` for one before the first full reset.
        """
        super().reset(seed=seed)
        which = _mask(options, self.num_envs)
        if self._generator is None and not bool(which.all()):
            raise NotFittedError("the first reset begins all episodes; leave the reset_mask out")
        if seed is not None and bool(which.all()):
            self._episodes.worlds.forget()
        if seed is not None or self._generator is None:
            self._generator = torch.Generator().manual_seed(int(self.np_random.integers(2**63 - 1)))
        self._begin(which)
        return self._observation(), self._info(torch.zeros(self.num_envs, dtype=torch.bool))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Imagine one step of every episode; raises `NotFittedError` before `reset`."""
        if self._generator is None:
            raise NotFittedError("there is no imagined episode to step; call reset first")
        return self._step_ended(model_actions(self.single_action_space, actions, self.num_envs), self._generator)

    def _reset_in_next_step(self, action: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        fresh = self._ended.clone()
        if bool(fresh.all()):
            nothing = torch.zeros(self.num_envs)
            lived = Lived(self._episodes.state, nothing, ~fresh, ~fresh, fresh)
        else:
            lived = self._episodes.step(action, generator)
        if bool(fresh.any()):
            self._begin(fresh)
        lived = Lived(
            self._episodes.state,
            lived.reward.masked_fill(fresh, 0.0),
            lived.terminated & ~fresh,
            lived.truncated & ~fresh,
            lived.finite | fresh,
        )
        self._ended = lived.terminated | lived.truncated
        return self._answer(lived, self._info(~lived.finite))

    def _reset_in_same_step(self, action: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        lived = self._episodes.step(action, generator)
        ended = lived.terminated | lived.truncated
        if not bool(ended.any()):
            return self._answer(lived, self._info(~lived.finite))
        last, told = self._observation(), self._info(~lived.finite)
        self._begin(ended)
        info = self._info(~(lived.finite | ended))
        mask = ended.numpy().copy()
        info["final_obs"], info["_final_obs"] = np.full(self.num_envs, None, dtype=object), mask
        for i in np.flatnonzero(mask):
            info["final_obs"][i] = last[i]
        final = {name: np.where(mask, values, np.zeros_like(values)) for name, values in told.items() if name[0] != "_"}
        info["final_info"] = {**final, **{f"_{name}": mask for name in final}}
        info["_final_info"] = mask
        return self._answer(lived, info)

    def _reset_by_hand(self, action: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        if bool(self._ended.any()):
            raise NotFittedError(
                f"episodes {torch.nonzero(self._ended).flatten().tolist()} have ended; reset them with "
                'options={"reset_mask": ...} before the next step, or choose another autoreset_mode'
            )
        lived = self._episodes.step(action, generator)
        self._ended = lived.terminated | lived.truncated
        return self._answer(lived, self._info(~lived.finite))

    def _begin(self, which: Tensor) -> None:
        assert self._generator is not None
        self._episodes.restart(which, self._generator)
        self._ended = self._ended & ~which

    def _answer(self, lived: Lived, info: dict[str, Any]) -> tuple[Any, ...]:
        reward, terminated, truncated = (part.numpy().copy() for part in (lived.reward.double(), lived.terminated, lived.truncated))
        return self._observation(), reward, terminated, truncated, info

    def _observation(self) -> np.ndarray:
        return self._episodes.state.float().numpy().copy()

    def _info(self, nonfinite: Tensor) -> dict[str, Any]:
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        return {
            "draw": self._episodes.draw.numpy().copy(),
            "_draw": everywhere,
            "nonfinite": nonfinite.numpy().copy(),
            "_nonfinite": everywhere.copy(),
        }


def _mask(options: dict[str, Any] | None, count: int) -> Tensor:
    mask = np.asarray((options or {}).get("reset_mask", np.ones(count, dtype=np.bool_)))
    if mask.shape != (count,) or mask.dtype != np.bool_ or not mask.any():
        raise ShapeError(f"reset_mask wants booleans [{count}], one of them True; got {mask.dtype} {list(mask.shape)}")
    return torch.from_numpy(mask.copy())
