"""The page: whole, self-contained, true to the folders it reads, and without errors in a browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from browsing import DESKTOP, PHONE, chromium, opened  # noqa: F401 (a fixture)
from PIL import Image
from plotly.offline import get_plotlyjs
from runs import STEPS, synthetic_run, synthetic_trial

from bayesdyn.codec import Codec
from bayesdyn.data import Transitions
from bayesdyn.envs import CARTPOLE_ID, tip_position
from bayesdyn.errors import FileError
from bayesdyn.evaluation import Comparison, compare
from bayesdyn.evaluation.baselines import RidgeLinear
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.presets import environments
from bayesdyn.report import write_report
from bayesdyn.report.canvas import Palette
from bayesdyn.report.comparing import comparison_table
from bayesdyn.report.scenarios import scenario


def synthetic_comparison(folder, seeds=(0, 1)):
    """Two stand-ins on a damped oscillator, with rows beyond the training range as a shift."""
    generator = torch.Generator().manual_seed(0)

    def data(size):
        state = size * torch.randn(60, 2, generator=generator, dtype=torch.float64)
        action = torch.randn(60, 1, generator=generator, dtype=torch.float64)
        step = torch.tensor([[1.0, 0.1], [-0.1, 0.95]], dtype=torch.float64)
        states = [state[0]]
        for t in range(60):
            states.append(step @ states[-1] + torch.tensor([0.0, 0.1]) * action[t] + 0.02 * state[t] / size)
        states = torch.stack(states)
        return Transitions.from_arrays(states[:-1], action, states[1:], episode=torch.zeros(60))

    makers = {"gp": lambda: RidgeLinear(1e-3), "ensemble": lambda: RidgeLinear(10.0)}
    open_loop = OpenLoop(horizons=(1, 5), starts=15, particles=8)
    return compare(
        makers,
        data(1.0),
        data(1.0),
        Codec,
        shifted={"far": data(5.0)},
        data="oscillator",
        seeds=seeds,
        open_loop=open_loop,
        replicates=5,
        folder=folder,
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Folders of two runs and a comparison, and the page about them."""
    folder = tmp_path_factory.mktemp("material")
    runs = {
        "gp": synthetic_run(folder / "gp", "ExactGP"),
        "<b>ensemble": synthetic_run(folder / "ensemble", "BootstrapEnsemble", 4, 10),
    }
    comparison = synthetic_comparison(folder / "comparison")
    path = write_report(folder / "report.html", runs, comparison)
    return runs, comparison, path


@pytest.fixture(scope="module")
def page(material):
    """The page without Plotly's own code."""
    text = material[2].read_text(encoding="utf-8")
    plotly = get_plotlyjs()
    assert text.count(plotly) == 1
    return text.replace(plotly, "")


