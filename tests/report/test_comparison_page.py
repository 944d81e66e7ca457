"""The interactive page of a comparison: what its figures show are the numbers of its cells, and it works in a browser."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from browsing import PHONE, chromium, opened, scrolled_through, shown  # noqa: F401 (a fixture)
from material import COVERAGE, HORIZONS, NLL, made_up, row

from bayesdyn.errors import UnknownNameError
from bayesdyn.evaluation.about import About, Size
from bayesdyn.evaluation.pairs import paired_interval
from bayesdyn.report import write_report
from bayesdyn.report.comparing import comparison_table
from bayesdyn.report.formulas import formulas_for


@pytest.fixture(scope="module")
def comparison():
    return made_up()


@pytest.fixture(scope="module")
def path(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    comparison.write(folder / "results.csv")
    return write_report(folder / "report.html", {}, comparison)


@pytest.fixture(scope="module")
def figures(path):
    return drawn(path)


def drawn(path):
    """Return the data of every figure of a page by its id."""
    found = re.findall(r'<script type="application/json" data-plot="([\w-]+)">(.*?)</script>', path.read_text(encoding="utf-8"))
    return {name: json.loads(text) for name, text in found}


def traces(figure, name):
    return [trace for trace in figure["data"] if trace.get("legendgroup") == name and trace.get("meta") != "alone"]


def headings(path):
    return re.findall(r"<h2>(.*?)</h2>", path.read_text(encoding="utf-8"))


def test_plotly_knows_every_attribute_of_every_figure(figures):
    """Its own validator refuses a misspelt or misplaced attribute."""
    assert len(figures) > 25
    for name, figure in figures.items():
        made = go.Figure(figure["data"], figure["layout"])
        assert len(made.data) == len(figure["data"]), name


def test_the_page_says_what_it_is_made_of(path, figures):
    text = path.read_text(encoding="utf-8")
    assert '<a href="results.csv">' in text
    anchors = set(re.findall(r'<div id="(formula-[\w-]+)">', text))
    links = re.findall(r'<a href="#(formula-[\w-]+)">', text)
    assert set(links) <= anchors
    assert len(links) == text.count("<figcaption>") == len(figures)
    assert text.count('class="csv"') == len(figures)


def test_sections_are_there_only_with_their_data(path, tmp_path):
    everything = headings(path)
    usual = headings(write_report(tmp_path / "page.html", {}, made_up(optional=False)))
    wanted = {"Over one input", "What do more data take away?", "Learning from the rows that it asks for"}
    wanted |= {"Planned against realised return"}
    assert set(everything) - set(usual) == wanted
    assert "recalibration" not in (tmp_path / "page.html").read_text(encoding="utf-8").split("<script>")[-1]


def test_curves_against_the_horizon_are_the_rows(figures):
    for name, coverage in COVERAGE.items():
        (line,) = traces(figures["plot-horizon-coverage90"], name)
        assert line["x"] == list(HORIZONS)
        assert line["y"] == pytest.approx([coverage - 0.01 * h for h in HORIZONS])
        (rmse,) = traces(figures["plot-horizon-rmse"], name)
        assert rmse["y"] == pytest.approx([0.1 * h + 0.01 for h in HORIZONS])
    alone = [trace for trace in figures["plot-horizon-coverage90"]["data"] if trace.get("meta") == "alone"]
    # Of each model the interval over seeds, and the band of a right model on both sides.
    assert sorted({max(trace["y"]) for trace in alone if trace["fillcolor"].startswith("var(--ink")}) == [0.97]
    dashed = [t for t in figures["plot-horizon-rmse"]["data"] if t.get("line", {}).get("dash") == "dash"]
    assert {t["legendgroup"] for t in dashed} == set(COVERAGE)  # the other way of taking steps


def test_differences_have_the_interval_of_their_pairs(figures):
    figure = figures["plot-difference-nll-1"]
    assert {trace["y"][0] for trace in figure["data"]} == {"ensemble", "swag"}
    for trace in figure["data"]:
        found = paired_interval([a - b for a, b in zip(NLL[trace["y"][0]], NLL["gp"], strict=True)])
        assert trace["x"] == pytest.approx([found.mean], rel=1e-4)
        assert trace["error_x"]["array"] == pytest.approx([found.high - found.mean], rel=1e-4)


def test_calibration_curves_are_shares_of_the_pit(figures, comparison):
    u = np.concatenate([cell.arrays["none/pit"].ravel() for cell in comparison.cells if cell.posterior == "swag"])
    (curve,) = traces(figures["plot-calibration-inside"], "swag")
    assert curve["y"] == pytest.approx([np.mean(u <= p) for p in curve["x"]], rel=1e-4)
    (hist,) = traces(figures["plot-pit"], "swag")
    assert sum(hist["y"][::2]) == pytest.approx(1.0, rel=1e-4)


def test_the_table_marks_the_best_and_what_is_tied_with_it(comparison):
    table = comparison_table(comparison)
    rows = {row[0].text: row for row in table.rows}
    nll = table.columns.index("NLL (nats)")
    assert rows["gp"][nll].best
    assert rows["gp"][nll].text == "0.10"
    assert rows["swag"][nll].tied
    assert not rows["swag"][nll].best
    # 1, 1.2 and 1 above the best: t with 2 degrees of freedom reaches 4.30 · 0.0667 to either side.
    assert not rows["ensemble"][nll].tied
    assert rows["ensemble"][nll].note == "Δ +1.07\n± 0.29"
    ten = table.columns.index("90 % coverage, 10 steps (%)")
    assert rows["ensemble"][ten].text == "60.0"
    assert rows["ensemble"][ten].note == "80.0 to 97.0"
    assert table.columns[-4:] == ("exploitation gap", "fit (s)", "draw (µs)", "step (µs)")


def test_one_seed_makes_no_claim_about_chance(tmp_path):
    table = comparison_table(made_up(seeds=(0,)))
    assert not any(cell.tied for row in table.rows for cell in row)
    assert table.caption.startswith("One seed")
    page = write_report(tmp_path / "page.html", {}, made_up(seeds=(0,)), reference="swag").read_text(encoding="utf-8")
    assert "difference to swag" in page
    assert "nothing can be said about chance" in page


def changed(comparison, name, **values):
    """Return the comparison with other values of a model's rows, by their metrics."""
    cells = [
        replace(cell, rows=tuple(replace(row, value=values.get(row.metric, row.value)) for row in cell.rows))
        if cell.posterior == name
        else cell
        for cell in comparison.cells
    ]
    return replace(comparison, cells=tuple(cells))


