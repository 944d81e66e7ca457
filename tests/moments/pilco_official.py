"""The official numbers and their conventions: derivatives with respect to matrices are flattened column by column."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesdyn.beliefs import Moments

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "pilco"


def official_cases(name: str) -> list[dict[str, Any]]:
    """Return the cases of a golden file."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["cases"]


def numbers(values: Any) -> Tensor:
    """Return stored numbers as float64."""
    return torch.as_tensor(values, dtype=torch.float64)


def flat(matrix: Tensor) -> Tensor:
    """Return the entries of a matrix column by column, or those of a vector as they are."""
    return matrix.mT.reshape(-1) if matrix.dim() == 2 else matrix.reshape(-1)


def slopes(function: Callable[[Tensor], Moments], argument: Tensor, *, covariance: bool = False) -> dict[str, Tensor]:
    """Return the derivatives [outputs, entries] of M, V (cov) and C (gain), those to a covariance `symmetrised`."""
    argument = argument.clone().requires_grad_()
    found = {}
    for letter, values in zip("MVC", function(argument), strict=True):
        rows = []
        # A gain may not depend on the argument at all; the zero puts it on the graph.
        for value in flat(values + 0.0 * argument.sum()):
            (row,) = torch.autograd.grad(value, argument, retain_graph=True)
            rows.append(flat(row))
        found[letter] = symmetrised(torch.stack(rows)) if covariance else torch.stack(rows)
    return found


def symmetrised(rows: Tensor) -> Tensor:
    """Return gradients [outputs, D²] with respect to a covariance as ½(G + Gᵀ): only that part of G has a meaning."""
    matrices = rows.unflatten(-1, [round(rows.shape[-1] ** 0.5)] * 2)
    return (0.5 * (matrices + matrices.mT)).flatten(-2)
