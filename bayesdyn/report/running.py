"""What the page says about learning runs: headlines, moving pictures, curves, configuration."""

import base64
import html
import json
from collections.abc import Mapping
from statistics import fmean

from bayesdyn.data import make_folder
from bayesdyn.loop import Run, Trial
from bayesdyn.presets import rehearsals
from bayesdyn.report.animation import save_trial_animation
from bayesdyn.report.canvas import Palette, Picture
from bayesdyn.report.content import Cell, Section, Table, Tile
from bayesdyn.report.imagined import imagined_section
from bayesdyn.report.learning import honesty_pictures, learning_pictures
from bayesdyn.report.scenarios import Scenario
from bayesdyn.report.searching import predicted_total, rehearsed, search_sections, searched

_METRICS = {
    "return": "return",
    "steps": "steps",
    "nll": "one-step NLL",
    "coverage90": "90 % coverage",
    "fit_seconds": "fit (s)",
    "predicted_cost": "predicted cost",
    "policy_steps": "policy evaluations",
    "policy_seconds": "policy search (s)",
    "planned_return": "first plan expected",
    "realised_return": "and earned",
    "plans_per_second": "plans per second",
    "plan_seconds_p50": "median plan (s)",
    "plan_seconds_p99": "p99 plan (s)",
    "slowest_plan_seconds": "slowest plan (s)",
    "late_plans": "late plans",
}
# Of an agent that plans: one that follows a policy imagines once in a trial, for the pictures alone.
_OF_PLANS = {"planned_return", "realised_return", "plans_per_second", "slowest_plan_seconds", "late_plans"} | {
    "plan_seconds_p50",
    "plan_seconds_p99",
}


def run_tile(name: str, run: Run, scenario: Scenario) -> Tile:
    """Return a run's headline: the trials and the experience that it took."""
    solved = scenario.solved_at(run)
    controlled = run.controlled
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
    return facts | (_search_facts(run, end, scenario) if searched(run) else _pace(controlled))


def _search_facts(run: Run, end: Trial, scenario: Scenario) -> dict[str, str]:
    """Return what the search promised of a trial and what came, and how long searches took."""
    facts = {}
    found = rehearsals(run).get(end.index)
    if found is not None and "cost_mean" in end.predictions:
        facts["cost of that trial, predicted and real"] = f"{predicted_total(end):.3g} and {float(found.cost.sum()):.3g}"
    if found is not None and rehearsed(found, scenario):
        facts["solved by its policy from other starts"] = rehearsed(found, scenario)
    seconds = [trial.metrics["policy_seconds"] for trial in run.trials if "policy_seconds" in trial.metrics]
    if seconds:
        facts["mean policy search"] = f"{fmean(seconds):.3g} s"
    return facts


def _pace(controlled: list[Trial]) -> dict[str, str]:
    """Return how fast plans came: the mean rate and median over trials, the p99 of the slowest trial, and how many were late."""

    def every(metric: str) -> list[float]:
        return [trial.metrics[metric] for trial in controlled if metric in trial.metrics]

    facts = {}
    if rates := every("plans_per_second"):
        facts["plans per second"] = f"{fmean(rates):.1f}"
    if medians := every("plan_seconds_p50"):
        worst = max(every("plan_seconds_p99"))
        facts["time per plan, median and p99"] = f"{_three_digits(1000 * fmean(medians))} and {_three_digits(1000 * worst)} ms"
    if late := every("late_plans"):
        plans = sum(int((trial.age == 0).sum()) for trial in controlled)
        facts["plans beyond the latency"] = f"{sum(late):.0f} of {plans}"
    return facts


def _three_digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"


def run_sections(runs: Mapping[str, Run], scenario: Scenario, palette: Palette) -> list[Section]:
    """Return the sections about runs of one environment."""
    sections = []
    moving = [picture for name, run in runs.items() if (picture := _moving_picture(name, run, scenario)) is not None]
    if moving:
        sections.append(Section("What happened, and what the model saw coming", _watching(runs, scenario), moving, wide=True))
    sections.append(
        Section(
            "Learning curves",
            f"Each trial fits the model to everything seen so far, and then acts {_manner(runs)}." + _other_reward(runs, scenario),
            learning_pictures(runs, scenario, palette),
            legend=list(runs),
            wide=True,
        )
    )
    imagined = [imagined_section(name, run, scenario, palette) for name, run in runs.items()]
    sections += [section for section in imagined if section is not None]
    sections += search_sections(runs, scenario, palette)
    honest = honesty_pictures(runs, scenario, palette)
    if honest:
        sections.append(
            Section(
                "Could the model be believed while it learned?",
                "A trial is a test before it is learned from: the model has not seen it, and what acts steers to where the model "
                "hopes for the best.",
                honest,
                legend=list(runs),
                wide=len(honest) % 3 > 0,
            )
        )
    return sections


def run_appendix(name: str, run: Run) -> list[Table]:
    """Return a run's trials, its configuration and what its fits warned of."""
    kind, beside = ("policy", _OF_PLANS) if searched(run) else ("planned", set[str]())
    told = {key: title for key, title in _METRICS.items() if key not in beside}
    shown = {key: title for key, title in told.items() if any(key in trial.metrics for trial in run.trials)}
    rows = [
        [Cell(f"{trial.index}"), Cell(kind if trial.controlled else "random")]
        + [Cell(f"{trial.metrics[key]:.4g}" if key in trial.metrics else "–") for key in shown]
        for trial in run.trials
    ]
    warnings = [f"trial {trial.index}: {warning}" for trial in run.trials for warning in trial.warnings]
    warnings += [warning for found in rehearsals(run).values() for warning in found.warnings]
    facts: dict[str, object] = {key: json.dumps(value) for key, value in run.config.items() if key != "format"}
    facts["warnings"] = "; ".join(warnings) or "none"
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
    over = ", under a fan of imagined tips" if scenario.frames.fan else ""
    alt = f"Animation of trial {trial.index} with {name}: {scenario.name} over {len(trial.episode)} steps{ends}{over}."
    data = base64.b64encode(path.read_bytes()).decode()
    return Picture(
        f"{name}, trial {trial.index}",
        scenario.frames.reading,
        alt,
        f'<img alt="{html.escape(alt, quote=True)}" width="480" height="320" src="data:image/gif;base64,{data}">',
    )


def _watching(runs: Mapping[str, Run], scenario: Scenario) -> str:
    """Say how to look at the moving pictures."""
    if scenario.frames is None or not scenario.frames.fan:
        return "The last trial of each run in real time."
    under = "the policy" if all(map(searched, runs.values())) else "the plan of that moment"
    return (
        "The last trial of each run in real time. Dark is what really moved, red where its tip has been; the blue fan is where the "
        f"model thinks the tip will go under {under}, one curve per world that it holds possible. A narrow fan is a sure model."
    )


def _manner(runs: Mapping[str, Run]) -> str:
    searching = [searched(run) for run in runs.values()]
    if all(searching):
        return "by a policy that was improved on it"
    return "by planning with it or by a policy that was improved on it" if any(searching) else "by planning with it"


def _other_reward(runs: Mapping[str, Run], scenario: Scenario) -> str:
    if not scenario.differs or all(map(searched, runs.values())):
        return ""
    return f" The planner's reward is not quite what the environment pays: {scenario.differs}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _experience(steps: int, scenario: Scenario) -> str:
    return f"{steps * scenario.step_seconds:.3g} s" if scenario.step_seconds is not None else f"{steps} steps"
