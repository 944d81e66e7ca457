"""Comparisons that are made up number by number, so that a test knows what a page has to say of them."""

import numpy as np

from bayesdyn.evaluation.comparison import Cell, Comparison
from bayesdyn.evaluation.table import Row

HORIZONS, STEPS, STARTS = (1, 5, 10), 10, 15
COVERAGE = {"gp": 0.9, "ensemble": 0.7, "swag": 0.8}
NLL = {"gp": (0.0, 0.1, 0.2), "ensemble": (1.0, 1.3, 1.2), "swag": (0.05, 0.05, 0.25)}


def made_up(names=("gp", "ensemble", "swag"), seeds=(0, 1, 2), optional=True, failed=()):
    """Return a comparison with every part that a page may show, or with the usual ones only."""
    cells = []
    for name in names:
        for seed in seeds:
            random = np.random.default_rng([seed, len(name)])
            rows, arrays = _usual(name, seed, random)
            if optional:
                more_rows, more_arrays = _optional(name, seed, random)
                rows, arrays = rows + more_rows, arrays | more_arrays
            cells.append(Cell(name, seed, tuple(rows), arrays, ("a bound was met",) if seed == 0 else ()))
    for name in failed:
        row = Row(name, "made-up", "none", 0, "test", "failed", value=1.0)
        cells.append(Cell(name, 0, (row,), failure="NumericalError: singular"))
    return Comparison(tuple(cells))


def row(name, seed, metric, value, shift="none", horizon=1, propagation="predictive", output="0", null=None, **more):
    """Return a row with the columns that matter here."""
    low, high = null or (np.nan, np.nan)
    columns = {"split": "test", "objective": "", "count": 60} | more
    return Row(
        name,
        "made-up",
        shift,
        seed,
        metric=metric,
        horizon=horizon,
        propagation=propagation,
        output=output,
        value=float(value),
        null_low=low,
        null_high=high,
        **columns,
    )


def _usual(name, seed, random):
    rows = [
        row(name, seed, "nll", NLL[name][seed], output="all"),
        row(name, seed, "fit_seconds", 2.0, horizon=0, propagation="", output="all", split="train"),
        row(name, seed, "draw_seconds", 3e-6, horizon=0, propagation="", output="all", split="train"),
        row(name, seed, "step_seconds", 2.5e-7, horizon=0, propagation="", output="all", split="train"),
        row(name, seed, "nrmse", 0.3),
        row(name, seed, "crps", 0.2 + 0.1 * NLL[name][seed]),
        row(name, seed, "mace", 0.03, null=(0.01, 0.02)),
        row(name, seed, "spearman_epistemic", 0.4, null=(0.2, 0.5)),
        row(name, seed, "ause_epistemic", 0.6),
        row(name, seed, "coverage90", COVERAGE[name], null=(0.85, 0.95)),
    ]
    for percent in range(5, 100, 5):
        share = percent / 100
        rows.append(row(name, seed, f"pit_below_{percent:02d}", share, null=(max(share - 0.05, 0), min(share + 0.05, 1))))
    rows += [row(name, seed, f"pit_tenth_{k}", 0.1, null=(0.05, 0.15)) for k in range(1, 11)]
    for horizon in HORIZONS:
        ahead = {"horizon": horizon, "propagation": "TSInf"}
        rows += [
            row(name, seed, "rmse", 0.1 * horizon + 0.01 * seed, **ahead),
            row(name, seed, "crps", 0.1 * horizon, **ahead),
            row(name, seed, "coverage90", COVERAGE[name] - 0.01 * horizon, **ahead),
            row(name, seed, "coverage50", 0.5, **ahead),
            row(name, seed, "coverage90_null", 0.9, null=(0.8, 0.97), **ahead),
            row(name, seed, "spread_skill", 0.9, **ahead),
            row(name, seed, "skill_ridge-linear", 0.5, **ahead),
            row(name, seed, "rmse", 0.12 * horizon, horizon=horizon, propagation="Mean"),
        ]
    rows.append(row(name, seed, "auroc", 0.9, shift="far", output="all"))
    arrays = {}
    for shift, size in (("none", 1.0), ("far", 3.0)):
        arrays |= {f"{shift}/{key}": values for key, values in (_points(random, size) | _fans(random)).items()}
    return rows, arrays


