"""Done once for all: random numbers without torch's global state, spread told from rounding, memory asked for before it is used."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bayesdyn.errors import ConfigurationError

Module = TypeVar("Module", bound=nn.Module)

# The mean of a constant column is off by a few units in the last place, and so are its deviations from it.
_ROUNDING = 64
# Where Linux says what a container may use; the first is cgroup v2, the second v1.
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


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


def memory_size(device: torch.device | str = "cpu") -> int | None:
    """Return the bytes of memory of a device, for a CPU the machine's or its container's, None where the system does not say.

    >>> memory_size() is None or memory_size() > 2**20
    True
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    found = []
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None
    for name in _CONTAINER_LIMITS:
        try:
            found.append(int(Path(name).read_text(encoding="ascii")))
        except (ValueError, OSError):
            continue
    return min(found)


def check_memory(wanted: int, what: str, instead: str, device: torch.device | str = "cpu") -> None:
    """Raise `ConfigurationError` if `wanted` bytes are more than the device has, before anything is allocated.

    The message says what would take so much and what to do instead. What other programs use at the moment is not counted, so that
    the answer is the same every time.

    >>> check_memory(2**60, "a matrix of 2^57 numbers", "take fewer rows")
    Traceback (most recent call last):
    ...
    bayesdyn.errors.ConfigurationError: a matrix of 2^57 numbers would take 1152921504.6 GB of memory, ...; take fewer rows
    """
    there = memory_size(device)
    if there is not None and wanted > there:
        raise ConfigurationError(
            f"{what} would take {wanted / 1e9:.1f} GB of memory, and there are {there / 1e9:.1f} GB; {instead}"
        )


@contextmanager
def keep_buffers_on_error(module: nn.Module) -> Iterator[None]:
    """Give all buffers of a module and its parts back as they were when the block ends by an exception, Ctrl-C included.

    Buffers must be replaced, never written into.

    >>> layer = nn.BatchNorm1d(1)
    >>> try:
    ...     with keep_buffers_on_error(layer):
    ...         layer.running_mean = torch.ones(1)
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt:
    ...     print(layer.running_mean)
    tensor([0.])
    """
    before = [(part, dict(part._buffers)) for part in module.modules()]
    try:
        yield
    except BaseException:
        for part, buffers in before:
            part._buffers.update(buffers)
        raise


def snapshot(module: Module) -> Module:
    """Return a module that shares the tensors of `module` and keeps them when its buffers are replaced, as `fit` replaces them.

    >>> layer = nn.BatchNorm1d(1)
    >>> before = snapshot(layer)
    >>> layer.running_mean = torch.ones(1)
    >>> before.running_mean
    tensor([0.])
    """
    twin = copy.copy(module)
    twin._buffers, twin._parameters = dict(module._buffers), dict(module._parameters)
    twin._modules = {name: None if part is None else snapshot(part) for name, part in module._modules.items()}
    return twin
