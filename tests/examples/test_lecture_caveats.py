"""Optimism pays for a swing that expectation does without; pessimism arrives every day where a fall ends all."""

import pytest

from examples.lecture.caveats import COLOURS, DAYS, experiment
from examples.lecture.cornice import trips, until_the_fall


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("unchecked_shapes")
def test_pessimism_is_right_where_a_fall_ends_all_trips_to_come(seed: int) -> None:
    walked = {attitude: trips(attitude, seed, 100 * DAYS) for attitude in COLOURS}
    falls = {attitude: float((~one.alive[-1]).double().mean()) for attitude, one in walked.items()}
    assert falls["optimistic"] > falls["expected"] > 0.01
    assert falls["pessimistic"] == 0
    assert walked["expected"].returns.mean() > walked["pessimistic"].returns.mean() + 1  # a trip, taken for itself
    worth = {attitude: until_the_fall(one, DAYS) for attitude, one in walked.items()}
    assert worth["pessimistic"] > max(worth["expected"], worth["optimistic"])
    # Without a fall fifty trips are worth fifty times one.
    assert worth["pessimistic"] == pytest.approx(DAYS * float(walked["pessimistic"].returns.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("unchecked_shapes")
def test_optimism_swings_up_and_expectation_does_not(seed: int) -> None:
    result = experiment(seed)
    assert result.optimistic_first_upright_episode in (1, 2, 3)
    assert result.optimistic_return > 20  # 400 steps, of which the last 80 and more are worth up to 1 each
    assert result.expected_highest < 0
    assert -10 < result.expected_return <= 0
    assert result.shown
