"""Batched integration of smooth ordinary differential equations: Gragg's extrapolated midpoint rule with a fixed grid."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError

SUBSTEPS = 6
COLUMNS = 7


def integrate(
    derivative: Callable[[Tensor], Tensor],
    state: Float[Tensor, "*batch S"],
    duration: float,
    *,
    substeps: int = SUBSTEPS,
    columns: int = COLUMNS,
) -> Float[Tensor, "*batch S"]:
    r"""Return y(duration) of dy/dt = f(y), y(0) = `state`, by extrapolation of order 2·`columns` on `substeps` equal steps.

    Over one step H the midpoint rule with n_j = 2, 4, ..., 2k inner steps h = H / n_j,
    z_1 = y + h f(y), z_{m+1} = z_{m-1} + 2h f(z_m), ends at T_j = y(H) + c_1 h² + c_2 h⁴ + ..., so that

        y(H) = y + Σ_j w_j (T_j - y) + O(H^{2k+1}),     w_j = Π_{i≠j} n_j² / (n_j² - n_i²).

    The grid is fixed, so a row's answer does not depend on its neighbours and the result is differentiable. All k rules advance
    together: `derivative` is called 2k times per step, on [k or fewer, *batch, S], and has to broadcast over that leading axis.

    `state` is [*batch, S] in any units, `duration` in seconds. Raises `ConfigurationError` unless `substeps`, `columns` >= 1 and
    `duration` is finite. Source: Gragg (1965); Hairer, Nørsett & Wanner, Solving ODEs I, section II.9.

    >>> turned = integrate(lambda y: torch.stack((-y[..., 1], y[..., 0]), -1), torch.tensor([1.0, 0.0]).double(), math.pi)
    >>> bool(torch.allclose(turned, torch.tensor([-1.0, 0.0]).double(), atol=1e-12))
    True
    """
    if substeps < 1 or columns < 1 or not math.isfinite(duration):
        raise ConfigurationError(
            f"integrate wants substeps >= 1, columns >= 1 and a finite duration; got {substeps}, {columns} and {duration}"
        )
    counts = [2 * j for j in range(1, columns + 1)]
    shape = (columns,) + (1,) * state.dim()
    weights = state.new_tensor([_weight(n, counts) for n in counts]).reshape(shape)
    inner = state.new_tensor([duration / (substeps * n) for n in counts]).reshape(shape)
    for _ in range(substeps):
        state = state + (weights * (_midpoint_ends(derivative, state, inner) - state)).sum(0)
    return state


def _weight(n: int, counts: list[int]) -> float:
    return math.prod((n**2 / (n**2 - i**2) for i in counts if i != n), start=1.0)


def _midpoint_ends(derivative: Callable[[Tensor], Tensor], state: Tensor, inner: Tensor) -> Tensor:
    """Return T_j of the k midpoint rules, [k, *batch, S]; a rule leaves the batch at its last inner step."""
    previous = state.expand(inner.shape[0], *state.shape)
    current = state + inner * derivative(state)
    ends: list[Tensor] = []
    done = 1
    while inner.shape[0]:
        previous, current = current, previous + 2 * inner * derivative(current)
        done += 1
        if done % 2 == 0:
            ends.append(current[0])
            previous, current, inner = previous[1:], current[1:], inner[1:]
    return torch.stack(ends)
