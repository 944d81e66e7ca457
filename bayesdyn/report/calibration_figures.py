"""Calibration: quantile curves with their area, PIT histograms, and both before and after recalibration."""

import math
from html import escape

import numpy as np

from bayesdyn.evaluation.table import IN_DISTRIBUTION
from bayesdyn.plots import series
from bayesdyn.plots.numbers import OPEN_LOOP, Query
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import RECALIBRATED, Compared, picture
from bayesdyn.report.content import Cell, Table
from bayesdyn.report.interactive import Plot, Trace, alone, band, layout, line, null_band, numbers, rule, upright

_LEVEL = np.linspace(0.0, 1.0, 51)


def calibration_table(of: Compared) -> Table:
    """Return the area between curve and diagonal, signed and unsigned, and coverage, each with the band of a right model."""
    queries = {
        "area to the diagonal": Query("mace"),
        "signed: too sure > 0": Query("overconfidence"),
        "50 % interval holds": Query("coverage50"),
        "90 % interval holds": Query("coverage90"),
        "mean squared z": Query("mean_squared_z"),
    }
    kept = {title: query for title, query in queries.items() if of.numbers.values(query)}
    rows = [[Cell(name), *(_with_null(of, query, name) for query in kept.values())] for name in of.learned]
    caption = f"Mean over {of.seeds} seed{'s' if of.seeds > 1 else ''}; small: where a right model would land (5 to 95 %)."
    return Table("calibration", ("", *kept), rows, caption)


def calibration_pictures(of: Compared) -> list[Picture]:
    """Return calibration curves in distribution, on all shifted data and after recalibration, and PIT histograms."""
    inside = series.pit(of.comparison)
    pictures = []
    if inside:
        pictures += [_curves(of, inside, "in distribution", "inside", with_band=True), _histograms(of, inside)]
    shifted = [series.pit(of.comparison, shift) for shift in of.shifts]
    if any(shifted):
        together = {name: np.concatenate([found[name] for found in shifted if name in found]) for name in shifted[0]}
        pictures.append(_curves(of, together, "on all shifted data", "shifted", with_band=False))
    after = series.pit(of.comparison, f"{RECALIBRATED}/{IN_DISTRIBUTION}")
    if after:
        pictures += [_before_and_after(of, inside, after), _coverage_before_and_after(of)]
    return pictures


def _curves(of: Compared, pit: dict[str, series.Array], where: str, key: str, *, with_band: bool) -> Picture:
    data: list[Trace] = [rule([0, 1], [0, 1])]
    areas = []
    for name in [name for name in of.learned if name in pit]:
        style, share = of.style(name), series.share_below(pit[name], _LEVEL)
        null = series.calibration_band(of.numbers, name) if with_band else None
        if null is not None:
            ends = (np.array([0.0, *side, 1.0]) for side in null)
            level, low, high = ends
            data.append(alone(null_band(name, level, low, high)))
        data.append(alone(band(style, _LEVEL, _LEVEL, share, 22)))
        data.append(line(style, _LEVEL, share, "%{y:.0%} of outcomes below its %{x:.0%} quantile"))
        areas.append(f"{name} {np.abs(share - _LEVEL).mean():.3f}")
    square = layout("predicted probability", "share of outcomes below", **_percent_axes())
    alt = f"Calibration curves {where}; area between curve and diagonal: {', '.join(areas)}."
    reading = (
        "On the diagonal p of all outcomes lie below the predicted p-quantile; an S flatter than it is too sure, steeper too "
        "careful. "
        + (
            "Choose one model to see its area and, in grey, where the curve of a right model would lie."
            if with_band
            else "Nothing here is like the training data, so that a curve near the diagonal is an achievement."
        )
    )
    return picture(Plot(data, square), f"calibration-{key}", f"Calibration, {where}", reading, alt, "calibration")


