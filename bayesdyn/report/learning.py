"""The figures of a learning run: what it cost, how it went, and whether the model was honest on the way."""

import math
from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bayesdyn.loop import Run, Trial
from bayesdyn.report.canvas import INK, MUTED, PAPER, Palette, Picture, draw, label, panel
from bayesdyn.report.scenarios import Scenario
from bayesdyn.report.searching import searched

Runs = Mapping[str, Run]

_LARGE = (430, 265)
_HUGE = 20.0  # nats: beyond it one bad trial would flatten the rest


def learning_pictures(runs: Runs, scenario: Scenario, palette: Palette) -> list[Picture]:
    """Return the learning curves of all runs, and each run's trials over time."""
    pictures = [_returns(runs, palette)]
    if any(scenario.distance(trial) is not None for run in runs.values() for trial in run.trials):
        pictures.append(_distances(runs, scenario, palette))
        pictures += [_trials_over_time(name, run, scenario, palette) for name, run in runs.items()]
    return pictures


def honesty_pictures(runs: Runs, scenario: Scenario, palette: Palette) -> list[Picture]:
    """Return one-step coverage and NLL on each trial before the model had learned from it, and planned against realised return."""
    pictures = []
    if _has(runs, "coverage90"):
        pictures.append(_coverage(runs, palette))
    if _has(runs, "nll"):
        pictures.append(_nll(runs, palette))
    planning = {name: run for name, run in runs.items() if not searched(run)}
    if _has(planning, "planned_return"):
        pictures.append(_planned(planning, scenario, palette))
    return pictures


def _returns(runs: Runs, palette: Palette) -> Picture:
    figure, axes = panel(*_LARGE)
    _curves(axes, runs, palette, lambda trial: trial.metrics.get("return"))
    label(axes, "trial", "return")
    alt = "Return per trial. " + _ends(runs, lambda trial: trial.metrics.get("return"), "")
    return Picture(
        "Return of each trial",
        "Higher is better; hollow marks are trials of random actions, which the model has to start from.",
        alt,
        draw(figure, "returns", alt),
    )


