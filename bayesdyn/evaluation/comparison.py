"""What `compare` found: `Comparison`, its cells (one posterior, one seed), and the folder that keeps them."""

import re
import statistics
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bayesdyn.data import load_arrays, make_folder, save_arrays
from bayesdyn.errors import ConfigurationError, FileError, UnknownNameError
from bayesdyn.evaluation.table import IN_DISTRIBUTION, ONE_STEP, Row, parse_table, read_table, table_text, write_table

_KIND = "comparison-cell"
_CELLS, _RESULTS = "cells", "results.csv"


@dataclass(frozen=True)
class Cell:
    """One posterior fitted with one seed: its rows, arrays for figures by `shift/name`, and what went wrong, if something did."""

    posterior: str
    seed: int
    rows: tuple[Row, ...]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: str = ""


class Failure(NamedTuple):
    """A fit or its scoring that broke down: counted, never dropped."""

    posterior: str
    seed: int
    message: str


class Summary(NamedTuple):
    """A metric over seeds: mean, standard deviation (NaN for one seed) and number of seeds."""

    mean: float
    std: float
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """The long table of a comparison and, cell by cell, the arrays that figures are drawn from.

    >>> rows = (Row("GP", "toy", "none", 0, "test", "nll", 1, "predictive", value=-1.5),)
    >>> Comparison((Cell("GP", 0, rows),)).summary("GP", "nll").mean
    -1.5
    """

    cells: tuple[Cell, ...]

    @classmethod
    def open(cls, folder: str | Path) -> "Comparison":
        """Read the finished comparison in `folder`, in the order of its table.

        Raises `FileError` if the folder holds none or a file is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / _RESULTS).is_file():
            raise FileError(f"{folder} holds no comparison: there is no {_RESULTS} in it")
        cells = {(cell.posterior, cell.seed): cell for cell in map(read_cell, sorted((folder / _CELLS).glob("*.npz")))}
        order = list(dict.fromkeys((row.posterior, row.seed) for row in read_table(folder / _RESULTS)))
        missing = [key for key in order if key not in cells]
        if missing:
            raise FileError(f"{folder / _CELLS} lacks the files of {missing}; run the comparison again with the same folder")
        return cls(tuple(cells[key] for key in order))

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every number, in the order of the cells."""
        return tuple(row for cell in self.cells for row in cell.rows)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Cells that broke down."""
        return tuple(Failure(cell.posterior, cell.seed, cell.failure) for cell in self.cells if cell.failure)

    @property
    def posteriors(self) -> tuple[str, ...]:
        """Names of what was compared, references included, in order."""
        return tuple(dict.fromkeys(cell.posterior for cell in self.cells))

    @property
    def shifts(self) -> tuple[str, ...]:
        """`none` and the names of the shifted data, in order."""
        return tuple(dict.fromkeys(row.shift for row in self.rows if row.horizon > 0))

    def select(self, **criteria: str | int) -> tuple[Row, ...]:
        """Return the rows whose columns equal all criteria, such as `metric="nll", shift="none"`."""
        return tuple(row for row in self.rows if all(getattr(row, name) == value for name, value in criteria.items()))

    def summary(
        self,
        posterior: str,
        metric: str,
        shift: str = IN_DISTRIBUTION,
        horizon: int = 1,
        propagation: str = ONE_STEP,
        output: str = "all",
    ) -> Summary:
        """Return mean and standard deviation of a metric over seeds; raises `UnknownNameError` if no row matches."""
        wanted: dict[str, str | int] = {
            "metric": metric,
            "shift": shift,
            "horizon": horizon,
            "propagation": propagation,
            "output": output,
        }
        values = [row.value for row in self.select(posterior=posterior, **wanted)]
        if not values:
            raise UnknownNameError(f"the comparison has no row of {posterior!r} with {wanted}")
        return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan"), len(values))

    def write(self, path: str | Path) -> None:
        """Write the table as CSV, atomically."""
        write_table(path, self.rows)


def read_cell(path: Path, fingerprint: str | None = None) -> Cell:
    """Read a finished cell.

    Raises `ConfigurationError` if it was computed from other data or settings than those of `fingerprint` (None: whichever),
    `FileError` if the file is damaged.
    """
    arrays = load_arrays(path, kind=_KIND)
    made_with = str(arrays.pop("fingerprint"))
    if fingerprint is not None and made_with != fingerprint:
        raise ConfigurationError(
            f"{path} was computed from other data, settings or options, or by another version; "
            "choose another folder or delete that file"
        )
    rows = parse_table(str(arrays.pop("rows")), str(path))
    warnings, failure = tuple(str(w) for w in arrays.pop("warnings")), str(arrays.pop("failure"))
    return Cell(rows[0].posterior, rows[0].seed, rows, arrays, warnings, failure)


class CellFolder:
    """A folder with one file per finished cell and `results.csv` over all of them; each file is whole or absent."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.cells = self.folder / _CELLS
        make_folder(self.cells)

    def load(self, posterior: str, seed: int, fingerprint: str) -> Cell | None:
        """Return a finished cell, None if there is none.

        Raises `ConfigurationError` if it was computed from other data or settings, `FileError` if the file is damaged.
        """
        path = self._path(posterior, seed)
        return read_cell(path, fingerprint) if path.is_file() else None

    def save(self, cell: Cell, fingerprint: str) -> None:
        """Write a finished cell, atomically."""
        text = {
            "fingerprint": np.array(fingerprint),
            "rows": np.array(table_text(cell.rows)),
            "warnings": np.array(cell.warnings, dtype=np.str_),
            "failure": np.array(cell.failure),
        }
        save_arrays(self._path(cell.posterior, cell.seed), {**cell.arrays, **text}, kind=_KIND)

    def write_results(self, cells: Iterable[Cell]) -> None:
        """Write `results.csv`, atomically."""
        Comparison(tuple(cells)).write(self.folder / _RESULTS)

    def _path(self, posterior: str, seed: int) -> Path:
        # The checksum keeps names apart that differ only in what a file name can't hold.
        readable = re.sub(r"[^A-Za-z0-9_+-]+", "_", posterior)
        return self.cells / f"{readable}-{zlib.crc32(posterior.encode()):08x}-seed{seed}.npz"
