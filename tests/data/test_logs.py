"""Resampling and lags against closed forms, and against a simulated ARX model whose coefficients are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdyn.data import LagLayout, Log, Transitions, lagged, resample
from bayesdyn.errors import ConfigurationError, DataError, ShapeError


def stamped_log(samples=30, outputs=2, inputs=3, dt=0.05):
    """A log whose entries say what they are: output j at sample t is t + j/10, input j is -t - j/10."""
    t = np.arange(samples)
    return Log.from_arrays(t * dt, t[:, None] + np.arange(outputs) / 10, -t[:, None] - np.arange(inputs) / 10, "stamped")


def arx_log(samples=200, seed=0):
    """Noise-free y_{t+1} = Σ_k A_k y_{t-k} + Σ_k B_k u_{t-k}, with 2 outputs, 2 inputs, 2 output lags and 3 input lags."""
    rng = np.random.default_rng(seed)
    a = np.array([[[0.5, 0.1], [-0.2, 0.4]], [[0.2, 0.0], [0.1, -0.3]]])
    b = rng.normal(size=(3, 2, 2))
    u = rng.normal(size=(samples, 2))
    y = np.zeros((samples, 2))
    for t in range(2, samples - 1):
        y[t + 1] = sum(a[k] @ y[t - k] for k in range(2)) + sum(b[k] @ u[t - k] for k in range(3))
    return Log.from_arrays(np.arange(samples) * 0.1, y, u), a, b


def test_least_squares_on_the_lagged_state_recovers_an_arx_model_exactly():
    log, a, b = arx_log()
    data = lagged(log, output_lags=2, input_lags=3)
    layout = LagLayout(outputs=2, inputs=2, output_lags=2, input_lags=3)
    features = torch.cat([data.state, data.action], 1)
    found = torch.linalg.lstsq(features, data.next_state[:, layout.newest]).solution.T.numpy()
    wanted = np.concatenate([a[0], a[1], b[1], b[2], b[0]], axis=1)  # y_t, y_{t-1}, u_{t-1}, u_{t-2}, then the action u_t
    np.testing.assert_allclose(found, wanted, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 6), st.integers(1, 6))
def test_every_entry_of_the_state_is_where_the_layout_says(outputs, inputs, output_lags, input_lags):
    log = stamped_log(outputs=outputs, inputs=inputs)
    data = lagged(log, output_lags, input_lags)
    layout = LagLayout(outputs, inputs, output_lags, input_lags)
    first = max(output_lags, input_lags) - 1
    assert len(data) == len(log) - max(output_lags, input_lags)
    assert data.state_size == layout.state_size == len(layout.names())
    now = torch.arange(first, len(log) - 1)
    for lag in range(output_lags):
        assert torch.equal(data.state[:, layout.output(lag)], log.output[now - lag])
    for lag in range(1, input_lags):
        assert torch.equal(data.state[:, layout.input(lag)], log.input[now - lag])
    assert torch.equal(data.action, log.input[now])
    assert torch.equal(data.next_state[:, layout.newest], log.output[now + 1])
    assert torch.equal(layout.shift(data.state, data.action, log.output[now + 1]), data.next_state)
    assert len(data.episodes()) == 1


def test_four_and_four_lags_are_eight_regressors():
    data = lagged(stamped_log(outputs=1, inputs=1), 4, 4)
    assert data.state_size + data.action_size == 8


def test_names_follow_the_layout():
    layout = LagLayout(outputs=2, inputs=1, output_lags=2, input_lags=2)
    assert layout.names() == ["y0[t]", "y1[t]", "y0[t-1]", "y1[t-1]", "u[t-1]"]


@pytest.mark.parametrize("rate", [3.0, 20.0, 37.5, 100.0])
def test_a_straight_line_is_resampled_exactly_and_an_input_is_held(rate):
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.01, 0.2, size=100))
    log = Log.from_arrays(time, np.stack([3 - 2 * time, 5 * time], 1), np.arange(100.0))
    new = resample(log, rate)
    np.testing.assert_allclose(new.output, torch.stack([3 - 2 * new.time, 5 * new.time], 1), atol=1e-12)
    assert float(new.time[0]) == time[0]
    assert time[-1] - 1 / rate < float(new.time[-1]) <= time[-1] + 1e-9
    assert new.sample_time == pytest.approx(1 / rate, rel=1e-12)
    for stamp, held in zip(new.time.tolist(), new.input.flatten().tolist(), strict=True):
        k = int(held)
        assert time[k] <= stamp + 1e-9
        assert k == 99 or stamp < time[k + 1]


@pytest.mark.parametrize("rate", [10.0, 20.0, 30.0, 100.0])
def test_resampling_to_the_rate_it_has_changes_nothing(rate):
    time = 0.7 + np.arange(500) / rate
    values = np.random.default_rng(1).normal(size=(500, 2))
    new = resample(Log.from_arrays(time, values[:, 0], values[:, 1]), rate)
    np.testing.assert_allclose(new.output.flatten(), values[:, 0], rtol=0, atol=1e-9)
    assert new.input.flatten().tolist() == values[:, 1].tolist()


def test_decimation_keeps_every_nth_sample():
    time = np.arange(1001) * 0.01
    values = np.random.default_rng(2).normal(size=(1001, 2))
    new = resample(Log.from_arrays(time, values[:, 0], values[:, 1]), 20.0)
    assert len(new) == 201
    np.testing.assert_allclose(new.output.flatten(), values[::5, 0], rtol=0, atol=1e-9)
    assert new.input.flatten().tolist() == values[::5, 1].tolist()


def test_lags_of_uneven_samples_are_refused():
    log = Log.from_arrays([0.0, 0.1, 0.2, 0.5, 0.6], np.zeros(5), np.zeros(5), "uneven")
    with pytest.raises(DataError, match=r"'uneven' has samples 0\.1 s to 0\.3 s apart; resample"):
        lagged(log, 1, 1)


def test_too_short_logs_and_too_few_lags_are_refused():
    with pytest.raises(DataError, match="has 4 samples; 4 \\+ 2 lags want at least 5"):
        lagged(stamped_log(samples=4), 4, 2)
    assert len(lagged(stamped_log(samples=5), 4, 2)) == 1
    for lags in ((0, 1), (1, 0)):
        with pytest.raises(ConfigurationError, match="one output lag and one input lag"):
            lagged(stamped_log(), *lags)
    layout = LagLayout(1, 1, 4, 4)
    for place, lag in ((layout.output, 4), (layout.output, -1), (layout.input, 0), (layout.input, 4)):
        with pytest.raises(ConfigurationError, match="the state holds"):
            place(lag)


def test_slice_takes_the_start_and_leaves_the_end():
    log = stamped_log(samples=11, dt=1.0)
    assert log.slice(2.0, 5.0).time.tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(DataError, match="no samples"):
        log.slice(100.0, 200.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.floats(0.3, 4.0))
def test_segments_share_no_sample_lose_none_and_last_half_to_one_and_a_half_durations(samples, duration):
    log = stamped_log(samples=samples)
    pieces = log.segments(duration)
    assert torch.equal(torch.cat([piece.output for piece in pieces]), log.output)
    # A piece of m samples spans (m - 1) steps of 0.05 s, and cuts fall anywhere within a step.
    spans = [0.05 * len(piece) for piece in pieces]
    assert all(abs(span - duration) <= 0.05 + 1e-9 for span in spans[:-1])
    assert spans[-1] <= 1.5 * duration + 0.1
    assert len(pieces) == 1 or spans[-1] >= 0.5 * duration - 0.05


def test_segments_become_episodes_that_can_be_held_out():
    log = resample(stamped_log(samples=2000), 20.0)
    data = Transitions.concat([lagged(piece, 4, 4) for piece in log.segments(10.0)])
    assert [len(e) for e in data.episodes()] == [196] * 10
    train, test = data.split([0.8, 0.2])
    layout = LagLayout(2, 3, 4, 4)
    seen = {float(v) for lag in range(4) for v in train.state[:, layout.output(lag)][:, 0]}
    held_out = {float(v) for lag in range(4) for v in test.state[:, layout.output(lag)][:, 0]}
    assert not seen & held_out


@pytest.mark.parametrize(
    ("time", "output", "error", "message"),
    [
        ([0.0, 1.0, 1.0], [0.0, 0.0, 0.0], DataError, r"1\.0 s is followed by 1\.0 s in row 2"),
        ([0.0, 1.0, 2.0], [0.0, np.nan, 0.0], DataError, "output has 1 non-finite .* row 1"),
        ([0.0, 1.0], [0.0, 0.0, 0.0], ShapeError, r"output .*\[2, Y\]; got \[3, 1\]"),
        ([], [], DataError, "no samples"),
    ],
)
def test_unusable_logs_are_refused(time, output, error, message):
    with pytest.raises(error, match=message):
        Log.from_arrays(time, output, np.zeros(len(time)))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_meaningless_rates_and_durations_are_refused(value):
    with pytest.raises(ConfigurationError):
        resample(stamped_log(), value)
    if value != float("inf"):
        with pytest.raises(ConfigurationError):
            stamped_log().segments(value)
