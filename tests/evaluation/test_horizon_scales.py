"""Scales by horizon make trajectories as wide as held-out ones, where noise of the observations makes a one-step model too wide."""

import pytest
import torch

import bayesdyn as bd
from bayesdyn.data import Episode
from bayesdyn.errors import ConfigurationError, DataError, ShapeError
from bayesdyn.evaluation.baselines import RidgeLinear
from bayesdyn.evaluation.horizon_scales import HorizonScales, horizon_scales, imagined_errors
from bayesdyn.evaluation.open_loop import windows
from bayesdyn.posteriors import Recalibrated

STEPS, NOISE, LEVEL, HORIZON = 20, 0.1, 0.9, 10


def observed(seed, episodes):
    """Return episodes of x' = x + 0.1 a, of which only observations are noisy: k steps ahead they err by √2·NOISE, for any k."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randn(episodes, STEPS, 1, generator=generator, dtype=torch.float64)
    # Starts far apart, so that noise in what the regression is told hardly biases it.
    start = 10 * torch.randn(episodes, 1, 1, generator=generator, dtype=torch.float64)
    states = torch.cat([start, start + 0.1 * actions.cumsum(1)], 1)
    seen = states + NOISE * torch.randn(states.shape, generator=generator, dtype=torch.float64)
    return bd.Transitions.from_episodes([Episode(path, action) for path, action in zip(seen, actions, strict=True)])


@pytest.fixture(scope="module")
def model():
    fitted = bd.DynamicsModel(bd.Codec(), Recalibrated(RidgeLinear()))
    fitted.fit(observed(0, 60))
    return fitted


@pytest.fixture(scope="module")
def scales(model):
    return horizon_scales(model, observed(1, 200), HORIZON, level=LEVEL, starts=1000, particles=199)


def errors(model, data):
    paths = windows(data, HORIZON, 1000)
    return imagined_errors(model, paths, 199, torch.Generator().manual_seed(3))


def covered(found):
    """Return the share of truths, at 0, inside the central interval between order statistics 10 and 190 of 199: 90 %."""
    ordered = found.sort(1).values
    return ((ordered[:, 9] <= 0) & (ordered[:, 189] >= 0)).double().mean((1, 2))


def test_they_hold_their_share_of_new_episodes_at_every_horizon(model, scales):
    before = errors(model, observed(2, 200))
    raw, after = covered(before)[1:], covered(scales.widen(before))[1:]
    # Starts of one episode share their noise: at the least 200 independent ones here and 200 where the scales were found, so the
    # share has a std of √(2·0.9·0.1/200) = 0.03.
    assert float((after - LEVEL).abs().max()) < 4 * 0.03
    assert raw[-1] > 0.98  # noise that adds up makes it √(k + 1)/√2 times too wide, 2.3 at k = 10
    assert float((after - LEVEL).abs().mean()) < 0.03


def test_noise_of_the_observations_asks_for_less_the_further_ahead(scales):
    # One step ahead Var = 2σ² is what the residuals show; the model adds it up, 2kσ², while the error stays at 2σ².
    # A 90 % quantile of |z| from 200 episodes has a std of √(0.09/200)/(2·φ(1.645)·1.645) = 6 %; four of them.
    wanted = torch.arange(1, HORIZON + 1, dtype=torch.float64).rsqrt()
    assert torch.allclose(scales.factors[:, 0], wanted, rtol=0.25)


def test_each_start_has_noise_of_its_own():
    known = bd.DynamicsModel(bd.Codec(), Recalibrated(RidgeLinear()))
    known.fit(observed(0, 60))
    paths = windows(observed(1, 40), 1, 400)
    first = imagined_errors(known, paths, 50, torch.Generator().manual_seed(0))[1, ..., 0]
    noise = first - first.mean(0)
    # The mean of W correlations with one start over 50 particles has a std of 1/√(50 W) = 0.007, and what little is unknown of θ,
    # a hundredth of the variance, is shared. Were the noise shared, it would be 1.
    correlation = torch.corrcoef(noise.mT)[0, 1:]
    assert abs(float(correlation.mean())) < 0.01 + 4 * 0.007


def test_the_mean_stays_and_shorter_trajectories_can_be_widened(scales):
    paths = torch.randn(6, 7, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = scales.widen(paths)
    torch.testing.assert_close(wide.mean(1), paths.mean(1))
    torch.testing.assert_close(wide[0], paths[0])
    torch.testing.assert_close(wide.std(1)[1:], paths.std(1)[1:] * scales.factors[:5, None])


def test_rows_of_the_fit_are_refused(model):
    with pytest.raises(DataError, match="among those that the model was fitted on"):
        horizon_scales(model, observed(0, 60), 5)


def test_too_little_is_refused(model):
    with pytest.raises(DataError, match=r"at least 5 episodes of 5 steps and 20 starts.*got 4"):
        horizon_scales(model, observed(1, 4), 5)
    with pytest.raises(DataError, match="lower the horizon"):
        horizon_scales(model, observed(1, 40), STEPS + 1)
    with pytest.raises(ConfigurationError, match="0 < level < 1"):
        horizon_scales(model, observed(1, 40), 5, level=1.0)
    with pytest.raises(ShapeError, match="of 2 steps in 1 coordinates"):
        HorizonScales(torch.ones(2, 1), 0.9).widen(torch.zeros(4, 3, 1))
