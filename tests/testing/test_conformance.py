"""Every posterior of the package keeps the contract; a new one adds a row."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch

from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import RBFLinear
from bayesdyn.networks.noise import OutOfBag
from bayesdyn.networks.training import Training
from bayesdyn.posteriors.base import Posterior
from bayesdyn.posteriors.ensemble import BootstrapEnsemble
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.testing import check_posterior

SINGLE, DOUBLE = torch.float32, torch.float64
SHORT = Training(steps=200, warm_steps=50)


class Row(NamedTuple):
    """A posterior, the dtypes of its data, of which all but the first are left to the slow tests, and what its author states."""

    make: Callable[[], Posterior]
    dtypes: tuple[torch.dtype, ...] = (DOUBLE, SINGLE)
    stated: Mapping[str, object] = MappingProxyType({})


ROWS = {
    # 512 random features: the std of a path is 5 % off, RMS over inputs (test_pathwise.py).
    "exact GP": Row(ExactGP, stated={"rows": 40, "feature_error": 0.05}),
    "exact GP in float32": Row(lambda: ExactGP(dtype=SINGLE), (SINGLE,), {"rows": 40, "feature_error": 0.05, "compiles": False}),
    # One optimiser step: what is left is linear algebra, which the order of the rows must not change.
    "exact GP, one step": Row(
        lambda: ExactGP(RBFLinear(), training=GPTraining(max_steps=1, restarts=0)),
        (DOUBLE,),
        {"rows": 40, "feature_error": 0.05, "exact_fit": True, "compiles": False},
    ),
    "ensemble": Row(lambda: BootstrapEnsemble(hidden=(32, 32), training=SHORT), (SINGLE, DOUBLE), {"exact_predict": True}),
    "ensemble, noise out of bag": Row(
        lambda: BootstrapEnsemble(members=4, hidden=(32, 32), noise=OutOfBag(), training=SHORT), (SINGLE,), {"exact_predict": True}
    ),
}


QUICK = [(name, row.dtypes[0]) for name, row in ROWS.items()]
SLOW = [pytest.param(name, dtype, marks=pytest.mark.slow) for name, row in ROWS.items() for dtype in row.dtypes[1:]]


@pytest.mark.parametrize(("name", "dtype"), [*QUICK, *SLOW])
@pytest.mark.usefixtures("unchecked_fits")
def test_posterior_keeps_the_contract(name: str, dtype: torch.dtype) -> None:
    row = ROWS[name]
    check_posterior(row.make, dtype=dtype, **row.stated)
