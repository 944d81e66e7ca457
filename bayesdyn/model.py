"""Dynamics models: a codec around a posterior, and the draws of s' ~ p(s'|s,a,θ) that planners roll out."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.codec import BaseCodec
from bayesdyn.data import Transitions
from bayesdyn.data.storage import load_tensors, save_tensors
from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import FileError
from bayesdyn.posteriors.base import FitReport, Function, Posterior, Progress


class Dynamics:
    """n dynamics f_θ drawn from p(θ|D): the same (state, action) gives the same Gaussian over the next state until you drop it.

    Maps state [n or 1, ..., S] and action [n or 1, ..., A] to a `Gaussian` over the next state, [n, ..., S], in physical units.
    """

    def __init__(self, codec: BaseCodec, function: Function) -> None:
        self.codec = codec
        self.function = function

    @property
    def n(self) -> int:
        """Number of draws of θ."""
        return self.function.n

    def __call__(self, state: Float[Tensor, "*shape S"], action: Float[Tensor, "*shape2 A"]) -> Gaussian:
        """Return p(s' | s, a, θ_i) for each draw i."""
        batch = torch.broadcast_shapes(state.shape[:-1], action.shape[:-1])
        state, action = state.expand(*batch, state.shape[-1]), action.expand(*batch, action.shape[-1])
        return self.codec.decode(state, action, self.function(self.codec.encode(state, action)))


class DynamicsModel(nn.Module):
    """A posterior over dynamics: the codec speaks of states and actions, the posterior of x and y.

    >>> import bayesdyn as bd
    >>> data = bd.Transitions.from_arrays([[0.0], [1.0], [2.0]], [[1.0], [1.0], [0.0]], [[1.0], [2.0], [2.0]])
    >>> model = bd.DynamicsModel(bd.Codec(), bd.posteriors.ExactGP())
    >>> report = model.fit(data)
    >>> model.predict(torch.tensor([1.0]), torch.tensor([1.0])).mean.shape
    torch.Size([1])
    """

    def __init__(self, codec: BaseCodec, posterior: Posterior) -> None:
        super().__init__()
        self.codec = codec
        self.posterior = posterior

    def fit(
        self,
        transitions: Transitions,
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Fit the codec's statistics, then the posterior, on all transitions.

        Raises what the posterior's `fit` raises.
        """
        self.codec.fit(transitions)
        x = self.codec.encode(transitions.state, transitions.action)
        y = self.codec.target(transitions.state, transitions.next_state)
        dtype = self.posterior.dtype
        return self.posterior.fit(x.to(dtype), y.to(dtype), warm_start=warm_start, generator=generator, progress=progress)

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> Dynamics:
        """Draw n dynamics; `dtype` is that of the states to come (default: the posterior's own)."""
        function = self.posterior.sample(n, generator)
        dtype = dtype or self.posterior.dtype
        return Dynamics(self.codec.frozen(dtype), function.to(dtype=dtype))

    def predict(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Predictive:
        """Return p(s' | s, a, D) over the predicted coordinates of the next state (`codec.outputs`), in physical units."""
        state, action = (torch.as_tensor(v, dtype=self.codec.feature_mean.dtype) for v in (state, action))
        whitened = self.predict_target(state, action)
        mean = self.codec.unwhiten(Gaussian(whitened.component_mean, whitened.component_epistemic_var))
        noise = self.codec.unwhiten(Gaussian(whitened.component_mean, whitened.component_aleatoric_var))
        placed = self.codec.predicted(state, mean)
        return Predictive(placed.mean, mean.var, noise.var)

    def predict_target(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Predictive:
        """Return the predictive of the whitened target, in units of the training targets' std: the scale of all scores."""
        return self.posterior.predict(self.codec.encode(state, action).to(self.posterior.dtype))

    def save(self, path: str | Path) -> None:
        """Write all learned tensors to `path` (safetensors), atomically."""
        save_tensors(path, self.state_dict(), {"posterior": type(self.posterior).__name__}, kind="model")

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote into this model, which must have the same codec and posterior.

        Raises `FileError` if the file is damaged or belongs to another kind of model.
        """
        tensors, metadata = load_tensors(path, kind="model")
        want = type(self.posterior).__name__
        if metadata.get("posterior") != want:
            raise FileError(f"{path} holds a model with posterior {metadata.get('posterior')}; this model's is {want}")
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            raise FileError(f"{path} does not fit this model: {error}") from error
