"""The built-in logs are what their README says, and ridge regression on their lags reaches known figures."""

from importlib import resources

import numpy as np
import pytest
import torch

from bayesdyn.data import LagLayout, ball_hoop, lagged, load_log, quarter_drone, resample
from bayesdyn.errors import DataError, FileError, UnknownNameError

# RMSE in degrees of ridge on 4 + 4 lags and a constant (λ = 1e-3, fitted one step ahead on multisine 0-70 s at 20 Hz), and of
# persistence, over 200 evenly spaced starts, h steps of 0.05 s ahead; then ridge's free run over the whole log. The figures were
# computed independently of this package and are given to two or three digits.
HORIZONS = (1, 5, 10, 20, 50)
BARS = {
    "multisine": ([0.22, 1.8, 4.5, 9.0, 11.4], [0.76, 3.5, 6.5, 9.8, 15.0], 9.0),
    "steps": ([0.33, 2.8, 6.4, 11.0, 14.7], [0.88, 4.0, 7.4, 11.6, 19.5], 12.0),
    "seq": ([0.30, 2.5, 6.9, 11.7, 12.6], [1.2, 5.7, 10.3, 15.7, 24.6], 11.2),
}
# The same of the ball in the hoop, in the log's own units, 0.1 s a step: fitted on the first half, the second looked at.
HOOP_BARS = ([0.093, 0.44, 0.94, 1.68, 2.46], [0.132, 0.57, 1.08, 1.78, 3.33], 2.59)
LAYOUT = LagLayout(outputs=1, inputs=1, output_lags=4, input_lags=4)


def features(state, action):
    return torch.cat([state, action, torch.ones_like(action)], -1)


def fitted(train):
    x, y = features(train.state, train.action), train.next_state[:, LAYOUT.newest]
    return torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(9, dtype=x.dtype), x.T @ y)


@pytest.fixture(scope="module")
def ridge():
    return fitted(lagged(resample(quarter_drone("multisine"), 20.0).slice(0.0, 70.0), 4, 4))


def open_loop(weight, data, starts, steps):
    """Yield the predicted outputs [starts] after 1, 2, ... steps from the given rows, with the logged inputs."""
    state = data.state[starts]
    for step in range(steps):
        action = data.action[starts + step]
        state = LAYOUT.shift(state, action, features(state, action) @ weight)
        yield state[:, 0]


def rmse(error):
    return float(error.square().mean().sqrt())


def check(weight, data, ridge_bars, persistence_bars, free_run):
    target = data.next_state[:, 0]
    for horizon, ridge_bar, persistence_bar in zip(HORIZONS, ridge_bars, persistence_bars, strict=True):
        starts = torch.from_numpy(np.linspace(1, len(data) - horizon - 1, 200).astype(int))
        truth = target[starts + horizon - 1]
        *_, prediction = open_loop(weight, data, starts, horizon)
        # Two digits are known, so a figure can be off by half of the second: at most 1 in 20.
        assert rmse(prediction - truth) == pytest.approx(ridge_bar, rel=0.05)
        assert rmse(data.state[starts, 0] - truth) == pytest.approx(persistence_bar, rel=0.05)
    run = torch.cat(list(open_loop(weight, data, torch.tensor([0]), len(data))))
    assert rmse(run - target) == pytest.approx(free_run, rel=0.05)


@pytest.mark.parametrize("name", BARS)
def test_ridge_on_lags_and_persistence_meet_the_known_errors(ridge, name):
    log = resample(quarter_drone(name), 20.0)
    check(ridge, lagged(log.slice(70.0, 100.0) if name == "multisine" else log, 4, 4), *BARS[name])


def test_ridge_and_persistence_meet_the_known_errors_on_the_ball_in_the_hoop():
    log = ball_hoop()
    check(fitted(lagged(log.slice(0.0, 407.5), 4, 4)), lagged(log.slice(407.5, 815.0), 4, 4), *HOOP_BARS)


