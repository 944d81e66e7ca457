"""The codec of mechanisms, whose positions follow from their speeds: `KinematicCodec`."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.codec.base import BaseCodec, Runs, runs
from bayesdyn.codec.markov import Codec
from bayesdyn.data import Transitions
from bayesdyn.data.describe import describe
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, ShapeError

Coordinates = Callable[[Tensor], Tensor]  # states [..., S] -> [..., F]


class KinematicCodec(BaseCodec):
    r"""The codec of mechanisms: changes of speeds are predicted, and positions follow from the speeds before and after.

        x = whiten([s_i for i not ignored, a, extra(s)]),   y = whiten(v' - v),   q' = q + α∘v + β∘v'

    `speeds` maps the index of each such position to that of its speed. α and β are least squares over the training transitions,
    about half of a step's duration each where forces hold for a step, which spares the user to know it. Angles as positions have to
    be unwrapped. `constant` are coordinates that never change during a trial (a goal). `derived` are coordinates that `derive`
    computes from the others, [..., S] -> [..., derived] (the place of a hand, from joint angles). All other coordinates are
    predicted as differences, like speeds. `ignore` are coordinates that are no features, and `extra` makes further ones.

    `least` maps coordinates that are predicted to the smallest change that counts, in physical units: differences are whitened by
    no less. Otherwise what nobody has touched yet would be imagined to move as much as anything, or its rounding be learned.

    The variance of q' is β² that of v'; derived coordinates are those of the mean, with variance 0.

    Raises `ConfigurationError` for coordinates that are named for two things or do not exist in the fitted states, `ShapeError` if
    `derive` gives another number of coordinates than `derived` has.

    >>> codec = KinematicCodec(speeds={0: 1})
    >>> state, speed = torch.tensor([[0.0, 1.0], [1.0, 2.0], [0.0, 0.0]]), torch.tensor([[2.0], [4.0], [2.0]])
    >>> following = torch.cat([state[:, :1] + 0.1 * state[:, 1:] + 0.1 * speed, speed], 1)
    >>> codec.fit(Transitions.from_arrays(state, speed, following))
    >>> [[round(weight, 3) for weight in row] for row in codec.weights.tolist()]
    [[0.1], [0.1]]
    """

    weights: Tensor

    def __init__(
        self,
        speeds: Mapping[int, int],
        constant: Sequence[int] = (),
        derived: Sequence[int] = (),
        derive: Coordinates | None = None,
        ignore: Sequence[int] = (),
        extra: Coordinates | None = None,
        least: Mapping[int, float] | None = None,
    ) -> None:
        super().__init__()
        self.speeds, self.constant, self.derived = dict(speeds), list(constant), list(derived)
        self.derive, self.extra, self.least = derive, extra, dict(least or {})
        self.ignore = list(ignore)
        self._plain = Codec(ignore=ignore)
        self.register_buffer("weights", torch.empty(2, 0, dtype=torch.float64))
        followers = [*self.speeds, *self.constant, *self.derived]
        if len({*followers, *self.speeds.values()}) != len(followers) + len(self.speeds):
            raise ConfigurationError(f"{self} names a coordinate for two things: it is a position, a speed, constant or derived")
        if bool(self.derived) != (derive is not None):
            raise ConfigurationError(f"{self} wants derived coordinates and derive, the function that computes them, together")
        wrong = [i for i, change in self.least.items() if i in followers or not change > 0]
        if wrong:
            raise ConfigurationError(f"{self} wants least changes above 0 of predicted coordinates; got coordinates {wrong}")

    @property
    def outputs(self) -> list[int]:
        """Every coordinate that does not follow from others: speeds, and what has none."""
        followers = {*self.speeds, *self.constant, *self.derived}
        return [i for i in range(int(self.sizes[0])) if i not in followers]

    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` if an index lies outside the state."""
        named = [*self.speeds, *self.speeds.values(), *self.constant, *self.derived, *self.least]
        wrong = sorted({i for i in named if not 0 <= i < state_size})
        if wrong:
            raise ConfigurationError(f"{self} wants indices from 0 to {state_size - 1}; got {wrong}")
        self._plain.check(state_size, action_size)

    def fit(self, transitions: Transitions) -> None:
        """Take the whitening statistics and the weights of speeds from training transitions; raises what `BaseCodec.fit` does."""
        self._check_derive(transitions)
        super().fit(transitions)
        for coordinate, change in self.least.items():
            column = self.outputs.index(coordinate)
            moved = (transitions.next_state - transitions.state)[:, coordinate]
            self.target_std[column] = moved.std(unbiased=False).clamp_min(change)
        moved = (transitions.next_state - transitions.state)[:, list(self.speeds)]
        both = torch.stack([transitions.state, transitions.next_state], -1)[:, list(self.speeds.values())]
        solved = torch.linalg.lstsq(both.transpose(0, 1).double(), moved.T.double().unsqueeze(-1), driver="gelsd").solution
        self.weights = solved.squeeze(-1).T.to(self.target_std)

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [coordinates that are not ignored, action, extra(s)]."""
        plain = self._plain.features(state, action)
        return plain if self.extra is None else torch.cat([plain, self.extra(state)], -1)

    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return the differences of the predicted coordinates."""
        return (next_state - state)[..., self.outputs]

    def assemble(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Return the next state: predicted coordinates moved by the target, positions by their speeds, the derived ones last."""
        layout = _layout(tuple(self.outputs), tuple(self.speeds.items()), (*self.constant, *self.derived))
        moved = _take(state, layout.outputs) + target.mean
        old, new = self.weights.to(moved)
        positions = _take(state, layout.positions) + old * _take(state, layout.speeds) + new * _take(moved, layout.moved_speeds)
        still = _take(state, layout.still).expand(*moved.shape[:-1], -1)
        mean = _take(torch.cat([moved, positions, still], -1), layout.order)
        spread = [target.var, new.square() * _take(target.var, layout.moved_speeds), torch.zeros_like(still)]
        if self.derive is not None:
            mean[..., self.derived] = self.derive(mean)
        return Gaussian(mean, _take(torch.cat(spread, -1), layout.order))

    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Return the predicted coordinates of s, moved by the target."""
        return Gaussian(state[..., self.outputs] + target.mean, target.var)

    def extra_repr(self) -> str:
        """Return the options, functions by their names."""
        names = ("speeds", "constant", "derived", "derive", "ignore", "extra", "least")
        return ", ".join(f"{name}={describe(getattr(self, name))}" for name in names)

    def _check_derive(self, transitions: Transitions) -> None:
        if self.derive is None:
            return
        self.check(transitions.state_size, transitions.action_size)
        shape = list(self.derive(transitions.state[:1]).shape)
        if shape != [1, len(self.derived)]:
            raise ShapeError(f"derive has to give one number for each of {self.derived}; got the shape {shape} for one state")


class _Layout(NamedTuple):
    """Columns of the state by what becomes of them; `moved_speeds` are columns of the outputs, `order` puts all back in place."""

    outputs: Runs
    positions: Runs
    speeds: Runs
    moved_speeds: Runs
    still: Runs
    order: Runs


@lru_cache
def _layout(outputs: tuple[int, ...], speeds: tuple[tuple[int, int], ...], still: tuple[int, ...]) -> _Layout:
    places, rates = [place for place, _ in speeds], [rate for _, rate in speeds]
    stacked = [*outputs, *places, *still]
    order = sorted(range(len(stacked)), key=stacked.__getitem__)
    columns = (outputs, places, rates, [outputs.index(rate) for rate in rates], still, order)
    return _Layout(*(runs(indices) for indices in columns))


def _take(values: Tensor, runs: Runs) -> Tensor:
    """Return the columns of these runs, without a copy where there is one run only."""
    pieces = [values.narrow(-1, *run) for run in runs] or [values[..., :0]]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)
