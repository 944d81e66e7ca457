"""Many imagined episodes at once: as Gymnasium's own vector environment does it, with one call of the model per step."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gains import Gains, Plant, nearness, options
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

import bayesdyn as bd
from bayesdyn.errors import NotFittedError, ShapeError
from bayesdyn.imagination import ImaginedEnv, ImaginedVectorEnv

MODES = list(AutoresetMode)


def vector(num_envs: int, **given: Any) -> ImaginedVectorEnv:
    return ImaginedVectorEnv(num_envs, **options(**given))


def ones(count: int) -> np.ndarray:
    return np.ones((count, 1), np.float32)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_without_chance_it_is_gymnasiums_own_vector_environment(mode: AutoresetMode) -> None:
    """Observations, rewards, ends, resets and infos equal those of a SyncVectorEnv of single ones, poison and ends included."""
    plant = Plant(lambda s, a: torch.where(s + a < -1.5, math.nan, s + a))
    given = options(model=plant, horizon=4, termination=lambda s, a, s2: s2[..., 0] > 1.2, start_states=torch.zeros(1, 1))
    sync = SyncVectorEnv([lambda: ImaginedEnv(**given)] * 5, autoreset_mode=mode)
    ours = ImaginedVectorEnv(5, **given, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is sync.metadata["autoreset_mode"]
    assert ours.observation_space == sync.observation_space
    assert ours.action_space == sync.action_space
    assert (ours.reset(seed=0)[0] == sync.reset(seed=0)[0]).all()
    noise = np.random.default_rng(0)
    ended = np.zeros(4, dtype=int)
    for _ in range(40):
        actions = noise.uniform(-1.0, 1.0, (5, 1)).astype(np.float32)
        one, other = ours.step(actions), sync.step(actions)
        for mine, theirs in zip(one[:4], other[:4], strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        assert_same_infos(one[4], other[4])
        ended += [one[2].sum(), one[3].sum(), one[4]["nonfinite"].sum(), 1]
        over = one[2] | one[3]
        if mode is AutoresetMode.DISABLED and over.any():
            first, _ = ours.reset(options={"reset_mask": over})
            np.testing.assert_array_equal(first, sync.reset(options={"reset_mask": over.copy()})[0])
    assert (ended[:2] > 0).all()


def assert_same_infos(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Require the same entries but for the numbers of the θ, where single environments count apart."""
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if name == "final_info":
            assert_same_infos(value, theirs[name])
        elif name == "final_obs":
            assert [None if o is None else o.tolist() for o in value] == [None if o is None else o.tolist() for o in theirs[name]]
        elif name != "draw":
            assert value.dtype == theirs[name].dtype
            np.testing.assert_array_equal(value, theirs[name])


@pytest.mark.parametrize("mode", MODES[:2], ids=str)
@pytest.mark.parametrize("draws", [1, 3, 7, 50])
def test_each_episode_keeps_its_theta_however_they_end(mode: AutoresetMode, draws: int) -> None:
    """Episodes of different lengths on n draws: (s' - s)/a is the θ that info["draw"] names, and a name has one θ."""
    model = Gains()
    envs = vector(7, model=model, horizon=9, draws=draws, autoreset_mode=mode, termination=lambda s, a, s2: s2[..., 0] > 2.0)
    before, info = envs.reset(seed=1)
    theta: dict[int, float] = {}
    changed, ended = 0, np.zeros(7, dtype=bool)
    for _ in range(60):
        drawn, began = info["draw"].copy(), before.copy()
        before, _, terminated, truncated, info = envs.step(ones(7))
        over = terminated | truncated
        # what a step that resets returns is a first state: in the step of the end, or in the one after it
        kept = ~over if mode is AutoresetMode.SAME_STEP else ~ended
        ended = over
        assert (info["draw"][kept] == drawn[kept]).all()
        changed += int((info["draw"] != drawn).sum())
        for i in np.flatnonzero(kept):
            found = float(before[i, 0] - began[i, 0])
            assert theta.setdefault(int(drawn[i]), found) == pytest.approx(found, abs=1e-5)
    assert len(set(theta.values())) == len(theta)
    assert changed > 0 or draws == 1
    assert set(theta) <= set(range(model.drawn))


def test_a_step_is_one_call_of_the_model() -> None:
    """Whatever the number of episodes, draws and resets within a step; a step in which all begin anew needs none."""
    model = Gains()
    envs = vector(32, model=model, horizon=10, termination=lambda s, a, s2: s2[..., 0].abs() > 3.0)
    envs.reset(seed=0)
    for _ in range(50):
        calls = model.calls
        envs.step(ones(32))
        assert model.calls - calls <= 1


def test_episodes_that_begin_together_share_new_draws_evenly() -> None:
    """Prime numbers of episodes and draws; every lockstep of truncations draws anew."""
    envs = vector(17, horizon=2, draws=5)
    first = envs.reset(seed=0)[1]["draw"]
    assert sorted(np.bincount(first, minlength=5)) == [3, 3, 3, 4, 4]
    for _ in range(3):
        info = envs.step(ones(17))[4]
    assert set(info["draw"]) == set(range(5, 10))
    alone = vector(64, draws=None)
    assert len(set(alone.reset(seed=0)[1]["draw"])) == 64
    assert len(set(vector(100).reset(seed=0)[1]["draw"])) == 64


