"""Open-loop fans over what really happened, one figure per model, all moved by one slider over start states."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from bayesdyn.evaluation.table import IN_DISTRIBUTION
from bayesdyn.plots import series
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.content import Section
from bayesdyn.report.interactive import INK, Plot, Slider, Trace, area, layout, numbers, shade

_NINETY = 1.645  # standard deviations to either side that hold 90 % of a Gaussian
_LINES = 5


def fan_sections(of: Compared) -> list[Section]:
    """Return a section with fans in distribution, and one for the first kind of shifted data."""
    sections = []
    for shift in [IN_DISTRIBUTION, *of.shifts][:2]:
        starts = series.fan_starts(of.comparison, shift)
        if starts:
            sections.append(_section(of, shift, starts))
    return sections


def _section(of: Compared, shift: str, starts: Sequence[int]) -> Section:
    third = len(starts) // 3
    kinds = ["easy", "typical", "hard"] if len(starts) == 12 else [""]
    labels = [f"{k + 1} of {len(starts)} {kinds[min(k // max(third, 1), len(kinds) - 1)]}".strip() for k in range(len(starts))]
    outputs = of.numbers.outputs()
    fans = {
        name: [[series.fan(of.comparison, name, start, shift, k) for start in starts] for k in range(max(len(outputs), 1))]
        for name in of.learned
    }
    known = {name: [[each for each in row if each] for row in rows] for name, rows in fans.items() if rows[0][0] is not None}
    ranges = []
    for k in range(max(len(outputs), 1)):
        whole = float(np.ptp([fan.truth for rows in known.values() for fan in rows[k]]))
        ranges += [_range([rows[k][place] for rows in known.values()], whole) for place in range(len(starts))]
    where = of.data.shift(shift)
    return Section(
        f"Many steps ahead, in open loop ({where})",
        "The recorded actions are replayed from a recorded state, and nothing is corrected on the way. All models start in the "
        "same "
        "states, which the slider goes through from those that the models found easy to those that they found hard. Dark band: "
        "what "
        "the model does not know (epistemic); pale: with noise (aleatoric), 50 and 90 % together. Thin lines: single worlds, one θ "
        "each; strong line: what was recorded. An arrow at the edge: there the band leaves the picture.",
        [_picture(of, name, rows, ranges, shift, where) for name, rows in known.items()],
        legend=[],
        slider=Slider(
            "Start state", labels, first=len(starts) // 2, outputs=[f"output {k}" for k in outputs] if len(outputs) > 1 else []
        ),
    )


def _picture(
    of: Compared, name: str, rows: Sequence[Sequence[series.Fan]], ranges: Sequence[Sequence[float]], shift: str, where: str
) -> Picture:
    fans = [fan for row in rows for fan in row]
    first = len(rows[0]) // 2
    time = [of.data.time(step) for step in range(len(fans[0].truth))]
    drawn = [_traces(of, name, time, fan, ends) for fan, ends in zip(fans, ranges, strict=True)]
    data = drawn[first]
    frames: list[Mapping[str, Any]] = [
        {
            # Only the arrows stand elsewhere on x, too.
            "x": [trace["x"] if trace.get("meta") == "mark" else None for trace in traces],
            "y": [trace["y"] for trace in traces],
            "range": list(ends),
            "note": f"CRPS {fan.crps:.3f}",
        }
        for traces, fan, ends in zip(drawn, fans, ranges, strict=True)
    ]
    span = {"range": numbers([time[0], time[-1]])}  # else an arrow at the end makes room for itself
    axes = layout(f"how far ahead ({of.data.clock})", f"output{of.unit}", xaxis=span, yaxis={"range": list(ranges[first])})
    inside = np.mean([((fan.truth >= fan.quantiles[0]) & (fan.truth <= fan.quantiles[-1]))[1:].mean() for fan in fans])
    alt = f"Open-loop fans of {name} over {len(rows[0])} starts, {where}: "
    alt += f"the truth is inside the 90 % band {100 * inside:.0f} % of the time."
    reading = f"Over these starts the truth is inside the 90 % band {100 * inside:.0f} % of the time."
    return picture(Plot(data, axes, frames, owner=name), f"fan-{shift}-{name}", name, reading, alt, "fan")


def _traces(of: Compared, name: str, time: Sequence[float], fan: series.Fan, ends: Sequence[float]) -> list[Trace]:
    colour = of.style(name).colour
    low, half_low, half_high, high = fan.quantiles
    reach = _NINETY * fan.epistemic_std
    # With heavy tails 1.645 std can reach past the quantiles; the part is never drawn larger than the whole.
    inner = np.maximum(fan.mean - reach, low), np.minimum(fan.mean + reach, high)
    areas = [(low, high, 15), (half_low, half_high, 15), (*inner, 26)]
    traces = [area(time, below, above, shade(colour, percent), name) for below, above, percent in areas]
    traces += [_path(time, path, name, colour, 0.8, "one world") for path in fan.lines[:_LINES]]
    edges = ((high > ends[1], ends[1], "triangle-up"), (low < ends[0], ends[0], "triangle-down"))
    traces += [_leaving(time, outside, end, name, colour, symbol) for outside, end, symbol in edges]
    return [*traces, _path(time, fan.mean, name, colour, 2, "mean"), _path(time, fan.truth, name, INK, 2.2, "recorded")]


def _leaving(time: Sequence[float], outside: Bool[np.ndarray, "T"], end: float, name: str, colour: str, symbol: str) -> Trace:
    """Return an arrow at the edge where the band leaves the picture for the first time, none if it does not."""
    place = np.flatnonzero(outside)[:1]
    return {"type": "scatter", "mode": "markers", "meta": "mark", "name": "off the scale", "legendgroup": name, "hoverinfo": "skip",
            "cliponaxis": False, "marker": {"color": colour, "size": 9, "symbol": symbol},
            "x": numbers([time[k] for k in place]), "y": numbers([end] * len(place))}  # fmt: skip


def _path(time: Sequence[float], values: series.Array, name: str, colour: str, width: float, told: str) -> Trace:
    quiet = {"hoverinfo": "skip"} if width < 1 else {"hovertemplate": f"{told}: %{{y:.3g}}<extra></extra>"}
    line = {"color": colour, "width": width}
    return {"type": "scatter", "mode": "lines", "name": told, "legendgroup": name, "x": numbers(time), "y": numbers(values),
            "line": line, **quiet}  # fmt: skip


def _range(fans: Sequence[series.Fan], whole: float) -> list[float]:
    """Return limits for one start, the same for all models, so that one runaway world doesn't flatten the others' pictures.

    `whole` is the range of the truth over all starts.
    """
    truth = fans[0].truth
    middle, reach = float(np.median(truth)), max(float(np.ptp(truth)), 0.2 * whole) or 1.0
    edges = np.concatenate([part[np.isfinite(part)] for fan in fans for part in (fan.quantiles[0], fan.quantiles[-1])])
    low, high = np.quantile(edges, [0.05, 0.95]) if len(edges) else (middle - reach, middle + reach)
    low, high = max(min(low, truth.min()), middle - 3 * reach), min(max(high, truth.max()), middle + 3 * reach)
    room = 0.06 * (high - low)
    return [float(f"{end:.5g}") for end in (min(low, truth.min()) - room, max(high, truth.max()) + room)]
