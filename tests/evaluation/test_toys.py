"""The noisy sine: where its data lie, what its noise is, what a least-squares fit of its truth leaves."""

import math

import pytest
import torch

from bayesdyn.evaluation.toys import NoisySine, constant_noise, varying_noise

ROWS = 20_000


@pytest.mark.parametrize("noise", [constant_noise, varying_noise], ids=lambda noise: noise.__name__)
def test_residuals_of_the_truth_are_standard_normal_everywhere_in_support(noise) -> None:
    toy = NoisySine(noise)
    x, y = toy.draw(ROWS, torch.Generator().manual_seed(0))
    residual = (y - toy.mean(x)) / toy.std(x)
    for part in (residual, residual[x.abs() < 0.6], residual[x > 0.8]):
        assert abs(float(part.mean())) < 4.5 / len(part) ** 0.5
        assert abs(float(part.var()) - 1) < 4.5 * (2 / len(part)) ** 0.5


def test_data_are_whitened_and_leave_the_gap_empty() -> None:
    toy = NoisySine()
    x, y = toy.draw(ROWS, torch.Generator().manual_seed(1))
    # x² is bounded by 16/7 with mean 1.
    assert abs(float(x.square().mean()) - 1) < 4.5 * float(x.square().std()) / ROWS**0.5
    assert 0.9 < float(y.std()) < 1.15
    raw = x.abs() * 7**0.5
    assert 1 <= float(raw.min()) < 1.01
    assert 3.99 < float(raw.max()) <= 4
    assert abs(float((x > 0).double().mean()) - 0.5) < 4.5 * 0.5 / ROWS**0.5
    assert float(toy.gap().abs().max()) < float(x.abs().min())
    support = toy.support()
    assert float(support.abs().min()) == pytest.approx(1 / 7**0.5)
    assert float(support.abs().max()) == pytest.approx(4 / 7**0.5)


def test_constant_noise_has_the_size_of_the_varying_one() -> None:
    # E cos²(x/2) over [1, 4] is ½ + (sin 4 - sin 1)/6.
    square = 0.01 + 9 * (0.5 + (math.sin(4) - math.sin(1)) / 6)
    assert float(constant_noise(torch.zeros(1))) == pytest.approx(math.sqrt(square), rel=0.05)
    assert float(varying_noise(torch.zeros(1, dtype=torch.float64))) == pytest.approx(math.sqrt(9.01))
