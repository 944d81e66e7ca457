"""A network's own variance says how noisy the data are; whether there are any, only the spread over networks says."""

import pytest

from examples.lecture.output_entropy import experiment


@pytest.mark.usefixtures("unchecked_shapes")
def test_one_network_is_sure_and_wrong_where_three_disagree() -> None:
    result = experiment(0, members=3, steps=600)
    assert result.error_of_one_network_without_data > max(2, result.error_of_ensemble_without_data)
    assert result.entropy_of_one_network_without_data < result.entropy_of_one_network_in_noise
    assert result.epistemic_without_data > 2 * result.epistemic_with_data
    assert float(result.one.epistemic_variance.max()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("unchecked_shapes")
def test_the_two_uncertainties_are_where_they_belong(seed: int) -> None:
    result = experiment(seed)
    # Errors in the prediction's own standard deviations: 1 is honest.
    assert result.error_of_one_network_without_data > 4
    assert result.error_of_ensemble_without_data < result.error_of_one_network_without_data / 2
    assert result.entropy_of_one_network_without_data < result.entropy_of_one_network_in_noise
    assert result.aleatoric_in_noise > 2 * result.aleatoric_in_little_noise
    assert result.epistemic_without_data > 3 * result.epistemic_with_data
    assert result.shown
