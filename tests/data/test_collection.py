"""Collecting records the reset, every step and nothing across a reset."""

import gymnasium
import numpy as np
import pytest
import torch

from bayesdyn.data import Transitions, collect, random_policy
from bayesdyn.errors import ConfigurationError, DataError


class Counter(gymnasium.Env):
    """Observes [reset number, steps since reset + 10·action] in one buffer; ends after `length` steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, length=3, truncates=False, broken_at=None):
        self.length, self.truncates, self.broken_at = length, truncates, broken_at
        self.buffer = np.zeros(2, dtype=np.float32)
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.buffer[:] = [len(self.seeds), 0]
        self.steps = 0
        return self.buffer, {}

    def step(self, action):
        self.steps += 1
        self.buffer[1] = np.nan if self.steps == self.broken_at else self.steps + 10 * action[0]
        done = self.steps == self.length
        return self.buffer, float(self.steps), done and not self.truncates, done and self.truncates, {}


def hold(observation):
    return np.array([0.5])


def test_episodes_hold_the_reset_observation_and_every_step():
    first, second = collect(Counter(), hold, episodes=2)
    assert first.states.tolist() == [[1, 0], [1, 6], [1, 7], [1, 8]]
    assert second.states.tolist() == [[2, 0], [2, 6], [2, 7], [2, 8]]
    assert first.actions.tolist() == [[0.5]] * 3
    assert first.rewards.tolist() == [1, 2, 3]
    assert first.terminated
    data = Transitions.from_episodes([first, second])
    assert torch.equal(data.state[:, 0], data.next_state[:, 0])


def test_a_time_limit_or_a_cut_is_no_termination():
    assert not collect(Counter(truncates=True), hold, episodes=1)[0].terminated
    assert [(len(e), e.terminated) for e in collect(Counter(), hold, steps=5)] == [(3, True), (2, False)]


@pytest.mark.parametrize(
    ("steps", "episodes", "lengths"), [(7, None, [3, 3, 1]), (7, 2, [3, 3]), (4, 2, [3, 1]), (6, None, [3, 3])]
)
def test_the_limit_that_comes_first_stops(steps, episodes, lengths):
    assert [len(e) for e in collect(Counter(), hold, steps=steps, episodes=episodes)] == lengths


def test_the_seed_goes_to_the_first_reset_only():
    env = Counter()
    collect(env, hold, episodes=3, seed=11)
    collect(env, hold, episodes=1, seed=None)
    assert env.seeds == [11, None, None, None]


def test_collecting_is_repeatable_and_leaves_global_random_states_alone():
    env = gymnasium.make("Pendulum-v1")
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    runs = [
        Transitions.from_episodes(collect(env, random_policy(env, torch.Generator().manual_seed(s)), steps=250, seed=s))
        for s in (3, 3, 4)
    ]
    assert torch.equal(runs[0].next_state, runs[1].next_state)
    assert not torch.equal(runs[0].next_state, runs[2].next_state)
    assert torch.equal(torch_before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert [len(e) for e in runs[0].episodes()] == [200, 50]


def test_random_actions_fill_the_action_space():
    env = gymnasium.make("Pendulum-v1")
    policy = random_policy(env)
    actions = np.array([policy(np.zeros(3)) for _ in range(2000)])
    # Uniform on [-2, 2]: mean 0, variance 4/3; 4 standard errors of the mean.
    assert abs(actions.mean()) < 4 * np.sqrt(4 / 3 / 2000)
    assert -2 <= actions.min() < -1.98
    assert 1.98 < actions.max() <= 2


def test_a_random_policy_leaves_the_random_state_of_the_environment_alone():
    env, untouched = gymnasium.make("Pendulum-v1"), gymnasium.make("Pendulum-v1")
    for space in (env.action_space, untouched.action_space):
        space.seed(5)
    random_policy(env)(np.zeros(3))
    assert env.action_space.sample().tolist() == untouched.action_space.sample().tolist()


def test_discrete_actions_are_recorded_as_one_column():
    env = gymnasium.make("CartPole-v1")
    (episode,) = collect(env, random_policy(env), episodes=1)
    assert episode.actions.shape == (len(episode), 1)
    assert set(episode.actions.flatten().tolist()) == {0.0, 1.0}


def test_what_cannot_be_collected_is_refused():
    with pytest.raises(ConfigurationError, match="a number of steps, of episodes, or both"):
        collect(Counter(), hold)
    with pytest.raises(ConfigurationError, match="steps >= 1; got 0"):
        collect(Counter(), hold, steps=0)
    env = Counter()
    env.observation_space = gymnasium.spaces.Box(0, 1, (4, 4))
    with pytest.raises(ConfigurationError, match="FlattenObservation"):
        collect(env, hold, steps=1)
    with pytest.raises(DataError, match=r"states has 1 non-finite .* row 2, column 1"):
        collect(Counter(broken_at=2), hold, episodes=1)


def test_categories_count_from_zero_in_the_data() -> None:
    env = gymnasium.make("Pendulum-v1")
    env = gymnasium.wrappers.TransformAction(env, lambda a: np.array([float(a)]), gymnasium.spaces.Discrete(3, start=-1))
    (episode,) = collect(env, lambda observation: -1, episodes=1, seed=0)
    assert episode.actions.unique().tolist() == [0.0]
