"""Open-loop scores agree with a Kalman filter, with the one-step table, and with bars computed independently on real logs."""

import math

import pytest
import torch

from bayesdyn.codec import Codec, LagCodec
from bayesdyn.data import Transitions, lagged, quarter_drone, resample
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, DataError
from bayesdyn.evaluation.baselines import Persistence, RidgeLinear
from bayesdyn.evaluation.open_loop import OpenLoop, Scale, Windows, deviation, replay, score_horizon, windows
from bayesdyn.model import DynamicsModel
from bayesdyn.rollout import TS1, Mean, MomentMatching, PlainDynamics, TSInf

DECAY, NOISE_VAR = 0.9, 0.04
HORIZONS = (1, 5, 10, 20, 50)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_system(episodes=40, steps=30, seed=0):
    """s' = 0.9 s + a + ε with ε ~ N(0, 0.04): what a Kalman filter without measurements predicts is known at every horizon."""
    g = generator(seed)
    states = [torch.randn(episodes, 1, generator=g, dtype=torch.float64)]
    actions = torch.randn(steps, episodes, 1, generator=g, dtype=torch.float64)
    for action in actions:
        noise = math.sqrt(NOISE_VAR) * torch.randn(episodes, 1, generator=g, dtype=torch.float64)
        states.append(DECAY * states[-1] + action + noise)
    path = torch.stack(states)
    numbers = torch.arange(episodes).repeat_interleave(steps)

    def rows(values):
        return values.movedim(1, 0).reshape(-1, 1)

    return Transitions.from_arrays(rows(path[:-1]), rows(actions), rows(path[1:]), episode=numbers)


def true_dynamics(n):
    def step(state, action):
        mean = (DECAY * state + action).expand(n, *torch.broadcast_shapes(state.shape[1:], action.shape[1:]))
        return Gaussian(mean, torch.full_like(mean, NOISE_VAR))

    return PlainDynamics(step, n)


@pytest.fixture(scope="module")
def fitted():
    data = linear_system()
    codec = Codec()
    codec.fit(data)
    return codec, data


def test_windows_hold_logged_stretches_shared_by_length():
    short, long = linear_system(1, 12), linear_system(1, 100, seed=1)
    cut = windows(Transitions.concat([short, long]), horizon=10, count=24)
    assert cut.states.shape == (11, 24, 1)
    assert cut.actions.shape == (10, 24, 1)
    # 3 possible starts in the short episode, 91 in the long one: 1 in 31 of 24 is one, or two at the ends of the line.
    from_short = sum(bool((short.state[:, 0] == start).any()) for start in cut.states[0, :, 0])
    assert 1 <= from_short <= 2
    everything = Transitions.concat([short, long])
    first = int((everything.state[:, 0] == cut.states[0, 5, 0]).nonzero()[0])
    torch.testing.assert_close(cut.states[1:, 5], everything.next_state[first : first + 10])
    torch.testing.assert_close(cut.actions[:, 5], everything.action[first : first + 10])


def test_windows_want_an_episode_that_is_long_enough():
    with pytest.raises(DataError, match="longest has 12"):
        windows(linear_system(2, 12), horizon=13, count=5)


def test_particles_follow_the_kalman_prediction(fitted):
    """Under the true dynamics the particle variance after h steps is 0.04 Σ_{k<h} 0.81^k, and the mean error as large as that."""
    codec, data = fitted
    cut = windows(data, 20, 400)
    particles = 400
    moved = replay(true_dynamics(particles), cut, codec, generator=generator())
    for horizon in (1, 5, 20):
        expected = NOISE_VAR * (1 - DECAY ** (2 * horizon)) / (1 - DECAY**2)
        spread = moved[horizon, :, 0, :, 0].var(0)
        # All windows share one set of noise, so the variance is one estimate from 400 particles; its relative error is √(2/399).
        assert spread.mean().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / (particles - 1)))
        truth = cut.states[horizon]
        scores = score_horizon(moved[horizon].flatten(0, 1), truth, Scale.of(codec, data, data), generator())
        # 40 independent episodes stand behind the windows.
        assert scores["rmse"].item() == pytest.approx(math.sqrt(expected), rel=4 / math.sqrt(2 * 40))
        assert scores["divergence"].item() == 0.0


def test_one_step_of_the_open_loop_is_the_one_step_table(fitted):
    """At h = 1 the particle scores tend to those of the exact predictive; here with many particles and the same rows."""
    from bayesdyn.evaluation import metrics

    _, data = fitted
    model = DynamicsModel(Codec(), RidgeLinear())
    model.fit(data)
    test = linear_system(10, 30, seed=5)
    cut = windows(test, 1, len(test))
    particles = 4000
    moved = replay(model.sample(particles, generator()), cut, model.codec, generator=generator())
    scores = score_horizon(moved[1].flatten(0, 1), cut.states[1], Scale.of(model.codec, data, test), generator())
    predictive = model.predict_target(test.state, test.action)
    y = model.codec.target(test.state, test.next_state)
    unit = model.codec.target_std
    # The particle mean is off by σ/√4000, which is common to all rows; the noise has the std of the residual.
    slack = 4 * 0.2 / math.sqrt(particles)
    assert scores["rmse"].item() == pytest.approx((metrics.rmse(predictive, y) * unit).item(), abs=slack)
    assert scores["crps"].item() == pytest.approx(metrics.crps(predictive, y).item(), abs=slack / unit.item())
    covered = metrics.coverage(metrics.pit(predictive, y), 0.9).item()
    assert scores["coverage90"].item() == pytest.approx(covered, abs=4 * math.sqrt(0.09 / len(test)))


