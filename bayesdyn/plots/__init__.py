"""Figures on Matplotlib axes that are given: predictions and how good they are, learning curves, policy search.

Nothing here computes a score or opens a window. Text and grid lines are grey and backgrounds are left alone, so that a figure reads
on a light and on a dark page.
"""

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
from bayesdyn.plots.style import NEUTRAL, PALETTE, colour, dress, legend

__all__ = [
    "NEUTRAL",
    "PALETTE",
    "by_horizon",
    "calibration_curve",
    "colour",
    "cost_by_trial",
    "dress",
    "error_against_std",
    "fan_chart",
    "learning_curve",
    "legend",
    "posterior_1d",
    "predicted_cost",
    "predicted_state",
    "shift_histogram",
]
