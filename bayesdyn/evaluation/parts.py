"""A comparison is made of cells, one per part, candidate and seed: what a part is, and how its cell is computed."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from bayesdyn.data import Transitions
from bayesdyn.data.describe import describe
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.evaluation.candidates import Candidate
from bayesdyn.evaluation.comparison import Cell
from bayesdyn.evaluation.scoring import Model
from bayesdyn.evaluation.table import Row
from bayesdyn.evaluation.workers import Tell, Workers

# To be raised whenever a cell gets other rows, so that no folder mixes them.
SCORES = 5


@dataclass
class Findings:
    """What a part has found so far: rows of the table, arrays for figures by name, warnings."""

    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, rows: Iterable[Row], arrays: Mapping[str, np.ndarray] | None = None, under: str = "") -> None:
        """Take in rows, and arrays under a name, `under/name`."""
        self.rows += rows
        self.arrays |= {f"{under}/{name}": values for name, values in (arrays or {}).items()}


class Part(ABC):
    """Something that is asked of every candidate with every seed; picklable, since its cells may be computed elsewhere.

    `name` tells its cells from those of other parts; that of the part that always is there is empty.
    """

    name: str

    def concerns(self, candidate: Candidate) -> bool:
        """Whether there is anything to ask of this candidate: its posterior, unless a part says otherwise."""
        return candidate.posterior is not None

    def prepared(self, seeds: Sequence[int], workers: Workers) -> "Part":
        """Return this part with all that its cells of these seeds share computed once."""
        return self

    @abstractmethod
    def fingerprint(self, candidate: Candidate) -> str:
        """Return a hash of all that the candidate's cell depends on beside the seed, by which cells of a folder are known."""

    @abstractmethod
    def row(self, candidate: Candidate, seed: int) -> Row:
        """Return the row that says whether the cell failed; its value is left open."""

    @abstractmethod
    def ask(self, candidate: Candidate, seed: int, tell: Tell) -> Findings:
        """Fit what there is to fit and return what was found."""


@dataclass(frozen=True)
class Job:
    """One cell to be computed."""

    part: Part
    candidate: Candidate
    seed: int


def compute(job: Job, tell: Tell) -> Cell:
    """Return the cell of a job; whatever breaks in it is recorded there, so that it does not take the others' results along.

    Raises `ConfigurationError` and `ShapeError`, which every cell would meet.
    """
    row = job.part.row(job.candidate, job.seed)
    try:
        found = job.part.ask(job.candidate, job.seed, tell)
    except (ConfigurationError, ShapeError):
        raise
    except Exception as error:
        failure = f"{job.part.name + ': ' if job.part.name else ''}{type(error).__name__}: {error}"
        return Cell(job.candidate.name, job.seed, (replace(row, value=1.0),), failure=failure, part=job.part.name)
    rows = (replace(row, value=0.0), *found.rows)
    return Cell(job.candidate.name, job.seed, rows, found.arrays, tuple(found.warnings), part=job.part.name)


def hashed(settings: Any, parts: Sequence[Transitions | None] = ()) -> str:
    """Return a hash of settings and data.

    >>> hashed({"rows": 3}) == hashed({"rows": 3}), hashed({"rows": 3}) == hashed({"rows": 4})
    (True, False)
    """
    digest = hashlib.sha256(f"{SCORES} {json.dumps(describe(settings))}".encode())
    for part in parts:
        digest.update(b"none" if part is None else repr(part).encode())
        for tensor in () if part is None else (part.state, part.action, part.next_state, part.episode):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:32]


def options(*objects: nn.Module | Model) -> str:
    """Return the options of codecs and models, and of their parts, as text; addresses of objects in memory are left out."""
    public = [
        (type(part).__qualname__, sorted((k, repr(v)) for k, v in vars(part).items() if not k.startswith("_")))
        for each in objects
        for part in _with_parts(each)
    ]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(public))


def _with_parts(whole: Any) -> Iterator[Any]:
    yield whole
    for part in vars(whole).get("_modules", {}).values():
        if part is not None:
            yield from _with_parts(part)
