"""Does a model know where it is wrong? Error against epistemic std, and what is left when the least sure points are removed."""

import math

import numpy as np

from bayesdyn.plots import series
from bayesdyn.plots.numbers import Query
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.interactive import INK, MUTED, Plot, Trace, alone, decades, layout, line, numbers, rule, shade

_CELLS, _GROUPS = 26, 15


def sparsification_pictures(of: Compared) -> list[Picture]:
    """Return the sparsification curves of all models in distribution."""
    data: list[Trace] = [rule([0, 1], [1, 1])]
    ends = []
    for name in of.learned:
        found = series.sparsified(of.comparison, name)
        if found is None or not of.doubts(name):
            continue
        style = of.style(name)
        data.append(line(style, found.share, found.remaining, "without its %{x:.0%} least sure, %{y:.2f} of the error is left"))
        oracle = {"color": style.colour, "dash": "dot", "width": 1.5}
        data.append(alone({**line(style, found.share, found.oracle, "if it knew its errors, %{y:.2f}"), "line": oracle}))
        ends.append(f"{name} {of.numbers.mean(Query('ause_epistemic'), name):.2f}")
    if not ends:
        return []
    axes = layout(
        "share of the least sure points removed",
        "error of the rest, over that of all",
        xaxis={"tickformat": ".0%", "range": [0, 1]},
        yaxis={"rangemode": "tozero"},
    )
    alt = f"Sparsification curves. Area between curve and oracle, 0 perfect and 1 useless: {', '.join(ends)}."
    reading = (
        "A model that knows where it is wrong falls steeply; on the grey line its uncertainty says nothing, above it misleads. "
        "Choose one model to see, dotted, the best that was possible with its errors."
    )
    return [picture(Plot(data, axes), "sparsification", "What is left without its least sure points?", reading, alt, "ause")]


def error_pictures(of: Compared) -> list[Picture]:
    """Return error against epistemic std for each model, over all test sets."""
    known = {name: series.errors(of.comparison, name) for name in of.learned}
    # A single network has no epistemic part to draw against.
    return [_errors(of, name, found) for name, found in known.items() if found is not None and np.ptp(found.epistemic_std) > 0]


def _errors(of: Compared, name: str, found: series.Errors) -> Picture:
    style = of.style(name)
    tiny = np.finfo(float).tiny
    std = np.maximum(found.epistemic_std, max(float(np.quantile(found.epistemic_std, 0.002)), tiny))
    size = np.maximum(np.abs(found.error), max(float(np.quantile(np.abs(found.error), 0.01)), tiny))
    x_edges, y_edges = (np.geomspace(values.min(), values.max() * (1 + 1e-9) + tiny, _CELLS + 1) for values in (std, size))
    counts = np.histogram2d(std, size, (x_edges, y_edges))[0].T
    groups = [group for group in np.array_split(np.argsort(std, kind="stable"), _GROUPS) if len(group)]
    centre = [float(np.sqrt(np.square(std[group]).mean())) for group in groups]
    made = [float(np.sqrt(np.square(found.error[group]).mean())) for group in groups]
    said = [float(np.sqrt((np.square(found.epistemic_std) + np.square(found.aleatoric_std))[group].mean())) for group in groups]
    cloud = {
        "type": "heatmap",
        "x": numbers(x_edges),
        "y": numbers(y_edges),
        "z": [[None if count == 0 else math.sqrt(count) for count in row] for row in counts],
        "colorscale": [[0, shade(style.colour, 10)], [1, shade(style.colour, 65)]],
        "showscale": False,
        "hoverinfo": "skip",
    }
    ends = [min(centre), max(centre)]
    data = [
        cloud,
        rule(ends, ends, dash="dash"),
        line(style, centre, said, "stated %{y:.3g} where its epistemic std is %{x:.3g}", line={"color": MUTED, "width": 1.6}),
        line(
            style,
            centre,
            made,
            "erred by %{y:.3g} where its epistemic std is %{x:.3g}",
            mode="lines+markers",
            line={"color": INK, "width": 2},
            marker={"size": 5, "color": INK},
        ),
    ]
    axes = layout(
        "epistemic std (target units)",
        "error (target units)",
        xaxis={"type": "log", **decades(x_edges)},
        yaxis={"type": "log", **decades(y_edges)},
    )
    rank, (low, high) = of.numbers.mean(Query("spearman_epistemic"), name), of.numbers.null(Query("spearman_epistemic"), name)
    ceiling = f", where a right model would have {low:.2f} to {high:.2f}" if math.isfinite(low) else ""
    told = f"Rank correlation in distribution {rank:.2f}{ceiling}." if math.isfinite(rank) else ""
    alt = (
        f"Error of {name} against its epistemic standard deviation over all test sets: root mean square {made[0]:.2g} among the "
        f"surest points, {made[-1]:.2g} among the least sure. {told}"
    )
    return picture(
        Plot(data, axes, owner=name),
        f"error-{name}",
        name,
        f"Dark: errors made; grey: errors stated; dashed: identity. {told}",
        alt,
        "spearman",
    )
