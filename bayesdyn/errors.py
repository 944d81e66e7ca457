"""The package's own errors: each says what came, what was wanted and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class BayesdynError(Exception):
    """Base of every error that a user's input or data can cause."""


class ShapeError(BayesdynError, ValueError):
    """A tensor has the wrong number of axes or the wrong size along one."""


class DataError(BayesdynError, ValueError):
    """Data that cannot be learned from: NaN, too few rows, inconsistent lengths."""


class ConfigurationError(BayesdynError, ValueError):
    """An option or a combination of options that has no meaning."""


class UnknownNameError(BayesdynError, LookupError):
    """A name that is not registered; the message lists the known ones."""

    @classmethod
    def among(cls, what: str, name: str, known: Iterable[str]) -> "UnknownNameError":
        """Return the error for a `name` that is none of the `known` ones, with the nearest of them.

        >>> str(UnknownNameError.among("posterior", "gpp", ["gp"]))
        "there is no posterior 'gpp'; did you mean 'gp'? Known: gp"
        """
        names = list(known)
        near = get_close_matches(name, names, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        return cls(f"there is no {what} {name!r};{hint} Known: {', '.join(names)}")


class NotFittedError(BayesdynError, RuntimeError):
    """Something was asked of a model that has seen no data yet."""


class NumericalError(BayesdynError, ArithmeticError):
    """A computation broke down; the message names the likely cause."""


class FileError(BayesdynError, OSError):
    """A file is missing, damaged or of another kind."""


class MissingExtraError(BayesdynError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
