"""Skill and valid horizon agree with the closed forms of a linear system, and references have the right width at each horizon."""

import math

import pytest
import scoringrules
import torch

from bayesdyn.codec import Codec
from bayesdyn.data import Transitions
from bayesdyn.evaluation.open_loop import windows
from bayesdyn.evaluation.skill import crps_skill, gaussian_crps, references, valid_horizon

DECAY, NOISE_VAR, STEPS, EPISODES = 0.9, 0.04, 20, 200


def linear_system(seed):
    """s' = 0.9 s + a + ε, ε ~ N(0, 0.04), a ~ N(0, 1), s_0 ~ N(0, 1): residuals of its reference models are known."""
    g = torch.Generator().manual_seed(seed)
    states = [torch.randn(EPISODES, 1, generator=g, dtype=torch.float64)]
    actions = torch.randn(STEPS, EPISODES, 1, generator=g, dtype=torch.float64)
    for action in actions:
        states.append(DECAY * states[-1] + action + math.sqrt(NOISE_VAR) * torch.randn(EPISODES, 1, generator=g).double())
    path = torch.stack(states)
    rows = [part.movedim(1, 0).reshape(-1, 1) for part in (path[:-1], actions, path[1:])]
    return Transitions.from_arrays(*rows, episode=torch.arange(EPISODES).repeat_interleave(STEPS))


def test_crps_of_a_gaussian_agrees_with_scoringrules():
    residual = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    std = torch.tensor([0.5, 2.0], dtype=torch.float64)
    expected = scoringrules.crps_normal(residual.numpy(), 0.0, std.numpy()).mean(0)
    assert gaussian_crps(residual, std).tolist() == pytest.approx(expected, abs=1e-12)
    assert gaussian_crps(residual, 0 * std).tolist() == pytest.approx(residual.abs().mean(0).tolist())


def test_references_have_the_residuals_of_the_linear_system():
    """Ridge is the truth: variance 0.04 Σ_{k<h} 0.81^k and CRPS σ/√π. Persistence keeps s, whose change is known as well."""
    found = references(linear_system(0), Codec, (1, 5, 20))
    cut = windows(linear_system(1), STEPS, EPISODES)
    ridge, still = (found[name].crps(cut) for name in ("ridge-linear", "persistence"))
    for horizon in (1, 5, 20):
        shrink = DECAY**horizon
        noise = NOISE_VAR * (1 - shrink**2) / (1 - DECAY**2)
        moved = (1 - shrink) ** 2 + (1 + NOISE_VAR) * (1 - shrink**2) / (1 - DECAY**2)
        # One window an episode at h = 20; a std of 200 residuals has a relative error of 1/√400, and so has the mean CRPS, nearly.
        error = 4 / math.sqrt(2 * EPISODES)
        for name, var, scores in (("ridge-linear", noise, ridge), ("persistence", moved, still)):
            assert found[name].std[horizon].item() == pytest.approx(math.sqrt(var), rel=error)
            assert scores[horizon].item() == pytest.approx(math.sqrt(var / math.pi), rel=1.5 * error)


def test_horizons_that_the_training_data_lack_have_no_reference():
    found = references(linear_system(0), Codec, (1, STEPS, STEPS + 1))
    assert found["persistence"].horizons == (1, STEPS)
    assert set(found["persistence"].crps(windows(linear_system(1), 3, 5))) == {1}


def test_skill_is_one_for_perfection_and_zero_for_the_reference():
    reference = torch.tensor([2.0, 2.0, 2.0])
    assert crps_skill(torch.tensor([0.0, 2.0, 4.0]), reference).tolist() == [1.0, 0.0, -1.0]


def test_valid_horizon_is_the_first_excess_and_stays_lost():
    """Per output; an error that shrinks again, or is no number, does not make it longer."""
    error = torch.tensor([[0, 0, 0], [0.5, 2, 0.5], [2, 0.5, math.nan], [0.5, 0.5, 0.5]]).unsqueeze(1)
    assert valid_horizon(error, torch.ones(3)).tolist() == [2.0, 1.0, 2.0]
    # RMSE over two starts of errors 1.3 and 0: 0.92.
    pair = torch.tensor([0.0, 1.3]).reshape(1, 2, 1).expand(3, 2, 1)
    assert valid_horizon(pair, torch.ones(1)).item() == 3.0
