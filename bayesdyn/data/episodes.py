"""One trajectory of a system: `Episode`."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bayesdyn.data.checks import check_finite, check_shape, to_column, to_float64
from bayesdyn.errors import DataError


@dataclass(frozen=True, eq=False)
class Episode:
    """One trajectory: `actions[t]` leads from `states[t]` to `states[t + 1]` and earns `rewards[t]`.

    `terminated` says that the system ended it (a fall, a goal), rather than a time limit. Raises `ShapeError` for shapes that
    don't agree and `DataError` for no steps or non-finite values.

    >>> episode = Episode.from_arrays([[0.0], [1.0], [3.0]], [[1.0], [2.0]])
    >>> len(episode), episode.states.shape
    (2, torch.Size([3, 1]))
    """

    # Shapes are checked below, with errors of our own, not only where the tests check annotations.
    states: Float[Tensor, "..."]  # [T + 1, S]
    actions: Float[Tensor, "..."]  # [T, A]
    rewards: Float[Tensor, "..."] | None = None  # [T]
    terminated: bool = False

    def __post_init__(self) -> None:
        check_shape("states", self.states, ("T + 1", "S"))
        check_shape("actions", self.actions, (self.states.shape[0] - 1, "A"))
        if len(self) < 1 or self.states.shape[1] < 1:
            raise DataError(f"an episode wants at least one step of at least one state; got states {list(self.states.shape)}")
        check_finite("states", self.states)
        check_finite("actions", self.actions)
        if self.rewards is not None:
            check_shape("rewards", self.rewards, (len(self),))
            check_finite("rewards", self.rewards)

    @classmethod
    def from_arrays(cls, states: Any, actions: Any, rewards: Any = None, terminated: bool = False) -> "Episode":
        """Return the episode of states [T + 1, S], actions [T, A] or [T] and rewards [T]: arrays or tensors, copied to float64."""
        reward = None if rewards is None else to_float64("rewards", rewards)
        return cls(to_float64("states", states), to_column("actions", actions), reward, terminated)

    def __len__(self) -> int:
        """Return the number of steps T."""
        return self.actions.shape[0]
