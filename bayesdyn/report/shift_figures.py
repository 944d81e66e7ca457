"""Are data of a new kind noticed? The shift score in and out of distribution, and how well a threshold on it would do."""

import html

import numpy as np

from bayesdyn.evaluation.table import IN_DISTRIBUTION
from bayesdyn.plots import series
from bayesdyn.plots.numbers import Query
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.interactive import INK, MUTED, Plot, Trace, area, decades, layout, line, rule, shade

_BINS = 36
_MOST_CURVES = 4
_SMOOTH = (0.06, 0.24, 0.4, 0.24, 0.06)


def roc_pictures(of: Compared) -> list[Picture]:
    """Return a ROC curve of all models for each kind of shifted data."""
    return [found for shift in of.shifts[:_MOST_CURVES] if (found := _roc(of, shift)) is not None]


def score_pictures(of: Compared) -> list[Picture]:
    """Return for each model the distribution of its shift score on every test set."""
    return [found for name in of.learned if (found := _scores(of, name)) is not None] if of.shifts else []


def _roc(of: Compared, shift: str) -> Picture | None:
    data: list[Trace] = [rule([0, 1], [0, 1])]
    words = []
    for name in of.learned:
        found = series.roc(of.comparison, name, shift)
        if found is not None and of.doubts(name):
            told = "%{y:.0%} of the new data found at %{x:.0%} false alarms"
            data.append(line(of.style(name), *found, told))
            words.append(f"{name} {of.numbers.mean(Query('auroc', shift=shift), name):.2f}")
    if not words:
        return None
    axis = {"range": [0, 1.005], "tickformat": ".0%", "dtick": 0.25}
    title = f"ROC curve ({of.data.shift(shift)})"
    axes = layout("false alarms on data like the training data", "share of the new data found", xaxis=axis, yaxis=axis)
    alt = f"ROC curves of the shift score for {of.data.shift(shift)}; areas: {', '.join(words)}."
    reading = f"The further to the upper left the better. Area under the curve: {', '.join(words)}."
    return picture(Plot(data, axes), f"roc-{shift}", title, reading, alt, "shift")


def _scores(of: Compared, name: str) -> Picture | None:
    shifts = [IN_DISTRIBUTION, *of.shifts]
    values = {shift: series.pooled(of.comparison, name, "shift_score", shift) for shift in shifts}
    known = {shift: np.maximum(found, 1e-12) for shift, found in values.items() if found is not None}
    if len(known) < 2:
        return None
    everything = np.concatenate(list(known.values()))
    low, high = np.quantile(everything, [0.002, 0.999])
    if not high > low:
        return None
    edges = np.geomspace(low, high, _BINS + 1)
    middle = np.sqrt(edges[1:] * edges[:-1])
    colour = of.style(name).colour
    data, medians = list[Trace](), []
    for place, (shift, found) in enumerate(known.items()):
        base = float(len(known) - 1 - place)
        counts = np.convolve(np.histogram(np.clip(found, low, high), edges)[0], _SMOOTH, mode="same")
        hill = base + 0.8 * counts / max(float(counts.max()), 1e-12)
        ink = colour if shift == IN_DISTRIBUTION else MUTED
        median = float(np.median(found))
        data.append(_hill(middle, base, hill, ink, name))
        data.append(rule([median, median], [base, base + 0.8], dash="solid", colour=INK))
        medians.append(f"{of.data.shift(shift)} {median:.2g}")
    names = [html.escape(of.data.shift(shift)) for shift in known]
    ticks = {"tickmode": "array", "tickvals": [len(known) - 0.6 - k for k in range(len(known))], "ticktext": names}
    axes = layout(
        "shift score g",
        "",
        xaxis={"type": "log", **decades(edges)},
        yaxis={**ticks, "showgrid": False, "automargin": True, "range": [-0.05, len(known)]},
    )
    alt = f"Distribution of the shift score of {name} on each test set; medians: {', '.join(medians)}."
    reading = f"A hill for each recording, its median marked; new kinds of data should stand further right. {', '.join(medians)}."
    return picture(Plot(data, axes, owner=name), f"shift-{name}", name, reading, alt, "shift")


def _hill(x: series.Array, base: float, y: series.Array, colour: str, name: str) -> Trace:
    return {**area(x, y, np.full(len(x), base), shade(colour, 30), name), "line": {"color": colour, "width": 1.3}}
