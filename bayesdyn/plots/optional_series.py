"""What figures show of the parts of a comparison that are there on request: the toy, active learning, decisions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bayesdyn.evaluation.comparison import Comparison
from bayesdyn.plots.numbers import Numbers, Query

Array = Float[np.ndarray, "..."]
_DECISIONS = "decisions/"


class Promises(NamedTuple):
    """Plans of all seeds, by the first objective and propagation: [k, 2], promised and earned return.

    `chosen` are the planner's, `others` random and nearly best ones; `pit` [k] is the place of the chosen plans' returns.
    """

    objective: str
    propagation: str
    horizon: int
    chosen: Float[np.ndarray, "k 2"]
    others: Float[np.ndarray, "q 2"]
    pit: Float[np.ndarray, "k"]

    def query(self, metric: str) -> Query:
        """Return where the table has a metric of these plans."""
        return Query(metric, horizon=self.horizon, propagation=self.propagation, objective=self.objective)


def toy(comparison: Comparison, name: str) -> dict[str, Array] | None:
    """Return the picture of a posterior over one input, of its first seed; None if there is none."""
    for cell in comparison.cells:
        if cell.posterior == name and "toy/x" in cell.arrays:
            return {key.removeprefix("toy/"): values for key, values in cell.arrays.items() if key.startswith("toy/")}
    return None


def by_count(numbers: Numbers, metric: str, name: str) -> tuple[Array, Array]:
    """Return a metric against how many rows it is over, mean over seeds."""
    found: dict[int, list[float]] = {}
    for row in numbers.select(metric):
        if row.posterior == name:
            found.setdefault(row.count, []).append(row.value)
    return np.array(sorted(found), dtype=float), np.array([np.mean(found[count]) for count in sorted(found)])


def active_curves(numbers: Numbers, name: str) -> dict[str, tuple[Array, Float[np.ndarray, "seeds rows"]]]:
    """Return for each acquisition the numbers of rows and the error there, mean over outputs, by seed."""
    found: dict[str, dict[int, dict[int, list[float]]]] = {}
    for row in numbers.select("active_nrmse"):
        if row.posterior == name:
            found.setdefault(row.objective, {}).setdefault(row.seed, {}).setdefault(row.count, []).append(row.value)
    curves = {}
    for acquisition, seeds in found.items():
        counts = sorted(next(iter(seeds.values())))
        values = np.array([[np.mean(of[count]) for count in counts] for of in seeds.values()])
        curves[acquisition] = (np.array(counts, dtype=float), values)
    return curves


def active_gains(numbers: Numbers, name: str) -> dict[str, list[float]]:
    """Return for each acquisition what it gains over rows at random, output by output and seed by seed."""
    found: dict[str, list[float]] = {}
    for row in numbers.select("active_gain"):
        if row.posterior == name:
            found.setdefault(row.objective, []).append(row.value)
    return found


def promises(comparison: Comparison, name: str) -> Promises | None:
    """Return what plans promised and earned, by the first objective and propagation; None if no plans were made."""
    cells = [cell for cell in comparison.cells if cell.posterior == name]
    keys = [key for cell in cells for key in cell.arrays if key.startswith(_DECISIONS) and key.endswith("/predicted")]
    if not keys:
        return None
    _, objective, propagation, _ = keys[0].split("/")
    stem = f"{_DECISIONS}{objective}/{propagation}"
    have = [cell for cell in cells if f"{stem}/predicted" in cell.arrays]
    both = np.concatenate([np.stack([c.arrays[f"{stem}/predicted"], c.arrays[f"{stem}/realised"]], -1) for c in have])
    usable = both[np.isfinite(both).all((1, 2))]
    place = np.concatenate([cell.arrays[f"{stem}/pit"] for cell in have])
    horizon = next((row.horizon for row in have[0].rows if row.metric == "exploitation_gap"), 0)
    return Promises(objective, propagation, horizon, usable[:, 0], usable[:, 1:].reshape(-1, 2), place[np.isfinite(place)])
