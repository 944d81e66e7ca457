"""When stochastic-gradient HMC is noisy, how long its steps are, and when it keeps a draw."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from bayesdyn.errors import ConfigurationError


class Stage(NamedTuple):
    """One step of the schedule: its size as a share of the stable one, its temperature, and whether a draw is kept after it."""

    pace: float
    temperature: float
    keep: bool


class Schedule(ABC):
    """What each step after the burn-in does."""

    @abstractmethod
    def stages(self, steps: int, draws: int) -> list[Stage]:
        """Return `steps` stages, of which `draws` keep a draw."""


@dataclass(frozen=True)
class Constant(Schedule):
    """Steps of one size at temperature 1, and draws evenly spread over them.

    >>> [stage.keep for stage in Constant().stages(6, 2)]
    [False, False, True, False, False, True]
    """

    def stages(self, steps: int, draws: int) -> list[Stage]:
        """Return equal stages; the last one keeps a draw."""
        kept = _spread(0, steps, draws)
        return [Stage(1.0, 1.0, step in kept) for step in range(steps)]


@dataclass(frozen=True)
class Cyclical(Schedule):
    r"""Cycles of L steps with rate lr_k = ½(1 + cos(πk/L))·lr, without noise for the first `exploration` of each.

    The step is h = √lr up to a constant. Draws are spread over the noisy end of each cycle. Without noise a chain falls towards a
    mode, and little of the cycle's time is left to leave it again, so the draws are too much alike unless cycles are long.

    Raises `ConfigurationError` for values without a meaning.

    Source: Zhang, Li, Zhang, Chen, Wilson 2020, equation 1 and section 3.

    >>> stages = Cyclical(cycles=2).stages(20, 4)
    >>> [step for step, stage in enumerate(stages) if stage.temperature == 1], [s for s, t in enumerate(stages) if t.keep]
    ([7, 8, 9, 17, 18, 19], [7, 9, 17, 19])
    """

    cycles: int = 10
    exploration: float = 0.7

    def __post_init__(self) -> None:
        if self.cycles < 1 or not 0 <= self.exploration < 1:
            raise ConfigurationError(f"a cyclical schedule wants at least one cycle and exploration in [0, 1); got {self}")

    def stages(self, steps: int, draws: int) -> list[Stage]:
        """Return the cycles, of lengths that differ by one at the most."""
        ends = [round(steps * (cycle + 1) / self.cycles) for cycle in range(self.cycles)]
        shares = [draws * (cycle + 1) // self.cycles - draws * cycle // self.cycles for cycle in range(self.cycles)]
        found = []
        for begin, end, share in zip([0, *ends], ends, shares, strict=False):
            length = end - begin
            noisy = round(self.exploration * length)
            if share > length - noisy:
                raise ConfigurationError(f"{share} draws do not fit into the {length - noisy} noisy steps of a cycle of {length}")
            kept = _spread(noisy, length, share)
            found += [Stage(math.cos(0.5 * math.pi * k / length), float(k >= noisy), k in kept) for k in range(length)]
        return found


def _spread(begin: int, end: int, count: int) -> set[int]:
    """Return `count` steps spread evenly over begin..end-1, the last of them included."""
    return {begin + (end - begin) * (i + 1) // count - 1 for i in range(count)}
