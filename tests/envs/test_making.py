"""Environments by id: what is missing is named, with what to do about it."""

import gymnasium
import pytest

from bayesdyn.envs import make
from bayesdyn.errors import MissingExtraError, UnknownNameError


def test_a_missing_backend_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_mujoco(*_: object, **__: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed, run `pip install gymnasium[mujoco]`")

    monkeypatch.setattr(gymnasium, "make", without_mujoco)
    with pytest.raises(MissingExtraError, match=r"bayesdyn\[mujoco\]"):
        make("HalfCheetah-v5")


@pytest.mark.parametrize("name", ["CartPoleSwingDown-v0", "bayesdyn/CartPoleSwingUp-v7", "nowhere/Thing-v0"])
def test_an_unknown_id_is_named(name: str) -> None:
    with pytest.raises(UnknownNameError, match=name):
        make(name)


def test_options_reach_the_environment() -> None:
    env = make("bayesdyn/CartPoleSwingUp-v0", max_episode_steps=7)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 7
