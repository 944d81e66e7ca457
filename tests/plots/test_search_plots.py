"""Figures of policy search draw what was predicted and what came, at the right times."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from bayesdyn import plots
from bayesdyn.errors import ShapeError

TIME = 0.1 * np.arange(5)
MEAN, STD = np.array([1.0, 0.9, 0.7, 0.4, 0.1]), np.array([0.0, 0.1, 0.2, 0.2, 0.1])


@pytest.fixture
def axes():
    figure = Figure()
    yield figure.add_subplot()
    figure.canvas.draw()  # whatever only breaks when it is drawn, breaks here


def line(axes, label):
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_label() == label]
    return found


def test_cost_is_drawn_with_two_standard_deviations_and_real_cost_from_the_first_step_on(axes):
    rollouts = np.tile(MEAN[1:, None], (1, 10)) + 0.01 * np.arange(10)
    plots.predicted_cost(axes, TIME, MEAN, STD, real=np.array([0.8, 0.6]), rollouts=rollouts)
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx((MEAN + 2 * STD).max())
    assert corners[:, 1].min() == pytest.approx((MEAN - 2 * STD).min())
    real = line(axes, "the trial")
    assert real.get_xdata() == pytest.approx(TIME[1:3])
    assert real.get_ydata() == pytest.approx([0.8, 0.6])
    assert len(axes.get_lines()) == 2 + 10
    assert line(axes, "10 more rollouts").get_xdata() == pytest.approx(TIME[1:])


def test_state_is_drawn_with_bars_of_two_standard_deviations(axes):
    plots.predicted_state(axes, TIME, MEAN, STD, real=MEAN + 0.1, rollouts=np.full((5, 3), np.nan))
    (bars,) = axes.containers
    segments = bars.lines[2][0].get_segments()
    assert np.array(segments)[:, :, 1] == pytest.approx(np.stack((MEAN - 2 * STD, MEAN + 2 * STD), 1))
    assert line(axes, "the trial").get_ydata() == pytest.approx(MEAN + 0.1)


def test_long_predictions_show_some_of_their_bars(axes):
    time = np.arange(101.0)
    plots.predicted_state(axes, time, np.sin(time), np.ones(101))
    assert len(axes.containers[0].lines[2][0].get_segments()) <= 45


def test_gap_between_predicted_and_realised_cost_is_shaded_at_each_trial(axes):
    plots.cost_by_trial(axes, [1, 2, 4], [7.0, 9.0, 8.0], [30.0, 12.0, 8.0])
    (gaps,) = axes.collections
    assert np.array(gaps.get_segments()) == pytest.approx(np.array([[[1, 7], [1, 30]], [[2, 9], [2, 12]], [[4, 8], [4, 8]]]))
    assert line(axes, "predicted").get_xdata() == pytest.approx([1, 2, 4])
    assert line(axes, "realised").get_ydata() == pytest.approx([30, 12, 8])


def test_what_does_not_fit_is_refused(axes):
    with pytest.raises(ShapeError, match="no longer than what was predicted, 4 values; got 5"):
        plots.predicted_cost(axes, TIME, MEAN, STD, real=np.ones(5))
    with pytest.raises(ShapeError, match="got 6"):
        plots.predicted_state(axes, TIME, MEAN, STD, real=np.ones(6))
    with pytest.raises(ShapeError, match="2, 1 for 2"):
        plots.cost_by_trial(axes, [1, 2], [1.0, 2.0], [1.0])
