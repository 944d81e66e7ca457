"""The one part of moment matching whose cost is quadratic in the number of basis points: sums of expm1(Δ_ij) over all pairs."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# A block of Δ stays in the second-level cache while it is exponentiated and summed.
_BLOCK_ELEMENTS = 48_000
# Of a lower triangle, so many blocks of rows are visited up to their diagonal: 5/8 of the whole matrix for 4.
_TRIANGLE_BLOCKS = 4
_LEAST_ROWS = 24


class PairSums(NamedTuple):
    """For K pairs: rows_ki = Σ_j W_ij E_ij w_j [K, N], columns_kdj = Σ_i v_di W_ij E_ij [K, V, N] where asked for."""

    rows: np.ndarray
    columns: np.ndarray | None


def pair_sums(
    left: np.ndarray,
    right: np.ndarray,
    row_factor: np.ndarray,
    column_factors: np.ndarray | None,
    weight: Tensor | None,
    limit: float | None,
) -> PairSums:
    """Return sums over E_ij = expm1(left_i · right_j) for `left`, `right` [K, N, D + 2], in blocks that stay in cache.

    `row_factor` w [K, N]; `column_factors` v [K, V, N], None for the rows alone; `weight` W [E, N', N'] is that of pair k mod E,
    lower triangular and
    filled up to a multiple of 4, None for ones; `limit` cuts exponents, None where none can pass it. Nothing of size N² is kept.
    """
    count, size, _ = left.shape
    rows = np.empty((count, size), left.dtype)
    columns = None if column_factors is None else np.zeros_like(column_factors)
    first, second, by_row, out_rows = (torch.from_numpy(a) for a in (left, right.swapaxes(-1, -2), row_factor, rows))
    by_column = None if column_factors is None else torch.from_numpy(column_factors)
    out_columns = None if columns is None else torch.from_numpy(columns)
    step = min(size, max(1, _BLOCK_ELEMENTS // size))
    if weight is not None:
        step = min(step, max(_LEAST_ROWS, -(-size // _TRIANGLE_BLOCKS)))
    group = max(1, _BLOCK_ELEMENTS // (step * size))
    group = group if weight is None else min(group, len(weight))
    scratch = torch.empty(group * step * size, dtype=first.dtype)
    start = 0
    while start < count:
        # A group of pairs does not pass the end of the weights, which repeat.
        length = min(group, count - start) if weight is None else min(group, count - start, len(weight) - start % len(weight))
        pairs = slice(start, start + length)
        for top in range(0, size, step):
            block = slice(top, min(top + step, size))
            height, end = block.stop - top, size if weight is None else block.stop
            covered = scratch[: length * height * end].view(length, height, end)
            torch.bmm(first[pairs, block], second[pairs, :, :end], out=covered)
            if limit is not None:
                covered.clamp_max_(limit)
            covered.expm1_()
            if weight is not None:
                covered.mul_(weight[start % len(weight) : start % len(weight) + length, block, :end])
            torch.bmm(by_row[pairs, :end].unsqueeze(-2), covered.mT, out=out_rows[pairs, block].unsqueeze(-2))
            if by_column is not None and out_columns is not None:
                out_columns[pairs, :, :end].baddbmm_(by_column[pairs, :, block], covered)
        start += length
    return PairSums(rows, columns)
