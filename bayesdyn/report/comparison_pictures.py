"""The figures of a comparison: errors by horizon, what the model knows of its own errors, fans of open-loop rollouts."""

import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.evaluation.comparison import Cell
from bayesdyn.evaluation.table import IN_DISTRIBUTION, ONE_STEP
from bayesdyn.report.canvas import INK, MUTED, Palette, Picture, draw, label, panel
from bayesdyn.report.recordings import Recording

_LARGE = (430, 265)
_OPEN_LOOP = "TSInf"
_NINETY = 1.645  # standard deviations to either side that hold 90 % of a Gaussian
_BINS = 10


def horizon_pictures(comparison: Comparison, data: Recording, palette: Palette) -> list[Picture]:
    """Return error and coverage against how far ahead is predicted, in distribution."""
    unit = f" ({data.unit})" if data.unit else ""
    error, coverage = panel(*_LARGE), panel(*_LARGE)
    ends = []
    for name in comparison.posteriors:
        times, values = _by_horizon(comparison, name, "rmse", data)
        colour = palette.colour(name)
        error[1].plot(times, values, marker="o", markersize=4, color=colour, linewidth=1.5 if name in REFERENCES else 2)
        if values:
            ends.append(f"{name} {values[-1]:.3g}{data.unit}")
        times, values = _by_horizon(comparison, name, "coverage90", data)
        if name not in REFERENCES:
            coverage[1].plot(times, [100 * v for v in values], marker="o", markersize=4, color=colour, linewidth=2)
    coverage[1].axhline(90, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    coverage[1].set_ylim(0, 104)
    error[1].set_ylim(bottom=0)
    for axes in (error[1], coverage[1]):
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlim(left=0)
    label(error[1], f"how far ahead ({data.clock})", f"open-loop error, RMSE{unit}")
    label(coverage[1], f"how far ahead ({data.clock})", "truth inside the 90 % band (%)")
    alt_error = f"Open-loop error against horizon; at the longest horizon: {', '.join(ends)}."
    alt_coverage = "Coverage of open-loop 90 % bands against horizon, with the 90 % line."
    return [
        Picture(
            "How fast do errors grow?",
            "Lower is better: root-mean-square error of the mean prediction, from many recorded states.",
            alt_error,
            draw(error[0], "horizon-error", alt_error),
        ),
        Picture(
            "Do the bands hold?",
            "The closer to the dashed line the better: how often the truth is inside the 90 % band, that far ahead.",
            alt_coverage,
            draw(coverage[0], "horizon-coverage", alt_coverage),
        ),
    ]


def knowledge_pictures(comparison: Comparison, data: Recording, palette: Palette) -> list[Picture]:
    """Return, per posterior, epistemic std in and out of distribution, and error against epistemic std."""
    pictures = []
    for name in comparison.posteriors:
        cells = [cell for cell in comparison.cells if cell.posterior == name and f"{IN_DISTRIBUTION}/epistemic_std" in cell.arrays]
        if name not in REFERENCES and cells:
            pictures += [_epistemic(comparison, cells[0], data, palette), _error_by_std(comparison, cells[0], palette)]
    return pictures


def fan_pictures(comparison: Comparison, data: Recording, palette: Palette) -> list[Picture]:
    """Return, per posterior, fans over a typical and the worst stretch in distribution, and a typical one of the first shift."""
    pictures = []
    for name in comparison.posteriors:
        cells = [cell for cell in comparison.cells if cell.posterior == name and f"{IN_DISTRIBUTION}/fan_truth" in cell.arrays]
        if name in REFERENCES or not cells:
            continue
        count = cells[0].arrays[f"{IN_DISTRIBUTION}/fan_truth"].shape[1]
        pictures.append(_fan(cells[0], IN_DISTRIBUTION, count // 2, "a typical stretch", data, palette))
        pictures.append(_fan(cells[0], IN_DISTRIBUTION, count - 1, "the worst stretch", data, palette))
        for shift in comparison.shifts[1:2]:
            count = cells[0].arrays[f"{shift}/fan_truth"].shape[1]
            pictures.append(_fan(cells[0], shift, count // 2, "a typical stretch", data, palette))
    return pictures


def _epistemic(comparison: Comparison, cell: Cell, data: Recording, palette: Palette) -> Picture:
    """Return the densities of log epistemic std, one ridge per test set."""
    figure, axes = panel(*_LARGE)
    shifts = [shift for shift in comparison.shifts if f"{shift}/epistemic_std" in cell.arrays]
    values = {shift: np.sqrt(np.square(cell.arrays[f"{shift}/epistemic_std"]).mean(1)) for shift in shifts}
    everything = np.concatenate(list(values.values()))
    low, high = np.quantile(everything[everything > 0], [0.001, 0.999])
    edges = np.geomspace(low, high, 40)
    for place, shift in enumerate(shifts):
        base = len(shifts) - 1 - place
        counts = np.histogram(values[shift], edges)[0].astype(float)
        smooth = np.convolve(counts, [0.06, 0.24, 0.4, 0.24, 0.06], mode="same")
        height = base + 0.82 * smooth / max(smooth.max(), 1e-12)
        middle = np.sqrt(edges[1:] * edges[:-1])
        colour = palette.colour(cell.posterior) if shift == IN_DISTRIBUTION else MUTED
        axes.fill_between(middle, base, height, color=colour, alpha=0.35 if shift == IN_DISTRIBUTION else 0.22, linewidth=0)
        axes.plot(middle, height, color=colour, linewidth=1.5)
        median = float(np.median(values[shift]))
        axes.plot([median, median], [base, base + 0.82], color=INK, linewidth=1.5)
        axes.annotate(
            f"{median:.2g}", (median, base + 0.82), (0, 3), textcoords="offset points", ha="center", fontsize=10, color=INK
        )
        axes.annotate(
            data.shift(shift),
            (0, base),
            (2, 5),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=11,
            color=INK,
        )
    axes.set_xscale("log")
    axes.set_xlim(low * (low / high) ** 0.4, high * 1.15)  # room for the names on the left
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_ylim(-0.02, len(shifts) + 0.12)
    label(axes, "epistemic std (in units of the training targets' std)", f"{cell.posterior}: how unsure, on which data")
    medians = [float(np.median(values[shift])) for shift in shifts]
    words = ", ".join(f"{data.shift(shift)} {median:.2g}" for shift, median in zip(shifts, medians, strict=True))
    alt = f"Distribution of the epistemic standard deviation of {cell.posterior} on each test set; medians: {words}."
    return Picture(
        f"{cell.posterior}: unsure where the data are new?",
        "Each hill shows how unsure the model is over one recording (median marked); new kinds of data should stand further right.",
        alt,
        draw(figure, f"epistemic-{cell.posterior}", alt),
    )


def _error_by_std(comparison: Comparison, cell: Cell, palette: Palette) -> Picture:
    """Return the RMSE in ten equal groups by predicted std, over all test sets together."""
    figure, axes = panel(*_LARGE)
    shifts = [shift for shift in comparison.shifts if f"{shift}/error" in cell.arrays]
    error = np.concatenate([cell.arrays[f"{shift}/error"] for shift in shifts]).ravel()
    epistemic = np.concatenate([cell.arrays[f"{shift}/epistemic_std"] for shift in shifts]).ravel()
    aleatoric = np.concatenate([cell.arrays[f"{shift}/aleatoric_std"] for shift in shifts]).ravel()
    groups = np.array_split(np.argsort(epistemic), _BINS)
    made = [float(np.sqrt(np.square(error[group]).mean())) for group in groups]
    said = [float(np.sqrt((np.square(epistemic[group]) + np.square(aleatoric[group])).mean())) for group in groups]
    places = np.arange(1, _BINS + 1)
    axes.bar(places, made, 0.68, color=palette.colour(cell.posterior), alpha=0.55, linewidth=0)
    axes.plot(places, said, color=INK, linewidth=1.8, marker="o", markersize=4)
    axes.set_xticks([1, _BINS], ["surest tenth", "least sure tenth"])
    label(axes, "", f"{cell.posterior}: errors made (bars) and std stated (line)")
    alt = (
        f"Root-mean-square error of {cell.posterior} in ten groups from surest to least sure: {made[0]:.2g} in the surest tenth, "
        f"{made[-1]:.2g} in the least sure; stated standard deviations {said[0]:.2g} and {said[-1]:.2g}."
    )
    return Picture(
        f"{cell.posterior}: wrong where it said it might be?",
        "All test points in ten groups by epistemic std: bars should rise to the right, and the line should touch their tops.",
        alt,
        draw(figure, f"error-{cell.posterior}", alt),
    )


def _fan(cell: Cell, shift: str, window: int, which: str, data: Recording, palette: Palette) -> Picture:
    """Return the fan over one stretch, of the first output."""
    figure, axes = panel()
    parts = {
        part: cell.arrays[f"{shift}/fan_{part}"][..., window, 0]
        for part in ("truth", "mean", "quantiles", "epistemic_std", "lines")
    }
    time = [data.time(step) for step in range(len(parts["truth"]))]
    colour = palette.colour(cell.posterior)
    low, high = parts["quantiles"][0], parts["quantiles"][-1]
    reach = _NINETY * parts["epistemic_std"]
    # With heavy tails 1.645 std can reach past the quantiles; the part is never drawn larger than the whole.
    inner_low, inner_high = np.maximum(parts["mean"] - reach, low), np.minimum(parts["mean"] + reach, high)
    axes.fill_between(time, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.fill_between(time, inner_low, inner_high, color=colour, alpha=0.28, linewidth=0)
    for line in parts["lines"][:3]:
        axes.plot(time, line, color=colour, linewidth=0.8, alpha=0.8)
    axes.plot(time, parts["truth"], color=INK, linewidth=2)
    _limit(axes, [parts["truth"], low, high])
    unit = f" ({data.unit})" if data.unit else ""
    label(axes, f"how far ahead ({data.clock})", f"output{unit}")
    inside = float(((parts["truth"] >= low) & (parts["truth"] <= high))[1:].mean())
    alt = f"Open-loop fan of {cell.posterior} over {which}, {data.shift(shift)}: "
    alt += f"the truth is inside the 90 % band {100 * inside:.0f} % of the time."
    return Picture(
        f"{cell.posterior}: {which}, {data.shift(shift)}",
        "Dark line: what was recorded. Thin lines: three possible worlds. Dark band: epistemic; pale: with noise.",
        alt,
        draw(figure, f"fan-{cell.posterior}-{shift}-{window}", alt),
    )


def _limit(axes: Axes, values: Sequence[np.ndarray]) -> None:
    """Set y limits around finite values, so that one runaway world doesn't flatten the picture."""
    finite = np.concatenate([part[np.isfinite(part)] for part in values])
    low, high = float(finite.min()), float(finite.max())
    room = 0.06 * (high - low or 1.0)
    axes.set_ylim(low - room, high + room)


def _by_horizon(comparison: Comparison, name: str, metric: str, data: Recording) -> tuple[list[float], list[float]]:
    """Return times ahead and the metric there, averaged over seeds and outputs; one step ahead if there is no open loop."""
    rows = comparison.select(posterior=name, metric=metric, shift=IN_DISTRIBUTION, propagation=_OPEN_LOOP)
    rows = rows or comparison.select(posterior=name, metric=metric, shift=IN_DISTRIBUTION, propagation=ONE_STEP)
    horizons = sorted({row.horizon for row in rows})
    values = [statistics.fmean(row.value for row in rows if row.horizon == horizon) for horizon in horizons]
    return [data.time(horizon) for horizon in horizons], values
