"""Codecs turn states and actions into whitened features and targets, and a predicted target back into the next state."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.data import Transitions
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, NotFittedError, ShapeError

# A column whose spread is below this share of its size is constant: it is centred and not scaled.
_CONSTANT = 1e-10


class BaseCodec(nn.Module, ABC):
    """The seam between states and regression: encode (s, a) to whitened x, target (s, a, s') to whitened y, decode y to s'.

    Statistics are fitted on training transitions and are buffers. `outputs` names the state coordinates that the posterior
    predicts, in the order of its targets; the others follow from (s, a) alone.
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
    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return the raw features, in physical units."""

    @abstractmethod
    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return the raw targets, in physical units."""

    @abstractmethod
    def assemble(self, state: Tensor, action: Tensor, target: Gaussian) -> Gaussian:
        """Turn raw targets [n, ..., E] into a Gaussian over the whole next state [n, ..., S]; known coordinates get variance 0."""

    @abstractmethod
    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Turn raw targets [m, ..., E] into Gaussians over the predicted coordinates of the next state, [m, ..., E]."""

    def fit(self, transitions: Transitions) -> None:
        """Take the whitening statistics from the training transitions."""
        self.sizes = torch.tensor([transitions.state_size, transitions.action_size])
        self.check(transitions.state_size)
        features = self.features(transitions.state, transitions.action)
        target = self.raw_target(transitions.state, transitions.next_state)
        self.feature_mean, self.feature_std = _statistics(features)
        self.target_mean, self.target_std = _statistics(target)

    @abstractmethod
    def check(self, state_size: int) -> None:
        """Raise `ConfigurationError` if the options do not fit states of this size."""

    def encode(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return whitened features (features - mean) / std."""
        self._check_inputs(state, action)
        return (self.features(state, action) - self.feature_mean) / self.feature_std

    def target(self, state: Float[Tensor, "N S"], next_state: Float[Tensor, "N S"]) -> Float[Tensor, "N E"]:
        """Return whitened targets (target - mean) / std."""
        return (self.raw_target(state, next_state) - self.target_mean) / self.target_std

    def decode(self, state: Tensor, action: Tensor, target: Gaussian) -> Gaussian:
        """Return the Gaussian over the next state [n, ..., S] that whitened targets [n, ..., E] mean."""
        return self.assemble(state, action, self.unwhiten(target))

    def unwhiten(self, target: Gaussian) -> Gaussian:
        """Return mean·std + mean₀ and var·std², in physical units."""
        return Gaussian(target.mean * self.target_std + self.target_mean, target.var * self.target_std.square())

    def frozen(self, dtype: torch.dtype) -> "BaseCodec":
        """Return a copy in `dtype` that a later `fit` leaves as it is."""
        return copy.deepcopy(self).to(dtype)

    def _check_inputs(self, state: Tensor, action: Tensor) -> None:
        if self.feature_mean.numel() == 0:
            raise NotFittedError(f"{type(self).__name__} has seen no data yet; fit it (or its DynamicsModel) on transitions first")
        want = self.sizes.tolist()
        if [state.shape[-1], action.shape[-1]] != want:
            raise ShapeError(
                f"the model was fitted on states of size {want[0]} and actions of size {want[1]}; "
                f"got state {list(state.shape)} and action {list(action.shape)}"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        for name, buffer in list(self._buffers.items()):
            stored = state_dict.get(prefix + name)
            if buffer is not None and stored is not None:
                setattr(self, name, torch.empty(stored.shape, dtype=buffer.dtype, device=buffer.device))
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
        clash = set(self.angles) & (set(self.ignore) | set(self.absolute))
        if clash:
            raise ConfigurationError(f"coordinates {sorted(clash)} are angles and also ignored or absolute; choose one")

    @property
    def outputs(self) -> list[int]:
        """Every state coordinate is predicted."""
        return list(range(int(self.sizes[0])))

    def check(self, state_size: int) -> None:
        """Raise `ConfigurationError` if an index lies outside the state."""
        for name, indices in (("angles", self.angles), ("ignore", self.ignore), ("absolute", self.absolute)):
            wrong = [i for i in indices if not 0 <= i < state_size]
            if wrong:
                raise ConfigurationError(f"Codec({name}={indices}): states have {state_size} coordinates, so {wrong} do not exist")

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [linear coordinates, sines, cosines, action]."""
        left_out = {*self.angles, *self.ignore}
        linear = [i for i in range(state.shape[-1]) if i not in left_out]
        parts = [_columns(state, linear)]
        if self.angles:
            angle = _columns(state, self.angles)
            parts += [angle.sin(), angle.cos()]
        return torch.cat([*parts, action], -1)

    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch S"]:
        """Return s' - s, angle differences wrapped to (-π, π], absolute coordinates as they are."""
        change = next_state - state
        if self.angles:
            angle = change[..., self.angles]
            change[..., self.angles] = angle - 2 * math.pi * torch.ceil(angle / (2 * math.pi) - 0.5)
        if self.absolute:
            change[..., self.absolute] = next_state[..., self.absolute]
        return change

    def assemble(self, state: Tensor, action: Tensor, target: Gaussian) -> Gaussian:
        """Return s + target as the next state."""
        return self.predicted(state, target)

    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Return s + target (absolute coordinates: the target itself)."""
        if self.absolute:
            base = state.clone()
            base[..., self.absolute] = 0.0
            return Gaussian(base + target.mean, target.var)
        return Gaussian(state + target.mean, target.var)


class LagCodec(BaseCodec):
    """The codec of lagged logs: only the newest outputs are predicted, the older lags shift by one.

    The state is that of `bayesdyn.data.lagged`: [y_t, .., y_{t-n_y+1}, u_{t-1}, .., u_{t-n_u+1}], lag by lag; the action is u_t.

    x = whiten([state, u_t]),   y = whiten(y_{t+1} - y_t)

    `channels` is the number of outputs Y per lag.

    >>> codec = LagCodec(output_lags=2, input_lags=2)
    >>> state, action = torch.tensor([[3.0, 2.0, 7.0]]), torch.tensor([[8.0]])
    >>> codec.assemble(state, action, Gaussian(torch.tensor([[0.5]]), torch.tensor([[0.1]]))).mean.tolist()
    [[3.5, 3.0, 8.0]]
    """

    def __init__(self, output_lags: int, input_lags: int, channels: int = 1) -> None:
        super().__init__()
        if min(output_lags, input_lags, channels) < 1:
            raise ConfigurationError(
                f"lags and channels must be at least 1; got {output_lags} output lags, {input_lags} input lags, {channels} channels"
            )
        self.output_lags, self.input_lags, self.channels = output_lags, input_lags, channels

    @property
    def outputs(self) -> list[int]:
        """The newest outputs, the first Y coordinates."""
        return list(range(self.channels))

    def check(self, state_size: int) -> None:
        """Raise `ConfigurationError` unless the state has n_y·Y + (n_u - 1)·A coordinates."""
        want = self.output_lags * self.channels + (self.input_lags - 1) * int(self.sizes[1])
        if state_size != want:
            raise ConfigurationError(
                f"LagCodec({self.output_lags}, {self.input_lags}, channels={self.channels}) wants states of size {want}; "
                f"got {state_size}; make the transitions with lagged() and the same lags"
            )

    def features(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch D"]:
        """Return [state, action]."""
        return torch.cat([state, action], -1)

    def raw_target(self, state: Float[Tensor, "*batch S"], next_state: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch E"]:
        """Return y_{t+1} - y_t."""
        return next_state[..., : self.channels] - state[..., : self.channels]

    def assemble(self, state: Tensor, action: Tensor, target: Gaussian) -> Gaussian:
        """Return the shifted state with the new output in front."""
        newest = self.predicted(state, target)
        past = self.channels * self.output_lags
        shifted = torch.cat([state[..., : past - self.channels], action, state[..., past:]], -1)[
            ..., : state.shape[-1] - self.channels
        ]
        shifted = shifted.expand(*newest.mean.shape[:-1], shifted.shape[-1])
        return Gaussian(torch.cat([newest.mean, shifted], -1), torch.cat([newest.var, torch.zeros_like(shifted)], -1))

    def predicted(self, state: Float[Tensor, "*batch S"], target: Gaussian) -> Gaussian:
        """Return y_t + target."""
        return Gaussian(state[..., : self.channels] + target.mean, target.var)


def _columns(values: Tensor, indices: list[int]) -> Tensor:
    """Select columns as a view where they are contiguous, which the inner loop of planning notices."""
    if indices == list(range(indices[0], indices[0] + len(indices))) if indices else False:
        return values[..., indices[0] : indices[0] + len(indices)]
    return values[..., indices]


def _statistics(values: Float[Tensor, "N F"]) -> tuple[Float[Tensor, "F"], Float[Tensor, "F"]]:
    mean = values.mean(0)
    std = values.std(0, correction=0)
    return mean, torch.where(std > _CONSTANT * (1.0 + mean.abs()), std, torch.ones_like(std))
