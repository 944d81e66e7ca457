"""Figures of policy search, as PILCO draws them: what was predicted of a trial, and what came of it.

They leave titles and grid to `dress`, because a page and a notebook dress differently.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from bayesdyn.errors import ShapeError
from bayesdyn.plots.style import NEUTRAL, PALETTE

_BARS = 45  # more error bars than this would hide what is drawn over them


def predicted_cost(
    axes: Axes,
    time: Float[np.ndarray, "T1"],
    mean: Float[np.ndarray, "T1"],
    std: Float[np.ndarray, "T1"],
    real: Float[np.ndarray, "t"] | None = None,
    rollouts: Float[np.ndarray, "T n"] | None = None,
    *,
    colour: str = PALETTE[0],
    truth: str = NEUTRAL,
) -> None:
    """Draw the predicted cost of each step, mean ± 2 std, over the `real` cost of the trial and of other `rollouts` of its policy.

    Costs are those of the states at times 0, ..., T; the real ones begin at time 1, since the start costs nothing, and may end
    early. Source: Deisenroth & Rasmussen, ICML 2011, figure 4.

    >>> from matplotlib.figure import Figure
    >>> axes, ones = Figure().add_subplot(), np.ones(3)
    >>> predicted_cost(axes, np.arange(3.0), ones, 0.1 * ones, real=np.array([1.0, 0.5]))
    >>> [line.get_label() for line in axes.get_lines()]
    ['predicted', 'the trial']
    """
    axes.fill_between(time, mean - 2 * std, mean + 2 * std, color=colour, alpha=0.22, linewidth=0, label="± 2 std")
    axes.plot(time, mean, color=colour, linewidth=1.8, label="predicted")
    if rollouts is not None and rollouts.size:
        _rollouts(axes, time[1:], rollouts, truth)
    if real is not None:
        _within(real, len(time) - 1)
        axes.plot(time[1 : len(real) + 1], real, color=truth, linewidth=2, label="the trial")
    axes.margins(x=0)


def predicted_state(
    axes: Axes,
    time: Float[np.ndarray, "T1"],
    mean: Float[np.ndarray, "T1"],
    std: Float[np.ndarray, "T1"],
    real: Float[np.ndarray, "t1"] | None = None,
    rollouts: Float[np.ndarray, "T1 n"] | None = None,
    *,
    colour: str = PALETTE[0],
    truth: str = NEUTRAL,
) -> None:
    """Draw one predicted coordinate of the state with bars of ± 2 std, over that of the trial and of other `rollouts`.

    `real` starts at time 0 and may end early; where a rollout has ended it is NaN.

    >>> from matplotlib.figure import Figure
    >>> axes, zeros = Figure().add_subplot(), np.zeros(3)
    >>> predicted_state(axes, np.arange(3.0), zeros, zeros + 0.1, rollouts=np.zeros((3, 10)))
    >>> len(axes.get_lines()) >= 10
    True
    """
    if rollouts is not None and rollouts.size:
        _rollouts(axes, time, rollouts, truth)
    if real is not None:
        _within(real, len(time))
        axes.plot(time[: len(real)], real, color=truth, linewidth=2, label="the trial")
    every = -(-len(time) // _BARS)
    chosen = slice(None, None, every)
    axes.errorbar(
        time[chosen],
        mean[chosen],
        2 * std[chosen],
        color=colour,
        linewidth=1.8,
        elinewidth=1.1,
        capsize=0,
        label="predicted, ± 2 std",
    )
    axes.margins(x=0.01)


def cost_by_trial(
    axes: Axes,
    trials: Sequence[int],
    predicted: Sequence[float],
    realised: Sequence[float],
    *,
    colour: str = PALETTE[0],
    truth: str = NEUTRAL,
) -> None:
    """Draw the total cost that each trial's policy was predicted to have, and had, with the gap between the two shaded.

    A policy search seeks out where the model is too hopeful: the gap says by how much.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> cost_by_trial(axes, [1, 2], [7.0, 8.0], [30.0, 8.5])
    >>> [line.get_ydata().tolist() for line in axes.get_lines()]
    [[7.0, 8.0], [30.0, 8.5]]
    """
    if not len(trials) == len(predicted) == len(realised):
        raise ShapeError(f"one predicted and one realised cost per trial; got {len(predicted)}, {len(realised)} for {len(trials)}")
    axes.vlines(trials, predicted, realised, color=truth, linewidth=5, alpha=0.25)
    axes.plot(trials, predicted, color=colour, linewidth=1.8, marker="o", markersize=4.5, label="predicted")
    axes.plot(trials, realised, color=truth, linewidth=1.8, marker="s", markersize=4.5, label="realised")
    axes.margins(x=0.06)


def _rollouts(axes: Axes, time: Float[np.ndarray, "T"], values: Float[np.ndarray, "T n"], colour: str) -> None:
    for place, line in enumerate(values.T):
        told = "" if place else f"{values.shape[1]} more rollouts"
        axes.plot(time, line, color=colour, linewidth=0.8, alpha=0.5, label=told)


def _within(values: np.ndarray, steps: int) -> None:
    if len(values) > steps:
        raise ShapeError(f"what happened is no longer than what was predicted, {steps} values; got {len(values)}")
