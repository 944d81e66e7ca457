"""What a cell was made of, in words: so that a folder of other data or settings can say in what they differ."""

import zlib
from functools import singledispatch
from typing import Any

from bayesdyn.data import Transitions
from bayesdyn.data.describe import describe
from bayesdyn.evaluation import parts
from bayesdyn.evaluation.candidates import Candidate
from bayesdyn.evaluation.parts import Part
from bayesdyn.evaluation.protocols import AskedRows, Toy
from bayesdyn.evaluation.scores import Scores


@singledispatch
def made_of(part: Part, candidate: Candidate) -> dict[str, Any]:
    """Return, as JSON data, what a part's cells of a candidate are made of, as far as it can be said; `differences` compares two.

    The fingerprint decides whether two are the same; this only explains it.
    """
    return _common(candidate)


@made_of.register
def _(part: Scores, candidate: Candidate) -> dict[str, Any]:
    return {
        "data": part.data,
        "training data": _counted(part.train),
        "calibration data": _counted(part.calibration),
        "test data": {test.shift: _counted(test.transitions) for test in part.tests},
        "open loop": describe(part.settings),
        "replicates": part.replicates,
        "decisions": describe(part.decisions),
        "codec": describe(part.codec()),
        **_common(candidate),
    }


@made_of.register
def _(part: Toy, candidate: Candidate) -> dict[str, Any]:
    return {"toy": describe(part.settings), **_common(candidate)}


@made_of.register
def _(part: AskedRows, candidate: Candidate) -> dict[str, Any]:
    return {
        "active learning": describe(part.settings),
        "data": part.data,
        "training data": _counted(part.pool),
        "test data": _counted(part.test),
        "codec": describe(part.codec()),
        **_common(candidate),
    }


def _common(candidate: Candidate) -> dict[str, Any]:
    posterior = None if candidate.posterior is None else describe(candidate.posterior())
    return {"posterior": posterior, "layout of the scores": parts.SCORES}


def _counted(data: Transitions | None) -> str:
    """Return how much there is, with a checksum that tells data of one size apart."""
    if data is None:
        return "none"
    checksum = 0
    for tensor in (data.state, data.action, data.next_state, data.episode):
        checksum = zlib.crc32(tensor.contiguous().numpy().tobytes(), checksum)
    return f"{len(data)} rows of {len(data.episode.unique())} episodes, checksum {checksum:08x}"
