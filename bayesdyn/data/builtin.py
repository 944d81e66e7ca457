"""Logs that come with the package, and logs of the user's own: `quarter_drone`, `load_log`."""

import csv
from collections.abc import Sequence
from importlib import resources
from os import PathLike
from pathlib import Path

import numpy as np

from bayesdyn.data.logs import Log
from bayesdyn.data.storage import read_npz
from bayesdyn.errors import DataError, FileError, UnknownNameError

QUARTER_DRONE_LOGS = ("multisine", "steps", "seq")


def quarter_drone(name: str) -> Log:
    """Return a log of a real quarter-drone: arm angle y in degrees, motor command u in %, as recorded at about 100 Hz.

    `multisine` and `steps` are 100 s each, `seq` 61 s with uneven stamps; all are in closed loop. Resample to 20 Hz before use.
    Source: helonayala/sysid, data/quarter_drone (2026-08-16), the Unlicense.

    Raises `UnknownNameError` for another name.

    >>> quarter_drone("multisine")
    Log(name='multisine', samples=10000, outputs=1, inputs=1, 0 s to 99.99 s)
    """
    if name not in QUARTER_DRONE_LOGS:
        raise UnknownNameError(f"there is no quarter-drone log {name!r}; known are {', '.join(QUARTER_DRONE_LOGS)}")
    with resources.as_file(resources.files("bayesdyn.data") / "quarter_drone" / f"{name}.npz") as path:
        return load_log(path, outputs=["y"], inputs=["u"], time="t")


def load_log(path: str | PathLike[str], *, outputs: Sequence[str], inputs: Sequence[str], time: str) -> Log:
    """Read a log from an .npz file of named arrays [T], or a .csv file whose first line names its columns.

    `outputs`, `inputs` and `time` (in seconds) say which columns to take; the log's name is the file's, without its suffix.

    Raises `FileError` if the file can't be read, `UnknownNameError` for a column that it lacks, `DataError` for values that can't
    be used.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "arm.csv"
    >>> _ = path.write_text("t,angle,volt\\n0.0,1.0,5.0\\n0.1,1.5,0.0\\n")
    >>> load_log(path, outputs=["angle"], inputs=["volt"], time="t").output.tolist()
    [[1.0], [1.5]]
    """
    path = Path(path)
    readers = {".npz": read_npz, ".csv": _read_csv}
    if path.suffix not in readers:
        raise FileError(f"a log is read from {' or '.join(readers)} files; got {path}")
    columns = readers[path.suffix](path)
    wanted = [time, *outputs, *inputs]
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        raise UnknownNameError(f"{path} has no column {', '.join(map(repr, unknown))}; it has {', '.join(map(repr, columns))}")
    lengths = {name: columns[name].shape for name in wanted}
    if len(set(lengths.values())) != 1 or columns[time].ndim != 1:
        raise DataError(f"{path} has to hold one array [T] per column; got {lengths}")
    rows = len(columns[time])

    def matrix(names: Sequence[str]) -> np.ndarray:
        return np.stack([columns[name] for name in names], 1) if names else np.zeros((rows, 0))

    return Log.from_arrays(columns[time], matrix(outputs), matrix(inputs), path.stem)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a file of numbers by the names in its first line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = [line for line in csv.reader(file) if line] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"can't read {path}: {error}") from error
    names = [name.strip() for name in header]
    if len(set(names)) != len(names):
        raise DataError(f"{path} names a column twice in its first line: {names}")
    values = np.empty((len(lines), len(names)))
    for row, line in enumerate(lines):
        if len(line) != len(names):
            raise DataError(f"{path} has {len(line)} fields in data row {row}; its first line names {len(names)}")
        for column, text in enumerate(line):
            values[row, column] = _number(text, f"{path}, data row {row}, column {names[column]!r}")
    return dict(zip(names, values.T, strict=True))


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{where} holds {text!r}, which isn't a number") from error
