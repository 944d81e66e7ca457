"""Cholesky factors that survive near-singular covariances: a jitter ladder, rows added to a factor, triangular inverses."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import NumericalError

# Fractions of the mean diagonal, tried in order. float32 cannot resolve anything below its own rounding, so it starts higher.
_LADDER = {torch.float64: (0.0, 1e-10, 1e-8, 1e-6, 1e-4), torch.float32: (0.0, 1e-6, 1e-4)}


def jittered_cholesky(matrix: Float[Tensor, "*batch N N"]) -> tuple[Float[Tensor, "*batch N N"], Float[Tensor, "*batch"]]:
    """Return L and ε with LLᵀ = A + εI, ε the first of 0, 1e-10, 1e-8, 1e-6, 1e-4 × mean diag A that works for that matrix.

    Matrices of the batch that factorise without jitter get none. float32 tries 0, 1e-6 and 1e-4.

    Raises `NumericalError` if a matrix holds non-finite values or no rung is high enough.

    >>> factor, jitter = jittered_cholesky(torch.ones(2, 2, dtype=torch.float64))
    >>> jitter.item()
    1e-10
    """
    size = matrix.shape[-1]
    mean_diagonal = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
    factor, info = torch.linalg.cholesky_ex(matrix)
    jitter = torch.zeros_like(mean_diagonal)
    if not bool(info.any()):
        return factor, jitter
    if not bool(matrix.isfinite().all()):
        raise NumericalError("a covariance matrix holds non-finite values; look for extreme inputs or parameters")
    ladder = _LADDER.get(matrix.dtype, _LADDER[torch.float32])
    for rung in ladder[1:]:
        failed = info > 0
        jitter = torch.where(failed, rung * mean_diagonal, jitter)
        retry = matrix[failed] + torch.diag_embed(jitter[failed].unsqueeze(-1).expand(-1, size))
        factor, info = factor.clone(), info.clone()
        factor[failed], info[failed] = torch.linalg.cholesky_ex(retry)
        if not bool(info.any()):
            return factor, jitter
    count = int((info > 0).sum())
    raise NumericalError(
        f"{count} of {max(info.numel(), 1)} covariance matrices ({size} x {size}) are not positive definite, even with "
        f"{ladder[-1]:g} of their mean diagonal added"
    )


def add_diagonal(matrix: Float[Tensor, "*batch N N"], value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch N N"]:
    """Return A + value·I as a new tensor, one value per matrix of the batch."""
    result = matrix.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(value.unsqueeze(-1))
    return result


def triangular_inverse(factor: Float[Tensor, "*batch N N"]) -> Float[Tensor, "*batch N N"]:
    """Return L⁻¹ of a lower triangular L."""
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def extend_cholesky(
    factor: Float[Tensor, "*batch N N"],
    inverse: Float[Tensor, "*batch N N"],
    cross: Float[Tensor, "*batch N k"],
    corner: Float[Tensor, "*batch k k"],
) -> tuple[Float[Tensor, "*batch m m"], Float[Tensor, "*batch m m"]]:
    """Return L and L⁻¹ of [[A, B], [Bᵀ, C]] from L11 = chol A and L11⁻¹, B = cross and C = corner, in O(N²k).

    L21 = (L11⁻¹B)ᵀ,  L22 = chol(C - L21 L21ᵀ),  lower left block of L⁻¹ = -L22⁻¹ L21 L11⁻¹.

    Raises `NumericalError` if the extended matrix is not positive definite; no jitter is tried, as it would have to be the same for
    all rows.
    """
    lower = (inverse @ cross).mT
    last, info = torch.linalg.cholesky_ex(corner - lower @ lower.mT)
    if bool(info.any()):
        raise NumericalError("the added rows make the covariance matrix singular")
    last_inverse = triangular_inverse(last)
    size, added = factor.shape[-1], last.shape[-1]
    extended = factor.new_zeros(*factor.shape[:-2], size + added, size + added)
    extended[..., :size, :size] = factor
    extended[..., size:, :size] = lower
    extended[..., size:, size:] = last
    extended_inverse = torch.zeros_like(extended)
    extended_inverse[..., :size, :size] = inverse
    extended_inverse[..., size:, :size] = -last_inverse @ (lower @ inverse)
    extended_inverse[..., size:, size:] = last_inverse
    return extended, extended_inverse
