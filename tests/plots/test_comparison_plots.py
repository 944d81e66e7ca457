"""Figures of comparisons on Matplotlib axes draw the numbers that they are given, and those of a made-up comparison."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from bayesdyn import plots
from bayesdyn.errors import ShapeError
from bayesdyn.evaluation.comparison import Cell, Comparison
from bayesdyn.evaluation.pairs import PairedInterval
from bayesdyn.evaluation.ranking import ause
from bayesdyn.evaluation.table import Row


@pytest.fixture
def axes():
    figure = Figure()
    yield figure.add_subplot()
    figure.canvas.draw()  # whatever only breaks when it is drawn, breaks here


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def comparison(error, epistemic, seeds=(0, 1)):
    """Return two seeds of one posterior with these points, and rows whose figure is the seed's number."""
    cells = []
    for seed in seeds:
        rows = [Row("gp", "toy", "none", seed, "test", "nll", 1, "predictive", value=float(seed))]
        for output in ("0", "1"):
            here = {"horizon": 5, "propagation": "TSInf", "output": output}
            rows.append(Row("gp", "toy", "none", seed, "test", "coverage90", value=0.8 + 0.1 * int(output), **here))
            rows.append(Row("gp", "toy", "none", seed, "test", "coverage90_null", value=0.9, null_low=0.85, null_high=0.95, **here))
        arrays = {"none/error": error, "none/epistemic_std": epistemic, "none/aleatoric_std": 0 * error}
        cells.append(Cell("gp", seed, tuple(rows), arrays))
    return Comparison(tuple(cells))


def test_numbers_average_outputs_and_keep_seeds_apart():
    numbers = plots.Numbers(comparison(np.ones((4, 1)), np.ones((4, 1))))
    assert numbers.values(plots.Query("nll")) == {"gp": {0: 0.0, 1: 1.0}}
    (line,) = numbers.by_horizon("coverage90").values()
    assert (line.horizons, line.mean, line.null_low) == (pytest.approx([5]), pytest.approx([0.85]), pytest.approx([0.85]))
    assert numbers.differences(plots.Query("nll"), "nobody") == {}


def test_the_area_under_a_sparsification_curve_is_the_score():
    """AUSE from the curves of the figure, by the trapezoid rule over its 101 points, up to their spacing."""
    random = np.random.default_rng(0)
    std = np.exp(random.normal(size=(4000, 1)))
    error = std * random.normal(size=(4000, 1))
    found = plots.series.sparsified(comparison(error, std), "gp")
    area = [np.trapezoid(curve, found.share) for curve in (found.remaining, found.oracle, np.ones_like(found.share))]
    expected = float(ause(torch.from_numpy(std), torch.from_numpy(np.abs(error)))[0])
    assert (area[0] - area[1]) / (area[2] - area[1]) == pytest.approx(expected, abs=0.02)


def test_arrays_that_cannot_be_written_to_are_drawn_without_a_warning():
    """What Ray hands back is read-only, and PyTorch warns of sharing such memory, once in a process."""
    error, std = np.ones((4, 1)), np.ones((4, 1))
    error.flags.writeable = std.flags.writeable = False
    torch.set_warn_always(True)
    try:
        assert plots.series.sparsified(comparison(error, std), "gp") is not None
    finally:
        torch.set_warn_always(False)


def test_a_score_that_says_nothing_makes_the_diagonal():
    score = np.zeros(10)
    cells = [Cell("gp", 0, (Row("gp", "toy", "none", 0, "test", "nll"),), {"none/shift_score": score, "far/shift_score": score})]
    false, true = plots.series.roc(Comparison(tuple(cells)), "gp", "far")
    assert false.tolist() == true.tolist() == [0.0, 1.0]


def test_roc_has_the_area_of_auroc():
    random = np.random.default_rng(0)
    inside, there = random.normal(size=500), 1 + random.normal(size=400)
    cells = [Cell("gp", 0, (Row("gp", "toy", "none", 0, "test", "nll"),), {"none/shift_score": inside, "far/shift_score": there})]
    false, true = plots.series.roc(Comparison(tuple(cells)), "gp", "far")
    assert np.trapezoid(true, false) == pytest.approx(np.mean(there[:, None] > inside), abs=0.005)  # of 900 thresholds 201 are kept


def test_histogram_bars_are_shares(axes):
    plots.pit_histogram(axes, {"gp": np.array([0.05, 0.06, 0.95, 1.0])}, null=(np.full(10, 0.05), np.full(10, 0.2)))
    values = axes.patches[0].get_data().values
    assert values.tolist() == [0.5, *[0.0] * 8, 0.5]


def test_differences_are_drawn_with_their_intervals(axes):
    found = {"ensemble": PairedInterval(1.0, 0.5, 1.5, 5), "swag": PairedInterval(-0.2, -np.inf, np.inf, 1)}
    plots.paired_differences(axes, found, "gp", "NLL")
    assert lines(axes)["ensemble"].get_xdata() == [1.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["swag", "ensemble"]
    assert sum(len(line.get_xdata()) == 2 and line.get_color() == plots.colour("ensemble") for line in axes.get_lines()) == 1


def test_the_other_figures_draw_what_they_are_given(axes):
    share = np.linspace(0, 1, 5)
    plots.sparsification_curve(axes, {"gp": plots.series.Sparsified(share, 1 - 0.5 * share, 1 - share)})
    np.testing.assert_array_equal(lines(axes)["gp"].get_ydata(), 1 - 0.5 * share)
    plots.roc_curve(axes, {"swag": (share, share**0.5)})
    np.testing.assert_array_equal(lines(axes)["swag"].get_ydata(), share**0.5)
    with pytest.raises(ShapeError, match="one length"):
        plots.roc_curve(axes, {"gp": (share, share[1:])})


def test_variances_fall_on_log_axes(axes):
    plots.variances_by_rows(axes, [10, 100], {"gp": np.array([1.0, 0.1])}, {"gp": np.array([0.3, 0.3])})
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    np.testing.assert_array_equal(lines(axes)["gp"].get_ydata(), [1.0, 0.1])


def test_places_are_one_per_name_as_long_as_there_are_some():
    names = ["swag", "sghmc", "gp", "ExactGP", "mine", "yours", "laplace", "mean-field"]
    places = plots.places(names)
    assert sorted(places.values()) == list(range(8))
    assert places["gp"] == plots.PALETTE.index(plots.colour("gp"))
    assert set(plots.places([*names, "ninth"])) == {*names, "ninth"}
