"""Data sets are cut by episodes: no row is in two parts, and shifts are what they are called."""

import re

import numpy as np
import pytest
import torch

from bayesdyn.codec import Codec
from bayesdyn.data import Episode, Log
from bayesdyn.data.cube_tosses import kinetic_energy
from bayesdyn.errors import ConfigurationError, DataError, UnknownNameError
from bayesdyn.evaluation.data_sets import ball_hoop_set, cube_toss_set, episodes_set, lagged_rows, logs_set, quarter_drone_set
from bayesdyn.evaluation.drone import quarter_drone_data
from bayesdyn.evaluation.simulated_sets import environment_set
from bayesdyn.posteriors.held_out_rows import FEWEST_EPISODES, FEWEST_ROWS


def rows_of(data):
    return {tuple(row) for row in torch.cat([data.state, data.action, data.next_state], 1).tolist()}


def parts_of(data):
    return [part for part in (data.train, data.calibration, data.in_distribution) if part is not None]


def check_apart(data):
    parts = [rows_of(part) for part in parts_of(data)]
    for place, part in enumerate(parts):
        for other in parts[place + 1 :]:
            assert not part & other


def numbered(count, steps=50):
    """Return episodes of which every state starts with the number of the episode."""
    time = torch.arange(steps + 1.0)
    return [Episode(torch.stack([torch.full_like(time, float(n)), time], 1), torch.zeros(steps, 1)) for n in range(count)]


@pytest.mark.parametrize(("count", "cut"), [(2, (1, 0, 1)), (11, (8, 0, 3)), (20, (10, 5, 5)), (100, (60, 15, 25))])
def test_episodes_are_shared_out_whole(count, cut):
    data = episodes_set("toy", numbered(count), Codec, seed=3)
    names = [set(part.state[:, 0].tolist()) for part in parts_of(data)]
    assert tuple(map(len, names)) == tuple(size for size in cut if size)
    assert set().union(*names) == set(range(count))
    assert sum(map(len, names)) == count
    assert str(cut[0]) in data.note


