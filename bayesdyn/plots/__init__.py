"""Figures on Matplotlib axes that are given: predictions and how good they are, comparisons, learning curves, policy search.

What they show of a comparison comes from `Numbers` (the rows) and from `series` and `optional_series` (the arrays):

>>> import numpy as np
>>> from matplotlib.figure import Figure
>>> from bayesdyn import plots
>>> axes = Figure().add_subplot()
>>> plots.calibration_curve(axes, {"gp": np.linspace(0, 1, 100)})  # of a comparison: plots.series.pit(comparison)

Nothing here computes a score or opens a window. Text and grid lines are grey and backgrounds are left alone, so that a figure reads
on a light and on a dark page.
"""

from bayesdyn.plots import optional_series, series
from bayesdyn.plots.comparisons import (
    paired_differences,
    pit_histogram,
    planned_against_realised,
    roc_curve,
    sparsification_curve,
    variances_by_rows,
)
from bayesdyn.plots.numbers import Line, Number, Numbers, Query
from bayesdyn.plots.policy_search import cost_by_trial, predicted_cost, predicted_state
from bayesdyn.plots.predictions import (
    by_horizon,
    calibration_curve,
    error_against_std,
    fan_chart,
    learning_curve,
    posterior_1d,
    shift_histogram,
)
from bayesdyn.plots.style import NEUTRAL, PALETTE, colour, dress, legend, places

__all__ = [
    "NEUTRAL",
    "PALETTE",
    "Line",
    "Number",
    "Numbers",
    "Query",
    "by_horizon",
    "calibration_curve",
    "colour",
    "cost_by_trial",
    "dress",
    "error_against_std",
    "fan_chart",
    "learning_curve",
    "legend",
    "optional_series",
    "paired_differences",
    "pit_histogram",
    "places",
    "planned_against_realised",
    "posterior_1d",
    "predicted_cost",
    "predicted_state",
    "roc_curve",
    "series",
    "shift_histogram",
    "sparsification_curve",
    "variances_by_rows",
]
