"""Which rows training never sees: random ones, or whole groups of rows that belong together."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

FEWEST_GROUPS = 5


def choose_held_out(rows: int, count: int, groups: Int[Tensor, " N"] | None, generator: torch.Generator) -> Bool[Tensor, " N"]:
    """Return a mask [N] of `count` random rows or, with `groups`, of whole random groups until there are as many rows.

    Neighbours in time are nearly copies: a row whose neighbours are trained on says little about new data. Of fewer than five
    groups none can be spared; then single rows are held out. At most half of the groups are.

    >>> groups = torch.arange(6).repeat_interleave(2)
    >>> choose_held_out(12, 3, groups, torch.Generator().manual_seed(0)).unflatten(0, (6, 2)).all(1).sum()
    tensor(2)
    """
    held = torch.zeros(rows, dtype=torch.bool)
    if count < 1:
        return held
    names = torch.empty(0) if groups is None else groups.cpu().unique()
    if groups is None or len(names) < FEWEST_GROUPS:
        held[torch.randperm(rows, generator=generator, device=generator.device).cpu()[:count]] = True
        return held
    order = names[torch.randperm(len(names), generator=generator, device=generator.device).cpu()]
    sizes = (groups.cpu().unsqueeze(1) == order).sum(0)
    enough = 1 + int((sizes.cumsum(0) < count).sum())
    return torch.isin(groups.cpu(), order[: min(enough, len(names) // 2)])