def test_variance_over_episodes_is_that_of_one_theta_each() -> None:
    """s_T = θT + Σε, Var s_T = T² + T·var; with a fresh θ at each step it would be T + T·var."""
    count, steps, var = 4000, 5, 0.25
    envs = vector(count, model=Gains(var), horizon=steps + 1, draws=count)
    envs.reset(seed=0)
    for _ in range(steps):
        state = envs.step(ones(count))[0]
    want = steps**2 + steps * var
    assert abs(state.var(ddof=1) - want) < 4 * want * math.sqrt(2 / (count - 1))
    assert abs(state.mean()) < 4 * math.sqrt(want / count)


def test_seeds_decide_everything_and_nothing_global_moves() -> None:
    def states(envs: ImaginedVectorEnv, seed: int | None) -> np.ndarray:
        first, _ = envs.reset(seed=seed)
        return np.stack([first, *(envs.step(ones(4))[0] for _ in range(12))])

    before = torch.get_rng_state()
    one, other = (vector(4, model=Gains(0.1)) for _ in range(2))
    assert (states(one, 3) == states(other, 3)).all()
    assert (states(one, None) == states(other, None)).all()
    assert (states(one, 3) != states(one, 4)).any()
    assert torch.get_rng_state().equal(before)


def test_only_the_masked_episodes_begin_anew() -> None:
    envs = vector(4, horizon=9, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    state, *_, info = envs.step(ones(4))
    mask = np.array([True, False, False, True])
    first, told = envs.reset(options={"reset_mask": mask})
    assert (first[mask] == 0).all()
    assert (first[~mask] == state[~mask]).all()
    assert (told["draw"][~mask] == info["draw"][~mask]).all()
    ends = [envs.step(ones(4))[3].tolist() for _ in range(8)]
    assert ends[-1] == (~mask).tolist()
    with pytest.raises(NotFittedError, match=r"episodes \[1, 2\] have ended"):
        envs.step(ones(4))


@pytest.mark.parametrize("mode", MODES[:2], ids=str)
def test_gymnasiums_wrappers_take_it(mode: AutoresetMode) -> None:
    """Statistics of episodes are those of the rewards; transforms of observation, action and reward run."""
    plain = vector(3, model=Plant(lambda s, a: s + a), horizon=4, autoreset_mode=mode)
    envs: Any = wrappers.ClipReward(wrappers.ClipAction(wrappers.RecordEpisodeStatistics(plain)), -5.0, 5.0)
    if mode is AutoresetMode.NEXT_STEP:  # the other one is not for wrappers of observations
        envs = wrappers.NormalizeObservation(envs)
    listed = wrappers.DictInfoToList(envs)
    listed.reset(seed=0)
    finished = []
    for _ in range(12):
        observation, _, _, _, infos = listed.step(ones(3))
        assert observation.shape == (3, 1)
        finished += [info["episode"] for info in infos if "episode" in info]
    assert len(finished) == (9 if mode is AutoresetMode.SAME_STEP else 6)
    assert {(float(e["r"]), int(e["l"])) for e in finished} == {(-10.0, 4)}


def test_categories_and_a_learned_model_in_float64() -> None:
    data = bd.Transitions.from_arrays([[0.0], [1.0], [2.0]] * 3, [[0.0], [1.0], [2.0]] * 3, [[1.0], [1.0], [1.0]] * 3)
    model = bd.DynamicsModel(bd.Codec(choices={0: 3}), bd.posteriors.ExactGP())
    model.fit(data)
    envs = ImaginedVectorEnv(6, model, nearness, data.state, spaces.Discrete(3), 5, dtype=torch.float64)
    envs.reset(seed=0)
    observation, reward, *_ = envs.step(envs.action_space.sample())
    assert (observation.shape, observation.dtype, reward.dtype) == ((6, 1), np.float32, np.float64)
    assert isinstance(envs.action_space, spaces.MultiDiscrete)


def test_what_cannot_be_imagined_is_refused() -> None:
    with pytest.raises(NotFittedError, match="call reset first"):
        vector(2).step(ones(2))
    with pytest.raises(NotFittedError, match="first reset begins all"):
        vector(2).reset(options={"reset_mask": np.array([True, False])})
    envs = vector(2)
    envs.reset(seed=0)
    with pytest.raises(ShapeError, match=r"want the shape \[2, 1\]; got \[3, 1\]"):
        envs.step(ones(3))
    for mask in (np.array([True]), np.array([1, 0]), np.array([False, False])):
        with pytest.raises(ShapeError, match="reset_mask"):
            envs.reset(options={"reset_mask": mask})
    assert gymnasium.vector.VectorEnv in ImaginedVectorEnv.__mro__
