"""The codec of known physics, in physical units: `IdentityCodec`."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec.base import BaseCodec, BeliefLayout
from bayesdyn.data import Transitions
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError


class IdentityCodec(BaseCodec):
    """The codec of known physics: features are state and action, the target is the next state, all as they are, in physical units.

    x = [s, a],   y = s'

    `angles` are coordinates in radians: their target is the state plus the difference wrapped to (-π, π], so that data may wrap.

    Raises `ConfigurationError` if an index does not exist in the fitted states.

    >>> codec = IdentityCodec(angles=[0])
    >>> codec.raw_target(torch.tensor([[3.0, 1.0]]), torch.tensor([[-3.0, 2.0]]))
    tensor([[3.2832, 2.0000]])
    """

    def __init__(self, angles: Sequence[int] = ()) -> None:
        super().__init__()
        self.angles = list(angles)

    @property
    def outputs(self) -> list[int]:
        """Every state coordinate is predicted."""
        return list(range(int(self.sizes[0])))

    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` if an index lies outside the state."""
        wrong = [i for i in self.angles if not 0 <= i < state_size]
        if wrong:
            raise ConfigurationError(f"IdentityCodec(angles={self.angles}) wants indices from 0 to {state_size - 1}; got {wrong}")

    def fit(self, transitions: Transitions) -> None:
        """Take the sizes from the transitions; there are no statistics, means are 0 and stds 1."""
        self.check(transitions.state_size, transitions.action_size)
        state, action = transitions.state[0], transitions.action[0]
        self.sizes = torch.tensor([transitions.state_size, transitions.action_size])
        self.feature_mean, self.target_mean = torch.zeros_like(torch.cat([state, action])), torch.zeros_like(state)
        self.feature_std, self.target_std = self.feature_mean + 1, self.target_mean + 1

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [state, action]."""
        return torch.cat([state, action], -1)

    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch S"]:
        """Return s', its angles within half a turn of those of s."""
        target = next_state.clone()
        angle = next_state[..., self.angles] - state[..., self.angles]
        target[..., self.angles] -= 2 * math.pi * torch.ceil(angle / (2 * math.pi) - 0.5)
        return target

    def belief_layout(self) -> BeliefLayout:
        """Return state and action as they are, every coordinate absolute."""
        self.check_fitted()
        size, actions = self.sizes.tolist()
        return BeliefLayout(tuple(range(size + actions)), (), tuple(range(size)))

    def assemble(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Return the target as the next state."""
        return target

    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Return the target."""
        return target

    def extra_repr(self) -> str:
        """Return the options, by which a saved model is known."""
        return f"angles={self.angles}"
