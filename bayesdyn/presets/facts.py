"""What a preset has to know of an environment, whatever plans in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import gymnasium

from bayesdyn.codec import Codec
from bayesdyn.envs import make
from bayesdyn.rewards import Reward, Termination

Options = Callable[[], Mapping[str, Any]]


class Kind(Enum):
    """What there is to do; a method without settings for an environment takes those of its kind.

    >>> [kind.value for kind in Kind]
    ['swing up', 'reach', 'push', 'run']
    """

    SWING_UP = "swing up"
    REACH = "reach"
    PUSH = "push"
    RUN = "run"


@dataclass(frozen=True)
class Environment:
    """An environment as planners and models see it.

    `steps` is the length of an episode in actions and `step_seconds` what an action lasts. `reward` and `termination` are what a
    planner maximises and stops at, callables (s, a, s'); where that is not what the environment pays, `differs` says how. `angles`,
    `ignore` and `absolute` are the options of `Codec`, indices of the observation. `options()` go to `bayesdyn.envs.make`.
    `distance` names the info that says how far from solved it is, `solved_below` the distance that counts as solved.

    >>> from bayesdyn.envs import CARTPOLE_ID, TipReward
    >>> Environment(CARTPOLE_ID, Kind.SWING_UP, steps=40, step_seconds=0.1, reward=TipReward(), angles=(3,)).codec().angles
    [3]
    """

    env_id: str
    kind: Kind
    steps: int
    step_seconds: float
    reward: Reward
    angles: tuple[int, ...] = ()
    ignore: tuple[int, ...] = ()
    absolute: tuple[int, ...] = ()
    termination: Termination | None = None
    options: Options = dict
    differs: str = ""
    distance: str | None = None
    solved_below: float = 0.0

    def make(self, **options: Any) -> gymnasium.Env[Any, Any]:
        """Make the Gymnasium environment; raises what `bayesdyn.envs.make` raises."""
        return make(self.env_id, **{**self.options(), **options})

    def episodes(self, steps: int) -> int:
        """Return how many whole episodes hold so many steps."""
        return -(-steps // self.steps)

    def codec(self) -> Codec:
        """Make the codec."""
        return Codec(angles=self.angles, ignore=self.ignore, absolute=self.absolute)
