"""Posterior variances as differences of larger numbers: told from a breakdown, and kept positive."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import NumericalError

_FLOOR = 1e-12


def positive_variance(var: Float[Tensor, "E N"], prior: Float[Tensor, "E N"], rounding: float, cause: str) -> Float[Tensor, "E N"]:
    """Return max(var, 1e-12 · prior), NaN where var is not finite, since one bad row must not cost the others their answer.

    Raises `NumericalError` with the cause if a finite variance is below -rounding · prior.

    >>> positive_variance(torch.tensor([[0.5, torch.nan]]), torch.ones(1, 2), 1e-8, "too few digits").tolist()
    [[0.5, nan]]
    """
    finite = var.isfinite()
    if bool((finite & (var < -rounding * prior)).any()):
        share = (var / prior)[finite].min().item()
        raise NumericalError(f"a posterior variance is {share:.1e} of the prior variance; {cause}")
    return torch.where(finite, torch.maximum(var, _FLOOR * prior), torch.nan)
