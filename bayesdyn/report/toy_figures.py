"""The toy with known noise: each posterior over one input, and how its two variances move as data come in."""

from collections.abc import Mapping

import numpy as np

from bayesdyn.evaluation.disentanglement import THRESHOLDS
from bayesdyn.plots import optional_series, series
from bayesdyn.plots.numbers import Query
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.content import Cell, Table
from bayesdyn.report.interactive import INK, MUTED, Plot, Trace, area, decades, layout, line, numbers, shade

_TITLES = {
    "log_noise_rmse": "log noise RMSE",
    "epistemic_slope": "epistemic slope",
    "aleatoric_per_tenfold": "aleatoric per tenfold",
    "gap_ratio": "gap over support",
    "aleatoric_ratio": "aleatoric, noise doubled",
    "epistemic_ratio": "epistemic, noise doubled",
}
_DRAWS = 12
Arrays = Mapping[str, series.Array]


def toy_pictures(of: Compared) -> list[Picture]:
    """Return for each posterior what it believes over one input, from its first seed, over the band of the reference."""
    found = {name: arrays for name in of.learned if (arrays := optional_series.toy(of.comparison, name)) is not None}
    other = found.get(of.reference)
    return [_over_one_input(of, name, arrays, None if name == of.reference else other) for name, arrays in found.items()]


def variance_pictures(of: Compared) -> list[Picture]:
    """Return both variances against the number of rows."""
    data, ends = list[Trace](), []
    for name in of.learned:
        for metric, dash, what in (("epistemic_var", "solid", "epistemic"), ("aleatoric_var", "dot", "aleatoric")):
            rows, values = optional_series.by_count(of.numbers, metric, name)
            if len(rows):
                told = f"{what} variance %{{y:.2g}} from %{{x}} rows"
                style = {"color": of.style(name).colour, "dash": dash, "width": 2}
                data.append({**line(of.style(name), rows, values, told), "line": style})
                ends.append(f"{name} {what} {values[-1]:.2g}")
    if not data:
        return []
    ticks = sorted({x for trace in data for x in trace["x"]})
    drawn = [y for trace in data for y in trace["y"] if y]
    axes = layout(
        "rows of data",
        "mean variance where there are data",
        xaxis={"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [f"{x:g}" for x in ticks]},
        yaxis={"type": "log", **decades(np.array([0.9 * min(drawn), 1.1 * max(drawn)]))},
    )
    alt = f"Epistemic and aleatoric variance on the toy against the number of rows; at the most rows: {', '.join(ends)}."
    reading = "Solid: epistemic, which data take away, about in proportion. Dotted: aleatoric, which they must not touch."
    return [picture(Plot(data, axes), "variances", "Variances against rows of data", reading, alt, "disentanglement")]


def toy_table(of: Compared) -> Table | None:
    """Return the figures of the toy that have thresholds, those within them marked."""
    queries = {metric: Query(metric, horizon=0, propagation="") for metric in _TITLES}
    known = [metric for metric, query in queries.items() if of.numbers.values(query)]
    if not known:
        return None
    rows = []
    for name in of.learned:
        found = {metric: of.numbers.mean(queries[metric], name) for metric in known}
        cells = [Cell("–") if np.isnan(v) else Cell(f"{v:.3g}", best=_within(metric, v)) for metric, v in found.items()]
        rows.append([Cell(name), *cells])
    bounds = "; ".join(f"{_TITLES[metric]} {_bounds(metric)}" for metric in known)
    return Table("toy", ("", *(_TITLES[metric] for metric in known)), rows, f"Marked: within the proposed bounds. {bounds}.")


def _over_one_input(of: Compared, name: str, arrays: Arrays, reference: Arrays | None) -> Picture:
    colour, x = of.style(name).colour, arrays["x"]
    areas = [
        area(x, arrays["mean"] - 2 * std, arrays["mean"] + 2 * std, shade(colour, percent))
        for std, percent in ((_total(arrays), 16), (arrays["epistemic_std"], 30))
    ]
    paths = [_path(x, draw, colour, 0.7) for draw in arrays["draws"][:_DRAWS]]
    points = {
        "mode": "markers",
        "marker": {"color": MUTED, "size": 3.5},
        "x": numbers(arrays["rows_x"]),
        "y": numbers(arrays["rows_y"]),
    }
    dashed = [_path(x, arrays["true_mean"] + sign * arrays["true_std"] * 2, INK, 1, "dot") for sign in (-1, 1)]
    data = [
        *([] if reference is None else [_other_band(reference)]),
        *areas,
        *paths,
        {"type": "scatter", "hoverinfo": "skip", **points},
        *dashed,
        _path(x, arrays["true_mean"], INK, 1.6, "dash"),
        _path(x, arrays["mean"], colour, 2.2),
    ]
    reach = 1.15 * float(np.abs(arrays["rows_y"]).max())
    axes = layout(
        "x", "y", xaxis={"range": numbers([x[0], x[-1]]), "zeroline": False}, yaxis={"range": [-reach, reach], "zeroline": False}
    )
    middle = np.abs(x) < 0.7 / 7**0.5
    inside = (np.abs(x) > 1 / 7**0.5) & (np.abs(x) < 4 / 7**0.5)
    ratio = float((arrays["epistemic_std"][middle] ** 2).mean() / max((arrays["epistemic_std"][inside] ** 2).mean(), 1e-300))
    alt = f"{name} over one input: the epistemic variance in the gap between the data is {ratio:.2g} times that beside it."
    unsure = bool((arrays["epistemic_std"] > 0).any())
    told = f"In the gap the epistemic variance is {ratio:.2g} times that where there are data."
    reading = told if unsure else "One θ: it has no epistemic part."
    return picture(Plot(data, axes, owner=name), f"toy-{name}", name, reading, alt, "disentanglement")


def _other_band(arrays: Arrays) -> Trace:
    """Where another posterior has its mean ± 2 epistemic std."""
    reach = 2 * arrays["epistemic_std"]
    return area(arrays["x"], arrays["mean"] - reach, arrays["mean"] + reach, shade(INK, 18))


def _total(arrays: Arrays) -> series.Array:
    return np.hypot(arrays["epistemic_std"], arrays["aleatoric_std"])


def _path(x: series.Array, y: series.Array, colour: str, width: float, dash: str = "solid") -> Trace:
    line = {"color": colour, "width": width, "dash": dash}
    return {"type": "scatter", "mode": "lines", "x": numbers(x), "y": numbers(y), "line": line, "hoverinfo": "skip"}


def _within(metric: str, value: float) -> bool:
    low, high = THRESHOLDS[metric]
    return low <= value <= high


def _bounds(metric: str) -> str:
    low, high = THRESHOLDS[metric]
    if np.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if np.isinf(low) else f"{low:g} to {high:g}"
