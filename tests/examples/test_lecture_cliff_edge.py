"""A Gaussian process that has seen little keeps away from the edge, its mean alone does not, and κ moves the distance."""

import pytest

from bayesdyn.rollout import Mean
from examples.lecture.cliff_edge import FEW, KAPPAS, STEPS, experiment, learned, plan


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_mean_walks_the_edge_and_the_expectation_does_not() -> None:
    model = learned(FEW, 0)
    mean, expected = (
        float(one.imagined.states[STEPS // 3 :].mean()) for one in (plan(model, 0, 25, propagation=Mean()), plan(model, 0, 25))
    )
    assert 0 < mean < 0.2
    assert expected > mean + 0.3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("unchecked_shapes")
def test_who_knows_less_keeps_further_away(seed: int) -> None:
    result = experiment(seed)
    assert result.distance_by_the_mean_model < result.distance_by_expectation
    assert result.distance_by_expectation_with_more_data < result.distance_by_expectation
    # The same plan of the same model: its mean stays near the edge, its possible walks do not.
    assert result.worth_on_average < result.worth_by_the_mean - 1
    distance = dict(zip(KAPPAS, result.distances, strict=True))
    assert distance[0.0] == result.distance_by_expectation
    assert distance[-2.0] > distance[0.0] > distance[1.0]
    assert result.shown