def test_every_propagation_runs_on_the_same_windows(fitted):
    codec, data = fitted
    cut = windows(data, 5, 30)
    shapes = {
        type(p).__name__: replay(true_dynamics(50), cut, codec, propagation=p, generator=generator()).shape
        for p in (TSInf(), TS1(), Mean(), MomentMatching())
    }
    assert shapes == {
        "TSInf": (6, 50, 1, 30, 1),
        "TS1": (6, 50, 1, 30, 1),
        "Mean": (6, 1, 1, 30, 1),
        "MomentMatching": (6, 50, 1, 30, 1),
    }


def test_portions_of_windows_change_nothing(fitted, monkeypatch):
    from bayesdyn.evaluation import open_loop

    codec, data = fitted
    cut = windows(data, 5, 30)
    whole = replay(true_dynamics(20), cut, codec, generator=generator())
    monkeypatch.setattr(open_loop, "_NUMBERS_AT_ONCE", 20 * 6 * 7)
    torch.testing.assert_close(replay(true_dynamics(20), cut, codec, generator=generator()), whole)


def test_deviation_wraps_angles_and_takes_absolute_coordinates_as_they_are():
    codec = Codec(angles=[1], absolute=[2])
    codec.fit(Transitions.from_arrays(torch.randn(9, 3), torch.randn(9, 1), torch.randn(9, 3)))
    truth = torch.tensor([[1.0, 3.0, 5.0]])
    found = deviation(codec, truth, torch.tensor([[1.5, -3.0, 4.0]]))
    assert found[0].tolist() == pytest.approx([0.5, 2 * math.pi - 6.0, -1.0], abs=1e-6)


def test_only_predicted_coordinates_of_a_lagged_state_are_scored():
    log = resample(quarter_drone("multisine"), 20.0).slice(20.0, 40.0)
    data = lagged(log, 4, 4)
    model = DynamicsModel(LagCodec(4, 4), RidgeLinear())
    model.fit(data)
    cut = windows(data, 10, 20)
    moved = replay(model.sample(8, generator()), cut, model.codec, generator=generator())
    assert moved.shape == (11, 8, 1, 20, 1)
    assert moved[0].abs().max() == 0.0


@pytest.fixture(scope="module")
def drone():
    train = lagged(resample(quarter_drone("multisine"), 20.0).slice(0.0, 70.0), 4, 4)
    ridge = DynamicsModel(LagCodec(4, 4), RidgeLinear())
    ridge.fit(train)
    codec = LagCodec(4, 4)
    still = Persistence(codec)
    still.fit(train)
    return {"ridge": (ridge, ridge.codec), "persistence": (still, codec)}


@pytest.mark.parametrize(
    ("log", "ridge", "persistence"),
    [
        ("multisine", [0.22, 1.8, 4.5, 9.0, 11.4], [0.76, 3.5, 6.5, 9.8, 15.0]),
        ("steps", [0.33, 2.8, 6.4, 11.0, 14.7], [0.88, 4.0, 7.4, 11.6, 19.5]),
        ("seq", [0.30, 2.5, 6.9, 11.7, 12.6], [1.2, 5.7, 10.3, 15.7, 24.6]),
    ],
)
def test_references_reach_the_bars_of_the_quarter_drone(drone, log, ridge, persistence):
    """RMSE in degrees over the same 200 starts per horizon; the bars have two digits and were computed independently."""
    full = resample(quarter_drone(log), 20.0)
    data = lagged(full.slice(70.0, 100.0) if log == "multisine" else full, 4, 4)
    for name, bars in (("ridge", ridge), ("persistence", persistence)):
        model, codec = drone[name]
        for horizon, bar in zip(HORIZONS, bars, strict=True):
            starts = torch.linspace(1, len(data) - horizon - 1, 200, dtype=torch.float64).long()
            rows = starts + torch.arange(horizon).unsqueeze(1)
            cut = Windows(torch.cat([data.state[rows], data.next_state[rows[-1:]]]), data.action[rows])
            moved = replay(model.sample(400, generator()), cut, codec, propagation=Mean(), generator=generator())
            assert moved[horizon].square().mean().sqrt().item() == pytest.approx(bar, rel=0.05)


def test_divergence_counts_runaways_and_what_is_not_finite():
    scale = Scale(*(torch.ones(1, dtype=torch.float64) for _ in range(4)))
    particles = torch.zeros(4, 1, 1, dtype=torch.float64)
    particles[0], particles[1] = math.inf, 100.0
    scores = score_horizon(particles, torch.zeros(1, 1, dtype=torch.float64), scale)
    assert scores["divergence"].item() == 0.5


def test_a_model_that_is_too_sure_has_low_coverage_and_ratio(fitted):
    codec, data = fitted
    cut = windows(data, 5, 200)

    def narrow(state, action):
        mean = (DECAY * state + action).expand(50, *torch.broadcast_shapes(state.shape[1:], action.shape[1:]))
        return Gaussian(mean, torch.full_like(mean, NOISE_VAR / 100))

    moved = replay(PlainDynamics(narrow, 50), cut, codec, generator=generator())
    scores = score_horizon(moved[5].flatten(0, 1), cut.states[5], Scale.of(codec, data, data), generator())
    assert scores["coverage90"].item() < 0.5
    assert scores["spread_skill"].item() < 0.3


def test_settings_without_a_meaning_are_refused():
    with pytest.raises(ConfigurationError, match="horizons"):
        OpenLoop(horizons=())
    with pytest.raises(ConfigurationError, match="particles"):
        OpenLoop(particles=1)


def test_windows_say_their_horizon():
    assert Windows(torch.zeros(4, 2, 1), torch.zeros(3, 2, 1)).horizon == 3
