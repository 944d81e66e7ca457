"""A learned model as a model-based environment of TorchRL."""

from functools import cache, singledispatch
from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor, nn

from bayesdyn.errors import ConfigurationError, MissingExtraError
from bayesdyn.imagination.worlds import StartStates, Worlds
from bayesdyn.numerics import fresh_generator
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import Sampler


def torchrl_env(
    model: Sampler,
    reward: Reward,
    start_states: StartStates,
    action_space: gymnasium.Space[Any],
    horizon: int,
    *,
    episodes: int | None = None,
    draws: int | None = None,
    termination: Termination | None = None,
    failure_reward: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Return a `torchrl.envs.ModelBasedEnvBase` with `episodes` imagined episodes as its batch, for collectors and losses.

    The arguments are those of `ImaginedVectorEnv`. Beside "observation", an episode carries in its TensorDict "draw", the number of
    its θ, and "elapsed", its age in steps: the environment keeps nothing but the draws and a generator, and steps are
    differentiable in state and action. A full reset draws θ anew, a partial one takes those at hand. Discrete actions are category
    numbers, counted from 0. Without `episodes` the batch is empty, and TensorDicts of any batch shape can be reset and stepped, as
    TorchRL's planners want it, which expand an episode by their candidates.

    Raises `MissingExtraError` without TorchRL, `ConfigurationError` for an action space or a size that has no meaning, and, in a
    step, `NotFittedError` for an episode whose θ a later full reset has replaced.
    """
    if min(episodes or 1, horizon) < 1 or episodes == 0:
        raise ConfigurationError(f"imagined episodes want a number of them and a horizon >= 1; got {episodes} and {horizon}")
    worlds = Worlds(
        model,
        reward,
        start_states,
        draws=min(episodes or 64, 64) if draws is None else draws,
        termination=termination,
        failure_reward=failure_reward,
        dtype=dtype,
    )
    return _environment()(_World(worlds, horizon), action_space, torch.Size([episodes] if episodes else []))


class _World(nn.Module):
    """The world model as TorchRL calls it: TensorDict in, TensorDict with the step's results out."""

    def __init__(self, worlds: Worlds, horizon: int) -> None:
        super().__init__()
        self.worlds, self.horizon = worlds, horizon
        self.generator = fresh_generator()

    def forward(self, tensordict: Any) -> Any:
        """Move every episode of the TensorDict one step."""
        batch = tensordict.batch_size
        rows = batch.numel()
        state = tensordict["observation"].reshape(rows, -1).to(self.worlds.dtype)
        action = tensordict["action"].reshape(rows, -1).to(self.worlds.dtype)
        moved = self.worlds.step(state, action, self.worlds.index(tensordict["draw"].reshape(rows)), self.generator)
        elapsed = tensordict["elapsed"] + 1
        terminated, truncated = moved.terminated.reshape(*batch, 1), elapsed >= self.horizon
        return tensordict.update(
            {
                "observation": moved.state.float().reshape(*batch, -1),
                "draw": tensordict["draw"],
                "elapsed": elapsed,
                "reward": moved.reward.float().reshape(*batch, 1),
                "terminated": terminated,
                "truncated": truncated,
                "done": terminated | truncated,
            }
        )

    def begin(self, batch: torch.Size, which: Tensor | None) -> dict[str, Tensor]:
        """Return first states and draws of new episodes; TorchRL keeps those that `which` names."""
        rows = batch.numel()
        if which is None or bool(which.all()):
            self.worlds.redraw(self.generator)
        return {
            "observation": self.worlds.begin(rows, self.generator).float().reshape(*batch, -1),
            "draw": self.worlds.name(self.worlds.deal(rows, self.generator)).reshape(*batch, 1),
            "elapsed": torch.zeros(*batch, 1, dtype=torch.int64),
        }


@cache
def _environment() -> Any:
    """Return the class; it exists only where TorchRL does."""
    try:
        from tensordict import TensorDict
        from torchrl.data import Categorical, Composite, Unbounded
        from torchrl.envs import ModelBasedEnvBase
    except ImportError as error:
        raise MissingExtraError("a TorchRL environment needs TorchRL: pip install 'bayesdyn[rl]'") from error

    class ImaginedTorchRLEnv(ModelBasedEnvBase):
        def __init__(self, world: _World, action_space: gymnasium.Space[Any], batch: torch.Size) -> None:
            super().__init__(world, batch_size=batch)
            size = world.worlds.begin(1, torch.Generator().manual_seed(0)).shape[-1]
            count = Unbounded((*batch, 1), dtype=torch.int64)
            carried = {"observation": Unbounded((*batch, size)), "draw": count, "elapsed": count.clone()}
            self.observation_spec = Composite(carried, shape=batch)
            self.state_spec = self.observation_spec.clone()
            self.action_spec = _action_spec(action_space, batch)
            self.reward_spec = Unbounded((*batch, 1))
            flags = {name: Categorical(2, dtype=torch.bool, shape=(*batch, 1)) for name in ("done", "terminated", "truncated")}
            self.full_done_spec = Composite(flags, shape=batch)

        def _reset(self, tensordict: Any = None, **options: Any) -> Any:
            batch = self.batch_size if tensordict is None else tensordict.batch_size
            which = None if tensordict is None else tensordict.get("_reset", None)
            return TensorDict(self.world_model.begin(batch, which), batch, device=self.device)

        def _set_seed(self, seed: int | None) -> None:
            if seed is not None:
                self.world_model.generator = torch.Generator().manual_seed(seed)
                self.world_model.worlds.forget()

    return ImaginedTorchRLEnv


@singledispatch
def _action_spec(space: gymnasium.Space[Any], batch: torch.Size) -> Any:
    raise ConfigurationError(f"imagined environments act in Box, Discrete and MultiDiscrete spaces; got {space}")


@_action_spec.register
def _(space: spaces.Box, batch: torch.Size) -> Any:
    from torchrl.data import Bounded

    low, high = (torch.as_tensor(bound, dtype=torch.float32).expand(*batch, *space.shape) for bound in (space.low, space.high))
    return Bounded(low, high, (*batch, *space.shape), dtype=torch.float32)


@_action_spec.register
def _(space: spaces.Discrete, batch: torch.Size) -> Any:
    from torchrl.data import Categorical

    return Categorical(int(space.n), shape=batch)


@_action_spec.register
def _(space: spaces.MultiDiscrete, batch: torch.Size) -> Any:
    from torchrl.data import MultiCategorical

    return MultiCategorical(space.nvec.reshape(-1).tolist(), shape=(*batch, space.nvec.size), remove_singleton=False)
