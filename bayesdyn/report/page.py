"""`write_report`: one HTML file, without anything outside itself, from the folders of runs and comparisons."""

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata, resources
from pathlib import Path

import jinja2
import torch
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bayesdyn.data import make_folder, write_atomically
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.loop import Run
from bayesdyn.report.canvas import Palette
from bayesdyn.report.compared import Compared, recording_of
from bayesdyn.report.comparing import comparison_appendix, comparison_sections, palette_of
from bayesdyn.report.content import Page, Table
from bayesdyn.report.formulas import formulas_for, mathematics
from bayesdyn.report.running import run_appendix, run_sections, run_tile
from bayesdyn.report.scenarios import Scenario, scenario, with_preset_reward
from bayesdyn.report.searching import searched

_NUMBERS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six", 7: "Seven", 8: "Eight"}


def write_report(
    path: str | Path,
    runs: Mapping[str, Run],
    comparison: Comparison | None = None,
    *,
    reference: str = "",
    results: str | Path | None = None,
) -> Path:
    """Write the page about `runs` (by name) and `comparison` to `path`, whole or not at all, and return the path.

    Differences are to the posterior `reference` (empty: the first one). `results` is the comparison's table, which the page links;
    unless told, the `results.csv` beside the page if there is one. The page reads what the folders hold and computes nothing; a
    moving picture of each run's last trial is kept in its `pictures/`.

    Raises `ConfigurationError` if there is nothing to show, `UnknownNameError` for a reference that was not compared and
    `FileError` if the page can't be written.

    >>> write_report("report.html", {})
    Traceback (most recent call last):
    ...
    bayesdyn.errors.ConfigurationError: a report wants at least one run or a comparison; got neither
    """
    if not runs and comparison is None:
        raise ConfigurationError("a report wants at least one run or a comparison; got neither")
    path = Path(path)
    text = render(_page(runs, comparison, reference, _link(path, results)), _palette(runs, comparison))
    make_folder(path.parent)
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def render(page: Page, palette: Palette) -> str:
    """Return the page as HTML, with its style inside."""
    here = resources.files("bayesdyn.report")

    def inline(name: str) -> Markup:
        return Markup((here / name).read_text(encoding="utf-8"))

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["mathematics"] = mathematics
    template = environment.from_string(inline("page.html"))
    interactive = any(picture.interactive for section in page.sections for picture in section.pictures)
    return template.render(
        page=page,
        style=inline("page.css"),
        colours=palette.variables,
        version=metadata.version("bayesdyn"),
        interactive=interactive,
        plotly=Markup(get_plotlyjs()) if interactive else "",
        script=inline("page.js") if interactive else "",
    )


def _page(runs: Mapping[str, Run], comparison: Comparison | None, reference: str, results: str) -> Page:
    palette = _palette(runs, comparison)
    groups = _by_environment(runs)
    sections, tiles = [], []
    for place, members in groups:
        tiles += [run_tile(name, run, place) for name, run in members.items()]
        sections += run_sections(members, place, palette)
    appendix = [table for name, run in runs.items() for table in run_appendix(name, run)]
    if comparison is not None:
        sections += comparison_sections(Compared(comparison, palette, reference))
        appendix += comparison_appendix(comparison)
    return Page(
        title=_title(groups, comparison),
        lead=_lead(groups, comparison),
        date=datetime.date.today().strftime("%-d %B %Y"),
        tiles=tiles,
        sections=sections,
        formulas=formulas_for(picture.formula for section in sections for picture in section.pictures),
        results=results if comparison is not None else "",
        appendix=[*appendix, _machine()],
    )


def _palette(runs: Mapping[str, Run], comparison: Comparison | None) -> Palette:
    return Palette(list(runs)) if comparison is None else palette_of(comparison, list(runs))


def _link(page: Path, results: str | Path | None) -> str:
    """Return where the table is, seen from the page; nothing if there is none."""
    found = page.parent / "results.csv" if results is None else Path(results)
    return os.path.relpath(found, page.parent) if found.is_file() else ""


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
        return f"How sure are the models of {recording_of(comparison).called}?" if comparison is not None else "A report"
    names = " and ".join(place.name for place, _ in groups)
    return f"Learning {names} from little data".replace("-", "\N{NON-BREAKING HYPHEN}")


def _lead(groups: Sequence[tuple[Scenario, dict[str, Run]]], comparison: Comparison | None) -> str:
    sentences = []
    for place, members in groups:
        pace = "" if place.step_seconds is None else f", with an action every {place.step_seconds:g} s"
        sentences.append(f"The task: {place.task}{pace}. Nothing is known of the physics.")
        sentences.append(_who_learned(members))
    if comparison is not None:
        sentences.append(_asked(comparison))
    return " ".join(sentences)


def _asked(comparison: Comparison) -> str:
    learned = [name for name in comparison.posteriors if name not in REFERENCES]
    seeds = len({cell.seed for cell in comparison.cells})
    times = "once" if seeds == 1 else f"with {seeds} seeds"
    if len(learned) == 1:
        return f"One model was fitted to data, {times}, and asked what it knows and what it does not."
    count = _NUMBERS.get(len(learned), str(len(learned)))
    return f"{count} models were fitted to the same data, {times}, and asked what they know and what they do not."


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
    packages = ("bayesdyn", "torch", "gpytorch", "gymnasium", "numpy", "scipy", "matplotlib", "plotly")
    facts: dict[str, object] = {
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} thread(s) in use",
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
    return Table.of_facts("Versions and machine that wrote this page", facts)
