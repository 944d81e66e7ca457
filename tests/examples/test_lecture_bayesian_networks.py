"""What three approximations of a posterior over networks know of a gap, and what members and resampling are worth."""

import numpy as np
import pytest
import torch

from bayesdyn.networks import Training
from bayesdyn.posteriors import BootstrapEnsemble
from examples.lecture.bayesian_networks import AT_THE_DATA, GRID, IN_THE_GAP, ROWS, SAME, experiment
from examples.lecture.hole import FAR, HOLE, NOISE, draw_data


def test_data_leave_a_hole_and_scatter_around_a_sine() -> None:
    x, y = draw_data(10_000, torch.Generator().manual_seed(0), HOLE)
    assert (x.abs() >= HOLE).all()
    assert (x.abs() <= FAR).all()
    error = y - (2 * x).sin()
    assert abs(float(error.mean())) < 4 * NOISE / 100  # 4 standard errors
    assert float(error.std()) == pytest.approx(NOISE, rel=0.03)  # 4 · 1/√(2·10,000)


@pytest.mark.usefixtures("unchecked_shapes")
def test_members_on_the_same_data_agree_where_the_data_are() -> None:
    x, y = draw_data(ROWS, torch.Generator().manual_seed(0), HOLE)
    std = []
    for bootstrap in (True, False):
        posterior = BootstrapEnsemble(
            **{**SAME, "members": 4, "bootstrap": bootstrap, "training": Training(400, learning_rate=1e-2)}
        )
        posterior.fit(x, y, generator=torch.Generator().manual_seed(0))
        std.append(posterior.predict(GRID).epistemic_variance.sqrt()[:, 0])
    assert std[0][AT_THE_DATA].mean() > 2 * std[1][AT_THE_DATA].mean()
    assert std[0][IN_THE_GAP].mean() > 2 * std[0][AT_THE_DATA].mean()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_each_posterior_knows_of_the_gap(seed: int) -> None:
    result = experiment(seed)
    assert result.gap_nuts > 2 * result.data_nuts
    assert result.gap_ensemble > 2 * result.data_ensemble
    assert result.data_mean_field > 1.5 * result.data_nuts
    assert result.gap_mc_dropout < 2 * result.data_mc_dropout
    assert result.data_ensemble > 2 * result.data_without_resampling
    assert result.share_of_the_gain_by_five_members > 0.75
    assert np.isfinite(result.losses).all()
    assert result.shown
