"""Logs of the user's own, from .csv, .npz and .parquet files: `load_log`, `load_logs`."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from bayesdyn.data.checks import to_float64
from bayesdyn.data.logs import Log
from bayesdyn.data.tables import read_columns
from bayesdyn.errors import DataError, UnknownNameError


def load_log(path: str | PathLike[str], *, outputs: Sequence[str], inputs: Sequence[str], time: str | None) -> Log:
    """Read a log from a .csv, .npz or .parquet file of columns [T] (`read_columns`).

    `outputs`, `inputs` and `time` (in seconds) say which columns to take; without a time, samples are one second apart. The log's
    name is the file's, without its suffix.

    Raises `FileError` if the file can't be read, `UnknownNameError` for a column that it lacks, `DataError` for values that can't
    be used.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "arm.csv"
    >>> _ = path.write_text("t,angle,volt\\n0.0,1.0,5.0\\n0.1,1.5,0.0\\n")
    >>> load_log(path, outputs=["angle"], inputs=["volt"], time="t").output.tolist()
    [[1.0], [1.5]]
    """
    (log,) = load_logs(path, outputs=outputs, inputs=inputs, time=time)
    return log


def load_logs(
    path: str | PathLike[str], *, outputs: Sequence[str], inputs: Sequence[str], time: str | None, episode: str | None = None
) -> list[Log]:
    """Read a file of several recordings, one `Log` each: rows of one number in the column `episode` are one recording.

    Recordings keep the order in which they begin; without `episode` the file is one. Raises as `load_log` does, and `DataError` if
    a recording comes back after another one.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "runs.csv"
    >>> _ = path.write_text("run,t,y\\n7,0.0,1.0\\n7,0.1,1.5\\n8,0.0,2.0\\n")
    >>> [len(log) for log in load_logs(path, outputs=["y"], inputs=[], time="t", episode="run")]
    [2, 1]
    """
    path = Path(path)
    columns = read_columns(path)
    wanted = [name for name in (episode, time, *outputs, *inputs) if name is not None]
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        raise UnknownNameError(f"{path} has no column {', '.join(map(repr, unknown))}; it has {', '.join(map(repr, columns))}")
    shapes = {name: columns[name].shape for name in wanted}
    if len(set(shapes.values())) != 1 or columns[wanted[0]].ndim != 1:
        raise DataError(f"{path} has to hold one array [T] per column; got {shapes}")
    for name in wanted:
        _check_column(path, name, columns[name])
    rows = len(columns[wanted[0]])

    def matrix(names: Sequence[str]) -> np.ndarray:
        return np.stack([columns[name] for name in names], 1) if names else np.zeros((rows, 0))

    stamps = np.arange(rows, dtype=np.float64) if time is None else columns[time]
    if episode is None:
        return [Log.from_arrays(stamps, matrix(outputs), matrix(inputs), path.stem)]
    cuts = _cuts(columns[episode], path, episode)
    return [Log.from_arrays(stamps[part], matrix(outputs)[part], matrix(inputs)[part], path.stem) for part in cuts]


def _check_column(path: Path, name: str, values: np.ndarray) -> None:
    """Raise `DataError` for values that are no finite numbers: a log names its parts, not the columns that they are from."""
    broken = (~to_float64(f"{path}, column {name!r}", values).isfinite()).nonzero()
    if len(broken):
        raise DataError(
            f"{path}, column {name!r} has {len(broken)} non-finite value(s), the first in data row {int(broken[0])}; "
            "remove or repair those rows"
        )


def _cuts(numbers: np.ndarray, path: Path, name: str) -> list[slice]:
    """Return where each recording stands."""
    starts = np.flatnonzero(np.diff(numbers, prepend=np.nan) != 0)
    if len(np.unique(numbers[starts])) != len(starts):
        raise DataError(f"{path}, column {name!r}: a recording comes back after another one; sort the rows by recording and time")
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True)]
