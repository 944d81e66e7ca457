"""Reading a comparison back from its folder."""

from pathlib import Path

from bayesdyn.data import load_arrays
from bayesdyn.errors import FileError
from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.comparison import Cell
from bayesdyn.evaluation.table import parse_table, read_table


def read_comparison(folder: str | Path) -> Comparison:
    """Return the comparison whose finished cells are in `folder`, in the order of its table.

    Raises `FileError` if the folder holds none or a file is damaged.
    """
    folder = Path(folder)
    if not (folder / "results.csv").is_file():
        raise FileError(f"{folder} holds no comparison: there is no results.csv in it")
    order = list(dict.fromkeys((row.posterior, row.seed) for row in read_table(folder / "results.csv")))
    cells = {}
    for path in sorted((folder / "cells").glob("*.npz")):
        arrays = load_arrays(path, kind="comparison-cell")
        rows = parse_table(str(arrays.pop("rows")), str(path))
        warnings, failure = tuple(str(w) for w in arrays.pop("warnings")), str(arrays.pop("failure"))
        del arrays["fingerprint"]
        key = (rows[0].posterior, rows[0].seed)
        cells[key] = Cell(*key, rows, arrays, warnings, failure)
    missing = [key for key in order if key not in cells]
    if missing:
        raise FileError(f"{folder / 'cells'} lacks the files of {missing}; run the comparison again with the same folder")
    return Comparison(tuple(cells[key] for key in order))