def without_doubt(comparison, name):
    """Return the comparison with a model that states no epistemic variance."""
    cells = []
    for cell in comparison.cells:
        stated = row(cell.posterior, cell.seed, "epistemic_std", float(cell.posterior != name), output="all")
        cells.append(replace(cell, rows=(*cell.rows, stated)))
    return replace(comparison, cells=tuple(cells))


def test_a_model_without_an_epistemic_part_has_no_figures_of_it(comparison, tmp_path):
    sure = without_doubt(comparison, "ensemble")
    table = comparison_table(sure)
    cells = {line[0].text: line for line in table.rows}
    for title in ("AUSE", "AUROC, “far”"):
        place = table.columns.index(title)
        assert cells["ensemble"][place].text == "–"
        assert cells["gp"][place].text != "–"
    found = drawn(write_report(tmp_path / "page.html", {}, sure))
    for name in ("plot-sparsification", "plot-roc-far"):
        assert {trace.get("legendgroup") for trace in found[name]["data"]} == {None, "gp", "swag"}


def test_who_has_fewer_seeds_than_others_says_so_and_takes_no_part(comparison):
    """Else the luck of one seed would beat the mean of three."""
    fewer = replace(comparison, cells=tuple(c for c in comparison.cells if c.posterior != "gp" or c.seed == 0))
    table = comparison_table(fewer)
    rows = {line[0].text: line for line in table.rows}
    nll = table.columns.index("NLL (nats)")
    assert rows["gp"][0].note == "1 of 3 seeds"
    assert rows["swag"][0].note == ""
    assert float(rows["gp"][nll].text) < float(rows["swag"][nll].text)
    assert rows["swag"][nll].best
    assert not rows["gp"][nll].best


def test_a_figure_that_rounds_to_zero_has_no_sign(comparison):
    table = comparison_table(changed(comparison, "swag", nll=-0.001))
    (swag,) = (line for line in table.rows if line[0].text == "swag")
    assert swag[table.columns.index("NLL (nats)")].text == "0.00"


@pytest.mark.parametrize(("seeds", "stds"), [((0, 1), "9.0"), ((0, 1, 2), "2.5")])
def test_differences_say_what_so_many_pairs_can_tell(seeds, stds, tmp_path):
    """k pairs exclude 0 if the mean exceeds t_{0.975, k-1}/√k stds: 12.7/√2 and 4.30/√3."""
    text = write_report(tmp_path / "page.html", {}, made_up(seeds=seeds)).read_text(encoding="utf-8")
    assert f"{len(seeds)} pairs tell a difference from chance only where its mean exceeds {stds} times" in text
    assert "is a tie" not in text


