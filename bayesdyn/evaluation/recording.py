"""A planner that remembers its best candidates, whatever planner it is."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import NotFittedError
from bayesdyn.planners import ActionSpace, Budget, Evaluate, Plan, Planner, WarmStart


class Recording(Planner):
    """Plans as another planner does, and keeps the `count` best candidates that it scored in its last plan, or all if fewer.

    >>> from bayesdyn.planners import Box, RandomShooting
    >>> recording = Recording(RandomShooting(horizon=2, candidates=20), 3)
    >>> plan = recording.plan(lambda a: a.sum((0, 3)), recording.start(Box.of([-1.0], [1.0])), torch.Generator().manual_seed(0))
    >>> recording.elites.shape, bool((recording.elites[:, :, 0] == plan.best).all())
    (torch.Size([2, 1, 3, 1]), True)
    """

    def __init__(self, planner: Planner, count: int) -> None:
        self.planner, self.count = planner, count
        self.horizon, self.repeat_last = planner.horizon, planner.repeat_last
        self._kept: tuple[Tensor, Tensor] | None = None

    @property
    def elites(self) -> Float[Tensor, "T B k A"]:
        """The best candidates of the last plan, best first; raises `NotFittedError` before the first."""
        if self._kept is None:
            raise NotFittedError("plan before you ask for the best candidates")
        return self._kept[0]

    def accept(self, space: ActionSpace) -> None:
        """Take what the planner takes."""
        self.planner.accept(space)

    def start(self, space: ActionSpace, batch: int = 1) -> WarmStart:
        """Start as the planner does."""
        return self.planner.start(space, batch)

    def plan(
        self,
        evaluate: Evaluate,
        warm_start: WarmStart,
        generator: torch.Generator | None = None,
        budget: Budget | None = None,
    ) -> Plan:
        """Plan as the planner does."""
        self._kept = None

        def remembered(actions: Tensor) -> Tensor:
            scores = evaluate(actions)
            self._keep(actions.detach(), scores.detach())
            return scores

        return self.planner.plan(remembered, warm_start, generator, budget)

    def shift(self, warm_start: WarmStart, steps: int = 1) -> WarmStart:
        """Move on as the planner does."""
        return self.planner.shift(warm_start, steps)

    def _keep(self, actions: Float[Tensor, "T B c A"], scores: Float[Tensor, "B c"]) -> None:
        scores = torch.where(scores.isfinite(), scores, -torch.inf)
        if self._kept is not None:
            actions, scores = torch.cat([self._kept[0], actions], 2), torch.cat([self._kept[1], scores], 1)
        top, index = scores.topk(min(self.count, scores.shape[1]), 1)
        wide = index[None, :, :, None].expand(len(actions), *index.shape, actions.shape[-1])
        self._kept = actions.gather(2, wide), top
