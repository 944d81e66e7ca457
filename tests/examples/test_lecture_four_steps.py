"""Planning in four steps; θ drawn anew at every step is too narrow by √T, moment matching sees one valley."""

import pytest

from examples.lecture.four_steps import experiment


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unchecked_shapes")
def test_ways_to_carry_uncertainty_differ(seed: int) -> None:
    result = experiment(seed)
    # c ~ N(·, 0.01²): T·0.01 after T = 25 steps of one c, √T·0.01 with another c at each. The std of a std of 1000 draws is 2.2 %.
    assert result.std_of_one_theta == pytest.approx(0.25, rel=0.09)
    assert result.std_of_another_theta_at_every_step == pytest.approx(0.05, rel=0.09)
    assert result.std_of_moment_matching == pytest.approx(0.05, rel=0.09)
    assert 0.1 < result.share_that_rolls_right < 0.9
    assert result.best_push > 0  # right is where the reward is
    assert result.between_by_moment_matching > max(0.25, 3 * result.between_by_one_theta)
    assert result.shown