def test_the_seed_decides_which_episode_goes_where():
    first, again, other = (episodes_set("toy", numbered(20), Codec, seed=seed).train.state for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_too_few_rows_are_not_calibrated_on():
    data = episodes_set("toy", numbered(20, steps=4), Codec, seed=0)  # 5 episodes of 4 rows would be 20
    assert data.calibration is None
    assert len(data.train.episodes()) == 15


def test_rows_that_training_has_are_not_calibrated_on():
    # At rest, quantised: all rows are one row, and there is nothing left to calibrate on.
    still = [Episode(torch.zeros(51, 1), torch.zeros(50, 1)) for _ in range(20)]
    data = episodes_set("still", still, Codec, seed=0)
    assert data.calibration is None
    assert len(data.train.episodes()) == 15
    (whole,) = still[:1]
    long = Episode(whole.states[:1].expand(2001, -1), whole.actions[:1].expand(2000, -1))
    alone = episodes_set("still", [long], Codec, seed=0)
    assert alone.calibration is None
    assert len(alone.train) == 1500
    assert "1500 rows to learn from, then none to calibrate on (that takes 1334 rows that differ)" in alone.note


def test_without_a_calibration_the_note_says_what_one_takes():
    """With so many episodes there is one, with one fewer there is not."""
    few = episodes_set("toy", numbered(5), Codec, seed=0).note
    wanted = int(re.search(r"none to calibrate on \(that takes (\d+) episodes, 200 different rows", few)[1])
    assert episodes_set("toy", numbered(wanted), Codec, seed=0).calibration is not None
    assert episodes_set("toy", numbered(wanted - 1), Codec, seed=0).calibration is None


def wave(samples):
    time = torch.arange(samples) * 0.1
    return Log.from_arrays(time, torch.sin(time) + 0.01 * time, torch.cos(time))


def test_one_recording_is_cut_in_time():
    data = logs_set("wave", [wave(2004)], 4, Codec, seed=0)
    check_apart(data)
    assert [len(part) for part in parts_of(data)] == [1200, 300, 500]
    assert len(data.calibration.episodes()) == FEWEST_EPISODES
    assert data.lagged
    order = torch.cat([part.next_state[:, 0] for part in parts_of(data)])
    assert torch.equal(order, lagged_rows([wave(2004)], 4).next_state[:, 0])


def test_a_short_recording_has_no_calibration_and_a_tiny_one_no_use():
    assert logs_set("wave", [wave(400)], 2, Codec, seed=0).calibration is None
    with pytest.raises(ConfigurationError, match="too few to learn from"):
        logs_set("wave", [wave(6)], 2, Codec, seed=0)
    with pytest.raises(DataError, match="no episode"):
        episodes_set("nothing", [], Codec, seed=0)


@pytest.mark.parametrize("make", [quarter_drone_set, ball_hoop_set])
def test_built_in_sets_can_be_calibrated_and_share_no_row(make):
    data = make()
    # A recording at rest repeats its quantised rows; none that training has may be calibrated on.
    assert not rows_of(data.calibration) & rows_of(data.train)
    for row in rows_of(data.in_distribution) & rows_of(data.train):
        outputs = [*row[:4], row[8]]
        assert max(outputs) - min(outputs) < 0.03  # a few steps of the sensor: nothing moves
    assert len(data.calibration.episode.unique()) >= FEWEST_EPISODES
    assert len(data.calibration) >= FEWEST_ROWS
    assert not rows_of(data.train) & set().union(*(rows_of(part) for part in data.shifted.values()))
    codec = data.codec()
    codec.fit(data.train)


def test_the_drone_is_calibrated_on_the_end_of_its_training_part():
    short, whole = quarter_drone_data(15.0), quarter_drone_data()
    assert whole.calibration is None
    assert rows_of(short.train) | rows_of(short.calibration) <= rows_of(whole.train)
    assert torch.equal(short.in_distribution.state, whole.in_distribution.state)
    with pytest.raises(ConfigurationError, match="0 or 12 to 35 seconds; got 1"):
        quarter_drone_data(1.0)


def test_the_shift_of_the_hoop_is_its_large_commands():
    data = ball_hoop_set()
    assert data.train.action.min() < -0.4  # both signs are learned from
    assert data.train.action.max() > 0.4
    for part in parts_of(data):
        assert part.action.abs().max() <= 0.5
    assert data.shifted["large commands"].action.abs().min() > 0.5


def test_tosses_learn_from_calm_ones_and_the_shift_is_energetic(tmp_path):
    random = np.random.default_rng(0)
    states = random.normal(size=(40 * 30, 13)) * np.repeat(np.linspace(0.1, 3.0, 40), 30)[:, None]
    np.savez(tmp_path / "cube.npz", states=states, lengths=np.full(40, 30))
    data = cube_toss_set(tmp_path / "cube.npz", episodes=20)
    check_apart(data)
    first = [[float(kinetic_energy(e.states[0])) for e in part.episodes()] for part in parts_of(data)]
    wild = [float(kinetic_energy(e.states[0])) for e in data.shifted["energetic tosses"].episodes()]
    assert sum(map(len, first)) == 20
    assert len(wild) == 5
    assert max(map(max, first)) < min(wild)


def test_an_environment_is_collected_by_a_behaviour_and_others_are_shifts():
    data = environment_set("Pendulum-v1", behaviour="ou", episodes=20, steps=45, seed=1)
    check_apart(data)
    assert list(data.shifted) == ["random", "pd"]
    assert data.train.state_size == 3
    every = [episode for part in [*parts_of(data), *data.shifted.values()] for episode in part.episodes()]
    starts = {tuple(episode.states[0].tolist()) for episode in every}
    assert len(starts) == 20 + 5 + 5  # no start is met twice
    again = environment_set("Pendulum-v1", behaviour="ou", episodes=20, steps=45, seed=1)
    assert torch.equal(again.train.state, data.train.state)


def test_the_controllers_shift_steers_to_what_random_torques_do_not_reach():
    data = environment_set("pendulum", episodes=4)
    assert data.codec().angles == [1]
    ends = torch.stack([episode.states[-10:, 1].mean() for episode in data.shifted["pd"].episodes()])
    assert (ends > 0.25).all()  # towards a level rod, as far as the torque lifts it against gravity
    assert data.train.state[:, 1].mean().abs() < 0.2


def test_discrete_actions_and_limits_of_steps():
    data = environment_set("CartPole-v1", episodes=4, steps=5)
    assert not data.shifted
    assert data.codec().choices == {0: 2}
    assert max(len(episode) for episode in data.train.episodes()) <= 5
    assert data.horizons() == (1, 2, 5)


def test_what_there_is_not_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        environment_set("pendulum", behaviour="randm")
    with pytest.raises(ConfigurationError, match="has no behaviour 'ou'; it has random"):
        environment_set("CartPole-v1", behaviour="ou")
    with pytest.raises(ConfigurationError, match="at least 2 episodes"):
        environment_set("pendulum", episodes=1)
