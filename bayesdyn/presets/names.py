"""Names that people type: posteriors by name, and a look-up that says what was meant."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from bayesdyn.errors import UnknownNameError
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
    SparseGP,
)

Named = TypeVar("Named")

posteriors: dict[str, Callable[[], Posterior]] = {
    "gp": ExactGP,
    "sparse-gp": SparseGP,
    "ensemble": BootstrapEnsemble,
    "mean-field": MeanField,
    "mc-dropout": MCDropout,
    "concrete-dropout": ConcreteDropout,
    "laplace": Laplace,
    "swag": SWAG,
    "sghmc": SGHMC,
    "nuts": NUTS,
    "maximum-likelihood": MaximumLikelihood,
}
"""Posteriors by the names of the command line; each call makes an unfitted one with the defaults of its class."""


def find(what: str, name: str, known: Mapping[str, Named]) -> Named:
    """Look a name up; raises `UnknownNameError` that lists the known names and suggests the nearest.

    >>> find("posterior", "gpp", {"gp": 1})
    Traceback (most recent call last):
    ...
    bayesdyn.errors.UnknownNameError: there is no posterior 'gpp'; did you mean 'gp'? Known: gp
    """
    if name not in known:
        raise UnknownNameError.among(what, name, known)
    return known[name]
