"""One network learns within few steps and stops short of the ensemble; soft actor-critic needs many more steps for less."""

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from bayesdyn.networks import Homoscedastic, Training
from bayesdyn.posteriors import MaximumLikelihood
from bayesdyn.rollout import Mean
from examples.lecture.performance_gap import Weir, draw, experiment, learn, worth


@pytest.mark.filterwarnings("ignore:.*Box observation space m")  # a river without ends
def test_the_weir_is_an_environment_and_pays_by_the_distance() -> None:
    check_env(Weir(), skip_render_check=True)
    assert worth(torch.tensor([-3.0, -0.5, -0.01, 0.0])).tolist() == pytest.approx([-1.0, 0.5, 0.99, -6.0])


@pytest.mark.usefixtures("unchecked_shapes")
def test_one_network_with_little_data_goes_over_the_weir() -> None:
    posterior = MaximumLikelihood(hidden=(128, 128), held_out=0.0, noise=Homoscedastic(), training=Training(steps=400))
    rewards = learn(posterior, 0, trials=1, draws=1, propagation=Mean())
    assert rewards[-1] < -2  # a boat that stays where it is gets about -0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("unchecked_shapes")
def test_the_ensemble_closes_the_gap_and_soft_actor_critic_needs_many_more_steps(seed: int) -> None:
    pytest.importorskip("stable_baselines3")
    result = experiment(seed)
    assert result.ensemble > 0.2 + result.one_network
    assert len(result.curves[2]) > 5 * len(result.curves[1])
    assert result.sac_after_as_many_steps < result.ensemble - 0.2
    assert result.one_network < result.sac < result.ensemble
    assert result.shown


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_the_ensemble_closes_the_gap_without_the_extra() -> None:
    result = experiment(3, model_free=False)
    assert result.ensemble > 0.2 + result.one_network
    assert np.isnan(result.sac)
    draw(result)
