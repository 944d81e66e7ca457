"""The posteriors that `compare` lines up, every setting of theirs in one place: `line_up`, `usual_names`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bayesdyn.errors import UnknownNameError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.kernels import RBF, Kernel, RBFLinear
from bayesdyn.networks import Homoscedastic, Training
from bayesdyn.posteriors import (
    NUTS,
    SGHMC,
    SWAG,
    BootstrapEnsemble,
    ConcreteDropout,
    ExactGP,
    Laplace,
    MaximumLikelihood,
    MCDropout,
    MeanField,
    Posterior,
    SGHMCSampling,
    SparseGP,
    VariationalTraining,
)
from bayesdyn.posteriors.laplace_evidence import Evidence

HIDDEN, ACTIVATION, NOISE = (32, 32), "silu", Homoscedastic()
_NETWORK: dict[str, Any] = {"hidden": HIDDEN, "activation": ACTIVATION, "noise": NOISE}
# Scores no longer change after 20 steps of one search, and a length-scale a hundred times the data's std is as good as infinite.
_GP = GPTraining(lengthscale=(0.05, 100.0), lengthscale_ratio=100.0, max_steps=40, restarts=0)
# N³ per step of an exact fit: above this many rows the Gaussian process of the line-up is the sparse one.
EXACT_ROWS = 2000

Makers = Mapping[str, Callable[[], Posterior]]


def line_up(names: Sequence[str] | None = None, *, rows: int, lagged: bool = False) -> Makers:
    """Return how each posterior is made, by name, unfitted; by default the eight of `usual_names` for so many training rows.

    All networks have one body, two layers of 32 SiLU units, and one noise head, a variance per output; the rest is each method's
    default, cut where a fit to the quarter-drone's 1,400 rows took more than a minute of one core (the mean field's steps,
    Laplace's rounds of evidence, the chains' steps). Body and head were chosen for all alike, from two of each, by the nll of
    held-out multisine (train 0-55 s, look at 55-70 s); nothing was tuned on test data.

    "nuts", a reference for small data, keeps the small network of its own. Lagged data need the linear part of the kernel: an RBF
    alone falls back to no change away from the data.

    Raises `UnknownNameError` for another name.

    >>> list(line_up(rows=1000))
    ['gp', 'ensemble', 'mean-field', 'mc-dropout', 'concrete-dropout', 'laplace', 'swag', 'sghmc']
    """
    known = _known(RBFLinear() if lagged else RBF())
    for name in names or ():
        if name not in known:
            raise UnknownNameError.among("posterior", name, known)
    return {name: known[name] for name in names or usual_names(rows)}


def usual_names(rows: int) -> tuple[str, ...]:
    """Return the eight that are compared unless others are asked for; the Gaussian process is sparse above 2,000 rows.

    >>> usual_names(5000)[0]
    'sparse-gp'
    """
    gp = "gp" if rows <= EXACT_ROWS else "sparse-gp"
    return (gp, "ensemble", "mean-field", "mc-dropout", "concrete-dropout", "laplace", "swag", "sghmc")


def _known(kernel: Kernel) -> dict[str, Callable[[], Posterior]]:
    return {
        "gp": lambda: ExactGP(kernel, training=_GP),
        "sparse-gp": lambda: SparseGP(kernel, training=_GP),
        "ensemble": lambda: BootstrapEnsemble(**_NETWORK),
        "mean-field": lambda: MeanField(**_NETWORK, training=VariationalTraining(steps=4000)),
        "mc-dropout": lambda: MCDropout(**_NETWORK),
        "concrete-dropout": lambda: ConcreteDropout(**_NETWORK),
        "laplace": lambda: Laplace(**_NETWORK, evidence=Evidence(rounds=2)),
        "swag": lambda: SWAG(**_NETWORK),
        "sghmc": lambda: SGHMC(**_NETWORK, sampling=SGHMCSampling(steps=3000, burn_in=1000)),
        "nuts": NUTS,
        "maximum-likelihood": lambda: MaximumLikelihood(**_NETWORK, training=Training()),
    }
