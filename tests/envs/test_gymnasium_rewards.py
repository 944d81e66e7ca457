"""Rewards of Gymnasium's tasks against what `step` returns, and a pusher whose object moves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bayesdyn.envs import (
    HalfCheetahV5Reward,
    InvertedDoublePendulumV5Reward,
    InvertedDoublePendulumV5Termination,
    PendulumV1Reward,
    PusherV5Reward,
    ReacherV5Reward,
    fixed_pusher_model,
    make,
    pendulum_v1_step,
)
from bayesdyn.errors import ConfigurationError, FileError

mujoco = pytest.importorskip("mujoco")


def random_steps(env, count=150, seed=0):
    """Return states, actions, next states, rewards and terminations of `count` random steps over as many episodes as it takes."""
    draw = np.random.default_rng(seed)
    env.action_space.seed(seed)
    state, _ = env.reset(seed=seed)
    steps = []
    for _ in range(count):
        action = env.action_space.sample() * draw.choice([0.1, 1.0])
        following, reward, terminated, truncated, _ = env.step(action)
        steps.append((state, action, following, reward, terminated))
        state = following
        if terminated or truncated:
            state, _ = env.reset(seed=int(draw.integers(1 << 30)))
    env.close()
    return tuple(torch.from_numpy(np.stack([np.asarray(step[i]) for step in steps])).double() for i in range(5))


def test_pendulum_pays_on_the_state_before_the_step():
    state, action, following, paid, _ = random_steps(make("Pendulum-v1"), 400)
    # Observations are float32: the angle is known to 2^-24 of a turn or so, and θ² moves by 2π times that.
    torch.testing.assert_close(PendulumV1Reward()(state, action, following), paid, rtol=0, atol=1e-5)
    assert (PendulumV1Reward()(following, action, following) - paid).abs().max() > 0.1
    beyond = torch.full_like(action, 9.0)
    assert torch.equal(PendulumV1Reward()(state, beyond, following), PendulumV1Reward()(state, beyond / 4.5, following))


def test_pendulum_step_is_the_environments():
    state, action, following, _, _ = random_steps(make("Pendulum-v1"), 400)
    torch.testing.assert_close(pendulum_v1_step(state, action), following, rtol=0, atol=1e-5)
    assert pendulum_v1_step(state.expand(2, 3, -1, -1), action).shape == (2, 3, 400, 3)


@pytest.mark.parametrize(("env_id", "reward"), [("Reacher-v5", ReacherV5Reward()), ("Pusher-v5", PusherV5Reward())])
def test_reacher_and_pusher_pay_on_the_next_observation(env_id, reward):
    state, action, following, paid, _ = random_steps(make(env_id))
    torch.testing.assert_close(reward(state, action, following), paid, rtol=0, atol=1e-12)
    many = reward(state.expand(2, 3, -1, -1), action, following.expand(2, 3, -1, -1))
    assert torch.equal(many[1, 2], reward(state, action, following))


def test_double_pendulum_pays_and_ends_by_its_tip():
    state, action, following, paid, done = random_steps(make("InvertedDoublePendulum-v5"), 300)
    reward, termination = InvertedDoublePendulumV5Reward(), InvertedDoublePendulumV5Termination()
    assert 10 < done.sum() < 290
    height = 0.6 * (following[:, 3] * (1 + following[:, 4]) - following[:, 1] * following[:, 2])
    # The environment's tip lags behind by a stage of RK4; ends are compared where the height is clear of the limit by more.
    clear = (height - 1).abs() > 1e-3
    assert clear.sum() > 250
    assert torch.equal(termination(state, action, following)[clear], done.bool()[clear])
    seen = clear & (following[:, 5:8].abs() < 10).all(-1)
    assert (seen & done.bool()).any()
    # Gravity and the fastest links turn a stage's lag, a fraction of (0.01 s)² times the acceleration, into 1e-4 at the most.
    torch.testing.assert_close(reward(state, action, following)[seen], paid[seen], rtol=0, atol=2e-4)


def test_cheetah_pays_for_the_speed_that_infos_have():
    env = make("HalfCheetah-v5", observe_infos=("x_velocity",))
    state, action, following, paid, _ = random_steps(env)
    assert torch.equal(HalfCheetahV5Reward()(state, action, following), following[:, 17] - 0.1 * action.square().sum(-1))
    torch.testing.assert_close(HalfCheetahV5Reward()(state, action, following), paid, rtol=0, atol=1e-12)
    assert (HalfCheetahV5Reward(speed=8)(state, action, following) - paid).abs().max() > 0.05


def sweep(env):
    """Put the object into the fingers' way, pan through it, and return how far tip and object moved."""
    env.reset(seed=0)
    position, velocity = np.zeros(11), np.zeros(11)
    position[[1, 3]] = 0.42, -0.25  # the fingers are a little above the table
    position[7:9] = 0.05, 0.15
    env.unwrapped.set_state(position, velocity)
    first = env.unwrapped._get_obs()
    for _ in range(24):
        last = env.step(np.array([2.0, 0.35, 0, 0, 0, 0, 0], dtype=np.float32))[0]
    env.close()
    return np.linalg.norm(last[14:17] - first[14:17]), np.linalg.norm(last[17:20] - first[17:20])


def test_the_fixed_pushers_object_moves_where_the_installed_ones_does_not(tmp_path):
    tip, cylinder = sweep(make("Pusher-v5", xml_file=fixed_pusher_model(tmp_path)))
    assert tip > 0.15
    assert cylinder > 0.1
    tip, cylinder = sweep(make("Pusher-v5"))
    assert tip > 0.15
    assert cylinder < 0.05


def test_the_fixed_pusher_has_the_installed_ones_mass_matrix(tmp_path):
    fixed, installed = (make("Pusher-v5", **options).unwrapped for options in ({"xml_file": fixed_pusher_model(tmp_path)}, {}))
    matrices = []
    for env in (fixed, installed):
        env.reset(seed=0)
        matrix = np.zeros((11, 11))
        mujoco.mj_fullM(env.model, env.data, matrix)
        matrices.append(matrix)
    # The installed object weighs 8 mg on top of its armature of 40 g.
    np.testing.assert_allclose(matrices[0], matrices[1], rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(fixed.model.dof_invweight0[7:9], 25, rtol=1e-6)
    assert installed.model.dof_invweight0[7:9].min() > 1e4


def test_the_fixed_model_is_written_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = Path(fixed_pusher_model())
    assert path == Path(fixed_pusher_model())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.parent == tmp_path / "bayesdyn"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="folder"):
        fixed_pusher_model(tmp_path / "file")


def test_a_reward_on_the_speed_says_how_to_observe_it():
    with pytest.raises(ConfigurationError, match=r"coordinate 17; got states of 17: .*observe_infos"):
        HalfCheetahV5Reward()(torch.zeros(17), torch.zeros(6), torch.zeros(17))
