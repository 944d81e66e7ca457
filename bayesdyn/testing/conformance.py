"""What every conformance check shares: a contract is a list of small functions, each stating one property in its docstring."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import jaxtyping
import numpy as np
import torch
from torch import Tensor

from bayesdyn.errors import BayesdynError

Case = TypeVar("Case")


class ConformanceError(BayesdynError, AssertionError):
    """An object breaks an item of its contract: `item` is the item's name, the message says what came and what was wanted."""

    def __init__(self, item: str, message: str) -> None:
        super().__init__(message)
        self.item = item


def check_contract(subject: str, contract: Sequence[Callable[[Case], None]], case: Case) -> None:
    """Run the items of a contract in order and raise `ConformanceError` at the first that fails, whatever the failure was."""
    with torch.random.fork_rng(devices=[]):
        for item in contract:
            name = getattr(item, "__name__", str(item))
            try:
                item(case)
            except Exception as error:
                came = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
                promise = (item.__doc__ or "").strip().splitlines()[0]
                raise ConformanceError(name, f"{subject} breaks '{name}': {came}\nThe contract: {promise}") from error


def require(holds: bool | Tensor, came: str, wanted: str) -> None:
    """Raise `AssertionError` with what came and what was wanted unless the property holds."""
    if not bool(holds):
        raise AssertionError(f"got {came}; wanted {wanted}")


def require_same(a: Tensor, b: Tensor, what: str) -> None:
    """Require two tensors to be equal bit for bit."""
    require(a.shape == b.shape, f"{what} of shape {list(a.shape)} and {list(b.shape)}", "one shape")
    gap = (a - b).abs().max()
    require(torch.equal(a, b), f"{what} that differ by up to {gap:.3g}", "the same answer, bit for bit")


def require_close(a: Tensor, b: Tensor, what: str) -> None:
    """Require two ways of one computation to agree: rounding may cost half of the digits, √eps of the largest value."""
    require(a.shape == b.shape, f"{what} of shape {list(a.shape)} and {list(b.shape)}", "one shape")
    tolerance = torch.finfo(a.dtype).eps ** 0.5 * torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1.0)
    gap = (a - b).abs().max()
    require(gap <= tolerance, f"{what} that differ by {gap:.3g}", f"at most {tolerance:.3g}, half the digits of {a.dtype}")


def generator(seed: int = 0) -> torch.Generator:
    """Return a CPU generator with this seed."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def global_randomness_untouched(what: str) -> Iterator[None]:
    """Require that the block leaves the global random states of torch and NumPy as they were."""
    before, numpy_before = torch.get_rng_state(), _numpy_state()
    yield
    require(torch.equal(before, torch.get_rng_state()), f"{what} that moved torch's global random state", "it left alone")
    require(numpy_before == _numpy_state(), f"{what} that moved NumPy's global random state", "it left alone")


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (the legacy state is the one that must not move)
    return state["key"].tobytes(), state["pos"]


@contextmanager
def shape_checks_off() -> Iterator[None]:
    """Switch jaxtyping's run-time checks off, so that wrong shapes meet the errors that users meet in production."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
