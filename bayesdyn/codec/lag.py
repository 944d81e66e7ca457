"""The codec of lagged logs: `LagCodec`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.codec.base import BaseCodec
from bayesdyn.data import LagLayout
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError


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
