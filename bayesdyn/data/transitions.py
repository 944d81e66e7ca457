"""The rows (s, a, s') that a model learns from, with the episode that each came from: `Transitions`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.data.checks import check_finite, check_shape, to_column, to_float64
from bayesdyn.data.episodes import Episode
from bayesdyn.data.storage import load_arrays, load_tensors, save_arrays, save_tensors
from bayesdyn.errors import ConfigurationError, DataError, FileError, ShapeError

_KIND = "transitions"


@dataclass(frozen=True, eq=False, repr=False)
class Transitions:
    """N rows (s, a, s') with the episode that each came from: float64 on the CPU unless moved with `to`.

    Rows of one episode are contiguous and in time order; `episode` [N] names them by any integers. It says which rows are
    neighbours in time, so that data are split by episode and never by shuffled row. `reward` [N] is optional; `terminated` [N]
    marks the last row of an episode that the system ended.

    Raises `ShapeError` for shapes that don't agree, `DataError` for no rows, non-finite values or an episode in two places.

    >>> data = Transitions.from_arrays([[0.0], [1.0], [5.0]], [[1.0], [2.0], [0.0]], [[1.0], [3.0], [5.0]])
    >>> data.episode.tolist(), [len(e) for e in data.episodes()]
    ([0, 0, 1], [2, 1])
    """

    # Shapes are checked below, with errors of our own, not only where the tests check annotations.
    state: Float[Tensor, "..."]  # [N, S]
    action: Float[Tensor, "..."]  # [N, A]
    next_state: Float[Tensor, "..."]  # [N, S]
    reward: Float[Tensor, "..."] | None  # [N]
    episode: Int[Tensor, "..."]  # [N]
    terminated: Bool[Tensor, "..."]  # [N]

    def __post_init__(self) -> None:
        check_shape("state", self.state, ("N", "S"))
        rows, size = self.state.shape
        if rows < 1:
            raise DataError("transitions want at least one row; got none")
        if size < 1:
            raise ShapeError("transitions want at least one state; got state of shape [N, 0]")
        check_shape("action", self.action, (rows, "A"))
        check_shape("next_state", self.next_state, (rows, size))
        check_shape("episode", self.episode, (rows,))
        check_shape("terminated", self.terminated, (rows,))
        if self.reward is not None:
            check_shape("reward", self.reward, (rows,))
        numbers = self._numbers()
        for name, values in numbers.items():
            check_finite(name, values)
        if len({(t.dtype, t.device) for t in numbers.values()}) != 1:
            raise DataError(f"transitions want one dtype and device; got {[(t.dtype, t.device) for t in numbers.values()]}")
        if len(self._blocks()) != len(self.episode.unique()):
            raise DataError("the rows of an episode have to be contiguous; an episode number comes back after another one")

    @classmethod
    def from_arrays(
        cls, state: Any, action: Any, next_state: Any, reward: Any = None, episode: Any = None, terminated: Any = None
    ) -> "Transitions":
        """Return the transitions of state [N, S], action [N, A] or [N], next_state [N, S], reward [N]: copied to float64.

        `episode` [N] are integers. Without it, a new episode starts at each row whose state isn't the previous row's next_state,
        exactly; unrelated rows are thus an episode each.
        """
        states, following = to_float64("state", state), to_float64("next_state", next_state)
        check_shape("state", states, ("N", "S"))
        check_shape("next_state", following, tuple(states.shape))
        rows = states.shape[0]
        ended = (torch.zeros(rows) if terminated is None else to_float64("terminated", terminated)).bool()
        check_shape("terminated", ended, (rows,))
        if episode is None:
            starts = torch.ones(rows, dtype=torch.bool)
            starts[1:] = (states[1:] != following[:-1]).any(1) | ended[:-1]
            episode = starts.cumsum(0) - 1
        numbers = to_float64("episode", episode)
        if not bool((numbers == numbers.round()).all()):
            raise DataError("episode has to hold integers, one per row")
        rewards = None if reward is None else to_float64("reward", reward)
        return cls(states, to_column("action", action), following, rewards, numbers.to(torch.int64), ended)

    @classmethod
    def from_episodes(cls, episodes: Sequence[Episode]) -> "Transitions":
        """Return the rows of all episodes, numbered 0, 1, ...; no row joins two of them.

        Raises `DataError` without episodes, or if only some have rewards, and `ShapeError` if their sizes differ.
        """
        parts = []
        for episode in episodes:
            ended = torch.zeros(len(episode), dtype=torch.bool, device=episode.states.device)
            ended[-1] = episode.terminated
            number = torch.zeros_like(ended, dtype=torch.int64)
            parts.append(cls(episode.states[:-1], episode.actions, episode.states[1:], episode.rewards, number, ended))
        return cls.concat(parts)

    @classmethod
    def concat(cls, parts: Sequence["Transitions"]) -> "Transitions":
        """Return all rows of all parts in order; episodes are renumbered 0, 1, ... and parts never share one.

        Raises `DataError` without parts or if only some have rewards, and `ShapeError` if their sizes differ.
        """
        if not parts:
            raise DataError("there is nothing to put together: no episodes, no transitions")
        sizes = {(part.state_size, part.action_size) for part in parts}
        if len(sizes) != 1:
            raise ShapeError(f"transitions put together want one state and action size; got (S, A) of {sorted(sizes)}")
        if len({part.reward is None for part in parts}) != 1:
            raise DataError("transitions put together want rewards in all parts or in none")
        columns = [part._columns() for part in parts]
        joined = {name: torch.cat([c[name] for c in columns]) for name in columns[0]}
        blocks = torch.cat([part._blocks() for part in parts])
        joined["episode"] = torch.arange(len(blocks), device=blocks.device).repeat_interleave(blocks)
        return cls._from_columns(joined)

    def __add__(self, other: "Transitions") -> "Transitions":
        """Return the rows of both, as `concat` does."""
        return Transitions.concat([self, other])

    def __len__(self) -> int:
        """Return the number of rows N."""
        return self.state.shape[0]

    def __repr__(self) -> str:
        count = len(self._blocks())
        return f"Transitions(rows={len(self)}, episodes={count}, state_size={self.state_size}, action_size={self.action_size})"

    @property
    def state_size(self) -> int:
        """S."""
        return self.state.shape[1]

    @property
    def action_size(self) -> int:
        """A; 0 for a system without control."""
        return self.action.shape[1]

    def episodes(self) -> list[Episode]:
        """Return the trajectories; an episode that lacks rows in its middle is returned as the pieces that are left.

        A piece ends at a terminated row and where a row's next_state isn't the next row's state, exactly.
        """
        follows = (self.next_state[:-1] == self.state[1:]).all(1) & (self.episode[:-1] == self.episode[1:])
        follows &= ~self.terminated[:-1]
        ends = [*((~follows).nonzero().flatten() + 1).tolist(), len(self)]
        pieces = []
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            states = torch.cat([self.state[start:end], self.next_state[end - 1 : end]])
            rewards = None if self.reward is None else self.reward[start:end]
            pieces.append(Episode(states, self.action[start:end], rewards, bool(self.terminated[end - 1])))
        return pieces

    def select(self, rows: Any) -> "Transitions":
        """Return the rows that a boolean mask [N] or increasing row numbers pick; they keep their episode numbers.

        Raises `DataError` for row numbers that repeat, go back (time order would be lost) or don't exist, and for no rows.
        """
        index = torch.as_tensor(rows, device=self.state.device)
        if index.dtype == torch.bool:
            check_shape("a mask", index, (len(self),))
            index = index.nonzero().flatten()
        check_shape("row numbers", index, ("n",))
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= len(self) or not bool((index.diff() > 0).all())):
            raise DataError(
                f"select wants increasing row numbers from 0 to {len(self) - 1}; sort them, and index tensors to shuffle"
            )
        return self._from_columns({name: values[index.long()] for name, values in self._columns().items()})

    def split(self, fractions: Sequence[float], generator: torch.Generator | None = None) -> list["Transitions"]:
        """Return one part per fraction, whole episodes each, drawn at random (seed 0 without a generator).

        Neighbours in time are nearly copies, so rows are never split. Each part gets at least one episode; parts keep the episode
        numbers, by which they can be told apart. Raises `ConfigurationError` unless the fractions are positive and sum to 1, and
        `DataError` for fewer episodes than parts.
        """
        if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
            raise ConfigurationError(f"split wants positive fractions that sum to 1; got {list(fractions)}")
        numbers = self.episode.unique_consecutive()
        if len(numbers) < len(fractions):
            advice = "collect more, or cut a long log into segments"
            raise DataError(f"split wants at least one episode per part: {len(fractions)} parts, {len(numbers)} episodes; {advice}")
        generator = generator or torch.Generator().manual_seed(0)
        order = numbers[torch.randperm(len(numbers), generator=generator).to(numbers.device)]
        chosen = order.split(_shares(fractions, len(numbers)))
        return [self.select(torch.isin(self.episode, part)) for part in chosen]

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Transitions":
        """Return the same rows with states, actions and rewards cast to `dtype` and everything moved to `device`."""
        moved = {name: values.to(device=device) for name, values in self._columns().items()}
        return self._from_columns({**moved, **{name: moved[name].to(dtype=dtype) for name in self._numbers()}})

    def save(self, path: str | PathLike[str]) -> None:
        """Write the rows to a .safetensors or .npz file, atomically; raises `FileError` if that isn't possible."""
        _file_format(path).save(path, self._columns())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Transitions":
        """Read what `save` wrote, to the CPU; raises `FileError`, naming the file and its fault, if it can't be used."""
        columns = _file_format(path).load(path)
        missing = {"state", "action", "next_state", "episode", "terminated"} - columns.keys()
        if missing:
            raise FileError(f"{path} lacks {sorted(missing)}; it isn't a whole file of transitions")
        try:
            return cls._from_columns(columns)
        except (DataError, ShapeError) as error:
            raise FileError(f"{path} holds unusable transitions: {error}") from error

    @classmethod
    def _from_columns(cls, columns: Mapping[str, Tensor]) -> "Transitions":
        names = ("state", "action", "next_state", "episode", "terminated")
        return cls(reward=columns.get("reward"), **{name: columns[name] for name in names})

    def _numbers(self) -> dict[str, Tensor]:
        reward = {} if self.reward is None else {"reward": self.reward}
        return {"state": self.state, "action": self.action, "next_state": self.next_state, **reward}

    def _columns(self) -> dict[str, Tensor]:
        return {**self._numbers(), "episode": self.episode, "terminated": self.terminated}

    def _blocks(self) -> Int[Tensor, "episodes"]:
        return self.episode.unique_consecutive(return_counts=True)[1]


def _shares(fractions: Sequence[float], count: int) -> list[int]:
    """Return whole numbers near fraction·count, each at least 1, that sum to count."""
    spare = count - len(fractions)
    shares = [1 + int(fraction * spare) for fraction in fractions]
    while sum(shares) < count:
        shares[max(range(len(shares)), key=lambda part: fractions[part] * count - shares[part])] += 1
    return shares


@dataclass(frozen=True)
class _FileFormat:
    save: Callable[[str | PathLike[str], Mapping[str, Tensor]], None]
    load: Callable[[str | PathLike[str]], dict[str, Tensor]]


_FORMATS = {
    ".safetensors": _FileFormat(
        lambda path, columns: save_tensors(path, columns, kind=_KIND),
        lambda path: load_tensors(path, kind=_KIND).tensors,
    ),
    ".npz": _FileFormat(
        lambda path, columns: save_arrays(path, {name: t.cpu().numpy() for name, t in columns.items()}, kind=_KIND),
        lambda path: {name: torch.from_numpy(array) for name, array in load_arrays(path, kind=_KIND).items()},
    ),
}


def _file_format(path: str | PathLike[str]) -> _FileFormat:
    suffix = Path(path).suffix
    if suffix not in _FORMATS:
        raise FileError(f"transitions are kept in {' or '.join(_FORMATS)} files; got {path} with suffix {suffix!r}")
    return _FORMATS[suffix]
