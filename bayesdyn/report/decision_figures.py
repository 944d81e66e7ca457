"""What plans promised, and what they earned: predicted against realised return, its place in the prediction, gap and regret."""

import math
from dataclasses import replace
from html import escape

import numpy as np

from bayesdyn.plots import optional_series, series
from bayesdyn.plots.numbers import Query
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import RECALIBRATED, Compared, picture
from bayesdyn.report.interactive import INK, MUTED, Plot, Trace, layout, line, numbers, rule, upright

_MOST_POINTS = 400


def promise_pictures(of: Compared) -> list[Picture]:
    """Return predicted against realised returns for each model, by the first objective and propagation."""
    return [found for name in of.learned if (found := _promise(of, name)) is not None]


def decision_pictures(of: Compared) -> list[Picture]:
    """Return the PIT of realised returns, and gap and regret of all models, objectives and propagations."""
    asked = [
        ("exploitation_gap", "Were plans too good to be true?", "promised less earned; 0 is honest", "exploitation"),
        ("regret", "What did not knowing the truth cost?", "regret; left is better", "regret"),
    ]
    bars = [_bars(of, *each) for each in asked]
    return [found for found in (_return_pit(of), *bars) if found is not None]


def _promise(of: Compared, name: str) -> Picture | None:
    found = optional_series.promises(of.comparison, name)
    if found is None:
        return None
    colour = of.style(name).colour
    chosen, others = found.chosen, found.others[:: max(len(found.others) // _MOST_POINTS, 1)]
    ends = np.nanquantile(np.concatenate([chosen, others]), [0.0, 1.0]).tolist()
    data = [
        rule(ends, ends, dash="dash"),
        _points(others, MUTED, 4, name, "another plan: promised %{x:.3g}, earned %{y:.3g}", opacity=0.35),
        _points(chosen, colour, 7, name, "chosen: promised %{x:.3g}, earned %{y:.3g}"),
    ]
    gap = of.numbers.mean(found.query("exploitation_gap"), name)
    by_chance = of.numbers.mean(found.query("random_gap"), name)
    axes = layout("return that the model promised", "return earned", xaxis={"zeroline": False}, yaxis={"zeroline": False})
    told = f"Gap of the chosen plans {gap:.2f}, of random ones {by_chance:.2f}, in stds of random plans' returns."
    alt = f"Realised against predicted return of plans made with {name}. {told}"
    reading = f"Coloured: plans that were chosen; grey: others; on the dashed line a promise was kept. {told}"
    return picture(Plot(data, axes, owner=name), f"promise-{name}", name, reading, alt, "exploitation")


def _return_pit(of: Compared) -> Picture | None:
    data: list[Trace] = [rule([0, 1], [0.1, 0.1])]
    edges = np.linspace(0, 1, 11)
    words = []
    for name in of.learned:
        found = optional_series.promises(of.comparison, name)
        if found is not None:
            share = series.histogram(found.pit)
            data.append(line(of.style(name), np.repeat(edges, 2)[1:-1], np.repeat(share, 2), "%{y:.0%} of the trials"))
            words.append(f"{name} {of.numbers.mean(found.query('return_coverage90'), name):.0%}")
    if not words:
        return None
    axes = layout(
        "predicted probability of a lower return", "share of trials", xaxis={"range": [0, 1], "tickformat": ".0%"},
        yaxis={"tickformat": ".0%", "rangemode": "tozero"},
    )  # fmt: skip
    alt = f"Histogram of the place of realised returns in the predicted ones; 90 % coverage: {', '.join(words)}."
    reading = "Level is right; a peak at the left: plans earned less than nearly all of what was predicted. "
    reading += f"90 % coverage: {', '.join(words)}."
    return picture(Plot(data, axes), "return-pit", "Where in the promise was the return?", reading, alt, "pit")


def _bars(of: Compared, metric: str, title: str, label: str, formula: str) -> Picture | None:
    rows = [row for row in of.numbers.select(metric) if row.posterior in of.learned]
    kinds = list(dict.fromkeys((row.split, row.objective, row.propagation, row.horizon) for row in rows))
    last = kinds[-1][0] if kinds else ""  # hollow before recalibration, filled after it
    varied = [len({kind[place] for kind in kinds}) > 1 for place in (1, 2)]
    data, words, names = list[Trace](), [], list[str]()
    for name in reversed(of.learned):
        for split, objective, propagation, horizon in reversed(kinds):
            query = Query(metric, horizon=horizon, propagation=propagation, objective=objective, split=split)
            values = of.numbers.values(query).get(name, {})
            if not values:
                continue
            mean, error = np.mean(list(values.values())), of.numbers.mean(replace(query, metric=f"{metric}_se"), name)
            told = ", ".join(part for part, many in zip((objective, propagation), varied, strict=True) if many)
            told = ", ".join([told] * bool(told) + ["recalibrated"] * (split == RECALIBRATED))
            names.append(escape(f"{name} ({told})" if told else name))
            data.append(_dot(of, name, names[-1], float(mean), error / math.sqrt(len(values)), split == last))
            words.append(f"{names[-1]} {mean:.2g}")
    if not data:
        return None
    axes = layout(
        "stds of random plans' returns",
        label,
        shapes=[upright(0.0, INK)],
        xaxis={"zeroline": False},
        yaxis={"type": "category", "automargin": True, "showgrid": False, "categoryarray": names, "categoryorder": "array"},
    )
    alt = f"{title} {label}: {', '.join(reversed(words))}."
    reading = "Dot: mean over starts and seeds; bar: ± 2 standard errors over starts."
    return picture(Plot(data, axes, tall=len(names) > 8), f"decision-{metric}", title, reading, alt, formula)


def _dot(of: Compared, name: str, row: str, value: float, error: float, filled: bool) -> Trace:
    colour = of.palette.variable(name)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers([value]),
        "y": [row],
        "marker": {
            "size": 10,
            "color": colour,
            "symbol": "circle" if filled else "circle-open",
            "line": {"color": colour, "width": 2},
        },
        "hovertemplate": f"{row}: %{{x:.3g}}<extra></extra>",
    }
    if math.isfinite(error):
        trace["error_x"] = {"type": "data", "array": numbers([2 * error]), "color": colour, "thickness": 2, "width": 4}
    return trace


def _points(values: series.Array, colour: str, size: float, name: str, told: str, opacity: float = 1.0) -> Trace:
    marker = {"color": colour, "size": size, "opacity": opacity}
    return {"type": "scatter", "mode": "markers", "legendgroup": name, "x": numbers(values[:, 0]), "y": numbers(values[:, 1]),
            "marker": marker, "hovertemplate": f"{told}<extra></extra>"}  # fmt: skip
