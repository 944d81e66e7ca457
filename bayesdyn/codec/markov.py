"""The codec of Markov states: `Codec`."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec.base import BaseCodec, BeliefLayout, Runs, check_relative, runs
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, DataError


class Codec(BaseCodec):
    """The codec of Markov states: angles enter as sine and cosine, targets are state differences, all is whitened.

    x = whiten([s_i for i not an angle or ignored, sin s_i, cos s_i for i an angle, a]),   y = whiten(s' - s)

    `angles` are coordinates in radians whose differences are wrapped to (-π, π]; `ignore` are coordinates that the dynamics do not
    depend on (a position on an endless track); `absolute` are coordinates predicted as they are instead of as differences;
    `choices` names the action columns that hold category numbers (0, 1, ... as floats, how `collect` stores a discrete action) with
    their number of categories k: such a column enters as k indicators, [a = 0, ..., a = k - 1].

    `relative` maps coordinates to those that the features measure them from, s_i - s_relative[i]: the angle between two links and
    their speed of turning apart, where the state has both links' angles to the vertical. Targets stay as they are.

    Raises `ConfigurationError` if an index does not exist in the fitted states or actions, or `relative` has an angle and what is
    none, a circle, or an ignored coordinate, and `DataError` for an action that is none of its column's categories.

    >>> codec = Codec(angles=[1])
    >>> codec.features(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0]])).tolist()
    [[2.0, 0.0, 1.0, 5.0]]
    >>> Codec(choices={0: 3}).features(torch.tensor([[2.0]]), torch.tensor([[1.0]])).tolist()
    [[2.0, 0.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        angles: Sequence[int] = (),
        ignore: Sequence[int] = (),
        absolute: Sequence[int] = (),
        choices: Mapping[int, int] | None = None,
        relative: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.angles, self.ignore, self.absolute = list(angles), list(ignore), list(absolute)
        self.choices = dict(sorted((choices or {}).items()))
        self.relative = dict(sorted((relative or {}).items()))
        if any(size < 1 for size in self.choices.values()):
            raise ConfigurationError(f"Codec(choices={self.choices}) wants at least 1 category for each action column")
        for name, indices in self._columns().items():
            if len(set(indices)) != len(indices):
                raise ConfigurationError(f"Codec({name}={indices}) names a coordinate twice")
        unused = set(self.relative) & set(self.ignore)
        if unused:
            raise ConfigurationError(f"coordinates {sorted(unused)} are relative and also ignored; choose one")
        clash = set(self.angles) & (set(self.ignore) | set(self.absolute))
        if clash:
            raise ConfigurationError(f"coordinates {sorted(clash)} are angles and also ignored or absolute; choose one")

    @property
    def outputs(self) -> list[int]:
        """Every state coordinate is predicted."""
        return list(range(int(self.sizes[0])))

    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` if an index lies outside the state or, for `choices`, outside the action."""
        check_relative(self.relative, state_size, self.angles)
        for name, indices in self._columns().items():
            wrong = [i for i in indices if not 0 <= i < state_size]
            if wrong:
                raise ConfigurationError(
                    f"Codec({name}={indices}) wants indices from 0 to {state_size - 1}, for states of {state_size} coordinates; "
                    f"got {wrong}"
                )
        wrong = [i for i in self.choices if not 0 <= i < action_size]
        if wrong:
            raise ConfigurationError(
                f"Codec(choices={self.choices}) wants columns from 0 to {action_size - 1}, for actions of {action_size} "
                f"coordinates; got {wrong}"
            )

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [linear coordinates, sines, cosines, action], each column of `choices` as its indicators."""
        if self.relative:
            joints = state.clone()
            joints[..., list(self.relative)] = joints[..., list(self.relative)] - state[..., list(self.relative.values())]
            state = joints
        linear, bent = _column_runs(state.shape[-1], tuple(self.angles), tuple(self.ignore))
        angles = [state.narrow(-1, *run) for run in bent]
        sines, cosines = [angle.sin() for angle in angles], [angle.cos() for angle in angles]
        return torch.cat([*(state.narrow(-1, *run) for run in linear), *sines, *cosines, *self._inputs(action)], -1)

    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch S"]:
        """Return s' - s, angle differences wrapped to (-π, π], absolute coordinates as they are."""
        change = next_state - state
        if self.angles:
            angle = change[..., self.angles]
            change[..., self.angles] = angle - 2 * math.pi * torch.ceil(angle / (2 * math.pi) - 0.5)
        if self.absolute:
            change[..., self.absolute] = next_state[..., self.absolute]
        return change

    def assemble(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Return s + target as the next state."""
        return self.predicted(state, target)

    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Return s + target (absolute coordinates: the target itself); angles go on past ±π, as the state's own do."""
        if self.absolute:
            base = state.clone()
            base[..., self.absolute] = 0.0
            return Gaussian(base + target.mean, target.var)
        return Gaussian(state + target.mean, target.var)

    def belief_layout(self) -> BeliefLayout | None:
        """Return [linear coordinates, sines, cosines, action]; None with `choices`, which no Gaussian is."""
        self.check_fitted()
        if self.choices:
            return None
        size, actions = self.sizes.tolist()
        linear = [i for i in range(size) if i not in self.angles and i not in self.ignore]
        # Runs of neighbouring angles come in the order of their indices, and so do their sines and cosines.
        order = [self.angles.index(angle) for angle in sorted(self.angles)]
        sines, cosines = [size + 2 * place for place in order], [size + 2 * place + 1 for place in order]
        taken = range(size + 2 * len(self.angles), size + 2 * len(self.angles) + actions)
        inputs = (*linear, *sines, *cosines, *taken)
        return BeliefLayout(inputs, tuple(self.angles), tuple(self.absolute), tuple(self.relative.items()))

    def extra_repr(self) -> str:
        """Return the options, by which a saved model is known."""
        options = {**self._columns(), "choices": self.choices, **({"relative": self.relative} if self.relative else {})}
        return ", ".join(f"{name}={value}" for name, value in options.items())

    def _columns(self) -> dict[str, list[int]]:
        return {"angles": self.angles, "ignore": self.ignore, "absolute": self.absolute}

    def _inputs(self, action: Float[Tensor, "*batch A"]) -> list[Tensor]:
        """Return the action, or its columns one by one where some hold categories."""
        if not self.choices:
            return [action]
        columns = action.split(1, -1)
        return [_indicators(column, i, self.choices[i]) if i in self.choices else column for i, column in enumerate(columns)]


def _indicators(column: Float[Tensor, "*batch 1"], index: int, size: int) -> Float[Tensor, "*batch size"]:
    """Return [a = 0, ..., a = size - 1]; raises `DataError` for any other number."""
    chosen = column == torch.arange(size, dtype=column.dtype, device=column.device)
    known = chosen.any(-1, keepdim=True)
    if not bool(known.all()):
        raise DataError(
            f"action column {index} wants category numbers, 0 to {size - 1} as Codec(choices={{{index}: {size}}}) says; "
            f"got {column[~known][0].item()}; number the categories from 0, or leave the column out of choices"
        )
    return chosen.to(column.dtype)


@lru_cache
def _column_runs(size: int, angles: tuple[int, ...], ignore: tuple[int, ...]) -> tuple[Runs, Runs]:
    """Return (start, length) of the neighbouring columns of the linear coordinates and of the angles, which narrow to views."""
    linear = [i for i in range(size) if i not in angles and i not in ignore]
    return runs(linear), runs(angles)
