"""What `compare` found: `Comparison`, its cells (one posterior, one seed), and the folder that keeps them."""

import json
import re
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bayesdyn.data import load_arrays, make_folder, save_arrays
from bayesdyn.data.describe import differences
from bayesdyn.errors import ConfigurationError, FileError, UnknownNameError
from bayesdyn.evaluation.about import About
from bayesdyn.evaluation.table import IN_DISTRIBUTION, ONE_STEP, RECALIBRATED, Row, parse_table, read_table, table_text, write_table

_KIND = "comparison-cell"
_CELLS, _RESULTS, _ABOUT = "cells", "results.csv", "about.json"
_MOST_TOLD, _LONGEST = 4, 160


@dataclass(frozen=True)
class Cell:
    """One posterior with one seed: its rows, arrays for figures by name, and what went wrong, if something did.

    Arrays are called `shift/name`, after recalibration `recalibrated/shift/name`. `part` is what the cell is of while it is on its
    own: empty for the fit and its scores, which all others are added to.
    """

    posterior: str
    seed: int
    rows: tuple[Row, ...]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: str = ""
    part: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What all parts of one posterior with one seed share."""
        return self.posterior, self.seed


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
    """The long table of a comparison and, cell by cell, the arrays that figures are drawn from; `about` is what the data are.

    >>> rows = (Row("GP", "toy", "none", 0, "test", "nll", 1, "predictive", value=-1.5),)
    >>> Comparison((Cell("GP", 0, rows),)).summary("GP", "nll").mean
    -1.5
    """

    cells: tuple[Cell, ...]
    about: About = field(default_factory=About)

    @classmethod
    def open(cls, folder: str | Path) -> "Comparison":
        """Read the finished comparison in `folder`, in the order of its table.

        Raises `FileError` if the folder holds none or a file is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / _RESULTS).is_file():
            raise FileError(f"{folder} holds no comparison: there is no {_RESULTS} in it")
        rows = read_table(folder / _RESULTS)
        # Each cell's first row is its own; a part that the last run was not asked for is left out.
        wanted = {repr(row) for row in rows}
        found = [cell for cell in map(read_cell, sorted((folder / _CELLS).glob("*.npz"))) if repr(cell.rows[0]) in wanted]
        order = list(dict.fromkeys((row.posterior, row.seed) for row in rows))
        missing = set(order) - {cell.key for cell in found}
        if missing:
            raise FileError(
                f"{folder / _CELLS} lacks the files of {sorted(missing)}; run the comparison again with the same folder"
            )
        cells = merged(sorted(found, key=lambda cell: (order.index(cell.key), cell.part)))
        return cls(cells, About.read(folder / _ABOUT))

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
        """Return the rows whose columns equal all criteria, such as `metric="nll", shift="none"`.

        Those after recalibration, which have the same metrics, are left out unless `split="recalibrated"` asks for them.
        """
        rows = self.rows if "split" in criteria else [row for row in self.rows if row.split != RECALIBRATED]
        return tuple(row for row in rows if all(getattr(row, name) == value for name, value in criteria.items()))

    def summary(
        self,
        posterior: str,
        metric: str,
        shift: str = IN_DISTRIBUTION,
        horizon: int = 1,
        propagation: str = ONE_STEP,
        output: str = "all",
        **criteria: str,
    ) -> Summary:
        """Return mean and standard deviation of a metric over seeds; `criteria` are further columns: `split="recalibrated"`.

        Raises `UnknownNameError` if no row matches.
        """
        wanted: dict[str, str | int] = {
            "metric": metric,
            "shift": shift,
            "horizon": horizon,
            "propagation": propagation,
            "output": output,
            **criteria,
        }
        values = [row.value for row in self.select(posterior=posterior, **wanted)]
        if not values:
            raise UnknownNameError(f"the comparison has no row of {posterior!r} with {wanted}")
        return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan"), len(values))

    def write(self, path: str | Path) -> None:
        """Write the table as CSV, atomically."""
        write_table(path, self.rows)


