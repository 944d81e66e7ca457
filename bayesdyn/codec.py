"""Codecs turn states and actions into whitened features and targets, and a predicted target back into the next state."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.data import LagLayout, Transitions
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, NotFittedError, ShapeError
from bayesdyn.numerics import spread

# A column whose spread is below this share of its size is constant up to rounding: it is centred and not scaled.
_CONSTANT = 1e-10


class BaseCodec(nn.Module, ABC):
    """The seam between states and regression: encode (s, a) to whitened x, target (s, a, s') to whitened y, decode y to s'.

    Statistics are fitted on training transitions and are buffers, which `fit` replaces and never writes into. `outputs` names the
    state coordinates that the posterior predicts, in the order of its targets; the others follow from (s, a) alone.
    """

    feature_mean: Tensor
    feature_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    sizes: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("feature_mean", "feature_std", "target_mean", "target_std"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        self.register_buffer("sizes", torch.zeros(2, dtype=torch.int64))

    @property
    @abstractmethod
    def outputs(self) -> list[int]:
        """State coordinates that the posterior predicts, [E]."""

    @abstractmethod
    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` if the options do not fit states and actions of these sizes."""

    @abstractmethod
    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return the raw features, in physical units."""

    @abstractmethod
    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return the raw targets, in physical units."""

    @abstractmethod
    def assemble(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Turn raw targets [n, ..., E] into a Gaussian over the whole next state [n, ..., S]; known coordinates get variance 0."""

    @abstractmethod
    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Turn raw targets [m, ..., E] into Gaussians over the predicted coordinates of the next state, [m, ..., E]."""

    def fit(self, transitions: Transitions) -> None:
        """Take the whitening statistics from the training transitions.

        Raises `ConfigurationError` if the options do not fit the transitions; the statistics then stay as they were.
        """
        self.check(transitions.state_size, transitions.action_size)
        self.sizes = torch.tensor([transitions.state_size, transitions.action_size])
        features = self.features(transitions.state, transitions.action)
        target = self.raw_target(transitions.state, transitions.next_state)
        # A difference is known as well as the states are, so their size says what counts as rounding.
        moved = torch.cat([transitions.state, transitions.next_state])[:, self.outputs]
        self.feature_mean, self.feature_std = _statistics(features, features.abs().amax(0))
        self.target_mean, self.target_std = _statistics(target, moved.abs().amax(0))

    def encode(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch2 A"]) -> Float[Tensor, "*batch3 D"]:
        """Return whitened features (features - mean) / std; leading axes broadcast.

        Raises `NotFittedError` before `fit` and `ShapeError` for sizes other than the fitted ones.
        """
        self.check_fitted()
        state_size, action_size = self.sizes.tolist()
        check_sizes(state, action, state_size, action_size)
        return (self.features(*broadcast(state, action)) - self.feature_mean) / self.feature_std

    def target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return whitened targets (target - mean) / std.

        Raises `NotFittedError` before `fit` and `ShapeError` for states of another size than the fitted ones.
        """
        self.check_fitted()
        if state.shape != next_state.shape or state.shape[-1] != int(self.sizes[0]):
            raise ShapeError(
                f"targets want states and next states of one shape [..., {int(self.sizes[0])}]; "
                f"got {list(state.shape)} and {list(next_state.shape)}"
            )
        return (self.raw_target(state, next_state) - self.target_mean) / self.target_std

    def decode(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Return the Gaussian over the next state [n, ..., S] that whitened targets [n, ..., E] mean."""
        return self.assemble(state, action, self.unwhiten(target))

    def unwhiten(self, target: Gaussian) -> Gaussian:
        """Return mean·std + mean₀ and var·std², in physical units."""
        return Gaussian(target.mean * self.target_std + self.target_mean, target.var * self.target_std.square())

    def frozen(self, dtype: torch.dtype) -> "BaseCodec":
        """Return a copy in `dtype` that a later `fit` leaves as it is."""
        return copy.deepcopy(self).to(dtype)

    def check_fitted(self) -> None:
        """Raise `NotFittedError` before `fit`."""
        if self.feature_mean.numel() == 0:
            raise NotFittedError(f"{type(self).__name__} has seen no data yet; fit it (or its DynamicsModel) on transitions first")

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # Fresh tensors of the stored size and dtype: the statistics of a fresh codec have no size yet.
        for name, buffer in list(self._buffers.items()):
            stored = state_dict.get(prefix + name)
            if buffer is not None and stored is not None:
                setattr(self, name, torch.empty_like(stored, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


class Codec(BaseCodec):
    """The codec of Markov states: angles enter as sine and cosine, targets are state differences, all is whitened.

    x = whiten([s_i for i not an angle or ignored, sin s_i, cos s_i for i an angle, a]),   y = whiten(s' - s)

    `angles` are coordinates in radians whose differences are wrapped to (-π, π]; `ignore` are coordinates that the dynamics do not
    depend on (a position on an endless track); `absolute` are coordinates predicted as they are instead of as differences.

    Raises `ConfigurationError` if an index does not exist in the fitted states.

    >>> codec = Codec(angles=[1])
    >>> codec.features(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0]])).tolist()
    [[2.0, 0.0, 1.0, 5.0]]
    """

    def __init__(self, angles: Sequence[int] = (), ignore: Sequence[int] = (), absolute: Sequence[int] = ()) -> None:
        super().__init__()
        self.angles, self.ignore, self.absolute = list(angles), list(ignore), list(absolute)
        for name, indices in self._options().items():
            if len(set(indices)) != len(indices):
                raise ConfigurationError(f"Codec({name}={indices}) names a coordinate twice")
        clash = set(self.angles) & (set(self.ignore) | set(self.absolute))
        if clash:
            raise ConfigurationError(f"coordinates {sorted(clash)} are angles and also ignored or absolute; choose one")

    @property
    def outputs(self) -> list[int]:
        """Every state coordinate is predicted."""
        return list(range(int(self.sizes[0])))

    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` if an index lies outside the state."""
        for name, indices in self._options().items():
            wrong = [i for i in indices if not 0 <= i < state_size]
            if wrong:
                raise ConfigurationError(
                    f"Codec({name}={indices}) wants indices from 0 to {state_size - 1}, for states of {state_size} coordinates; "
                    f"got {wrong}"
                )

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [linear coordinates, sines, cosines, action]."""
        linear, bent = _column_runs(state.shape[-1], tuple(self.angles), tuple(self.ignore))
        angles = [state.narrow(-1, *run) for run in bent]
        sines, cosines = [angle.sin() for angle in angles], [angle.cos() for angle in angles]
        return torch.cat([*(state.narrow(-1, *run) for run in linear), *sines, *cosines, action], -1)

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

    def extra_repr(self) -> str:
        """Return the options, by which a saved model is known."""
        return ", ".join(f"{name}={indices}" for name, indices in self._options().items())

    def _options(self) -> dict[str, list[int]]:
        return {"angles": self.angles, "ignore": self.ignore, "absolute": self.absolute}


class IdentityCodec(BaseCodec):
    """The codec of known physics: features are state and action, the target is the next state, all as they are, in physical units.

    x = [s, a],   y = s'

    `angles` are coordinates in radians: their target is the state plus the difference wrapped to (-π, π], so that data may wrap.

    Raises `ConfigurationError` if an index does not exist in the fitted states.

    >>> codec = IdentityCodec(angles=[0])
    >>> codec.raw_target(torch.tensor([[3.0, 1.0]]), torch.tensor([[-3.0, 2.0]]))
    tensor([[3.2832, 2.0000]])
    """

    def __init__(self, angles: Sequence[int] = ()) -> None:
        super().__init__()
        self.angles = list(angles)

    @property
    def outputs(self) -> list[int]:
        """Every state coordinate is predicted."""
        return list(range(int(self.sizes[0])))

    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` if an index lies outside the state."""
        wrong = [i for i in self.angles if not 0 <= i < state_size]
        if wrong:
            raise ConfigurationError(f"IdentityCodec(angles={self.angles}) wants indices from 0 to {state_size - 1}; got {wrong}")

    def fit(self, transitions: Transitions) -> None:
        """Take the sizes from the transitions; there are no statistics, means are 0 and stds 1."""
        self.check(transitions.state_size, transitions.action_size)
        state, action = transitions.state[0], transitions.action[0]
        self.sizes = torch.tensor([transitions.state_size, transitions.action_size])
        self.feature_mean, self.target_mean = torch.zeros_like(torch.cat([state, action])), torch.zeros_like(state)
        self.feature_std, self.target_std = self.feature_mean + 1, self.target_mean + 1

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [state, action]."""
        return torch.cat([state, action], -1)

    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch S"]:
        """Return s', its angles within half a turn of those of s."""
        target = next_state.clone()
        angle = next_state[..., self.angles] - state[..., self.angles]
        target[..., self.angles] -= 2 * math.pi * torch.ceil(angle / (2 * math.pi) - 0.5)
        return target

    def assemble(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Return the target as the next state."""
        return target

    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Return the target."""
        return target

    def extra_repr(self) -> str:
        """Return the options, by which a saved model is known."""
        return f"angles={self.angles}"


class LagCodec(BaseCodec):
    """The codec of lagged logs: only the newest outputs are predicted, the older lags shift by one.

    The state is that of `bayesdyn.data.lagged`, laid out as `LagLayout` says; the action is u_t.

    x = whiten([state, u_t]),   y = whiten(y_{t+1} - y_t)

    `channels` is the number of outputs Y per lag.

    Raises `ConfigurationError` for less than one lag or channel.

    >>> codec = LagCodec(output_lags=2, input_lags=2)
    >>> state, action = torch.tensor([[3.0, 2.0, 7.0]]), torch.tensor([[8.0]])
    >>> codec.assemble(state, action, Gaussian(torch.tensor([[0.5]]), torch.tensor([[0.1]]))).mean.tolist()
    [[3.5, 3.0, 8.0]]
    """

    def __init__(self, output_lags: int, input_lags: int, channels: int = 1) -> None:
        super().__init__()
        self.output_lags, self.input_lags, self.channels = output_lags, input_lags, channels
        self._layout(0)  # raises for less than one lag or channel

    @property
    def outputs(self) -> list[int]:
        """The newest outputs, the first Y coordinates."""
        return list(range(self.channels))

    def check(self, state_size: int, action_size: int) -> None:
        """Raise `ConfigurationError` unless the state has n_y·Y + (n_u - 1)·A coordinates."""
        want = self._layout(action_size).state_size
        if state_size != want:
            raise ConfigurationError(
                f"{self} wants states of size {want} for actions of size {action_size}; got {state_size}; "
                "make the transitions with lagged() and the same lags"
            )

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [state, action]."""
        return torch.cat([state, action], -1)

    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return y_{t+1} - y_t."""
        return next_state[..., : self.channels] - state[..., : self.channels]

    def assemble(self, state: Float[Tensor, "..."], action: Float[Tensor, "..."], target: Gaussian) -> Gaussian:
        """Return the shifted state with the new output in front."""
        newest = self.predicted(state, target)
        batch = newest.mean.shape[:-1]
        past, now = state.expand(*batch, state.shape[-1]), action.expand(*batch, action.shape[-1])
        mean = self._layout(action.shape[-1]).shift(past, now, newest.mean)
        known = mean.shape[-1] - self.channels
        return Gaussian(mean, nn.functional.pad(newest.var, (0, known)))

    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Return y_t + target."""
        return Gaussian(state[..., : self.channels] + target.mean, target.var)

    def extra_repr(self) -> str:
        """Return the options, by which a saved model is known."""
        return f"output_lags={self.output_lags}, input_lags={self.input_lags}, channels={self.channels}"

    def _layout(self, action_size: int) -> LagLayout:
        return LagLayout(self.channels, action_size, self.output_lags, self.input_lags)


def check_sizes(state: Tensor, action: Tensor, state_size: int, action_size: int) -> None:
    """Raise `ShapeError` unless state is [..., S] and action [..., A]."""
    if state.shape[-1:] != (state_size,) or action.shape[-1:] != (action_size,):
        raise ShapeError(
            f"the model was fitted on states of size {state_size} and actions of size {action_size}; "
            f"got state {list(state.shape)} and action {list(action.shape)}"
        )


def broadcast(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with the same leading axes; raises `ShapeError` if these do not fit together."""
    if state.shape[:-1] == action.shape[:-1]:
        return state, action
    try:
        batch = torch.broadcast_shapes(state.shape[:-1], action.shape[:-1])
    except RuntimeError as error:
        raise ShapeError(
            f"state and action want leading axes that broadcast; got state {list(state.shape)} and action {list(action.shape)}"
        ) from error
    return state.expand(*batch, state.shape[-1]), action.expand(*batch, action.shape[-1])


@lru_cache
def _column_runs(
    size: int, angles: tuple[int, ...], ignore: tuple[int, ...]
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Return (start, length) of the neighbouring columns of the linear coordinates and of the angles, which narrow to views."""
    linear = [i for i in range(size) if i not in angles and i not in ignore]
    return _runs(linear), _runs(angles)


def _runs(indices: Sequence[int]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for index in indices:
        start, length = runs[-1] if runs else (index, 0)
        if index == start + length:
            runs[len(runs) - 1 if runs else 0 :] = [(start, length + 1)]
        else:
            runs.append((index, 1))
    return tuple(runs)


def _statistics(values: Float[Tensor, "N F"], size: Float[Tensor, "F"]) -> tuple[Float[Tensor, "F"], Float[Tensor, "F"]]:
    """Return mean and population std; a std that is only rounding, measured against the columns' `size`, becomes 1."""
    mean, std, constant = spread(values, size, least=_CONSTANT)
    return mean.to(values.dtype), torch.where(constant, torch.ones_like(std), std).to(values.dtype)
