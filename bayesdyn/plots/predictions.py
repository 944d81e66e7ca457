"""Figures of predictions: calibration, horizons, fans, errors, shifts, one-dimensional fits, learning curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.plots.style import NEUTRAL, PALETTE, colour, dress, legend, legend_above

_DASHES = {"ridge-linear": (0, (5, 2)), "persistence": (0, (1, 1.5))}
_BINS = 15

Array = Float[np.ndarray, "..."]


def calibration_curve(
    axes: Axes, pit: Mapping[str, Array], null: tuple[Array, Array] | None = None, level: Array | None = None
) -> None:
    """Draw for each posterior the share of test values below their predicted p-quantile against p; the diagonal is calibrated.

    `pit` holds probability integral transforms of any shape. `null` = (low, high) [P] at `level` [P] shades what a calibrated model
    would show.
    """
    p = np.linspace(0.0, 1.0, 201)
    if null is not None:
        where = np.linspace(0.01, 0.99, len(null[0])) if level is None else level
        axes.fill_between(where, *null, color=NEUTRAL, alpha=0.25, linewidth=0, label="calibrated, 90 %")
    axes.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=1)
    for name, values in pit.items():
        u = np.sort(np.ravel(values))
        share = np.searchsorted(u, p, side="right") / len(u)
        axes.plot(p, share, color=colour(name), linestyle=_DASHES.get(name, "-"), linewidth=1.8, label=name)
        axes.fill_between(p, p, share, color=colour(name), alpha=0.08, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    dress(axes, "Calibration", "predicted probability", "observed share")
    legend(axes)


def by_horizon(
    axes: Axes,
    horizons: Sequence[int],
    values: Mapping[str, Sequence[float]],
    *,
    label: str,
    target: float | None = None,
    null: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Draw one line per posterior against the horizon (log axis): coverage with its `target`, an error, a ratio.

    `null` = (low, high), one pair per horizon, shades what a calibrated model would show.
    """
    if null is not None:
        axes.fill_between(horizons, *null, color=NEUTRAL, alpha=0.25, linewidth=0, label="calibrated, 90 %")
    if target is not None:
        axes.axhline(target, color=NEUTRAL, linewidth=1)
    for name, line in values.items():
        if len(line) != len(horizons):
            raise ShapeError(f"{name} wants one value per horizon; got {len(line)} values for {len(horizons)} horizons")
        style = _DASHES.get(name, "-")
        axes.plot(horizons, line, color=colour(name), linestyle=style, marker="o", markersize=3.5, linewidth=1.8, label=name)
    axes.set_xscale("log")
    axes.set_xticks(list(horizons), labels=[str(h) for h in horizons])
    axes.minorticks_off()
    dress(axes, f"{label} against horizon", "steps ahead", label)
    legend(axes)


def error_against_std(axes: Axes, name: str, epistemic_std: Array, error: Array, unit: str = "") -> None:
    """Draw |error| against epistemic std point by point (log axes), with the RMSE in bins of equal mass and the identity.

    A model that knows where it is wrong shows a rising line; the line stays above the identity by the noise.
    """
    std, distance = np.ravel(epistemic_std), np.abs(np.ravel(error))
    smallest = max(np.quantile(std, 0.001), np.finfo(np.float64).tiny)
    std = np.maximum(std, smallest)
    floor = max(np.quantile(distance, 0.01), np.finfo(np.float64).tiny)
    axes.scatter(std, np.maximum(distance, floor), s=6, color=colour(name), alpha=0.18, linewidths=0, rasterized=True)
    order = np.argsort(std)
    groups = [group for group in np.array_split(order, _BINS) if len(group)]
    centre = [np.sqrt(np.mean(std[group] ** 2)) for group in groups]
    rmse = [np.sqrt(np.mean(distance[group] ** 2)) for group in groups]
    axes.plot(centre, rmse, color=colour(name), linewidth=2, marker="o", markersize=4, label=f"{name}: RMSE per bin")
    line = np.array([std.min(), std.max()])
    axes.plot(line, line, color=NEUTRAL, linewidth=1, label="error = epistemic std")
    axes.set(xscale="log", yscale="log")
    dress(axes, "Does the model know where it is wrong?", f"epistemic std{unit}", f"|error|{unit}")
    legend(axes)