def _histograms(of: Compared, pit: dict[str, series.Array]) -> Picture:
    data: list[Trace] = [rule([0, 1], [0.1, 0.1])]
    edges = np.linspace(0, 1, 11)
    for name in [name for name in of.learned if name in pit]:
        style, share = of.style(name), series.histogram(pit[name])
        null = series.histogram_band(of.numbers, name)
        if null is not None:
            step = (np.repeat(edges, 2)[1:-1], np.repeat(null.low, 2), np.repeat(null.high, 2))
            data.append(alone(null_band(name, *step)))
        told = "%{y:.1%} of outcomes in this tenth"
        data.append(line(style, np.repeat(edges, 2)[1:-1], np.repeat(share, 2), told))
    axes = layout(
        "predicted probability of less than what happened",
        "share of outcomes",
        xaxis={"range": [0, 1], "tickformat": ".0%"},
        yaxis={"rangemode": "tozero", "tickformat": ".0%"},
    )
    alt = "Histograms of the probability integral transform in ten bins, with the line of a uniform distribution at 10 %."
    reading = (
        "Level is right. A bowl is too sure (too much falls outside), a hill too careful, a slope biased. "
        "Choose one model to see where the bars of a right one would end."
    )
    return picture(Plot(data, axes), "pit", "Where in the prediction does the truth fall?", reading, alt, "pit")


def _before_and_after(of: Compared, before: dict[str, series.Array], after: dict[str, series.Array]) -> Picture:
    data: list[Trace] = [rule([0, 1], [0, 1])]
    words = []
    for name in [name for name in of.learned if name in after]:
        style = of.style(name)
        told = "%{y:.0%} of outcomes below its %{x:.0%} quantile"
        share = series.share_below(after[name], _LEVEL)
        data.append(line(style, _LEVEL, share, f"recalibrated, {told}"))
        words.append(f"{name} {np.abs(share - _LEVEL).mean():.3f}")
        if name in before:
            dotted = {"color": style.colour, "dash": "dot", "width": 1.5}
            data.append({**line(style, _LEVEL, series.share_below(before[name], _LEVEL), told), "line": dotted})
    axes = layout("predicted probability", "share of outcomes below", **_percent_axes())
    alt = f"Calibration curves before and after recalibration; areas afterwards: {', '.join(words)}."
    reading = "Dotted before, solid after the two parts of the variance were scaled on trajectories kept apart for that."
    return picture(Plot(data, axes), "recalibration", "Before and after recalibration", reading, alt, "recalibration")


def _coverage_before_and_after(of: Compared) -> Picture:
    rows, data = [], list[Trace]()
    horizons = of.numbers.horizons("coverage90", split=RECALIBRATED) or [1]
    horizon = of.ahead[-1] if of.ahead[-1] in horizons else horizons[-1]
    names = list(reversed(of.learned))
    for name in names:
        old, new = (of.numbers.mean(Query("coverage90", horizon=horizon, propagation=OPEN_LOOP, split=s), name) for s in _SPLITS)
        if not math.isfinite(new):
            continue
        style = of.style(name)
        data.append({**rule([old, new], [0, 0], "solid", style.colour), "y": [escape(name)] * 2})
        for value, filled, when in ((old, False, "before"), (new, True, "after")):
            data.append(_dot(style.colour, name, value, f"{escape(name)}, {when}: %{{x:.1%}}", filled=filled))
        rows.append(f"{name} {old:.0%} to {new:.0%}")
    axes = layout(
        f"share of outcomes inside the 90 % band after {of.steps(horizon)}",
        "hollow before, filled after",
        shapes=[upright(0.9)],
        xaxis={"tickformat": ".0%"},
        yaxis={"type": "category", "automargin": True, "showgrid": False},
    )
    alt = f"90 % coverage after {of.steps(horizon)}, before and after recalibration: {'; '.join(rows)}."
    reading = (
        "Scales are fitted one step ahead; whether the band then holds many steps ahead has to be seen. The dotted line is 90 %."
    )
    return picture(Plot(data, axes), "recalibrated-coverage", "Does it hold many steps ahead?", reading, alt, "recalibration")


_SPLITS = ("test", RECALIBRATED)


def _dot(colour: str, name: str, value: float, told: str, *, filled: bool) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": numbers([value]),
        "y": [escape(name)],
        "marker": {"color": colour if filled else "var(--paper)", "size": 11, "line": {"color": colour, "width": 2}},
        "hovertemplate": f"{told}<extra></extra>",
    }


def _with_null(of: Compared, query: Query, name: str) -> Cell:
    value, (low, high) = of.numbers.mean(query, name), of.numbers.null(query, name)
    if not math.isfinite(value):
        return Cell("–")
    return Cell(f"{value:.3f}", note=f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "")


def _percent_axes() -> dict[str, dict[str, object]]:
    axis: dict[str, object] = {"range": [0, 1], "tickformat": ".0%", "dtick": 0.25}
    return {"xaxis": axis, "yaxis": axis}
