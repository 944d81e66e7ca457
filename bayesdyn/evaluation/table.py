"""The one table that every result is a row of, and its CSV file."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from os import PathLike
from pathlib import Path

from bayesdyn.data import write_atomically
from bayesdyn.errors import FileError

IN_DISTRIBUTION = "none"
ONE_STEP = "predictive"
ALL_OUTPUTS = "all"
TRAIN, TEST, RECALIBRATED = "train", "test", "recalibrated"

TIMINGS = frozenset({"fit_seconds", "draw_seconds", "step_seconds"})
"""The metrics that a clock measures: all others are the same, to the last digit, whenever and wherever they are computed."""


@dataclass(frozen=True)
class Row:
    """One number of a comparison, and where it belongs.

    `shift` is `none` in distribution, else the name of the shifted data. `split` is `test`, `recalibrated` for the same test after
    recalibration, `calibration` for what that found, and `train` for the fit. `horizon` counts steps (0 where that has no meaning)
    and `propagation` says how they were taken; `predictive` is the exact one-step predictive. `output` is a state coordinate or
    `all`. `null_low` and `null_high` are what a calibrated model would score (5 % and 95 %), NaN where not computed; `count` is how
    many points or start states the value is over.

    >>> Row("GP", "drone", "none", 0, "test", "nll", value=-0.5).output
    'all'
    """

    posterior: str
    data: str
    shift: str
    seed: int
    split: str
    metric: str
    horizon: int = 0
    propagation: str = ""
    objective: str = ""
    output: str = ALL_OUTPUTS
    value: float = math.nan
    null_low: float = math.nan
    null_high: float = math.nan
    count: int = 0


COLUMNS = tuple(field.name for field in fields(Row))
_PARSERS = tuple({str: str, int: int, float: float}[field.type] for field in fields(Row))  # type: ignore[index]


def table_text(rows: Iterable[Row]) -> str:
    """Return the rows as CSV; floats are written so that they read back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def without_timings(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows but for those of `TIMINGS`: what two runs of the same comparison have in common.

    >>> row = Row("GP", "drone", "none", 0, "train", "fit_seconds", value=1.2)
    >>> without_timings([row])
    ()
    """
    return tuple(row for row in rows if row.metric not in TIMINGS)


def parse_table(text: str, name: str) -> tuple[Row, ...]:
    """Read what `table_text` wrote; raises `FileError`, with the name given, if it is something else."""
    header, *lines = list(csv.reader(io.StringIO(text))) or [[]]
    if tuple(header) != COLUMNS:
        raise FileError(f"{name} is no table of results: its columns are {header}; wanted {list(COLUMNS)}")
    try:
        return tuple(Row(*(parse(cell) for parse, cell in zip(_PARSERS, line, strict=True))) for line in lines)
    except ValueError as error:
        raise FileError(f"{name} is damaged: {error}") from error


def write_table(path: str | PathLike[str], rows: Sequence[Row]) -> None:
    """Write the rows as CSV, atomically; raises `FileError` if that isn't possible."""
    content = table_text(rows).encode()
    write_atomically(path, lambda file: file.write(content))


def read_table(path: str | PathLike[str]) -> tuple[Row, ...]:
    """Read a table that `write_table` wrote; raises `FileError` if it is missing, damaged or something else."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"can't read {path}: {error}") from error
    return parse_table(text, str(path))