def sunk(row):
    hit = (row.posterior, row.metric, row.horizon) == ("ensemble", "skill_ridge-linear", HORIZONS[-1])
    return replace(row, value=-40.0) if hit else row


def test_what_lies_outside_a_figure_is_marked_at_its_edge(comparison, tmp_path):
    """One model, once: at the longest horizon it is worse by far than the reference."""
    cells = tuple(replace(cell, rows=tuple(map(sunk, cell.rows))) for cell in comparison.cells)
    far = replace(comparison, cells=cells)
    figure = drawn(write_report(tmp_path / "page.html", {}, far))["plot-horizon-skill-ridge-linear"]
    marks = [trace for trace in figure["data"] if trace.get("meta") == "mark"]
    low, _ = figure["layout"]["yaxis"]["range"]
    assert low > -40
    (mark,) = marks
    assert (mark["legendgroup"], mark["x"], mark["y"], mark["customdata"]) == ("ensemble", [HORIZONS[-1]], [low], [-40.0])


def test_the_band_of_the_reference_is_filled_beside_another_model(figures):
    first = figures["plot-toy-swag"]["data"][0]
    assert first["fill"] == "toself"
    assert first["fillcolor"].startswith("var(--ink/")
    assert figures["plot-toy-gp"]["data"][0]["fillcolor"].startswith("var(--series-")


def test_a_stranger_is_no_reference(comparison, tmp_path):
    with pytest.raises(UnknownNameError, match="no posterior 'nobody'"):
        write_report(tmp_path / "page.html", {}, comparison, reference="nobody")


def test_the_page_says_what_the_data_are_and_where_they_are_few(comparison, tmp_path):
    about = About("arm.csv, 'angle' measured", 0.05, Size(17, 1986), None, {"none": Size(8, 464), "far": Size(2, 116)})
    text = write_report(tmp_path / "page.html", {}, replace(comparison, about=about)).read_text(encoding="utf-8")
    assert "How sure are the models of “made-up”?" in text
    assert "Data: arm.csv, &#39;angle&#39; measured." in text
    assert "Learned from 17 episodes (1,986 rows), not recalibrated." in text
    assert "Tested on like the training data, 8 episodes (464 rows); “far”, 2 episodes (116 rows)." in text
    assert "how far ahead (s)" in text
    (warning,) = re.findall(r'<p class="warning">(.*?)</p>', text)
    assert warning.startswith("Few data to test on: “far”, 2 episodes (116 rows). ")
    enough = replace(about, tests={"none": Size(8, 464)})
    again = write_report(tmp_path / "page.html", {}, replace(comparison, about=enough)).read_text(encoding="utf-8")
    assert '<p class="warning">' not in again


def test_what_failed_is_said_and_not_drawn(tmp_path):
    path = write_report(tmp_path / "page.html", {}, made_up(failed=["laplace"]))
    text = path.read_text(encoding="utf-8")
    assert "Failed, and counted as such: laplace (seed 0)" in text
    assert "laplace, seed 0: NumericalError: singular" in text
    assert 'value="laplace"' not in text


def test_formulas_are_those_that_are_linked():
    assert [formula.anchor for formula in formulas_for(["promise", ""])] == ["promise"]
    assert formulas_for([]) == []


@pytest.fixture(scope="module")
def desktop(chromium, path):  # noqa: F811
    """One window for several tests: opening it takes seconds."""
    with opened(chromium, path) as page:
        yield page


def fits(page):
    """Check that every figure is drawn inside its box with its titles, and that nothing makes the page scroll sideways."""
    scrolled_through(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(p => [p.clientWidth, p.querySelector('.main-svg').clientWidth])"
    )
    assert all(0 < drawn <= box for box, drawn in boxes)
    ends = page.evaluate(
        "[...document.querySelectorAll('.plot')].flatMap(p => [...p.querySelectorAll('.xtitle, .gtitle')]"
        ".map(t => [p.id, t.getBoundingClientRect().right - p.getBoundingClientRect().right]))"
    )
    assert [(name, over) for name, over in ends if over > 1] == []


def test_it_opens_without_a_word_and_fits_the_window(desktop, figures):
    """What was said on the console, or asked of a network, fails the fixture."""
    fits(desktop)
    assert desktop.evaluate("document.querySelectorAll('.plot .main-svg').length") >= len(figures)


