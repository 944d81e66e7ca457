"""All or nothing: a posterior whose fit or append is cut short stays what it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def unchanged_unless_done(module: nn.Module) -> Iterator[None]:
    """Put the module's buffers back if the block raises, be it an interrupt: buffers are replaced, never written into.

    >>> import torch
    >>> module = torch.nn.BatchNorm1d(1)
    >>> try:
    ...     with unchanged_unless_done(module):
    ...         module.running_mean = torch.ones(1)
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt:
    ...     module.running_mean.item()
    0.0
    """
    before = dict(module._buffers)
    try:
        yield
    except BaseException:
        module._buffers.update(before)
        raise
