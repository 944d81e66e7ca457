"""`Concatenated`: the draws of several functions as one function."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.functions import Function


class Concatenated(Function):
    """The draws of `parts`, one after another: what a posterior with K stored weight sets returns when K does not divide n.

    Raises `ConfigurationError` without parts and `ShapeError` when their D or E differ.
    """

    def __init__(self, parts: Sequence[Function]) -> None:
        if not parts:
            raise ConfigurationError("Concatenated wants at least one function; got none")
        sizes = {(part.inputs, part.outputs) for part in parts}
        if len(sizes) > 1:
            raise ShapeError(f"the functions differ in their (inputs, outputs): {sorted(sizes)}")
        self.parts = tuple(parts)
        self.n = sum(part.n for part in parts)
        self.inputs, self.outputs = parts[0].inputs, parts[0].outputs

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x, [n or 1, ..., D] -> [n, ..., E]."""
        self.check_inputs(x)
        rows = x.split([part.n for part in self.parts]) if x.shape[0] == self.n else [x] * len(self.parts)
        answers = [part(row) for part, row in zip(self.parts, rows, strict=True)]
        return Gaussian(torch.cat([a.mean for a in answers]), torch.cat([a.var for a in answers]))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Concatenated":
        """Return the same draws with their tensors cast or moved."""
        return Concatenated([part.to(dtype=dtype, device=device) for part in self.parts])

    def with_precision(self, precision: torch.dtype) -> "Concatenated":
        """Return the same draws, those of every part computed in `precision`."""
        return Concatenated([part.with_precision(precision) for part in self.parts])
