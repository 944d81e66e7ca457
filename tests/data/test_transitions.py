"""Transitions never lose a row, never join two episodes and never split one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdyn.data import Episode, Transitions
from bayesdyn.errors import ConfigurationError, DataError, FileError, ShapeError

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def make_episodes(lengths, seed=0, states=3, actions=2):
    rng = np.random.default_rng(seed)
    return [
        Episode.from_arrays(
            rng.normal(size=(length + 1, states)), rng.normal(size=(length, actions)), rng.normal(size=length), bool(index % 2)
        )
        for index, length in enumerate(lengths)
    ]


def columns(data):
    return [data.state, data.action, data.next_state, data.reward, data.episode, data.terminated]


def assert_same(one, other):
    for mine, theirs in zip(columns(one), columns(other), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


@settings(max_examples=30, deadline=None)
@given(LENGTHS)
def test_episodes_come_back_as_they_went_in(lengths):
    episodes = make_episodes(lengths)
    data = Transitions.from_episodes(episodes)
    assert len(data) == sum(lengths)
    for before, after in zip(episodes, data.episodes(), strict=True):
        assert torch.equal(before.states, after.states)
        assert torch.equal(before.actions, after.actions)
        assert torch.equal(before.rewards, after.rewards)
        assert before.terminated == after.terminated


def test_episodes_without_actions_or_rewards_come_back_too():
    episode = Episode.from_arrays(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 0))
    data = Transitions.from_episodes([episode])
    assert (data.action_size, data.reward) == (0, None)
    assert torch.equal(data.episodes()[0].states, episode.states)


@settings(max_examples=30, deadline=None)
@given(LENGTHS)
def test_episodes_are_found_where_states_stop_following_each_other(lengths):
    data = Transitions.from_episodes(make_episodes(lengths))
    found = Transitions.from_arrays(data.state, data.action, data.next_state, data.reward, terminated=data.terminated)
    assert_same(found, data)


def test_a_terminated_row_ends_its_episode_even_where_the_next_state_follows():
    data = Transitions.from_arrays([[0.0], [1.0]], [[0.0], [0.0]], [[1.0], [2.0]], terminated=[True, False])
    assert data.episode.tolist() == [0, 1]
    assert [episode.terminated for episode in data.episodes()] == [True, False]
    same = Transitions.from_arrays([[0.0], [1.0]], [[0.0], [0.0]], [[1.0], [2.0]], episode=[7, 7], terminated=[True, False])
    assert [len(episode) for episode in same.episodes()] == [1, 1]


def test_a_one_axis_action_is_a_column_and_arrays_tensors_and_lists_agree():
    state, action, following = np.eye(3), np.arange(3), np.ones((3, 3), dtype=np.float32)
    one = Transitions.from_arrays(state, action, following)
    other = Transitions.from_arrays(torch.eye(3), [[0], [1], [2]], following.tolist())
    assert one.action.tolist() == [[0.0], [1.0], [2.0]]
    assert torch.equal(one.state, other.state)
    assert torch.equal(one.next_state, other.next_state)
    assert {t.dtype for t in (one.state, other.action, other.next_state)} == {torch.float64}


def test_recorded_data_do_not_change_with_the_buffer_they_came_from():
    buffer = np.zeros((2, 1))
    tensor = torch.zeros(2, 1, dtype=torch.float64)
    data = Transitions.from_arrays(buffer, tensor, buffer + 1)
    buffer += 7
    tensor += 7
    assert float(data.state.abs().sum() + data.action.abs().sum()) == 0.0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"state": np.zeros(4)}, ShapeError, r"state .*\[N, S\]; got \[4\]"),
        ({"next_state": np.zeros((4, 3))}, ShapeError, r"next_state .*\[4, 2\]; got \[4, 3\]"),
        ({"next_state": np.zeros((3, 2))}, ShapeError, r"next_state .*\[4, 2\]; got \[3, 2\]"),
        ({"action": np.zeros((3, 1))}, ShapeError, r"action .*\[4, A\]; got \[3, 1\]"),
        ({"action": np.zeros((4, 1, 1))}, ShapeError, r"action .*\[4, A\]; got \[4, 1, 1\]"),
        ({"reward": np.zeros((4, 1))}, ShapeError, r"reward .*\[4\]; got \[4, 1\]"),
        ({"episode": [0, 0, 1]}, ShapeError, r"episode .*\[4\]; got \[3\]"),
        ({"terminated": [False]}, ShapeError, r"terminated .*\[4\]; got \[1\]"),
        ({"state": [[0, 0], [1, 1], [0, np.nan], [0, 0]]}, DataError, r"state has 1 non-finite .* row 2, column 1"),
        ({"reward": [0, np.inf, -np.inf, 0]}, DataError, r"reward has 2 non-finite .* row 1;"),
        ({"episode": [0, 1, 0, 1]}, DataError, "contiguous"),
        ({"episode": [0, 0, 0.5, 1]}, DataError, "integers"),
        ({"action": ["a", "b", "c", "d"]}, DataError, "action has to be numbers"),
        ({"action": [[1.0], [1.0, 2.0], [1.0], [1.0]]}, DataError, "action has to be numbers in a rectangular array"),
        ({name: np.zeros((0, 2)) for name in ("state", "action", "next_state")}, DataError, "at least one row"),
        ({name: np.zeros((4, 0)) for name in ("state", "next_state")}, ShapeError, "at least one state"),
    ],
)
def test_unusable_arrays_are_refused_with_what_came_and_what_was_wanted(changes, error, message):
    arrays = {"state": np.zeros((4, 2)), "action": np.zeros((4, 1)), "next_state": np.zeros((4, 2)), **changes}
    with pytest.raises(error, match=message):
        Transitions.from_arrays(**arrays)


@pytest.mark.parametrize(
    ("states", "actions", "rewards", "error", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1)), None, ShapeError, r"actions .*\[2, A\]; got \[3, 1\]"),
        (np.zeros((3, 2)), np.zeros((2, 1)), np.zeros(3), ShapeError, r"rewards .*\[2\]; got \[3\]"),
        (np.zeros((1, 2)), np.zeros((0, 1)), None, DataError, "at least one step"),
        (np.zeros((2, 0)), np.zeros((1, 1)), None, DataError, "at least one state"),
        ([[0.0], [np.inf]], [0.0], None, DataError, "states has 1 non-finite .* row 1, column 0"),
    ],
)
def test_unusable_episodes_are_refused(states, actions, rewards, error, message):
    with pytest.raises(error, match=message):
        Episode.from_arrays(states, actions, rewards)


def test_one_row_is_data_and_none_is_not():
    assert len(Transitions.from_arrays([[0.0]], [[0.0]], [[1.0]])) == 1
    with pytest.raises(DataError, match="no episodes, no transitions"):
        Transitions.from_episodes([])


@settings(max_examples=30, deadline=None)
@given(LENGTHS, LENGTHS)
def test_adding_keeps_all_rows_in_order_and_never_joins_episodes(left, right):
    one, other = Transitions.from_episodes(make_episodes(left, 1)), Transitions.from_episodes(make_episodes(right, 2))
    both = one + other
    assert [len(e) for e in both.episodes()] == left + right
    assert both.episode.unique().tolist() == list(range(len(left + right)))
    assert torch.equal(both.state, torch.cat([one.state, other.state]))
    assert_same((one + other) + one, one + (other + one))


def test_adding_the_same_data_twice_gives_two_sets_of_episodes_even_where_they_would_chain():
    circle = Transitions.from_arrays([[0.0], [1.0]], [[0.0], [0.0]], [[1.0], [0.0]])
    assert [len(e) for e in (circle + circle).episodes()] == [2, 2]


def test_data_that_do_not_fit_together_are_not_added():
    data = Transitions.from_episodes(make_episodes([3]))
    with pytest.raises(ShapeError, match=r"\(3, 2\), \(4, 2\)"):
        _ = data + Transitions.from_episodes(make_episodes([3], states=4))
    with pytest.raises(DataError, match="rewards in all parts or in none"):
        _ = data + Transitions.from_arrays(data.state, data.action, data.next_state)


def test_select_by_mask_and_by_number_agree_and_cut_episodes_at_the_gaps():
    data = Transitions.from_episodes(make_episodes([5, 4]))
    mask = torch.tensor([True, True, False, True, True, True, False, True, True])
    picked = data.select(mask)
    assert_same(picked, data.select([0, 1, 3, 4, 5, 7, 8]))
    assert torch.equal(picked.state, data.state[mask])
    assert picked.episode.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert [len(e) for e in picked.episodes()] == [2, 2, 1, 2]


@pytest.mark.parametrize("rows", [[1, 0], [0, 0], [-1, 0], [0, 3], []])
def test_select_refuses_rows_that_would_break_time_order_or_are_not_there(rows):
    data = Transitions.from_episodes(make_episodes([3]))
    with pytest.raises(DataError):
        data.select(rows)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=20), st.integers(0, 99))
def test_split_shares_out_whole_episodes_and_loses_none(lengths, seed):
    data = Transitions.from_episodes(make_episodes(lengths))
    fractions = [0.5, 0.3, 0.2]
    parts = data.split(fractions, torch.Generator().manual_seed(seed))
    numbers = [part.episode.unique().tolist() for part in parts]
    assert sorted(number for own in numbers for number in own) == list(range(len(lengths)))
    for part, own in zip(parts, numbers, strict=True):
        assert_same(part, data.select(torch.isin(data.episode, torch.tensor(own))))
    for own, fraction in zip(numbers, fractions, strict=True):
        assert len(own) >= 1
        # With at least one each, the others give up at most one episode per part.
        assert abs(len(own) - fraction * len(lengths)) <= 2


def test_split_is_random_repeatable_and_leaves_the_global_random_state_alone():
    data = Transitions.from_episodes(make_episodes([1] * 40))
    before = torch.random.get_rng_state()
    first, again, other = (data.split([0.5, 0.5], torch.Generator().manual_seed(s))[0].episode.tolist() for s in (1, 1, 2))
    assert first == again != other
    assert first != list(range(20))
    assert data.split([0.5, 0.5])[0].episode.tolist() == data.split([0.5, 0.5])[0].episode.tolist()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("fractions", [[], [0.5, 0.4], [1.2, -0.2], [1.0, 0.0]])
def test_split_refuses_fractions_that_are_not_shares(fractions):
    with pytest.raises(ConfigurationError, match="sum to 1"):
        Transitions.from_episodes(make_episodes([2, 2])).split(fractions)


def test_split_refuses_fewer_episodes_than_parts():
    with pytest.raises(DataError, match="3 parts, 2 episodes"):
        Transitions.from_episodes(make_episodes([50, 50])).split([0.4, 0.3, 0.3])


def test_to_casts_numbers_and_leaves_labels():
    data = Transitions.from_episodes(make_episodes([3, 2]))
    single = data.to(torch.float32)
    assert {t.dtype for t in (single.state, single.action, single.next_state, single.reward)} == {torch.float32}
    assert (single.episode.dtype, single.terminated.dtype) == (torch.int64, torch.bool)
    assert torch.equal(single.state, data.state.float())
    assert data.state.dtype == torch.float64
    assert [len(e) for e in single.episodes()] == [3, 2]
    assert_same(data.to(device="cpu"), data)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_files_give_back_the_same_bits(tmp_path, suffix, dtype):
    data = Transitions.from_episodes(make_episodes([4, 1, 6])).to(dtype)
    data.save(tmp_path / f"data{suffix}")
    assert_same(Transitions.load(tmp_path / f"data{suffix}"), data)
    bare = Transitions.from_arrays(data.state, torch.zeros(11, 0), data.next_state)
    bare.save(str(tmp_path / f"bare{suffix}"))
    loaded = Transitions.load(str(tmp_path / f"bare{suffix}"))
    assert (loaded.reward, loaded.action.shape) == (None, (11, 0))


def test_files_that_are_no_transitions_are_refused_by_name(tmp_path):
    data = Transitions.from_episodes(make_episodes([2]))
    with pytest.raises(FileError, match=r"data\.csv"):
        data.save(tmp_path / "data.csv")
    with pytest.raises(FileError, match=r"there is no file .*absent\.npz"):
        Transitions.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "foreign.npz", state=np.zeros((2, 2)))
    with pytest.raises(FileError, match=r"foreign\.npz holds nothing that this package wrote; wanted transitions"):
        Transitions.load(tmp_path / "foreign.npz")
