"""What moment matching reads of a Gaussian process with a squared-exponential kernel: basis points, weights, factors."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import NumericalError, ShapeError

BROKEN_BELIEF = (
    "the covariance of a belief is not finite, or has negative eigenvalues beyond rounding: the trajectory has exploded, or the "
    "covariance was not built as one. Look at the belief one step earlier; a shorter horizon or smaller policy parameters keep "
    "early rollouts in range"
)


class Uncertainty(NamedTuple):
    """What the variance of f at points is made of: var f(x) = σf² - |L⁻¹k(x)|² + |R⁻¹k(x)|² = σf² - k(x)ᵀ A k(x).

    `root` L and `reduction` R are lower triangular, `precision` is A = (LLᵀ)⁻¹ - (RRᵀ)⁻¹; an exact Gaussian process has no R.
    """

    root: Float[Tensor, "E N N"]
    precision: Float[Tensor, "E N N"]
    reduction: Float[Tensor, "E N N"] | None = None


class GPFactors(NamedTuple):
    """E functions f_e(x) = σf_e² Σ_i β_ei exp(-½ Σ_d (x - x_ei)_d²/ℓ_ed²), and how sure they are; certain without `uncertainty`."""

    points: Float[Tensor, "E N D"]
    lengthscale: Float[Tensor, "E D"]
    signal_var: Float[Tensor, "E"]
    beta: Float[Tensor, "E N"]
    uncertainty: Uncertainty | None = None


def check_factors(factors: GPFactors) -> None:
    """Raise `ShapeError` unless sizes agree."""
    points, lengthscale, signal_var, beta, uncertainty = factors
    outputs, rows, inputs = points.shape
    wanted = {"lengthscale": (outputs, inputs), "signal_var": (outputs,), "beta": (outputs, rows)}
    given = {"lengthscale": lengthscale, "signal_var": signal_var, "beta": beta}
    if uncertainty is not None:
        matrices = {name: matrix for name, matrix in uncertainty._asdict().items() if matrix is not None}
        given |= matrices
        wanted |= dict.fromkeys(matrices, (outputs, rows, rows))
    for name, tensor in given.items():
        if tuple(tensor.shape) != wanted[name]:
            raise ShapeError(
                f"{name} wants shape {list(wanted[name])} for E = {outputs}, N = {rows}, D = {inputs}; got {list(tensor.shape)}"
            )


def belief_cholesky(matrix: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch D D"]:
    """Return chol(I + H) of a belief's scaled covariance H.

    Raises `NumericalError` where it is not finite or not positive definite, that is where the belief is no covariance.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    # Some libraries factorise NaN without complaint.
    if bool(info.any()) or not bool(factor.isfinite().all()):
        raise NumericalError(BROKEN_BELIEF)
    return factor


def lower_pairs(outputs: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a and b of the pairs with a >= b, those with a = b first.

    >>> [t.tolist() for t in lower_pairs(2, torch.device("cpu"))]
    [[0, 1, 1], [0, 1, 0]]
    """
    same = torch.arange(outputs, device=device)
    row, column = torch.tril_indices(outputs, outputs, -1, device=device)
    return torch.cat([same, row]), torch.cat([same, column])
