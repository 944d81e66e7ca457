"""`write_report`: one HTML file, without anything outside itself, from the folders of runs and comparisons."""

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata, resources
from pathlib import Path

import jinja2
import torch
from markupsafe import Markup

from bayesdyn.data import make_folder, write_atomically
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.loop import Run
from bayesdyn.report.canvas import Palette
from bayesdyn.report.comparing import comparison_appendix, comparison_sections, recording_of
from bayesdyn.report.content import Page, Table
from bayesdyn.report.running import run_appendix, run_sections, run_tile
from bayesdyn.report.scenarios import Scenario, scenario, with_preset_reward
from bayesdyn.report.searching import searched

_NUMBERS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six"}


def write_report(path: str | Path, runs: Mapping[str, Run], comparison: Comparison | None = None) -> Path:
    """Write the page about `runs` (by name) and `comparison` to `path`, whole or not at all, and return the path.

    The page reads what the folders hold and computes nothing; a moving picture of each run's last trial is kept in its `pictures/`.
    Raises `ConfigurationError` if there is nothing to show and `FileError` if the page can't be written.

    >>> write_report("report.html", {})
    Traceback (most recent call last):
    ...
    bayesdyn.errors.ConfigurationError: a report wants at least one run or a comparison; got neither
    """
    if not runs and comparison is None:
        raise ConfigurationError("a report wants at least one run or a comparison; got neither")
    path = Path(path)
    text = render(_page(runs, comparison), _palette(runs, comparison))
    make_folder(path.parent)
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def render(page: Page, palette: Palette) -> str:
    """Return the page as HTML, with its style inside."""
    here = resources.files("bayesdyn.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    style = Markup((here / "page.css").read_text(encoding="utf-8"))
    return template.render(page=page, style=style, colours=palette.variables, version=metadata.version("bayesdyn"))


def _page(runs: Mapping[str, Run], comparison: Comparison | None) -> Page:
    palette = _palette(runs, comparison)
    groups = _by_environment(runs)
    sections, tiles = [], []
    for place, members in groups:
        tiles += [run_tile(name, run, place) for name, run in members.items()]
        sections += run_sections(members, place, palette)
    appendix = [table for name, run in runs.items() for table in run_appendix(name, run)]
    if comparison is not None:
        sections += comparison_sections(comparison, palette)
        appendix += comparison_appendix(comparison)
    return Page(
        title=_title(groups, comparison),
        lead=_lead(groups, comparison),
        date=datetime.date.today().strftime("%-d %B %Y"),
        tiles=tiles,
        sections=sections,
        appendix=[*appendix, _machine()],
    )


def _palette(runs: Mapping[str, Run], comparison: Comparison | None) -> Palette:
    compared = [] if comparison is None else list(comparison.posteriors)
    names = [*runs, *(name for name in compared if name not in REFERENCES)]
    return Palette(list(dict.fromkeys(names)), [name for name in compared if name in REFERENCES])


def _by_environment(runs: Mapping[str, Run]) -> list[tuple[Scenario, dict[str, Run]]]:
    groups: dict[str, dict[str, Run]] = {}
    for name, run in runs.items():
        options = json.dumps(run.config.get("environment_options", {}), sort_keys=True)
        groups.setdefault(f"{run.config['environment']} {options}", {})[name] = run
    return [(_scenario_of(members), members) for members in groups.values()]


def _scenario_of(members: Mapping[str, Run]) -> Scenario:
    run = next(iter(members.values()))
    place = scenario(run.config["environment"], run.config.get("environment_options"))
    # What the presets say of their reward is so of the runs that plan with it.
    return place if any(map(with_preset_reward, members.values())) else replace(place, differs="")


def _title(groups: Sequence[tuple[Scenario, dict[str, Run]]], comparison: Comparison | None) -> str:
    if not groups:
        return f"How sure are the models of the {recording_of(comparison).name}?" if comparison is not None else "A report"
    names = " and ".join(place.name for place, _ in groups)
    return f"Learning {names} from little data".replace("-", "\N{NON-BREAKING HYPHEN}")


def _lead(groups: Sequence[tuple[Scenario, dict[str, Run]]], comparison: Comparison | None) -> str:
    sentences = []
    for place, members in groups:
        pace = "" if place.step_seconds is None else f", with an action every {place.step_seconds:g} s"
        sentences.append(f"The task: {place.task}{pace}. Nothing is known of the physics.")
        sentences.append(_who_learned(members))
    if comparison is not None:
        sentences.append("On real recordings, each model was asked what it knows and what it does not.")
    return " ".join(sentences)


def _who_learned(members: Mapping[str, Run]) -> str:
    """Say what learned, and what then chose the actions."""
    one = len(members) == 1
    subject = "A model learned" if one else f"{_NUMBERS.get(len(members), 'Many')} kinds of model learned"
    trials = "the trials themselves and said how sure it was" if one else "their own trials and said how sure they were"
    planner, policy = "a planner chose each action", "between trials a policy was improved on the model alone"
    searching = [searched(run) for run in members.values()]
    how = policy if all(searching) else f"{planner}, or {policy}" if any(searching) else planner
    return f"{subject} the dynamics from {trials}, and {how}, on average over what the model holds possible."


def _machine() -> Table:
    packages = ("bayesdyn", "torch", "gpytorch", "gymnasium", "numpy", "scipy", "matplotlib")
    facts: dict[str, object] = {
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} thread(s) in use",
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
    return Table.of_facts("Versions and machine that wrote this page", facts)