def _points(random, size):
    epistemic = size * np.exp(random.normal(-2, 0.5, (60, 1)))
    aleatoric = np.full((60, 1), 0.1)
    return {
        "pit": random.uniform(size=(60, 1)),
        "error": random.normal(size=(60, 1)) * np.sqrt(epistemic**2 + aleatoric**2),
        "epistemic_std": epistemic,
        "aleatoric_std": aleatoric,
        "shift_score": np.log1p(epistemic[:, 0] ** 2 / 0.01),
    }


def _fans(random):
    shape = (STEPS + 1, STARTS, 1)
    truth = np.linspace(0, 1, STEPS + 1)[:, None, None] * np.arange(1.0, STARTS + 1)[:, None] + np.zeros(shape)
    spread = 0.1 * np.arange(STEPS + 1.0)[:, None, None] + np.zeros(shape)
    quantiles = np.stack([truth + 0.2 + k * spread for k in (-1.6, -0.7, 0.7, 1.6)])
    return {
        "fan_truth": truth,
        "fan_mean": truth + 0.2,
        "fan_quantiles": quantiles,
        "fan_epistemic_std": 0.6 * spread,
        "fan_aleatoric_std": 0.8 * spread,
        "fan_lines": truth + 0.2 + 0.3 * random.normal(size=(5, *shape)),
        "fan_crps": np.arange(1.0, STARTS + 1),
    }


def _optional(name, seed, random):
    chosen = {"horizon": 15, "propagation": "TSInf", "objective": "Expected", "output": "all"}
    rows = []
    for split, scale in (("test", 1.0), ("recalibrated", 0.5)):
        rows += [row(name, seed, metric, scale * value, split=split, **chosen) for metric, value in _DECISIONS.items()]
    rows += [row(name, seed, "coverage90", 0.89, horizon=h, propagation="TSInf", split="recalibrated") for h in HORIZONS]
    for acquisition, gain in (("information", 0.2), ("total_variance", 0.1), ("random", 0.0)):
        rows += [row(name, seed, "active_nrmse", (1 - gain) / n, count=n, objective=acquisition) for n in (20, 30, 40)]
        if gain:
            rows.append(row(name, seed, "active_gain", gain, objective=acquisition))
    plain = {"horizon": 0, "propagation": "", "output": "all"}
    rows += [row(name, seed, "epistemic_var", 5.0 / n, count=n, **plain) for n in (50, 500)]
    rows += [row(name, seed, "aleatoric_var", 0.3, count=n, **plain) for n in (50, 500)]
    rows += [row(name, seed, "gap_ratio", 5.0, count=50, **plain), row(name, seed, "epistemic_slope", -0.2, count=50, **plain)]
    promised = random.normal(size=(8, 6))
    arrays = {f"recalibrated/none/{key}": values for key, values in _points(random, 1.0).items()}
    grid = np.linspace(-2, 2, 41)
    arrays |= {
        "decisions/Expected/TSInf/predicted": promised,
        "decisions/Expected/TSInf/realised": promised - 0.5,
        "decisions/Expected/TSInf/pit": random.uniform(size=8),
        "toy/x": grid,
        "toy/mean": np.sin(grid),
        "toy/true_mean": np.sin(grid) + 0.1,
        "toy/epistemic_std": 0.1 + 0.3 * (np.abs(grid) < 0.4),
        "toy/aleatoric_std": np.full(41, 0.2),
        "toy/true_std": np.full(41, 0.2),
        "toy/draws": np.sin(grid) + 0.1 * random.normal(size=(20, 1)),
        "toy/rows_x": grid[::4],
        "toy/rows_y": np.sin(grid[::4]),
    }
    return rows, arrays


_DECISIONS = {
    "exploitation_gap": 0.5,
    "exploitation_gap_se": 0.1,
    "random_gap": 0.1,
    "regret": 0.3,
    "regret_se": 0.05,
    "return_coverage90": 0.8,
}
