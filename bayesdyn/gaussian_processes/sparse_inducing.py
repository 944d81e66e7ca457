"""Where sparse training starts: hyper-parameters from a few hundred rows, inducing points spread greedily over the data."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.gaussian_processes.starts import cold_starts
from bayesdyn.gaussian_processes.training import GPTraining, Hyperparameters, train
from bayesdyn.kernels import Kernel, KernelParameters, covariance, prior_variance
from bayesdyn.progress import Progress

_CANDIDATES = 5000


class SparseStart(NamedTuple):
    """Hyper-parameters and inducing points [E, M, D] to start from, and the evaluations that finding them took."""

    values: Hyperparameters
    points: Float[Tensor, "E M D"]
    steps: int
    curves: dict[str, tuple[float, ...]]


def canonical_rows(x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N E"]]:
    """Return the rows in float64, sorted by their values, so that no result depends on the order in which they came."""
    columns = torch.cat([x, y.to(x)], 1).detach().double()
    order = torch.as_tensor(np.lexsort(columns.cpu().numpy().T), device=x.device)
    columns = columns[order]
    return columns[:, : x.shape[1]], columns[:, x.shape[1] :]


def spread_rows(rows: int, count: int) -> Tensor:
    """Return at most `count` row numbers, evenly spaced from the first to the last; of sorted rows, they are a stratified sample.

    >>> spread_rows(5, 3)
    tensor([0, 2, 4])
    """
    return torch.linspace(0, rows - 1, min(rows, count), dtype=torch.float64).round().long()


def greedy_subset(kernel: Kernel, parameters: KernelParameters, x: Float[Tensor, "N D"], count: int) -> Float[Tensor, "E M D"]:
    """Return `count` rows of x per output, each the one of largest posterior variance given those before it.

    This is a pivoted Cholesky decomposition of k(x, x), which makes tr(K - Q), the slack of the collapsed bound, fall fastest row
    by row (Burt et al. 2020, "Convergence of sparse variational inference", section 4). O(N M²) time, O(N M) memory.

    >>> from bayesdyn.kernels import RBF
    >>> x = torch.tensor([[0.0], [0.1], [2.0]], dtype=torch.float64)
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> greedy_subset(RBF(), KernelParameters(one[None], one, 0 * one), x, 2)[0, :, 0].tolist()
    [0.0, 2.0]
    """
    outputs, rows = parameters.signal_var.shape[0], x.shape[0]
    chosen = x.new_empty(outputs, count, x.shape[1])
    for output in range(outputs):
        own = KernelParameters(*(t[output : output + 1] for t in parameters))
        residual = prior_variance(own, x)[0].clone()
        factor = x.new_zeros(count, rows)
        for step in range(count):
            pivot = int(residual.argmax())
            chosen[output, step] = x[pivot]
            column = covariance(kernel, own, x[pivot : pivot + 1], x)[0, 0] - factor[:step, pivot] @ factor[:step]
            factor[step] = column / residual[pivot].clamp_min(1e-12).sqrt()
            residual = residual - factor[step].square()
            # Below rounding, all that is left is noise; a row must not be chosen twice.
            residual[pivot] = -torch.inf
    return chosen


def choose_points(kernel: Kernel, parameters: KernelParameters, x: Float[Tensor, "N D"], count: int) -> Float[Tensor, "E M D"]:
    """Return min(count, distinct rows) inducing points per output, greedily among at most 5,000 distinct rows of x."""
    distinct = torch.unique(x, dim=0)
    candidates = distinct[spread_rows(distinct.shape[0], max(_CANDIDATES, count))]
    return greedy_subset(kernel, parameters, candidates, min(count, distinct.shape[0]))


def cold_start(
    kernel: Kernel,
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "N E"],
    count: int,
    rows: int,
    training: GPTraining,
    progress: Progress | None = None,
) -> SparseStart:
    """Fit an exact GP to at most `rows` rows, spread evenly over the sorted data, and choose the inducing points under it.

    Raises `NumericalError` if no start of the exact GP can be evaluated.
    """
    chosen = spread_rows(x.shape[0], rows).to(x.device)
    starts = cold_starts(x[chosen], y[chosen], training)
    result = train(kernel, x[chosen], y[chosen], starts, training, progress)
    curves = {f"warm-up, {name}": curve for name, curve in result.curves.items()}
    return SparseStart(result.values, choose_points(kernel, result.values.kernel, x, count), result.steps, curves)
