"""Minari datasets on this machine: what was recorded comes back; nothing is downloaded."""

import sys
import warnings

import gymnasium
import numpy as np
import pytest

from bayesdyn.data import load_minari
from bayesdyn.errors import DataError, MissingExtraError, UnknownNameError

minari = pytest.importorskip("minari")
EpisodeBuffer = pytest.importorskip("minari.data_collector").EpisodeBuffer
NAME = "pendulum/random-v0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def record(name, observations, actions, observation_space, action_space):
    """Make a dataset of episodes: observations [T + 1, ...] or dictionaries of these, actions [T, ...]."""
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=seen,
            actions=taken,
            rewards=list(range(len(taken))),
            terminations=[False] * (len(taken) - 1) + [number == 1],
            truncations=[False] * (len(taken) - 1) + [number != 1],
        )
        for number, (seen, taken) in enumerate(zip(observations, actions, strict=True))
    ]
    # Minari warns about each piece of provenance that is missing; none of these tests needs one.
    with warnings.catch_warnings(action="ignore"):
        minari.create_dataset_from_buffers(name, buffers, observation_space=observation_space, action_space=action_space)


def box(*shape):
    return gymnasium.spaces.Box(-10.0, 10.0, shape, dtype=np.float32)


def test_what_was_recorded_comes_back(folder):
    random = np.random.default_rng(0)
    seen = [random.normal(size=(steps + 1, 3)).astype(np.float32) for steps in (4, 6)]
    taken = [random.normal(size=(steps, 2)).astype(np.float32) for steps in (4, 6)]
    record(NAME, seen, taken, box(3), box(2))
    episodes = load_minari(NAME)
    for episode, states, actions in zip(episodes, seen, taken, strict=True):
        np.testing.assert_array_equal(episode.states.numpy(), states)
        np.testing.assert_array_equal(episode.actions.numpy(), actions)
        assert episode.rewards.tolist() == list(range(len(actions)))
    assert [episode.terminated for episode in episodes] == [False, True]
    assert len(load_minari(NAME, limit=1)) == 1


def test_discrete_actions_become_a_column(folder):
    record(NAME, [np.zeros((4, 1), dtype=np.float32)], [np.array([2, 0, 1])], box(1), gymnasium.spaces.Discrete(3))
    (episode,) = load_minari(NAME)
    assert episode.actions.tolist() == [[2.0], [0.0], [1.0]]


@pytest.mark.parametrize(
    ("observations", "space", "message"),
    [
        ({"all": np.zeros((3, 2), dtype=np.float32)}, gymnasium.spaces.Dict({"all": box(2)}), "FlattenObservation"),
        (np.zeros((3, 4, 5), dtype=np.float32), box(4, 5), r"shape \[4, 5\], such as images"),
    ],
)
def test_what_is_no_vector_is_refused_with_the_way_out(folder, observations, space, message):
    record(NAME, [observations], [np.zeros((2, 1), dtype=np.float32)], space, box(1))
    with pytest.raises(DataError, match=message):
        load_minari(NAME)


def test_a_dataset_that_is_not_here_is_not_fetched(folder):
    with pytest.raises(UnknownNameError, match="which has none; nothing is downloaded here: minari download D4RL/door/human-v2"):
        load_minari("D4RL/door/human-v2")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bayesdyn\[data\]'"):
        load_minari(NAME)