def merged(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return one cell for each posterior and seed, with all that its parts found, in the order of the first of each.

    >>> rows = [Row("GP", "toy", "none", 0, "test", metric) for metric in ("failed", "epistemic_slope")]
    >>> [len(cell.rows) for cell in merged([Cell("GP", 0, (rows[0],)), Cell("GP", 0, (rows[1],), part="toy")])]
    [2]
    """
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.key, []).append(cell)
    return tuple(_joined(parts) for parts in groups.values())


def _joined(parts: Sequence[Cell]) -> Cell:
    return replace(
        parts[0],
        rows=tuple(row for part in parts for row in part.rows),
        arrays={name: values for part in parts for name, values in part.arrays.items()},
        warnings=tuple(warning for part in parts for warning in part.warnings),
        failure="; ".join(part.failure for part in parts if part.failure),
    )


class Origin(NamedTuple):
    """What a cell comes from: a hash of all that its numbers depend on, and the same in words as far as there are any."""

    fingerprint: str
    made_of: Mapping[str, Any] = MappingProxyType({})


def read_cell(path: Path, origin: Origin | None = None) -> Cell:
    """Read a finished cell.

    Raises `ConfigurationError` if it was computed from other data or settings than those of `origin` (None: whichever), `FileError`
    if the file is damaged.
    """
    arrays = load_arrays(path, kind=_KIND)
    made_with, made_of = str(arrays.pop("fingerprint")), json.loads(str(arrays.pop("made_of", "{}")))
    if origin is not None and made_with != origin.fingerprint:
        raise ConfigurationError(
            f"{path} was computed from other data, settings or options, or by another version"
            f"{_told(differences(made_of, dict(origin.made_of)) if made_of else ())}; choose another folder or delete that file"
        )
    rows = parse_table(str(arrays.pop("rows")), str(path))
    warnings, failure = tuple(str(w) for w in arrays.pop("warnings")), str(arrays.pop("failure"))
    return Cell(rows[0].posterior, rows[0].seed, rows, arrays, warnings, failure, str(arrays.pop("part", "")))


def _told(lines: Sequence[str]) -> str:
    """Say the first few differences, in brackets."""
    known = [line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..." for line in lines]
    more = f"; {len(known) - _MOST_TOLD} more" if len(known) > _MOST_TOLD else ""
    return f" ({'; '.join(known[:_MOST_TOLD])}{more})" if known else ""


class CellFolder:
    """A folder with one file per finished cell, `results.csv` over all of them and what the data are in `about.json`.

    Each file is whole or absent.
    """

    def __init__(self, folder: str | Path, about: About = About()) -> None:  # noqa: B008 (frozen)
        self.folder, self.about = Path(folder), about
        self.cells = self.folder / _CELLS
        make_folder(self.cells)

    def load(self, posterior: str, seed: int, part: str, origin: Origin) -> Cell | None:
        """Return a finished cell, None if there is none.

        Raises `ConfigurationError` if it was computed from other data or settings, `FileError` if the file is damaged.
        """
        path = self._path(posterior, seed, part)
        return read_cell(path, origin) if path.is_file() else None

    def save(self, cell: Cell, origin: Origin) -> None:
        """Write a finished cell, atomically."""
        text = {
            "fingerprint": np.array(origin.fingerprint),
            "made_of": np.array(json.dumps(dict(origin.made_of))),
            "rows": np.array(table_text(cell.rows)),
            "warnings": np.array(cell.warnings, dtype=np.str_),
            "failure": np.array(cell.failure),
            "part": np.array(cell.part),
        }
        save_arrays(self._path(cell.posterior, cell.seed, cell.part), {**cell.arrays, **text}, kind=_KIND)

    def write_results(self, cells: Iterable[Cell]) -> None:
        """Write `results.csv` and what its data are, atomically."""
        self.about.write(self.folder / _ABOUT)
        Comparison(merged(cells)).write(self.folder / _RESULTS)

    def _path(self, posterior: str, seed: int, part: str) -> Path:
        # The checksum keeps names apart that differ only in what a file name can't hold.
        readable = re.sub(r"[^A-Za-z0-9_+-]+", "_", posterior)
        return self.cells / f"{readable}-{zlib.crc32(posterior.encode()):08x}-seed{seed}{part and f'-{part}'}.npz"
