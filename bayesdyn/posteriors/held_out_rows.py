"""What recalibration asks of its data: whole episodes that no fit has seen, and enough of them."""

import torch
from jaxtyping import Int
from torch import Tensor

from bayesdyn.errors import DataError, ShapeError

FEWEST_EPISODES = 5
FEWEST_ROWS = 200
# Odd constants of SplitMix64 (Steele, Lea, Flood 2014), as signed numbers.
_STRIDE, _MIX = -0x61C8864680B583EB, -0x40A7B892E31B1A47


def fingerprints(x: Tensor, y: Tensor) -> Int[Tensor, " N"]:
    """Return a 64-bit number per row of x [N, D] and y [N, E] that equal rows share and others, in practice, do not.

    Rows are compared as float32, so that a cast to double and back, or the last digits of float64, make no other row of one.

    >>> x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])
    >>> one, other, again = fingerprints(x, x[:, :1]).tolist()
    >>> one == again, one == other
    (True, False)
    """
    rows = torch.cat([x, y], 1).detach().cpu().float() + 0.0  # -0 becomes 0
    numbers = rows.contiguous().view(torch.int32).long()
    mixed = torch.zeros(len(rows), dtype=torch.int64)
    for column in numbers.unbind(1):
        mixed = (mixed ^ column) * _MIX + _STRIDE
        mixed = mixed ^ (mixed >> 29)
    return mixed


def check_unseen(x: Tensor, y: Tensor, seen: Int[Tensor, " N"]) -> None:
    """Raise `DataError` for rows x [N, D], y [N, E] among those `seen` in a fit, by their fingerprints.

    >>> x = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    >>> check_unseen(x, x, fingerprints(x, x)[:3])
    Traceback (most recent call last):
    ...
    bayesdyn.errors.DataError: 3 of 20 rows of the calibration set are among those that the model was fitted on; ...
    """
    shared = int(torch.isin(fingerprints(x, y), seen.cpu()).sum())
    if shared:
        raise DataError(
            f"{shared} of {len(x)} rows of the calibration set are among those that the model was fitted on; on these it looks "
            "better than it is: keep whole episodes out of the fit, Transitions.split does that"
        )


def check_held_out(x: Tensor, groups: Tensor) -> None:
    """Raise `DataError` for rows x [N, D] of fewer than 5 episodes or 200 rows, `ShapeError` unless there is a group per row."""
    if groups.shape != x.shape[:1]:
        raise ShapeError(f"calibration wants an episode number for each of {len(x)} rows; got {list(groups.shape)}")
    episodes = len(groups.unique())
    if episodes < FEWEST_EPISODES or len(x) < FEWEST_ROWS:
        raise DataError(
            f"calibration wants at least {FEWEST_EPISODES} episodes and {FEWEST_ROWS} rows, since neighbours in time err alike; "
            f"got {episodes} episodes and {len(x)} rows; collect more, or leave the model as it is"
        )
