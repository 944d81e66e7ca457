"""Columns of a user's file by their names: `read_columns` of .csv, .npz and .parquet files."""

import csv
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from bayesdyn.data.storage import read_npz
from bayesdyn.errors import DataError, FileError, MissingExtraError


def read_columns(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Return the columns of a table of numbers, [T] each (arrays of an .npz file may have more axes), by their names.

    The first line of a .csv file names its columns. A .parquet file wants `pip install 'bayesdyn[data]'`; its columns of numbers,
    truth values and times (as seconds) are read, others left out.

    Raises `FileError` for a file of another kind or that can't be read, `DataError` for a table that isn't one of numbers, and
    `MissingExtraError` without the package that reads Parquet.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "arm.csv"
    >>> _ = path.write_text("t,angle\\n0.0,1.0\\n0.1,1.5\\n")
    >>> read_columns(path)["angle"].tolist()
    [1.0, 1.5]
    """
    path = Path(path)
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise FileError(f"tables are read from {', '.join(_READERS)} files; got {path}")
    return reader(path)


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


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of numbers; a null becomes NaN, which the data's own checks then name."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(f"{path} is a Parquet file; to read it: pip install 'bayesdyn[data]'") from error
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise FileError(f"can't read {path}: {error}") from error
    found = {name: _parquet_column(table[name], table.schema.field(name).type) for name in table.column_names}
    numbers = {name: values for name, values in found.items() if values is not None}
    if not numbers:
        raise DataError(f"{path} has no column of numbers; its columns are {table.column_names}")
    return numbers


def _parquet_column(column: Any, kind: Any) -> np.ndarray | None:
    """Return a column of a Parquet table as numbers, None where it holds none."""
    from pyarrow import types

    if types.is_timestamp(kind):
        stamps = column.to_numpy().astype("datetime64[ns]")
        seconds = (stamps - stamps[0]) / np.timedelta64(1, "s") if len(stamps) else np.zeros(0)
        return np.asarray(seconds, dtype=np.float64)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return np.asarray(column.to_numpy(), dtype=np.float64)
    return None


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".csv": _read_csv,
    ".npz": read_npz,
    ".parquet": _read_parquet,
}
