"""Rewards and terminations are callables (state, action, next_state) -> [...]; this file names their types."""

from collections.abc import Callable

from torch import Tensor

Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""r(s, a, s'): states [..., S], action [..., A] -> rewards [...]; in a rollout the leading axes are [n, p, *batch]."""

Termination = Callable[[Tensor, Tensor, Tensor], Tensor]
"""done(s, a, s'): True where the episode ends with this step, [...]."""