class Reader(HTMLParser):
    """Notes every tag, which of them are open, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.unclosed = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_well_formed_with_unique_ids(page):
    reader = Reader(page)
    assert reader.unclosed == []
    assert reader.open == []
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 0
    for reference in re.findall(r'(?:xlink:href="|url\()#([\w-]+)', page):
        assert reference in ids


def test_page_needs_nothing_from_outside(page):
    reader = Reader(page)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert [attributes for tag, attributes in reader.tags if tag == "script" and "src" in attributes] == []
    assert set(re.findall(r"https?://[^\s\"<]+", page)) == {"http://www.w3.org/1999/xlink"}
    assert "@import" not in page


def test_every_figure_says_how_to_read_it_and_what_it_shows(page):
    figures = re.findall(r"<figure[ >].*?</figure>", page, flags=re.DOTALL)
    assert len(figures) >= 25
    for figure in figures:
        alt = re.search(r'(?:role="img" aria-label|<img alt)="([^"]{20,})"', figure)
        assert alt, figure[:300]
        reading = re.search(r'<p class="reading">(.{20,}?)</p>', figure)
        assert reading, figure[:300]


def test_every_colour_is_a_variable_with_a_light_and_a_dark_value(page):
    used = set(re.findall(r"var\(--([\w-]+)[)/]", page))
    light, dark = page.split("@media (prefers-color-scheme: dark)", 1)
    for name in used - {"sans", "mono"}:
        assert f"--{name}:" in light
        assert f"--{name}:" in dark.split("\n}\n", 1)[0]
    in_figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert re.findall(r"(?:fill|stroke): *#[0-9a-f]{6}", in_figures) == []


def test_names_are_escaped(page):
    assert "<b>ensemble" not in page
    assert "&lt;b&gt;ensemble" in page


def test_headlines_are_the_numbers_of_the_runs(material, page):
    text = " ".join(" ".join(Reader(page).text).split())
    runs = material[0]
    last = runs["gp"].trials[-1]
    assert "3 trials" in text
    assert f"after {0.1 * STEPS * 3:.3g} s of experience" in text
    assert f"within {last.last('tip_distance'):.3f} m" in text
    assert f"{last.metrics['return']:.3g}" in text
    assert "trial 1: the noise is at its lower bound" in text
    assert "20 and 60 ms" in text
    assert f"3 of {3 * STEPS}" in text
    assert "averaged over three widths" in text  # the planner's reward is not what is paid
    assert "an action every 0.1 s" in text


def test_table_shows_means_over_seeds_and_marks_the_best(material):
    comparison = material[1]
    table = comparison_table(comparison)
    column = table.columns.index("NLL (nats)")
    means = {row[0].text: comparison.summary(row[0].text, "nll").mean for row in table.rows}
    for row in table.rows:
        assert row[column].text == f"{means[row[0].text]:.2f}"
        assert row[column].best == (row[0].text == min(("gp", "ensemble"), key=means.get))


def test_comparison_comes_back_from_its_folder(material):
    _, comparison, path = material
    again = Comparison.open(path.parent / "comparison")
    assert [cell.posterior for cell in again.cells] == [cell.posterior for cell in comparison.cells]
    assert again.rows == comparison.rows or repr(again.rows) == repr(comparison.rows)
    (path.parent / "comparison" / "cells").rename(path.parent / "gone")
    with pytest.raises(FileError, match="run the comparison again"):
        Comparison.open(path.parent / "comparison")
    (path.parent / "gone").rename(path.parent / "comparison" / "cells")


def test_page_is_the_same_when_written_again(material, page):
    runs, comparison, path = material
    assert write_report(path, runs, comparison).read_text(encoding="utf-8").replace(get_plotlyjs(), "") == page


def test_pages_about_one_half_only(material, tmp_path):
    runs, comparison, _ = material
    only_runs = write_report(tmp_path / "runs.html", {"gp": runs["gp"]}).read_text(encoding="utf-8")
    assert "oscillator" not in only_runs
    only_comparison = write_report(tmp_path / "comparison.html", {}, comparison).read_text(encoding="utf-8")
    assert "data:image/gif" not in only_comparison
    assert "oscillator" in only_comparison


def test_animation_is_small_and_has_a_picture_per_state(material):
    (path,) = (material[2].parent / "gp" / "pictures").glob("*.gif")
    assert path.stat().st_size < 3_000_000
    with Image.open(path) as animation:
        shown = sum(_duration(animation, frame) for frame in range(animation.n_frames))
    assert shown == pytest.approx(100 * (STEPS + 1) + 1500)


def _duration(animation, frame):
    animation.seek(frame)
    return animation.info["duration"]


def test_fan_starts_at_the_state_it_was_imagined_from():
    """With a plan made two steps ago, the first drawn tip is the plan's third: where it thought to be by now."""
    trial = synthetic_trial(1, True, 0.5)
    old = replace(trial, age=torch.full((STEPS,), 2))
    tips, frames = tip_position(trial.imagined[4]), scenario(CARTPOLE_ID).frames
    assert torch.equal(frames.imagined(trial, 4), tips)
    assert torch.equal(frames.imagined(old, 4), tips[2:])
    assert frames.imagined(trial, STEPS) is None


@pytest.mark.parametrize("env_id", environments)
def test_pages_know_what_the_presets_know(env_id):
    place, known = scenario(env_id), environments[env_id]
    assert (place.step_seconds, place.info, place.solved) == (known.step_seconds, known.distance, known.solved_below)
    assert place.differs == known.differs
    assert bool(place.info_name) == (known.distance is not None)


def test_a_palette_gives_each_name_one_colour():
    names = ["ensemble", "mine", "gp", "yours"]
    palette = Palette(names, ["persistence"])
    assert len({palette.variable(name) for name in [*names, "persistence"]}) == 5
    assert palette.variable("gp") == Palette(["gp"]).variable("gp")


@pytest.mark.parametrize("options", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_browser_shows_the_page_without_errors_and_without_scrolling_sideways(chromium, material, options):  # noqa: F811
    """On a phone's width the page is as wide as the window; what a table has too much scrolls inside its own frame."""
    with opened(chromium, material[2], **options) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
        assert shown == [True, True]