def _distances(runs: Runs, scenario: Scenario, palette: Palette) -> Picture:
    figure, axes = panel(*_LARGE)
    _curves(axes, runs, palette, scenario.distance)
    axes.axhline(scenario.solved, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0)
    axes.annotate(
        f"solved below {scenario.solved:g} {scenario.unit}",
        (0, scenario.solved),
        (4, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=11,
        color=MUTED,
    )
    label(axes, "trial", f"{scenario.info_name} ({scenario.unit})")
    alt = f"Largest {scenario.info_name} over each trial's last ten steps. " + _ends(runs, scenario.distance, f" {scenario.unit}")
    return Picture(
        "How far from the goal",
        "Lower is better: the largest distance over a trial's last ten steps, so a pole that only passes by does not count.",
        alt,
        draw(figure, "distances", alt),
    )


def _trials_over_time(name: str, run: Run, scenario: Scenario, palette: Palette) -> Picture:
    figure, axes = panel(*_LARGE)
    step = scenario.step_seconds or 1.0
    for place, trial in enumerate(run.trials):
        last = place == len(run.trials) - 1
        distance = trial.infos[scenario.info or ""]
        time = [step * (t + 1) for t in range(len(distance))]
        strength = 0.2 + 0.5 * place / max(len(run.trials) - 1, 1)
        colour = palette.colour(name) if trial.controlled else MUTED
        axes.plot(time, distance, color=colour, linewidth=2.4 if last else 1.3, alpha=1 if last else strength)
    axes.axhline(scenario.solved, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0)
    label(axes, "time in the trial (s)" if scenario.step_seconds else "step", f"{name}: distance from the goal ({scenario.unit})")
    final = _last(run.trials, scenario.distance)
    ends = "" if final is None else f"; in the last it stays within {final:.2g} {scenario.unit} over the final ten steps"
    alt = f"{scenario.info_name.capitalize()} over time in each of {len(run.trials)} trials with {name}{ends}."
    return Picture(
        f"Trial by trial with {name}",
        "One line per trial, from faint (first) to bold (last); grey is the random start; the dashed line is the goal's edge.",
        alt,
        draw(figure, f"time-{name}", alt),
    )


def _coverage(runs: Runs, palette: Palette) -> Picture:
    figure, axes = panel(*_LARGE)
    _curves(axes, runs, palette, lambda trial: _percent(trial.metrics.get("coverage90")))
    axes.axhline(90, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 104)
    label(axes, "trial", "outcomes inside the 90 % interval (%)")
    alt = "Coverage of one-step 90 % intervals per trial. "
    alt += _ends(runs, lambda trial: _percent(trial.metrics.get("coverage90")), " %")
    return Picture(
        "Was the model honest about what it had not seen?",
        "The closer to the dashed 90 % the better: below it the model was too sure of itself, above it too careful.",
        alt,
        draw(figure, "coverage", alt),
        "onestep",
    )


def _nll(runs: Runs, palette: Palette) -> Picture:
    figure, axes = panel(*_LARGE)
    _curves(axes, runs, palette, lambda trial: trial.metrics.get("nll"))
    if axes.get_ylim()[1] > _HUGE:
        axes.set_yscale("symlog", linthresh=1)
    label(axes, "trial", "one-step NLL (nats per output)")
    alt = "Negative log-likelihood of each trial under the model fitted before it. " + _ends(
        runs, lambda t: t.metrics.get("nll"), ""
    )
    return Picture(
        "How surprised was it?",
        "Lower is better: each trial is scored by the model that chose its actions, before it learned from them.",
        alt,
        draw(figure, "surprise", alt),
        "onestep",
    )


def _planned(runs: Runs, scenario: Scenario, palette: Palette) -> Picture:
    figure, axes = panel(*_LARGE)
    values = []
    for name, run in runs.items():
        for trial in run.trials:
            planned, realised = (trial.metrics.get(key, math.nan) for key in ("planned_return", "realised_return"))
            if math.isfinite(planned) and math.isfinite(realised):
                values += [planned, realised]
                axes.scatter([planned], [realised], color=palette.colour(name), s=38, zorder=3)
                axes.annotate(str(trial.index), (planned, realised), (6, -3), textcoords="offset points", fontsize=10, color=MUTED)
    if values and not scenario.differs:
        edges = (min(values), max(values))
        axes.plot(edges, edges, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    label(axes, "what the first plan expected over its horizon", "what these steps earned")
    alt = "Return that each controlled trial's first plan expected over its horizon, against what the same steps earned, by trial"
    alt += "." if scenario.differs else ", with the line where both agree."
    return Picture("Did plans keep their promise?", _promise(scenario), alt, draw(figure, "planned", alt), "promise")


def _promise(scenario: Scenario) -> str:
    if scenario.differs:
        return (
            "Each number is a trial. The planner's reward is not what the environment pays, so the axes have different scales: "
            "compare trials with each other."
        )
    return (
        "Each number is a trial. On the dashed line its first plan earned what it expected; below it the planner had found a fault "
        "of the model to exploit, above it later plans improved on the first."
    )


def _curves(axes: Axes, runs: Runs, palette: Palette, value: Callable[[Trial], float | None]) -> None:
    for name, run in runs.items():
        points = [(trial.index, number, trial.controlled) for trial in run.trials if (number := value(trial)) is not None]
        colour = palette.colour(name)
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], color=colour, linewidth=2)
        axes.scatter([x for x, _, c in points if c], [y for _, y, c in points if c], color=colour, s=30, zorder=3)
        rest = [(x, y) for x, y, c in points if not c]
        axes.scatter([x for x, _ in rest], [y for _, y in rest], facecolor=PAPER, edgecolor=colour, linewidth=1.5, s=30, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.margins(x=0.06)


def _ends(runs: Runs, value: Callable[[Trial], float | None], unit: str) -> str:
    """Return, in words, where each run's curve ends."""
    ends = {name: _last(run.trials, value) for name, run in runs.items()}
    return "; ".join(f"{name} ends at {end:.3g}{unit}" for name, end in ends.items() if end is not None) + "."


def _last(trials: list[Trial], value: Callable[[Trial], float | None]) -> float | None:
    return next((number for trial in reversed(trials) if (number := value(trial)) is not None), None)


def _has(runs: Runs, metric: str) -> bool:
    return any(metric in trial.metrics for run in runs.values() for trial in run.trials)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
