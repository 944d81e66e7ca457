"""True dynamics that plans are carried out in: a known step, the plant of a simulated task, and a task's decisions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import torch
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.envs.plant import PlantEnv
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation.decisions import DecisionTask
from bayesdyn.planners import Box
from bayesdyn.presets import Task
from bayesdyn.rollout import PlainDynamics


@dataclass(frozen=True, eq=False)
class _Known:
    """p(s' | s, a) = δ(s' - step(s, a))."""

    step: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, state: Tensor, action: Tensor) -> Gaussian:
        following = self.step(state, action)
        return Gaussian(following, torch.zeros_like(following))


def known_dynamics(step: Callable[[Tensor, Tensor], Tensor]) -> PlainDynamics:
    """Return a known step, (state, action) -> next state without noise, as the true dynamics of a `DecisionTask`.

    >>> known_dynamics(lambda s, a: s + a)(torch.ones(1, 2), torch.ones(1, 2)).mean.tolist()
    [[2.0, 2.0]]
    """
    return PlainDynamics(_Known(step))


@dataclass(frozen=True, eq=False)
class _Saturated:
    """A plant's step with actions that saturate as the environment's do."""

    env: PlantEnv

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        limit = torch.from_numpy(self.env.action_limit).to(action.dtype)
        return self.env.plant.step(state, action.clamp(-limit, limit))


def plant_dynamics(env: gymnasium.Env[Any, Any]) -> PlainDynamics:
    """Return the true dynamics of one of this package's plants, without the noise of its observations.

    Raises `ConfigurationError` for another environment, and for a plant whose state is not what a learner sees.

    >>> from bayesdyn.envs import CARTPOLE_ID, make
    >>> plant_dynamics(make(CARTPOLE_ID))(torch.zeros(1, 4), torch.zeros(1, 1)).mean.shape
    torch.Size([1, 4])
    """
    inner = env.unwrapped
    if not isinstance(inner, PlantEnv) or inner.plant.observation_names != inner.plant.state_names:
        raise ConfigurationError(
            f"{type(inner).__name__} is no plant whose whole state is observed; give a DecisionTask true dynamics of your own, "
            "with known_dynamics(step)"
        )
    return known_dynamics(_Saturated(inner))


def simulated_decisions(task: Task, starts: int = 50, seed: int = 0, **options: Any) -> DecisionTask:
    """Return the decisions of a preset whose plant is known: its planner, reward and draws, from start states of the environment.

    `options` are further ones of `DecisionTask`, such as `objectives`, or others than the preset's. Raises what `plant_dynamics`
    raises.

    >>> from bayesdyn import presets
    >>> found = simulated_decisions(presets.icem("bayesdyn/CartPoleSwingUp-v0"), starts=3)
    >>> found.starts.shape, found.planner.horizon
    (torch.Size([3, 4]), 12)
    """
    env = task.make_env()
    truth = plant_dynamics(env)
    states = [torch.from_numpy(env.reset(seed=seed + number)[1]["state"]) for number in range(starts)]
    limit = env.unwrapped.action_limit  # type: ignore[attr-defined]
    made = DecisionTask(
        truth,
        task.reward,
        Box.of((-limit).tolist(), limit.tolist()),
        torch.stack(states),
        task.planner,
        termination=task.environment.termination,
        discount=task.discount,
        draws=task.draws,
        particles=task.particles,
        propagations={type(task.propagation).__name__: task.propagation},
    )
    return replace(made, **options)
