"""Parts that ask a posterior more than its scores: the toy with known noise, and learning from rows that it asks for."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.errors import DataError
from bayesdyn.evaluation.active_learning import ActiveLearning, active_learning_rows
from bayesdyn.evaluation.candidates import Candidate
from bayesdyn.evaluation.disentanglement import Disentanglement, disentanglement_rows
from bayesdyn.evaluation.parts import Findings, Part, hashed, options
from bayesdyn.evaluation.table import IN_DISTRIBUTION, Row
from bayesdyn.evaluation.toy_picture import toy_picture
from bayesdyn.evaluation.workers import Tell


@dataclass(frozen=True)
class Toy(Part):
    """Are the two parts of the variance what they say (`disentanglement_rows`)? With the arrays of a picture under `toy`."""

    settings: Disentanglement
    name = "toy"

    def fingerprint(self, candidate: Candidate) -> str:
        """Return a hash of the settings and the posterior's options; the data of a comparison do not matter."""
        assert candidate.posterior is not None
        return hashed({"toy": self.settings, "options": options(candidate.posterior())})

    def row(self, candidate: Candidate, seed: int) -> Row:
        """Return the row of the fits."""
        return Row(candidate.name, "noisy-sine", IN_DISTRIBUTION, seed, self.name, "failed", count=self.settings.rows)

    def ask(self, candidate: Candidate, seed: int, tell: Tell) -> Findings:
        """Fit the toy at all its sizes."""
        assert candidate.posterior is not None
        tell(self.name, 0, 1)
        found = Findings()
        found.add(disentanglement_rows(candidate.posterior, candidate.name, seed, self.settings))
        found.add((), toy_picture(candidate.posterior, seed, self.settings), self.name)
        return found


@dataclass(frozen=True, eq=False)
class AskedRows(Part):
    """What is it worth to learn from the rows that the model asks for (`active_learning_rows`)? The training data are the pool.

    Raises `DataError` for a pool that is smaller than the largest set of rows.
    """

    settings: ActiveLearning
    data: str
    pool: Transitions
    test: Transitions
    codec: Callable[[], BaseCodec]
    name = "active-learning"

    def __post_init__(self) -> None:
        if len(self.pool) < self.settings.sizes[-1]:
            raise DataError(
                f"active learning wants a pool of at least {self.settings.sizes[-1]} rows; the training data have "
                f"{len(self.pool)}: bring more, or ask for fewer rounds"
            )

    def fingerprint(self, candidate: Candidate) -> str:
        """Return a hash of settings, data and the candidate's options."""
        codec = self.codec()
        return hashed([self.settings, self.data, options(codec, candidate.model(codec))], [self.pool, self.test])

    def row(self, candidate: Candidate, seed: int) -> Row:
        """Return the row of the fits."""
        return Row(candidate.name, self.data, IN_DISTRIBUTION, seed, self.name, "failed", count=self.settings.sizes[-1])

    def ask(self, candidate: Candidate, seed: int, tell: Tell) -> Findings:
        """Run every acquisition."""
        tell(self.name, 0, 1)
        found, row = Findings(), replace(self.row(candidate, seed), metric="")
        found.add(active_learning_rows(candidate.model, self.codec, self.pool, self.test, row, self.settings))
        return found
