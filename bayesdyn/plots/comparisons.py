"""Figures of a comparison: PIT histograms, paired differences, sparsification, ROC curves, variances by rows, promises kept."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from bayesdyn.errors import ShapeError
from bayesdyn.evaluation.pairs import PairedInterval
from bayesdyn.plots.series import Sparsified, histogram
from bayesdyn.plots.style import NEUTRAL, colour, dress, legend

Array = Float[np.ndarray, "..."]
_EDGES = np.linspace(0.0, 1.0, 11)


def pit_histogram(axes: Axes, pit: Mapping[str, Array], null: tuple[Array, Array] | None = None) -> None:
    """Draw for each posterior the shares of ten equal bins of its probability integral transforms; level is calibrated.

    `null` = (low, high) [10] shades what a calibrated model would show.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> pit_histogram(axes, {"gp": np.array([0.05, 0.95])})
    >>> float(axes.patches[0].get_data().values[0])
    0.5
    """
    if null is not None:
        low, high = (np.repeat(side, 2) for side in null)
        axes.fill_between(np.repeat(_EDGES, 2)[1:-1], low, high, color=NEUTRAL, alpha=0.25, linewidth=0, label="calibrated, 90 %")
    axes.axhline(0.1, color=NEUTRAL, linewidth=1)
    for name, values in pit.items():
        axes.stairs(histogram(np.ravel(values)), _EDGES, baseline=None, color=colour(name), linewidth=1.8, label=name)
    axes.set(xlim=(0, 1))
    axes.set_ylim(bottom=0)
    dress(axes, "Where in the prediction does the truth fall?", "predicted probability of less", "share of outcomes")
    legend(axes)


def paired_differences(axes: Axes, found: Mapping[str, PairedInterval], reference: str, label: str) -> None:
    """Draw for each posterior its mean paired difference to the `reference` with its interval.

    A bar that crosses 0 leaves open which is better, as those of two pairs nearly always do.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> paired_differences(axes, {"ensemble": PairedInterval(1.0, 0.5, 1.5, 5)}, "gp", "NLL")
    >>> axes.get_xlabel()
    'NLL: difference to gp'
    """
    axes.axvline(0.0, color=NEUTRAL, linewidth=1)
    for place, (name, each) in enumerate(reversed(list(found.items()))):
        if np.isfinite([each.low, each.high]).all():
            axes.plot([each.low, each.high], [place, place], color=colour(name), linewidth=2)
        axes.plot([each.mean], [place], color=colour(name), marker="o", markersize=7, linestyle="none", label=name)
    axes.set_yticks(range(len(found)), labels=list(reversed(list(found))))
    axes.margins(y=0.15)
    dress(axes, "", f"{label}: difference to {reference}", "")


def sparsification_curve(axes: Axes, found: Mapping[str, Sparsified], *, oracle: bool = True) -> None:
    """Draw for each posterior the error that is left when the least sure points are removed, with its own `oracle` dotted.

    On the grey line an uncertainty says nothing.
    """
    axes.axhline(1.0, color=NEUTRAL, linewidth=1)
    for name, curve in found.items():
        axes.plot(curve.share, curve.remaining, color=colour(name), linewidth=1.8, label=name)
        if oracle:
            axes.plot(curve.share, curve.oracle, color=colour(name), linewidth=1, linestyle=":")
    axes.set(xlim=(0, 1))
    axes.set_ylim(bottom=0)
    dress(axes, "What is left without the least sure points?", "share removed", "error of the rest, over that of all")
    legend(axes)


def roc_curve(axes: Axes, found: Mapping[str, tuple[Array, Array]]) -> None:
    """Draw for each posterior the share of shifted points that its shift score finds against the share of false alarms.

    Raises `ShapeError` unless both rates have one length.
    """
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=1)
    for name, (false, true) in found.items():
        if len(false) != len(true):
            raise ShapeError(f"{name} wants false and true rates of one length; got {len(false)} and {len(true)}")
        axes.plot(false, true, color=colour(name), linewidth=1.8, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    dress(axes, "Are new kinds of data noticed?", "false alarms", "share found")
    legend(axes)


def variances_by_rows(
    axes: Axes, rows: Sequence[float] | Array, epistemic: Mapping[str, Array], aleatoric: Mapping[str, Array]
) -> None:
    """Draw for each posterior both variances against the number of rows (log axes): epistemic solid, aleatoric dotted."""
    for name, values in epistemic.items():
        axes.plot(rows, values, color=colour(name), linewidth=1.8, label=name)
    for name, values in aleatoric.items():
        axes.plot(rows, values, color=colour(name), linewidth=1.5, linestyle=":")
    axes.set(xscale="log", yscale="log")
    dress(axes, "solid epistemic, dotted aleatoric", "rows of data", "mean variance")
    legend(axes)


def planned_against_realised(axes: Axes, name: str, chosen: Float[np.ndarray, "k 2"], others: Float[np.ndarray, "q 2"]) -> None:
    """Draw what plans earned against what the model promised of them; on the line a promise was kept.

    `chosen` are the planner's choices, `others` random and nearly best plans (grey).

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().add_subplot()
    >>> planned_against_realised(axes, "gp", np.array([[1.0, 0.5]]), np.zeros((3, 2)))
    >>> [len(points.get_offsets()) for points in axes.collections]
    [3, 1]
    """
    ends = np.array([np.concatenate([chosen, others]).min(), np.concatenate([chosen, others]).max()])
    axes.plot(ends, ends, color=NEUTRAL, linewidth=1)
    axes.scatter(others[:, 0], others[:, 1], s=8, color=NEUTRAL, alpha=0.4, linewidths=0)
    axes.scatter(chosen[:, 0], chosen[:, 1], s=22, color=colour(name), linewidths=0, label=name)
    dress(axes, "Were promises kept?", "return promised", "return earned")
    legend(axes)
