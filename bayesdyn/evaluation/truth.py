"""True dynamics that plans are carried out in: a known step, the plant of a simulated task, and a task's decisions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import torch
from jaxtyping import Float
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
    return known_dynamics(_Saturated(_plant(env)))


def _plant(env: gymnasium.Env[Any, Any]) -> PlantEnv:
    inner = env.unwrapped
    if not isinstance(inner, PlantEnv) or inner.plant.observation_names != inner.plant.state_names:
        raise ConfigurationError(
            f"{type(inner).__name__} is no plant whose whole state is observed; give a DecisionTask true dynamics of your own, "
            "with known_dynamics(step)"
        )
    return inner


def simulated_decisions(task: Task, starts: Float[Tensor, "B S"], **options: Any) -> DecisionTask:
    """Return the decisions of a preset whose plant is known: its planner, reward and draws, from these states.

    Held-out states are good starts: a model is asked where it has seen data, and where there is something to decide. `options` are
    further ones of `DecisionTask`, such as `objectives`, or others than the preset's. Raises what `plant_dynamics` raises.

    >>> from bayesdyn import presets
    >>> found = simulated_decisions(presets.icem("bayesdyn/CartPoleSwingUp-v0"), torch.zeros(3, 4))
    >>> found.space.size, found.planner.horizon
    (1, 12)
    """
    env = _plant(task.make_env())
    limit = env.action_limit
    made = DecisionTask(
        plant_dynamics(env),
        task.reward,
        Box.of((-limit).tolist(), limit.tolist()),
        starts,
        task.planner,
        termination=task.environment.termination,
        discount=task.discount,
        draws=task.draws,
        particles=task.particles,
        propagations={type(task.propagation).__name__: task.propagation},
    )
    return replace(made, **options)
