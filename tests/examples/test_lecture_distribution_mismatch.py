"""Version 0.5 of the lecture walks off the cliff, 1.0 does so once, 1.5 never."""

import pytest

from examples.lecture.distribution_mismatch import experiment


def check(seed: int) -> None:
    result = experiment(seed)
    # The top is at 2 m, the foot of the cliff at -2 m.
    assert result.height_imagined_by_0_5 > 0
    assert result.height_of_0_5 < 0
    assert result.height_of_1_0_in_its_first_trial == result.height_of_0_5  # the same first trials, the same plan
    assert result.height_of_1_0_in_its_last_trial > 0
    assert result.height_of_1_5_in_its_first_trial > 0
    assert result.shown


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_plan_leads_away_from_the_data() -> None:
    check(0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_plan_leads_away_from_the_data_whatever_the_seed(seed: int) -> None:
    check(seed)