def fan_chart(
    axes: Axes,
    name: str,
    time: Float[np.ndarray, "T"],
    truth: Float[np.ndarray, "T"],
    mean: Float[np.ndarray, "T"],
    epistemic_std: Float[np.ndarray, "T"],
    aleatoric_std: Float[np.ndarray, "T"],
    lines: Float[np.ndarray, "k T"] | None = None,
    *,
    label: str = "",
) -> None:
    """Draw an open-loop prediction over what happened: mean ± 2 std, darker the epistemic part, and paths of one θ each."""
    total = np.sqrt(epistemic_std**2 + aleatoric_std**2)
    shade = colour(name)
    axes.fill_between(time, mean - 2 * total, mean + 2 * total, color=shade, alpha=0.18, linewidth=0, label="with noise")
    axes.fill_between(
        time, mean - 2 * epistemic_std, mean + 2 * epistemic_std, color=shade, alpha=0.32, linewidth=0, label="epistemic, ± 2 std"
    )
    if lines is not None:
        axes.plot(time, lines.T, color=shade, linewidth=0.7, alpha=0.8)
    axes.plot(time, mean, color=shade, linewidth=1.8, label=name)
    axes.plot(time, truth, color=NEUTRAL, linewidth=1.8, linestyle=(0, (4, 1.5)), label="what happened")
    axes.margins(x=0)
    dress(axes, "", "time", label)
    legend_above(axes)


def shift_histogram(axes: Axes, scores: Mapping[str, Array], inside: str) -> None:
    """Draw histograms of the shift score g of several data sets over common bins; `inside` names the one in distribution (grey).

    Raises `ConfigurationError` if `inside` isn't among them.
    """
    if inside not in scores:
        raise ConfigurationError(f"shift_histogram wants the data in distribution, {inside!r}, among {list(scores)}")
    everything = np.concatenate([np.ravel(values) for values in scores.values()])
    low, high = np.quantile(everything, [0.001, 0.999])
    edges = np.geomspace(max(low, 1e-8), max(high, 2e-8), 41)
    others = [shift for shift in scores if shift != inside]
    for shift in (inside, *others):
        values = np.clip(np.ravel(scores[shift]), edges[0], edges[-1])
        shade = NEUTRAL if shift == inside else PALETTE[others.index(shift) % len(PALETTE)]
        weight = np.full(len(values), 1 / len(values))
        filled = shift == inside
        axes.hist(values, edges.tolist(), weights=weight, histtype="stepfilled" if filled else "step", color=shade, linewidth=1.8,
                  alpha=0.45 if filled else 1.0, label="in distribution" if filled else shift)  # fmt: skip
    axes.set_xscale("log")
    dress(axes, "Shift score in distribution and shifted", "g = Σ log(1 + epistemic / aleatoric variance)", "share of points")
    legend(axes)


def posterior_1d(
    axes: Axes,
    name: str,
    x: Float[np.ndarray, "G"],
    mean: Float[np.ndarray, "G"],
    epistemic_std: Float[np.ndarray, "G"],
    aleatoric_std: Float[np.ndarray, "G"],
    *,
    draws: Float[np.ndarray, "k G"] | None = None,
    data: tuple[Array, Array] | None = None,
    truth: Float[np.ndarray, "G"] | None = None,
) -> None:
    """Draw p(y | x, D) over one input: mean ± 2 std with the epistemic part darker, function draws, the data and the truth."""
    total = np.sqrt(epistemic_std**2 + aleatoric_std**2)
    shade = colour(name)
    axes.fill_between(x, mean - 2 * total, mean + 2 * total, color=shade, alpha=0.16, linewidth=0, label="with noise")
    axes.fill_between(
        x, mean - 2 * epistemic_std, mean + 2 * epistemic_std, color=shade, alpha=0.30, linewidth=0, label="epistemic, ± 2 std"
    )
    if draws is not None:
        axes.plot(x, draws.T, color=shade, linewidth=0.6, alpha=0.6)
    axes.plot(x, mean, color=shade, linewidth=2, label=name)
    if truth is not None:
        axes.plot(x, truth, color=NEUTRAL, linewidth=1.5, linestyle=(0, (4, 1.5)), label="truth")
    if data is not None:
        axes.scatter(*data, s=12, color=NEUTRAL, linewidths=0, zorder=3, label="data")
    axes.margins(x=0)
    dress(axes, "", "x", "y")
    legend_above(axes)


def learning_curve(
    axes: Axes, steps: Sequence[float], curves: Mapping[str, Float[np.ndarray, "seeds steps"]], *, label: str, x: str = "trials"
) -> None:
    """Draw each posterior's mean over seeds against data or trials, with a band of ± 1 standard deviation over seeds.

    A value is what that step reached, never the best so far.
    """
    for name, values in curves.items():
        mean = values.mean(0)
        axes.plot(steps, mean, color=colour(name), linewidth=2, linestyle=_DASHES.get(name, "-"), label=name)
        if len(values) > 1:
            std = values.std(0, ddof=1)
            axes.fill_between(steps, mean - std, mean + std, color=colour(name), alpha=0.18, linewidth=0)
    axes.margins(x=0.02)
    dress(axes, "mean ± std over seeds", x, label)
    legend(axes)
