"""The known plants that the benchmark writes down itself are the environments' own."""

import gymnasium
import numpy as np
import pytest
import torch

from benchmarks.known_plant import NATIVE


@pytest.mark.parametrize("task", sorted(NATIVE))
def test_a_score_is_what_the_environment_pays(task):
    """Candidates of ten steps, one of them executed; Pendulum-v1 observes and pays in single precision."""
    env = gymnasium.make(task)
    observation, _ = env.reset(seed=3)
    env.action_space.seed(0)
    candidates = torch.from_numpy(np.stack([[env.action_space.sample() for _ in range(4)] for _ in range(10)])).double()
    scores = NATIVE[task].evaluate(observation)(candidates.unsqueeze(1))
    paid = sum(float(env.step(action.numpy())[1]) for action in candidates[:, 2].float())
    assert scores.shape == (1, 4)
    assert float(scores[0, 2]) == pytest.approx(paid, rel=1e-5)
