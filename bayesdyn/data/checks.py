"""Turning what a user hands over into float64 tensors, with errors that say where the fault is."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdyn.errors import DataError, ShapeError


def to_float64(name: str, values: Any) -> Tensor:
    """Return a float64 copy on the CPU of a tensor, array or nested list; raise `DataError` unless it holds real numbers.

    It is a copy, so that an environment or a reader that reuses its buffer can't change data already recorded.
    """
    if isinstance(values, Tensor):
        return values.detach().to(device="cpu", dtype=torch.float64, copy=True)
    try:
        return torch.from_numpy(np.array(values, dtype=np.float64, order="C"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} has to be numbers in a rectangular array; got {type(values).__name__} ({error})") from error


def to_column(name: str, values: Any) -> Tensor:
    """Return `to_float64`, with one axis [N] made into a column [N, 1]."""
    tensor = to_float64(name, values)
    return tensor.unsqueeze(1) if tensor.dim() == 1 else tensor


def check_finite(name: str, values: Tensor) -> None:
    """Raise `DataError` that counts the NaN and infinite entries of values [N] or [N, D] and says where the first one is.

    >>> check_finite("state", torch.tensor([[0.0, 1.0], [float("nan"), 2.0]]))
    Traceback (most recent call last):
    ...
    bayesdyn.errors.DataError: state has 1 non-finite value(s), the first in row 1, column 0; remove or repair those rows
    """
    broken = ~values.isfinite()
    if bool(broken.any()):
        position = broken.nonzero()[0].tolist()
        where = ", ".join(f"{axis} {index}" for axis, index in zip(("row", "column"), position, strict=False))
        raise DataError(f"{name} has {int(broken.sum())} non-finite value(s), the first in {where}; remove or repair those rows")


def check_shape(name: str, values: Tensor, wanted: tuple[int | str, ...]) -> None:
    """Raise `ShapeError` unless values has the wanted axes; a number fixes a size, a letter leaves it free.

    >>> check_shape("reward", torch.zeros(3, 1), (3,))
    Traceback (most recent call last):
    ...
    bayesdyn.errors.ShapeError: reward has to be of shape [3]; got [3, 1]
    """
    pairs = zip(values.shape, wanted, strict=False)
    if values.dim() != len(wanted) or any(isinstance(want, int) and size != want for size, want in pairs):
        raise ShapeError(f"{name} has to be of shape [{', '.join(map(str, wanted))}]; got {list(values.shape)}")
