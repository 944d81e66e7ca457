"""What every kind of imagined environment rests on: draws of the dynamics that move many episodes with one call."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.rewards import Reward, Termination
from bayesdyn.rollout import SampledDynamics, Sampler

StartStates = Tensor | Callable[[int, torch.Generator], Tensor]
"""Where episodes begin: states [M, S] to choose from, or (count, generator) -> states [count, S]."""


class Moved(NamedTuple):
    """One imagined step of R episodes; where the model gave no finite number, `state` is the one before and `finite` False."""

    state: Float[Tensor, "R S"]
    reward: Float[Tensor, "R"]
    terminated: Bool[Tensor, "R"]
    finite: Bool[Tensor, "R"]


class Worlds:
    """Draws θ_1..θ_n of a model, each a world in which episodes can be lived, and what a step is worth there.

    s' = μ_θ(s, a) + √var_θ(s, a) ∘ ε,  θ that of the episode;  r(s, a, s');  done(s, a, s')

    A step that is not finite, in its state or its reward, ends its episode: the state stays, the reward is `failure_reward`.
    """

    def __init__(
        self,
        model: Sampler,
        reward: Reward,
        start_states: StartStates,
        *,
        draws: int,
        termination: Termination | None = None,
        failure_reward: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if draws < 1:
            raise ConfigurationError(f"imagined episodes want draws >= 1; got {draws}")
        self._model, self._reward, self._termination = model, reward, termination
        self._draws, self._failure_reward, self.dtype = draws, failure_reward, dtype
        self._start = start_states if callable(start_states) else _chosen_from(torch.as_tensor(start_states))
        self._dynamics: SampledDynamics | None = None
        self._known = 0

    @property
    def dynamics(self) -> SampledDynamics:
        """The draws at hand; raises `NotFittedError` before `redraw`."""
        if self._dynamics is None:
            raise NotFittedError("there is no imagined episode yet; call reset first")
        return self._dynamics

    def redraw(self, generator: torch.Generator) -> None:
        """Draw new θ in the place of all those at hand."""
        self._known += 0 if self._dynamics is None else self._dynamics.n
        self._dynamics = self._model.sample(self._draws, generator, dtype=self.dtype)

    def forget(self) -> None:
        """Drop the draws at hand and count θ from 0 again, as a seeded reset does, which repeats what another one began."""
        self._dynamics, self._known = None, 0

    def name(self, index: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
        """Return a number for each θ that no later draw gets again, until all are forgotten."""
        return index + self._known

    def index(self, name: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
        """Return which of the draws at hand these numbers are; raises `NotFittedError` for one that is not among them."""
        index = name - self._known
        if bool(((index < 0) | (index >= self.dynamics.n)).any()):
            raise NotFittedError("an imagined episode cannot go on: a full reset has drawn θ anew since; reset it, too")
        return index

    def deal(self, count: int, generator: torch.Generator) -> Int[Tensor, "R"]:
        """Give `count` episodes a θ each, all θ as often as each other, give or take one, in random order."""
        n = self.dynamics.n
        turn = torch.randperm(n, generator=generator)[torch.arange(count) % n]
        return turn[torch.randperm(count, generator=generator)]

    def begin(self, count: int, generator: torch.Generator) -> Float[Tensor, "R S"]:
        """Return first states; raises `ShapeError` or `DataError` if `start_states` gives anything but finite ones, [count, S]."""
        state = self._start(count, generator).to(self.dtype)
        if state.dim() != 2 or len(state) != count:
            raise ShapeError(f"start_states have to give states [{count}, S]; got {list(state.shape)}")
        if not bool(state.isfinite().all()):
            raise DataError("start_states gave a state that is not finite; leave such states out")
        return state

    def step(
        self,
        state: Float[Tensor, "R S"],
        action: Float[Tensor, "R A"],
        index: Int[Tensor, "R"],
        generator: torch.Generator,
    ) -> Moved:
        """Move every episode under its own θ_index: one call of the dynamics, differentiable in state and action.

        Raises `DataError` for actions that are not finite, which are no fault of the model's.
        """
        if not bool(action.isfinite().all()):
            raise DataError("an imagined step wants finite actions; got NaN or infinity")
        place, width = _places(index, self.dynamics.n)
        mean, var = (
            moment.expand(self.dynamics.n, width, state.shape[-1]).flatten(0, 1)[place]
            for moment in self.dynamics(
                _spread(state, place, self.dynamics.n, width), _spread(action, place, self.dynamics.n, width)
            )
        )
        noise = torch.randn(state.shape, generator=generator, dtype=state.dtype)
        after = mean + var.sqrt() * noise
        reward = self._per_row(self._reward(state, action, after), state, "reward").to(state.dtype)
        ended = torch.zeros(len(state), dtype=torch.bool)
        if self._termination is not None:
            ended = self._per_row(self._termination(state, action, after), state, "termination").bool()
        finite = after.float().isfinite().all(-1) & reward.float().isfinite()  # as a float32 observation, too
        return Moved(
            torch.where(finite.unsqueeze(-1), after, state),
            torch.where(finite, reward, self._failure_reward),
            ended | ~finite,
            finite,
        )

    def _per_row(self, values: Tensor, state: Tensor, what: str) -> Tensor:
        if values.shape not in (state.shape[:-1], torch.Size()):
            raise ShapeError(
                f"the {what} has to return one number per state, [{len(state)}] for states {list(state.shape)}; "
                f"got {list(values.shape)}"
            )
        return values.expand(state.shape[:-1])


def _chosen_from(states: Tensor) -> Callable[[int, torch.Generator], Tensor]:
    if states.dim() != 2 or len(states) == 0:
        raise ShapeError(f"start_states want the shape [M, S] with M >= 1, or a callable; got {list(states.shape)}")
    return lambda count, generator: states[torch.randint(len(states), (count,), generator=generator)]


def _places(index: Int[Tensor, "R"], n: int) -> tuple[Int[Tensor, "R"], int]:
    """Return each row's place in [n, width] flattened, where row r stands in line `index[r]`, and the width of the longest line."""
    counts = torch.bincount(index, minlength=n)
    order = index.argsort(stable=True)
    rank = torch.empty_like(index)
    rank[order] = torch.arange(len(index)) - (counts.cumsum(0) - counts)[index[order]]
    width = int(counts.max())
    return index * width + rank, width


def _spread(rows: Float[Tensor, "R F"], place: Int[Tensor, "R"], n: int, width: int) -> Float[Tensor, "n width F"]:
    """Put rows into their places; the others repeat the first row, so that they are valid inputs of the model."""
    filled = rows[:1].expand(n * width, rows.shape[-1]).index_copy(0, place, rows)
    return filled.unflatten(0, (n, width))
