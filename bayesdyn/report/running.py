"""What the page says about learning runs: headlines, moving pictures, curves, configuration."""

import base64
import html
import json
from collections.abc import Mapping
from statistics import fmean

from bayesdyn.data import make_folder
from bayesdyn.loop import Run, Trial
from bayesdyn.report.animation import save_trial_animation
from bayesdyn.report.canvas import Palette, Picture
from bayesdyn.report.content import Cell, Section, Table, Tile
from bayesdyn.report.learning import honesty_pictures, learning_pictures
from bayesdyn.report.scenarios import Scenario

_METRICS = {
    "return": "return",
    "steps": "steps",
    "nll": "one-step NLL",
    "coverage90": "90 % coverage",
    "fit_seconds": "fit (s)",
    "planned_return": "first plan expected",
    "realised_return": "and earned",
    "plans_per_second": "plans per second",
    "plan_seconds_p50": "median plan (s)",
    "plan_seconds_p99": "p99 plan (s)",
    "slowest_plan_seconds": "slowest plan (s)",
    "late_plans": "late plans",
}


def run_tile(name: str, run: Run, scenario: Scenario) -> Tile:
    """Return a run's headline: the trials and the experience that it took."""
    solved = scenario.solved_at(run)
    controlled = [trial for trial in run.trials if trial.controlled]
    end = solved or (run.trials[-1] if run.trials else None)
    used = [trial for trial in run.trials if end is not None and trial.index <= end.index]
    steps = sum(len(trial.episode) for trial in used)
    before = sum(len(trial.episode) for trial in used[:-1])
    tried = sum(trial.controlled for trial in used)
    if solved is not None:
        figure, note = _count(tried, "trial"), f"of its own until solved, after {_experience(before, scenario)} of experience"
    elif scenario.info is not None:
        figure, note = "not solved", f"in {_count(tried, 'trial')} of its own, {_experience(steps, scenario)} of experience"
    else:
        best = max((trial.metrics["return"] for trial in controlled), default=float("nan"))
        figure, note = f"{best:.4g}", f"best return, in {_count(tried, 'trial')} and {_experience(steps, scenario)} of experience"
    return Tile(name, figure, note, _tile_facts(run, end, controlled, scenario))


def _tile_facts(run: Run, end: Trial | None, controlled: list[Trial], scenario: Scenario) -> dict[str, str]:
    facts = {"posterior": str(run.config["posterior"]["class"])}
    if end is None:
        return facts
    distance = scenario.distance(end)
    if distance is not None:
        facts["from the goal, last ten steps"] = f"within {distance:.3f} {scenario.unit}"
    facts["return of that trial"] = f"{end.metrics['return']:.3g}"
    return facts | _pace(controlled)


def _pace(controlled: list[Trial]) -> dict[str, str]:
    """Return how fast plans came: the mean rate and median over trials, the p99 of the slowest trial, and how many were late."""

    def every(metric: str) -> list[float]:
        return [trial.metrics[metric] for trial in controlled if metric in trial.metrics]

    facts = {}
    if rates := every("plans_per_second"):
        facts["plans per second"] = f"{fmean(rates):.1f}"
    if medians := every("plan_seconds_p50"):
        worst = max(every("plan_seconds_p99"))
        facts["time per plan, median and p99"] = f"{1000 * fmean(medians):.3g} and {1000 * worst:.3g} ms"
    if late := every("late_plans"):
        plans = sum(int((trial.age == 0).sum()) for trial in controlled)
        facts["plans beyond the latency"] = f"{sum(late):.0f} of {plans}"
    return facts


def run_sections(runs: Mapping[str, Run], scenario: Scenario, palette: Palette) -> list[Section]:
    """Return the sections about runs of one environment."""
    sections = []
    moving = [picture for name, run in runs.items() if (picture := _moving_picture(name, run, scenario)) is not None]
    if moving:
        sections.append(
            Section(
                "What happened, and what the model saw coming",
                "The last trial of each run in real time. Dark is the true pole, red where its tip has been; the blue fan is where "
                "the model thinks the tip will go under the plan of that moment, one curve per world that it holds possible. "
                "A narrow fan is a sure model.",
                moving,
                wide=True,
            )
        )
    sections.append(
        Section(
            "Learning curves",
            "Each trial fits the model to everything seen so far, and then acts by planning with it." + _other_reward(scenario),
            learning_pictures(runs, scenario, palette),
            legend=list(runs),
            wide=True,
        )
    )
    honest = honesty_pictures(runs, scenario, palette)
    if honest:
        sections.append(
            Section(
                "Could the model be believed while it learned?",
                "A trial is a test before it is learned from: the model has not seen it, and its own plan steers to where it hopes "
                "for the best.",
                honest,
                legend=list(runs),
                wide=len(honest) % 3 > 0,
            )
        )
    return sections


def run_appendix(name: str, run: Run) -> list[Table]:
    """Return a run's trials, its configuration and what its fits warned of."""
    shown = {key: title for key, title in _METRICS.items() if any(key in trial.metrics for trial in run.trials)}
    rows = [
        [Cell(f"{trial.index}"), Cell("planned" if trial.controlled else "random")]
        + [Cell(f"{trial.metrics[key]:.4g}" if key in trial.metrics else "–") for key in shown]
        for trial in run.trials
    ]
    warnings = [f"trial {trial.index}: {warning}" for trial in run.trials for warning in trial.warnings]
    facts: dict[str, object] = {key: json.dumps(value) for key, value in run.config.items() if key != "format"}
    facts["warnings of the fits"] = "; ".join(warnings) or "none"
    return [
        Table(f"{name}: trials", ("trial", "actions", *shown.values()), rows),
        Table.of_facts(f"{name}: configuration and warnings", facts),
    ]


def _moving_picture(name: str, run: Run, scenario: Scenario) -> Picture | None:
    """Return the animation of the run's last trial, made now if its folder doesn't hold it yet."""
    if scenario.frames is None or scenario.step_seconds is None or run.folder is None or not run.trials:
        return None
    trial = run.trials[-1]
    path = run.folder / "pictures" / f"trial-{trial.index:03d}.gif"
    if not path.exists():
        make_folder(path.parent)
        save_trial_animation(scenario.frames(trial, scenario.step_seconds), path, scenario.step_seconds)
    distance = scenario.distance(trial)
    ends = "" if distance is None else f", whose tip ends within {distance:.2g} {scenario.unit} of its goal"
    alt = f"Animation of trial {trial.index} with {name}: a cart-pole over {len(trial.episode)} steps{ends}, "
    alt += "under a fan of imagined tips."
    data = base64.b64encode(path.read_bytes()).decode()
    return Picture(
        f"{name}, trial {trial.index}",
        "The green ring is the goal, the arrow the force; the curves start at the tip and end where the plan's horizon ends.",
        alt,
        f'<img alt="{html.escape(alt, quote=True)}" width="480" height="320" src="data:image/gif;base64,{data}">',
    )


def _other_reward(scenario: Scenario) -> str:
    return f" The planner's reward is not quite what the environment pays: {scenario.differs}." if scenario.differs else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _experience(steps: int, scenario: Scenario) -> str:
    return f"{steps * scenario.step_seconds:.3g} s" if scenario.step_seconds is not None else f"{steps} steps"
