"""Figures draw the numbers they are given, in colours that stay with their posterior and read on light and dark pages."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bayesdyn import plots
from bayesdyn.errors import ConfigurationError, ShapeError


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    figure.canvas.draw()  # whatever only breaks when it is drawn, breaks here
    plt.close(figure)


def luminance(colour):
    """Relative luminance, WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def line(axes, label):
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_label() == label]
    return found


@pytest.mark.parametrize("colour", [*plots.PALETTE, plots.NEUTRAL])
@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_colours_read_on_light_and_dark_pages(colour, page):
    """3:1 is what WCAG 2.1 (1.4.11) asks of lines in figures."""
    assert contrast(colour, page) >= 3


def test_hues_differ_for_people_who_see_two_cones_worth():
    """Under simulated protanopia and deuteranopia (Viénot et al. 1999, in linear RGB) no two hues come close."""
    protan = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
    deutan = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    hues = np.array([to_rgb(colour) for colour in plots.PALETTE]) ** 2.2
    for matrix in (protan, deutan):
        seen = np.clip(hues @ matrix.T, 0, 1) ** (1 / 2.2)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.2


def test_no_two_hues_are_of_one_tint():
    """Hue angles in OKLab (Ottosson 2020) are 15 degrees apart or more: a dull blue beside a bright one is lost in thin lines."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cones.append([0.0883024619, 0.2817188376, 0.6299787005])
    opponents = [[1.9779984951, -2.4285922050, 0.4505937099], [0.0259040371, 0.7827717662, -0.8086757660]]
    linear = np.array([[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(h)] for h in plots.PALETTE])
    a, b = np.cbrt(linear @ np.array(cones).T) @ np.array(opponents).T[:, 0], np.cbrt(linear @ np.array(cones).T) @ opponents[1]
    angles = np.sort(np.degrees(np.arctan2(b, a)) % 360)
    assert np.diff([*angles, angles[0] + 360]).min() > 14.9


def test_a_posterior_keeps_its_colour_whatever_it_is_drawn_with(axes):
    plots.by_horizon(axes, (1, 10), {"mine": [0.9, 0.8], "ExactGP": [0.9, 0.7]}, label="coverage")
    assert line(axes, "ExactGP").get_color() == plots.colour("ExactGP")
    assert line(axes, "mine").get_color() == plots.colour("mine") == plots.colour("mine")
    assert plots.colour("ridge-linear") == plots.colour("persistence") == plots.NEUTRAL
    known = ("ExactGP", "BootstrapEnsemble", "SparseGP", "MCDropout", "MeanField", "Laplace")
    assert len({plots.colour(name) for name in known}) == 6


def test_calibration_curve_draws_the_distribution_of_pit(axes):
    pit = np.random.default_rng(0).uniform(size=500) ** 2
    plots.calibration_curve(axes, {"ExactGP": pit}, null=(np.linspace(0, 0.9, 99), np.linspace(0.1, 1, 99)))
    p, share = line(axes, "ExactGP").get_data()
    assert share[100] == np.mean(pit <= p[100])
    assert share[0] == 0
    assert share[-1] == 1


def test_by_horizon_draws_the_values_and_refuses_other_lengths(axes):
    plots.by_horizon(axes, (1, 5, 20), {"ExactGP": [0.9, 0.8, 0.7]}, label="coverage", target=0.9, null=([0.8] * 3, [1.0] * 3))
    np.testing.assert_array_equal(line(axes, "ExactGP").get_ydata(), [0.9, 0.8, 0.7])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "5", "20"]
    with pytest.raises(ShapeError, match="2 values for 3 horizons"):
        plots.by_horizon(axes, (1, 5, 20), {"ExactGP": [0.9, 0.8]}, label="coverage")


def test_error_against_std_lies_on_the_identity_for_a_perfect_std(axes):
    rng = np.random.default_rng(0)
    std = np.exp(rng.normal(size=30_000))
    plots.error_against_std(axes, "ExactGP", std, std * rng.normal(size=30_000))
    centre, rmse = line(axes, "ExactGP: RMSE per bin").get_data()
    # 2,000 points per bin: the relative standard error of an RMSE is 1/√(2·2000), and more where a bin spans many sizes.
    np.testing.assert_allclose(rmse[:-1], centre[:-1], rtol=5 / np.sqrt(4000))


def test_error_against_std_takes_a_std_of_zero(axes):
    plots.error_against_std(axes, "persistence", np.zeros(40), np.linspace(-1, 1, 40))


def test_fan_chart_splits_the_spread(axes):
    time, mean = np.arange(4.0), np.zeros(4)
    plots.fan_chart(axes, "ExactGP", time, mean + 1, mean, 3 + mean, 4 + mean, lines=np.ones((2, 4)), label="angle")
    total, epistemic = (band.get_paths()[0].vertices[:, 1].max() for band in axes.collections)
    assert (total, epistemic) == (10.0, 6.0)
    assert len(axes.get_lines()) == 4


def test_shift_histogram_wants_the_data_in_distribution(axes):
    scores = {"none": np.full(10, 0.1), "steps": np.geomspace(0.01, 1, 30)}
    plots.shift_histogram(axes, scores, inside="none")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["in distribution", "steps"]
    with pytest.raises(ConfigurationError, match="'test', among"):
        plots.shift_histogram(axes, scores, inside="test")


def test_shift_histogram_takes_scores_of_zero(axes):
    plots.shift_histogram(axes, {"none": np.zeros(5), "steps": np.zeros(5)}, inside="none")


def test_posterior_1d_draws_mean_parts_draws_data_and_truth(axes):
    x = np.linspace(-1, 1, 9)
    plots.posterior_1d(axes, "ExactGP", x, x, 0.3 + 0 * x, 0.4 + 0 * x, draws=np.ones((7, 9)), data=(x, x), truth=-x)
    np.testing.assert_array_equal(line(axes, "ExactGP").get_ydata(), x)
    np.testing.assert_array_equal(line(axes, "truth").get_ydata(), -x)
    assert len(axes.get_lines()) == 9
    assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(2.0)


def test_learning_curve_draws_what_each_step_reached(axes):
    values = np.array([[0.0, 3.0, 1.0], [2.0, 5.0, 3.0]])
    plots.learning_curve(axes, [1, 2, 3], {"ExactGP": values, "one seed": values[:1]}, label="return")
    np.testing.assert_array_equal(line(axes, "ExactGP").get_ydata(), [1.0, 4.0, 2.0])
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(4 + np.sqrt(2))


def test_backgrounds_are_left_to_the_page(axes):
    plots.dress(axes, "title", "x", "y")
    assert axes.get_facecolor()[3] == 0
    assert axes.figure.patch.get_alpha() == 0
