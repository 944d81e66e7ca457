"""iCEM: coloured noise, the shrinking population, and the elites that it carries along."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import ICEM, Box
from bayesdyn.planners.icem import coloured_noise

UNIT = Box.of([-1.0], [1.0], torch.float64)
WIDE = Box.of([-100.0], [100.0], torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reach(target: float):
    return lambda actions: -(actions - target).square().sum((0, 3))


class Spy:
    def __init__(self, evaluate) -> None:
        self.evaluate, self.asked = evaluate, []

    def __call__(self, actions: Tensor) -> Tensor:
        self.asked.append(actions.clone())
        return self.evaluate(actions)


@pytest.mark.parametrize("horizon", [1, 2, 3, 12, 25])
@pytest.mark.parametrize("beta", [0.0, 0.25, 2.0, 4.0])
def test_coloured_noise_has_unit_variance_at_every_time(horizon: int, beta: float) -> None:
    samples = 20000
    noise = coloured_noise(horizon, (samples,), beta, seeded(), torch.float64)
    # mean ~ N(0, 1/N), variance ~ N(1, 2/N): five standard errors.
    assert noise.mean(1).abs().max() < 5 / math.sqrt(samples)
    assert (noise.square().mean(1) - 1).abs().max() < 5 * math.sqrt(2 / samples)


@pytest.mark.parametrize("horizon", [24, 25])
@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, 2.0, 3.5])
def test_the_power_of_coloured_noise_falls_with_frequency_as_f_to_the_minus_beta(horizon: int, beta: float) -> None:
    samples = 4000
    noise = coloured_noise(horizon, (samples,), beta, seeded(), torch.float64)
    inner = slice(1, (horizon + 1) // 2)  # without the constant and Nyquist, which are real
    power = torch.fft.rfft(noise, dim=0).abs().square()[inner].mean(1).log()
    frequency = torch.fft.rfftfreq(horizon, dtype=torch.float64)[inner].log()
    offset = frequency - frequency.mean()
    slope = float((offset * power).sum() / offset.square().sum())
    # |X|² is exponential: its log mean over N samples has a standard error of 1/√N.
    assert abs(slope + beta) < 5 / math.sqrt(samples * float(offset.square().sum()))


def test_the_population_shrinks_to_twice_the_elites() -> None:
    planner, spy = ICEM(horizon=3, candidates=40, elites=10, iterations=5, decay=1.25), Spy(reach(0.2))
    plan = planner.plan(spy, planner.start(UNIT), seeded())
    assert [asked.shape[2] for asked in spy.asked] == [40, 32, 25, 20, 20]
    assert plan.candidates == 137


def test_elites_of_the_last_step_are_tried_again_shifted_with_a_fresh_end() -> None:
    planner = ICEM(horizon=6, candidates=40, elites=10, keep=0.3)
    old = planner.plan(reach(0.2), planner.start(UNIT), seeded()).warm_start
    assert old.elites is not None
    assert old.elites.shape == (6, 1, 10, 1)
    for steps in (1, 4, 6):
        spy = Spy(reach(0.2))
        planner.plan(spy, planner.shift(old, steps), seeded(1))
        first = spy.asked[0]
        assert first.shape[2] == 43
        assert torch.equal(first[: 6 - steps, :, :3], old.elites[steps:, :, :3])
        assert torch.equal(first[6 - steps :, :, :3], first[6 - steps :, :, 3:6])
        assert {asked.shape[2] for asked in spy.asked[1:]} == {32, 25}


def test_a_kept_elite_is_never_lost() -> None:
    # A needle that no fresh candidate finds: it has to come from the previous step's elites.
    needle = torch.full((4, 1, 1, 1), 0.123456, dtype=torch.float64)

    def evaluate(actions: Tensor) -> Tensor:
        return -(actions - needle).abs().amax((0, 3)).clamp_min(1e-3)

    planner = ICEM(horizon=4, candidates=20, elites=4, keep=0.5)
    old = planner.plan(evaluate, planner.start(UNIT), seeded()).warm_start
    assert old.elites is not None
    plan = planner.plan(evaluate, replace(old, elites=needle.expand(4, 1, 4, 1).contiguous()), seeded(1))
    assert torch.equal(plan.best, needle[:, :, 0])
    assert plan.iterations[-1].best == plan.best_score


def test_a_new_episode_remembers_nothing() -> None:
    planner = ICEM(horizon=4)
    first = planner.plan(reach(0.2), planner.start(UNIT), seeded())
    planner.plan(reach(-0.9), planner.shift(first.warm_start), seeded(1))
    assert planner.start(UNIT).elites is None
    assert torch.equal(planner.plan(reach(0.2), planner.start(UNIT), seeded()).actions, first.actions)


def test_keep_0_keeps_none() -> None:
    planner, spy = ICEM(horizon=4, candidates=20, elites=5, keep=0.0), Spy(reach(0.2))
    warm_start = planner.shift(planner.plan(reach(0.2), planner.start(UNIT), seeded()).warm_start)
    planner.plan(spy, warm_start, seeded())
    assert spy.asked[0].shape[2] == 20


def test_shares_of_elites_are_not_lost_to_rounding() -> None:
    # 0.29 · 100 is 28.999999999999996.
    planner, spy = ICEM(horizon=2, candidates=100, elites=100, keep=0.29), Spy(reach(0.2))
    planner.plan(spy, planner.plan(reach(0.2), planner.start(UNIT), seeded()).warm_start, seeded())
    assert spy.asked[0].shape[2] == 129


def test_the_last_iteration_tries_the_mean() -> None:
    planner, spy = ICEM(horizon=4, candidates=30, iterations=2, momentum=0.0), Spy(reach(0.2))
    planner.plan(spy, planner.start(UNIT), seeded())
    top = spy.asked[0][:, 0, reach(0.2)(spy.asked[0])[0].topk(10).indices]
    torch.testing.assert_close(spy.asked[1][:, 0, 0], top.mean(1))


def test_candidates_spread_by_std_times_half_the_width() -> None:
    planner, spy = ICEM(horizon=10, candidates=4000, iterations=2, std=0.05), Spy(reach(0.0))
    planner.plan(spy, planner.start(WIDE), seeded())
    # Ten times are correlated, so at least 4000 independent values: relative standard error of a std 1/√(2N) = 1.1 %.
    assert spy.asked[0].std().item() == pytest.approx(5.0, rel=0.06)


@pytest.mark.parametrize("sizes", [{"decay": 0.9}, {"std": 0.0}, {"keep": 1.1}, {"keep": -0.1}])
def test_settings_without_meaning_are_refused(sizes: dict) -> None:
    with pytest.raises(ConfigurationError, match="ICEM wants"):
        ICEM(**sizes)
