"""A sampler whose θ can be read off its trajectories: s' = s + θa, θ ~ N(0, 1)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import bayesdyn as bd


class Gains:
    """s' = s + θ a + √var ε with θ ~ N(0, 1) for each draw; counts its calls."""

    def __init__(self, var: float = 0.0) -> None:
        self.var, self.calls, self.drawn = var, 0, 0

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> bd.PlainDynamics:
        theta = torch.randn(n, 1, 1, generator=generator, dtype=dtype)
        self.drawn += n

        def step(state: Tensor, action: Tensor) -> bd.Gaussian:
            assert state.shape[0] in (1, n)
            assert state.dtype == action.dtype == dtype
            self.calls += 1
            mean = state + theta * action
            return bd.Gaussian(mean, torch.full_like(mean, self.var))

        return bd.PlainDynamics(step, n)


class Plant:
    """A known plant as a sampler."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.step = step

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> bd.PlainDynamics:
        def move(state: Tensor, action: Tensor) -> bd.Gaussian:
            after = self.step(state, action)
            return bd.Gaussian(after, torch.zeros_like(after))

        return bd.PlainDynamics(move)


def nearness(state: Tensor, action: Tensor, following: Tensor) -> Tensor:
    """Reward: how near to the origin the step ends."""
    return -following[..., 0].abs()


def at_origin(count: int, generator: torch.Generator) -> Tensor:
    """First states at 0."""
    return torch.zeros(count, 1)


def options(**given: Any) -> dict[str, Any]:
    """Return keyword arguments of an imagined environment of `Gains`."""
    import gymnasium

    force = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    return {
        "model": Gains(),
        "reward": nearness,
        "start_states": at_origin,
        "action_space": force,
        "horizon": 5,
        **given,
    }
