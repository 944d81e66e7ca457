"""`bayesdyn view`: the page of a run, with what was imagined at each moment under a slider."""

import json
import re

import numpy as np
import pytest
import torch
from browsing import DESKTOP, PHONE, chromium, opened, scrolled_through, shown  # noqa: F401 (a fixture)
from runs import STEPS, synthetic_run, synthetic_trial
from typer.testing import CliRunner

from bayesdyn.cli.app import app
from bayesdyn.loop import Run
from bayesdyn.report import write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewing") / "gp"
    synthetic_run(folder, "ExactGP")
    return folder


@pytest.fixture(scope="module")
def path(folder):
    done = CliRunner().invoke(app, ["view", str(folder), "--no-open"])
    assert done.exit_code == 0, done.output
    return folder / "page.html"


@pytest.fixture(scope="module")
def figures(path):
    found = re.findall(r'<script type="application/json" data-plot="([\w-]+)">(.*?)</script>', path.read_text(encoding="utf-8"))
    return {name: json.loads(text) for name, text in found}


def test_the_page_has_the_curve_the_fans_and_the_promises(path):
    text = path.read_text(encoding="utf-8")
    for title in ("Return of each trial", "What gp imagined, moment by moment", "Did plans keep their promise?"):
        assert title in text
    assert 'id="formula-imagined"' in text
    assert 'id="formula-promise"' in text


def test_view_opens_what_it_wrote_unless_told_otherwise(folder, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", lambda url: shown.append(url) or True)
    done = CliRunner().invoke(app, ["view", str(folder), "--out", str(tmp_path / "else.html")])
    assert done.exit_code == 0, done.output
    assert shown == [(tmp_path / "else.html").as_uri()]
    assert (tmp_path / "else.html").is_file()
    assert CliRunner().invoke(app, ["view", str(folder), "--no-open", "--out", str(tmp_path / "again.html")]).exit_code == 0
    assert len(shown) == 1


def test_view_says_what_it_wants(tmp_path):
    done = CliRunner().invoke(app, ["view", str(tmp_path / "nothing"), "--no-open"])
    assert done.exit_code == 2


def test_every_frame_is_the_fan_of_its_moment(figures, folder):
    """The median, at the times that the plan was for, and where the state was at that moment."""
    trial = Run.open(folder).trials[-1]
    figure = figures["plot-imagined-gp-3"]
    assert len(figure["frames"]) == STEPS
    for moment, frame in enumerate(figure["frames"]):
        assert all(len(frame[axis]) == len(figure["data"]) for axis in ("x", "y"))
        assert frame["x"][-2:] == [[pytest.approx(0.1 * moment)], None]
        assert frame["y"][-2] == [pytest.approx(float(trial.episode.states[moment, 3]), rel=1e-4, abs=1e-6)]
        fan = trial.imagined[moment, :, :, 3].double().numpy()
        assert frame["y"][2] == pytest.approx(np.median(fan, 1).tolist(), rel=1e-4, abs=1e-6)
        assert frame["x"][2][0] == pytest.approx(0.1 * moment)  # these plans were all made at the moment itself


def test_an_old_plan_starts_where_it_was_made(tmp_path):
    run = synthetic_run(tmp_path / "run", "ExactGP", trials=1)
    last = synthetic_trial(2, True, 1.0)
    last.age[:] = torch.arange(STEPS) % 5
    last.imagined[7] = torch.nan  # a model that ran away
    run.add(last)
    text = write_report(tmp_path / "page.html", {"gp": run}).read_text(encoding="utf-8")
    figure = json.loads(re.search(r'data-plot="plot-imagined-gp-0">(.*?)</script>', text)[1])
    assert [frame["x"][2][0] for frame in figure["frames"]] == pytest.approx([0.1 * (t - t % 5) for t in range(STEPS)])
    assert set(figure["frames"][7]["y"][2]) == {None}


@pytest.mark.parametrize("options", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_slider_moves_the_fans_in_a_browser(chromium, path, figures, options):  # noqa: F811
    with opened(chromium, path, **options) as page:
        scrolled_through(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        slider = page.locator(".slider")
        slider.scroll_into_view_if_needed()
        for place in (0, STEPS - 1):
            slider.locator("input").evaluate(f"(input) => {{ input.value = {place}; input.dispatchEvent(new Event('input')); }}")
            assert slider.locator("output").inner_text() == f"{0.1 * place:.3g} s"
            data = f"{shown(page, 'plot-imagined-gp-0')}.data"
            wanted = figures["plot-imagined-gp-0"]["frames"][place]
            page.wait_for_function(f"{data}.at(-2).x[0] === {wanted['x'][-2][0]}")
            assert page.evaluate(f"{data}[2].y") == pytest.approx(wanted["y"][2])
            assert len(page.evaluate(f"{data}.at(-1).y")) == STEPS + 1