def test_the_hoop_is_as_documented():
    log = ball_hoop()
    assert log.sample_time == pytest.approx(0.1)
    assert log.input.abs().max() < 1.0
    holds = log.input.reshape(-1, 50)  # 50 samples each
    assert (holds == holds[:, :1]).all()
    assert (holds[1:, 0] != holds[:-1, 0]).all()
    torch.testing.assert_close(holds[81:162, 0], -holds[:81, 0])
    assert "8,150 samples" in (resources.files("bayesdyn.data") / "ball_hoop" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "samples", "seconds"), [("multisine", 10000, 99.99), ("steps", 10000, 99.99), ("seq", 6039, 60.707)]
)
def test_the_logs_are_as_documented(name, samples, seconds):
    log = quarter_drone(name)
    assert (len(log), log.name) == (samples, name)
    assert float(log.time[-1] - log.time[0]) == pytest.approx(seconds)
    torch.testing.assert_close(log.output, log.output.round(decimals=2), rtol=0, atol=1e-12)
    assert f"`{name}.npz`" in (resources.files("bayesdyn.data") / "quarter_drone" / "README.md").read_text()


def test_the_uneven_log_wants_resampling_first():
    with pytest.raises(DataError, match=r"'seq' has samples 0\.007 s to 0\.125 s apart; resample"):
        lagged(quarter_drone("seq"), 4, 4)


def test_another_name_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="'sines'; known are multisine, steps, seq"):
        quarter_drone("sines")


def test_a_log_reads_the_same_from_csv_and_npz(tmp_path):
    time, angle, volt = np.arange(3) * 0.1, np.array([1.0, 2.5, -3e-4]), np.array([0.0, 1.0, 0.0])
    np.savez(tmp_path / "arm.npz", time=time, angle=angle, volt=volt)
    rows = "".join(f"{a!r}, {v!r},{t!r}\n" for t, a, v in zip(time.tolist(), angle.tolist(), volt.tolist(), strict=True))
    (tmp_path / "arm.csv").write_text("angle, volt,time\n" + rows + "\n", encoding="utf-8-sig")
    logs = [load_log(tmp_path / name, outputs=["angle"], inputs=["volt"], time="time") for name in ("arm.npz", "arm.csv")]
    for log in logs:
        assert log.name == "arm"
        assert log.time.tolist() == time.tolist()
        assert log.output.tolist() == [[a] for a in angle.tolist()]
        assert log.input.tolist() == [[v] for v in volt.tolist()]
    undriven = load_log(tmp_path / "arm.npz", outputs=["angle", "volt"], inputs=[], time="time")
    assert (undriven.output.shape, undriven.input.shape) == ((3, 2), (3, 0))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("t,y\n0,1\n", UnknownNameError, "no column 'u'; it has 't', 'y'"),
        ("t,y,u\n0,1,2\n1,x,2\n", DataError, "data row 1, column 'y' holds 'x'"),
        ("t,y,u\n0,1\n", DataError, "2 fields in data row 0; its first line names 3"),
        ("t,y,y\n0,1,2\n", DataError, "names a column twice"),
        ("t,y,u\n", DataError, "no samples"),
        ("", UnknownNameError, "no column"),
    ],
)
def test_unusable_csv_files_are_refused(tmp_path, content, error, message):
    path = tmp_path / "log.csv"
    path.write_text(content)
    with pytest.raises(error, match=message):
        load_log(path, outputs=["y"], inputs=["u"], time="t")


def test_unreadable_log_files_are_refused_by_name(tmp_path):
    for name in ("absent.csv", "absent.npz", "log.xlsx"):
        with pytest.raises(FileError, match=name):
            load_log(tmp_path / name, outputs=["y"], inputs=["u"], time="t")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(FileError, match="binary"):
        load_log(tmp_path / "binary.csv", outputs=["y"], inputs=["u"], time="t")
    np.savez(tmp_path / "ragged.npz", t=np.zeros(3), y=np.zeros(2), u=np.zeros(3))
    with pytest.raises(DataError, match=r"one array \[T\] per column"):
        load_log(tmp_path / "ragged.npz", outputs=["y"], inputs=["u"], time="t")
