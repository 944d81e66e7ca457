"""The open loop against the horizon: error, skill, coverage with the band of a right model, spread over error."""

import math
from dataclasses import dataclass, replace

import numpy as np

from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.plots.numbers import OPEN_LOOP, Line
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.interactive import DASHES, Plot, Trace, alone, band, layout, line, null_band, numbers, off_scale, rule


@dataclass(frozen=True)
class _Against:
    """A metric that is drawn against the horizon: titles, how to read it, and the value to compare with."""

    metric: str
    title: str
    label: str
    reading: str
    formula: str
    told: str = "%{y:.3g}"
    target: float | None = None
    percent: bool = False
    top: float | None = None
    references: bool = True
    positive: bool = True


def horizon_pictures(of: Compared) -> list[Picture]:
    """Return a figure for each metric of the open loop that the comparison has, in distribution."""
    drawn = [
        _Against(
            "coverage90",
            "Do 90 % bands hold?",
            "truth inside the 90 % band",
            "The closer to the dotted line the better. Choose one model to see its seeds' interval and, in grey, where a right "
            "model's "
            "coverage would lie: a wide grey band means that the test set could not tell.",
            "coverage",
            "%{y:.1%}",
            0.9,
            percent=True,
            top=1.0,
            references=False,
        ),
        _Against(
            "coverage50",
            "And 50 % bands?",
            "truth inside the 50 % band",
            "As above, for the band that should hold every second outcome.",
            "coverage",
            "%{y:.1%}",
            0.5,
            percent=True,
            top=1.0,
            references=False,
        ),
        _Against(
            "spread_skill",
            "Does the spread match the error?",
            "predicted spread over error made",
            "At 1 the particles spread as far as their mean is wrong; below 1 the model is too sure that far ahead.",
            "spread-skill",
            target=1.0,
            references=False,
        ),
        _Against(
            "rmse",
            "How fast do errors grow?",
            f"root-mean-square error{of.unit}",
            "Lower is better: the error of the mean of the particles, from many recorded states.",
            "rmse",
        ),
        _Against(
            "skill_ridge-linear",
            "Better than a linear model?",
            "CRPS skill against ridge-linear",
            "1 would be perfect, 0 is as good as linear regression with a Gaussian that is right at each horizon, below 0 is "
            "worse.",
            "skill",
            target=0.0,
            references=False,
            positive=False,
        ),
    ]
    found = [(against, of.numbers.by_horizon(against.metric)) for against in drawn]
    return [_picture(of, against, lines) for against, lines in found if any(name not in REFERENCES for name in lines)]


def _picture(of: Compared, against: _Against, lines: dict[str, Line]) -> Picture:
    data: list[Trace] = []
    times = sorted({of.data.time(h) for each in lines.values() for h in each.horizons})
    if against.target is not None:
        data.append(rule([times[0], times[-1]], [against.target, against.target]))
    ends = []
    for name, each in lines.items():
        if name in REFERENCES and not against.references:
            continue
        data += _traces(of, against, name, each)
        ends.append(f"{name} {each.mean[-1]:.3g}")
    data += _other_propagations(of, against)
    reading = against.reading
    most, least = 1.0 if against.top is None else against.top, 0.0
    y: dict[str, object] = {"tickformat": ".0%"} if against.percent else {}
    if against.top is not None:
        y["range"] = [least, 1.03 * most]
    elif against.positive:
        y["rangemode"] = "tozero"
    else:
        ends_of_scale = _skill_range(lines)
        y["range"] = numbers(ends_of_scale)
        arrows = [mark for name, each in lines.items() if name not in REFERENCES for mark in _arrows(of, name, each, ends_of_scale)]
        data += arrows
        reading += " An arrow at the edge is a value outside the picture." if arrows else ""
    ticks = {"tickmode": "array", "tickvals": numbers(times), "ticktext": [f"{time:g}" for time in times]}
    axes = layout(f"how far ahead ({of.data.clock})", against.label, xaxis={"type": "log", **ticks}, yaxis=y)
    alt = f"{against.title} {against.label.capitalize()} against the horizon; at the longest: {', '.join(ends)}."
    return picture(Plot(data, axes), f"horizon-{against.metric}", against.title, reading, alt, against.formula)


def _arrows(of: Compared, name: str, each: Line, ends: tuple[float, float]) -> list[Trace]:
    return off_scale(of.style(name), [float(of.data.time(h)) for h in each.horizons], each.mean, ends)


def _traces(of: Compared, against: _Against, name: str, each: Line) -> list[Trace]:
    style = of.style(name)
    time = np.array([of.data.time(h) for h in each.horizons])
    marked = {"mode": "lines+markers", "marker": {"size": 6, "color": style.colour}}
    traces = [line(style, time, each.mean, f"{against.told} after %{{x:g}} {of.data.clock}", **marked)]
    if name in REFERENCES:
        return traces
    if np.isfinite(each.low).all():
        traces.append(alone(band(style, time, each.low, each.high, 20)))
    if np.isfinite(each.null_low).all():
        traces.append(alone(null_band(name, time, each.null_low, each.null_high)))
    return traces


def _other_propagations(of: Compared, against: _Against) -> list[Trace]:
    """Return the same metric by the other ways of taking steps, dashed, for a model that is looked at alone."""
    traces = []
    others = [name for name in of.numbers.propagations() if name != OPEN_LOOP]
    for place, propagation in enumerate(others):
        for name, each in of.numbers.by_horizon(against.metric, propagation=propagation).items():
            if name not in REFERENCES and np.isfinite(each.mean).any():
                style = replace(of.style(name), dash=DASHES[1 + place % (len(DASHES) - 1)], width=1.5)
                time = np.array([of.data.time(h) for h in each.horizons])
                traces.append(alone(line(style, time, each.mean, f"{propagation}, {against.told}")))
    return traces


def _skill_range(lines: dict[str, Line]) -> tuple[float, float]:
    """Return limits that one model, worse than the reference many times over, does not decide alone: a tenth may be far below."""
    values = np.concatenate([each.mean for name, each in lines.items() if name not in REFERENCES])
    values = values[np.isfinite(values)]
    high = max(float(values.max()), 0.0) if len(values) else 1.0
    tenth = min(float(np.quantile(values, 0.1)), 0.0) if len(values) else -1.0
    low = max(min(float(values.min()), 0.0), 2 * tenth - high) if len(values) else tenth
    room = 0.08 * (high - low or 1.0)
    return (low - room if math.isfinite(low) else -1.0, high + room)
