"""Random numbers of their own for every purpose of one seed."""

import numpy as np
import torch


def stream(*numbers: int) -> int:
    """Return the seed that a seed and the numbers of a purpose give, independent of those of other purposes.

    >>> stream(0, 1) == stream(0, 1), stream(0, 1) == stream(0, 2)
    (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def seeded(*numbers: int) -> torch.Generator:
    """Return a generator of that seed."""
    return torch.Generator().manual_seed(stream(*numbers))