def test_it_is_readable_on_a_phone(chromium, path):  # noqa: F811
    with opened(chromium, path, **PHONE) as page:
        fits(page)
        # The names leave most of the width to the figures, and the table says that it goes on, until it is at its end.
        head = page.locator("tbody th.named").first
        assert head.bounding_box()["width"] < 0.34 * 390
        frame = page.locator(".frame").first
        assert page.locator(".hint").first.is_visible()
        assert "more" in frame.get_attribute("class").split()
        page.locator(".sideways").first.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
        page.wait_for_function("!document.querySelector('.frame').classList.contains('more')")


def test_the_slider_moves_the_plots_through_the_starts(desktop, comparison):
    """At each place of the slider the strong line is the recorded path of that start, 4 best, 4 median and 4 worst."""
    truth = comparison.cells[0].arrays["none/fan_truth"][..., 0]
    starts = [0, 1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 14]  # of 15, easiest first
    slider = desktop.locator(".slider").first
    slider.scroll_into_view_if_needed()
    for place in (0, 11, 4):
        slider.locator("input").evaluate(f"(input) => {{ input.value = {place}; input.dispatchEvent(new Event('input')); }}")
        assert slider.locator("output").inner_text().startswith(f"{place + 1} of 12")
        for name in COVERAGE:
            wanted = truth[:, starts[place]].tolist()
            last = f"{shown(desktop, f'plot-fan-none-{name}')}.data.at(-1).y"
            desktop.wait_for_function(f"wanted => Math.abs({last}[1] - wanted) <= 1e-4 * Math.abs(wanted)", arg=wanted[1])
            assert desktop.evaluate(last) == pytest.approx(wanted, rel=1e-4)
    line = f"{shown(desktop, 'plot-fan-none-gp')}.querySelector('.js-line').getAttribute('d')"
    before = desktop.evaluate(line)
    slider.locator("input").press("ArrowRight")
    assert slider.locator("output").inner_text().startswith("6 of 12")
    desktop.wait_for_function(f"before => {line} !== before", arg=before)


def test_one_model_can_be_looked_at_alone(desktop):
    desktop.locator('.chooser input[value="swag"]').check(force=True)
    owners = desktop.evaluate("[...document.querySelectorAll('figure[data-owner]')].map(f => [f.dataset.owner, f.hidden])")
    assert owners
    assert all(hidden == (owner != "swag") for owner, hidden in owners)
    groups = f"{shown(desktop, 'plot-calibration-inside')}.data.filter(t => t.visible).map(t => t.legendgroup || '')"
    # The diagonal, the band of a right model, the area and the curve.
    desktop.wait_for_function(f"{groups}.join() === ',swag,swag,swag'")
    desktop.locator('.chooser input[value=""]').check(force=True)
    assert not desktop.evaluate("[...document.querySelectorAll('figure')].some(f => f.hidden)")


def test_figures_follow_the_colour_scheme(desktop):
    colour = f"{shown(desktop, 'plot-pit')}.data[0].line.color"
    muted = "getComputedStyle(document.documentElement).getPropertyValue('--muted').trim()"
    light = desktop.evaluate(muted)
    desktop.wait_for_function(f"{colour} === '{light}'")
    desktop.emulate_media(color_scheme="dark")
    desktop.wait_for_function(f"{colour} !== '{light}' && {colour} === {muted}")
    desktop.emulate_media(color_scheme="light")


def test_a_figure_gives_its_numbers_as_csv(desktop, figures):
    with desktop.expect_download() as download:
        desktop.locator("figure:has(#plot-horizon-rmse) button.csv").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    (line,) = traces(figures["plot-horizon-rmse"], "gp")
    found = [(float(row["x"]), float(row["y"])) for row in rows if row["trace"] == "gp"]
    assert set(zip(line["x"], line["y"], strict=True)) <= set(found)


def test_a_model_on_its_own_is_looked_at_alone_and_is_best_of_nothing(tmp_path):
    """Nothing has to be chosen to see its null bands, and no reference is drawn that is not there."""
    lonely = made_up(names=("gp",))
    text = write_report(tmp_path / "report.html", {}, lonely).read_text(encoding="utf-8")
    assert '<div class="chooser" hidden><input type="hidden" value="gp"></div>' in text
    assert "In grey the epistemic band" not in text
    assert not any(cell.best or cell.tied for row in comparison_table(lonely).rows for cell in row)


def test_bands_of_a_model_on_its_own_are_drawn(chromium, tmp_path):  # noqa: F811
    with opened(chromium, write_report(tmp_path / "report.html", {}, made_up(names=("gp",)))) as page:
        scrolled_through(page)
        curves = page.evaluate("document.getElementById('plot-calibration-inside').data.map((t) => [t.meta || '', t.visible])")
    alone = [visible for meta, visible in curves if meta == "alone"]
    assert alone
    assert all(alone)
