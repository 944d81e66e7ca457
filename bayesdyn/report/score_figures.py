"""Who is better than the reference, and is that more than chance? Paired differences with their intervals."""

import math
from html import escape

from bayesdyn.evaluation.pairs import PairedInterval
from bayesdyn.plots.numbers import OPEN_LOOP, Query
from bayesdyn.report.canvas import Picture
from bayesdyn.report.compared import Compared, picture
from bayesdyn.report.interactive import INK, Plot, Trace, layout, numbers, upright

_Asked = tuple[Query, str, str, str, dict[str, PairedInterval]]


def difference_pictures(of: Compared) -> list[Picture]:
    """Return the paired differences of NLL and CRPS, one step and many steps ahead, to the reference."""
    return [_picture(of, *asked) for asked in _asked(of)]


def comparisons(of: Compared) -> int:
    """Return how many differences the figures show: of so many intervals, one in twenty misses the truth by chance."""
    return sum(len(found) for *_, found in _asked(of))


def _asked(of: Compared) -> list[_Asked]:
    late = of.ahead[-1]
    asked = [
        (Query("nll"), "NLL, one step ahead", "nats per output", "nll"),
        (Query("crps"), "CRPS, one step ahead", "target units", "crps"),
    ]
    if late > 1:
        asked.append((Query("crps", horizon=late, propagation=OPEN_LOOP), f"CRPS after {of.steps(late)}", "target units", "crps"))
    found = [(*each, of.numbers.differences(each[0], of.reference)) for each in asked]
    return [each for each in found if each[-1]]


def _picture(of: Compared, query: Query, title: str, unit: str, formula: str, found: dict[str, PairedInterval]) -> Picture:
    names = list(reversed(found))
    data: list[Trace] = [_interval(of, name, found[name]) for name in names]
    pairs = next(iter(found.values())).pairs
    axes = layout(
        "← better",
        f"difference to {of.reference} ({unit})",
        shapes=[upright(0.0, INK)],
        xaxis={"zeroline": False, "range": _reach(list(found.values()))},
        yaxis={
            "type": "category",
            "automargin": True,
            "showgrid": False,
            "categoryarray": [escape(name) for name in names],
            "categoryorder": "array",
        },
    )
    alt = f"Difference of {title} to {of.reference}: " + "; ".join(f"{name} {_words(each)}" for name, each in found.items()) + "."
    reading = (
        f"Dot: mean difference to {of.reference} on the same seed and data; bar: its 95 % interval from {pairs} pairs. "
        "A bar that crosses 0 is a tie."
        if pairs > 1
        else f"Dot: difference to {of.reference}. With one seed there is no interval: nothing can be said about chance."
    )
    return picture(Plot(data, axes), f"difference-{query.metric}-{query.horizon}", title, reading, alt, formula)


def _interval(of: Compared, name: str, each: PairedInterval) -> Trace:
    colour = of.palette.variable(name)
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers([each.mean]),
        "y": [escape(name)],
        "marker": {"size": 10, "color": colour},
        "hovertemplate": f"{escape(name)}: {_words(each)}<extra></extra>",
    }
    if math.isfinite(each.low):
        bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 5}
        trace["error_x"] = {**bar, "array": numbers([each.high - each.mean]), "arrayminus": numbers([each.mean - each.low])}
    return trace


def _reach(found: list[PairedInterval]) -> list[float | None]:
    """Return limits that show every dot, and intervals unless they are wider than all dots together by far."""
    means = [each.mean for each in found]
    low, high = min(*means, 0.0), max(*means, 0.0)
    room = high - low or 1.0
    ends = [end for each in found for end in (each.low, each.high) if math.isfinite(end)]
    low, high = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    return numbers([low - 0.06 * (high - low), high + 0.06 * (high - low)])


def _words(each: PairedInterval) -> str:
    interval = f" ({each.low:+.2g} to {each.high:+.2g})" if math.isfinite(each.low) else ""
    return f"{each.mean:+.3g}{interval}"
