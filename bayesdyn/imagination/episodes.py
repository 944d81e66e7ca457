"""Many imagined episodes at once, each in a world of its own: what the Gymnasium environments step through."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.imagination.worlds import Worlds


class Lived(NamedTuple):
    """One step of all B episodes."""

    state: Float[Tensor, "B S"]
    reward: Float[Tensor, "B"]
    terminated: Bool[Tensor, "B"]
    truncated: Bool[Tensor, "B"]
    finite: Bool[Tensor, "B"]


class Episodes:
    """B imagined episodes of at most `horizon` steps; each keeps its θ from its start to its end.

    Episodes that start together share the draws at hand evenly, and where all B do, the draws are new; an episode that starts
    while others run takes one of those at hand at random.
    """

    def __init__(self, worlds: Worlds, count: int, horizon: int) -> None:
        if min(count, horizon) < 1:
            raise ConfigurationError(f"imagined episodes want a number of them and a horizon >= 1; got {count} and {horizon}")
        self.worlds, self.count, self.horizon = worlds, count, horizon
        self.state = torch.empty(count, 0)
        self._index = torch.zeros(count, dtype=torch.int64)
        self._elapsed = torch.zeros(count, dtype=torch.int64)

    @property
    def draw(self) -> Int[Tensor, "B"]:
        """The number of each episode's θ; different θ have different numbers, until the worlds forget them."""
        return self.worlds.name(self._index)

    def restart(self, which: Bool[Tensor, "B"], generator: torch.Generator) -> None:
        """Begin new episodes in the place of these."""
        started = int(which.sum())
        if started == self.count:
            self.worlds.redraw(generator)
            self._index = self.worlds.deal(started, generator)
            self.state = self.worlds.begin(started, generator)
        else:
            fresh = torch.randint(self.worlds.dynamics.n, (started,), generator=generator)
            self._index = self._index.masked_scatter(which, fresh)
            self.state = self.state.masked_scatter(which.unsqueeze(-1), self.worlds.begin(started, generator))
        self._elapsed = self._elapsed.masked_fill(which, 0)

    @torch.no_grad()
    def step(self, action: Float[Tensor, "B A"], generator: torch.Generator) -> Lived:
        """Move every episode one step; raises `ShapeError` for another number of actions."""
        if action.dim() != 2 or len(action) != self.count:
            raise ShapeError(f"{self.count} imagined episodes want actions [{self.count}, A]; got {list(action.shape)}")
        moved = self.worlds.step(self.state, action.to(self.worlds.dtype), self._index, generator)
        self.state = moved.state
        self._elapsed = self._elapsed + 1
        truncated = self._elapsed >= self.horizon
        return Lived(moved.state, moved.reward, moved.terminated, truncated, moved.finite)
