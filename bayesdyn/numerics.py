"""Numbers done once for all: random ones without torch's global state, and the spread of data told from rounding."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The mean of a constant column is off by a few units in the last place, and so are its deviations from it.
_ROUNDING = 64


class Spread(NamedTuple):
    """Mean and population standard deviation of each column, in float64, and which columns are constant up to rounding."""

    mean: Float[Tensor, "F"]
    std: Float[Tensor, "F"]
    constant: Bool[Tensor, "F"]


def fresh_generator(device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded by the system, for calls that are given none: torch's global random state stays as it is.

    >>> fresh_generator().initial_seed() != fresh_generator().initial_seed()
    True
    """
    generator = torch.Generator(device)
    generator.seed()
    return generator


def private_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return a generator for one piece of work, seeded by one number of `generator`, or by the system without one.

    So the caller's generator moves by one number, however many the work took (which, for a plan, another environment of the batch
    may have caused), and torch's global random state stays as it is.

    >>> private_generator(torch.Generator().manual_seed(0)).initial_seed() == private_generator(None).initial_seed()
    False
    """
    if generator is None:
        return fresh_generator()
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return torch.Generator(generator.device).manual_seed(int(seed))


def spread(values: Float[Tensor, "N F"], size: Float[Tensor, "F"] | None = None, least: float = 0.0) -> Spread:
    """Return mean, std = √(1/N Σ(v - mean)²), and constant = (std <= share · size), computed in float64 whatever the dtype.

    `size` is how large the numbers are that the values were made of, by default each column's largest magnitude; `share` is 64
    roundings of the values' dtype, or `least` where that is more. The std of a constant column is returned as it is.

    >>> spread(torch.tensor([[1e6, 0.1], [1e6 + 1, 0.1], [1e6 + 2, 0.1]], dtype=torch.float64)).constant.tolist()
    [False, True]
    """
    exact = values.detach().double()
    mean, std = exact.mean(0), exact.std(0, correction=0)
    magnitude = exact.abs().amax(0) if size is None else size.double()
    share = max(least, _ROUNDING * torch.finfo(values.dtype).eps)
    return Spread(mean, std, std <= share * magnitude)
