"""What is compared, by name: posteriors in a dynamics model, and the references that every comparison has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bayesdyn.codec import BaseCodec
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation.baselines import Persistence, RidgeLinear
from bayesdyn.evaluation.scoring import Model
from bayesdyn.model import DynamicsModel
from bayesdyn.posteriors import Recalibrated
from bayesdyn.posteriors.base import Posterior

REFERENCES = ("ridge-linear", "persistence")


@dataclass(frozen=True)
class Candidate:
    """A name, and how an unfitted posterior is made; None for persistence, which has no posterior, only a forecast.

    >>> from bayesdyn.codec import Codec
    >>> Candidate("ridge-linear", RidgeLinear).model(Codec()).posterior.penalty
    0.001
    """

    name: str
    posterior: Callable[[], Posterior] | None

    def model(self, codec: BaseCodec) -> Model:
        """Make an unfitted model."""
        return Persistence(codec) if self.posterior is None else DynamicsModel(codec, self.posterior())

    def recalibrated(self, codec: BaseCodec) -> DynamicsModel | None:
        """Make one that `calibrate` can make wider or narrower after the fit, None where there is no posterior."""
        return None if self.posterior is None else DynamicsModel(codec, Recalibrated(self.posterior()))


def candidates(posteriors: Mapping[str, Callable[[], Posterior]], references: bool) -> tuple[Candidate, ...]:
    """Return all that are compared, references last.

    Raises `ConfigurationError` for no posteriors, and for one that has the name of a reference.

    >>> [candidate.name for candidate in candidates({"ridge": RidgeLinear}, references=True)]
    ['ridge', 'ridge-linear', 'persistence']
    """
    if not posteriors:
        raise ConfigurationError("compare wants at least one posterior, as a name and a callable that makes it")
    found = [Candidate(name, make) for name, make in posteriors.items()]
    if references:
        clash = set(posteriors) & set(REFERENCES)
        if clash:
            raise ConfigurationError(f"{sorted(clash)} name references; rename those posteriors or set references=False")
        found += [Candidate(REFERENCES[0], RidgeLinear), Candidate(REFERENCES[1], None)]
    return tuple(found)
