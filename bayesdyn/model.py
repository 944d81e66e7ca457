"""Dynamics models: a codec around a posterior, and the draws of s' ~ p(s'|s,a,θ) that planners roll out."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesdyn.belief_dynamics import BeliefDynamics
from bayesdyn.beliefs import MomentMap
from bayesdyn.codec import BaseCodec, broadcast, check_sizes
from bayesdyn.data import Transitions
from bayesdyn.data.describe import describe, differences
from bayesdyn.data.storage import load_tensors, save_tensors
from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ConfigurationError, DataError, FileError
from bayesdyn.functions import Function
from bayesdyn.numerics import keep_buffers_on_error, snapshot
from bayesdyn.posteriors.base import FitReport, Posterior
from bayesdyn.posteriors.calibration_report import CalibrationReport
from bayesdyn.posteriors.quantile_map import QuantileMap
from bayesdyn.progress import Progress


class Dynamics:
    """n dynamics f_θ drawn from p(θ|D): the same (state, action) gives the same Gaussian over the next state until you drop it.

    Maps state [n or 1, ..., S] and action [n or 1, ..., A] to a `Gaussian` over the next state, [n, ..., S], in physical units and
    in the state's dtype. The codec has to be a frozen copy in the dtype of the function.

    Raises `ShapeError` for other sizes than the fitted ones.
    """

    def __init__(self, codec: BaseCodec, function: Function, moving: Callable[[], BeliefDynamics | None] | None = None) -> None:
        codec.check_fitted()
        self.codec, self.function = codec, function
        self._moving = moving
        self._state_size, self._action_size = codec.sizes.tolist()
        # Whitening as one multiply-add per direction, which the inner loop of planning notices.
        self._dtype = codec.feature_mean.dtype
        self._scale = codec.feature_std.reciprocal()
        self._shift = -codec.feature_mean * self._scale
        self._target_mean, self._target_std = codec.target_mean, codec.target_std
        self._target_var = codec.target_std.square()

    @property
    def n(self) -> int:
        """Number of draws of θ."""
        return self.function.n

    @cached_property
    def beliefs(self) -> BeliefDynamics | None:
        """How Gaussian beliefs move in closed form, for Gaussian processes with an RBF kernel; it holds all θ, not these draws."""
        return None if self._moving is None else self._moving()

    def __call__(self, state: Float[Tensor, "*shape S"], action: Float[Tensor, "*shape2 A"]) -> Gaussian:
        """Return p(s' | s, a, θ_i) for each draw i."""
        check_sizes(state, action, self._state_size, self._action_size)
        state, action = broadcast(state, action.to(state.dtype))
        features = self.codec.features(state, action).to(self._dtype)
        target = self.function(torch.addcmul(self._shift, features, self._scale))
        mean = torch.addcmul(self._target_mean, target.mean, self._target_std)
        var = target.var * self._target_var
        return self.codec.assemble(state, action, Gaussian(mean.to(state.dtype), var.to(state.dtype)))


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
        """Fit the codec's statistics, then the posterior, on all transitions, an episode being a group (`fit_groups`).

        Raises `DataError` for anything but `Transitions`, and what the codec's and the posterior's `fit` raise; both are then as
        they were before, after Ctrl-C too.
        """
        if not isinstance(transitions, Transitions):
            raise DataError(
                f"fit wants Transitions; got a {type(transitions).__name__}: Transitions.from_episodes makes them of episodes"
            )
        with keep_buffers_on_error(self):
            self.codec.fit(transitions)
            x, y = self._rows(transitions)
            return self.posterior.fit_groups(
                x, y, transitions.episode, warm_start=warm_start, generator=generator, progress=progress
            )

    def append(self, transitions: Transitions) -> None:
        """Condition the posterior on more transitions at once, where it can (`Posterior.append`); the codec stays as fitted."""
        self.posterior.append(*self._rows(transitions))

    def calibrate(self, held_out: Transitions) -> CalibrationReport:
        """Make a `Recalibrated` posterior as wide as its errors on episodes that `fit` has not seen; the codec stays as fitted.

        Predictions, draws and plans are those of the calibrated model from then on, until the next fit. Episodes are taken whole,
        as `Transitions.split` keeps them, since neighbours in time err alike; keep others for the test.

        Raises `ConfigurationError` for a posterior that is not `Recalibrated`, `DataError` for rows that the fit has seen and for
        fewer than 5 episodes or 200 rows, `NotFittedError` before `fit`.
        """
        return self.posterior.calibrate(*self._rows(held_out), held_out.episode)

    def quantile_map(self, held_out: Transitions) -> QuantileMap:
        """Return the map that puts the probabilities of one step right: apply it to what `predict` or `predict_target` says.

        Draws and plans know nothing of it, `calibrate` is for those. It wants and raises what `calibrate` does.
        """
        return self.posterior.quantile_map(*self._rows(held_out), held_out.episode)

    def check_unseen(self, transitions: Transitions) -> None:
        """Raise `DataError` for rows that the fit has seen, as far as the posterior remembers them: `Recalibrated` does."""
        self.posterior.check_unseen(*self._rows(transitions))

    def _rows(self, transitions: Transitions) -> tuple[Tensor, Tensor]:
        """Return features and targets as the posterior takes them."""
        x = self.codec.encode(transitions.state, transitions.action)
        y = self.codec.target(transitions.state, transitions.next_state)
        return x.to(self.posterior.dtype), y.to(self.posterior.dtype)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype | None = None,
        precision: torch.dtype | None = None,
    ) -> Dynamics:
        """Draw n dynamics that compute in `dtype`, best that of the states to come (default: the posterior's own).

        `precision` is for the hidden layers of networks: torch.bfloat16 is faster where the processor has products of it (AVX-512
        BF16, AMX, or a GPU), and slower elsewhere. States, codec, last layer and variances stay in `dtype`.

        Raises `ConfigurationError` for n < 1 and for a posterior that cannot compute in `precision`, `NotFittedError` before `fit`.
        """
        dtype = dtype or self.posterior.dtype
        function = self.posterior.sample(n, generator).to(dtype=dtype).for_many_rows()
        if precision is not None:
            function = function.with_precision(precision)
        return Dynamics(self.codec.frozen(dtype), function, snapshot(self)._closed_form)

    def belief_dynamics(
        self, *, process_noise: bool = False, observation_noise: Float[Tensor, "S"] | None = None
    ) -> BeliefDynamics:
        """Return how Gaussian beliefs over the state move, by moment matching: exact for a Gaussian process with an RBF kernel.

        `process_noise` adds the posterior's noise at every step; `observation_noise`, variances [S], is what a policy's input has
        beside the state's uncertainty. A snapshot: a later fit leaves it as it is.

        Raises `ConfigurationError` for a codec whose features are not linear in state, sines, cosines and action.
        """
        self.codec.check_fitted()
        moving = self._moving(self.posterior.moment_map(process_noise), observation_noise)
        if moving is None:
            raise ConfigurationError(
                "moment matching wants features that are columns of state, sines, cosines and action, and "
                f"{type(self.codec).__name__} has others; use Codec without choices, or trajectory sampling"
            )
        return moving

    def _closed_form(self) -> BeliefDynamics | None:
        """Return how beliefs move, the posterior's noise included as a draw's is, if there is a closed form."""
        change = self.posterior.exact_moment_map(process_noise=True)
        return None if change is None else self._moving(change)

    def _moving(self, change: MomentMap, observation_noise: Float[Tensor, "S"] | None = None) -> BeliefDynamics | None:
        codec, layout = self.codec, self.codec.belief_layout()
        if layout is None:
            return None
        scales = (codec.feature_mean, codec.feature_std, codec.target_mean, codec.target_std)
        state_size, action_size = codec.sizes.tolist()
        return BeliefDynamics(
            change.rescaled(*(scale.to(self.posterior.dtype) for scale in scales)),
            state_size=state_size,
            action_size=action_size,
            inputs=layout.inputs,
            angles=layout.angles,
            absolute=layout.absolute,
            relative=dict(layout.relative),
            observation_noise=observation_noise,
        )

    def predict(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Predictive:
        """Return p(s' | s, a, D) over the predicted coordinates of the next state (`codec.outputs`), in physical units.

        Angles continue those of `state`: log_prob wants them as s + wrapped difference. Raises `NotFittedError` before `fit` and
        `ShapeError` for other sizes than the fitted ones.
        """
        whitened = self.predict_target(state, action)
        mean = whitened.component_mean.to(self.codec.target_std.dtype)
        placed = self.codec.predicted(state, self.codec.unwhiten(Gaussian(mean, whitened.component_epistemic_var)))
        noise = self.codec.unwhiten(Gaussian(mean, whitened.component_aleatoric_var))
        return Predictive(*(part.to(state.dtype) for part in (placed.mean, placed.var, noise.var)))

    def predict_target(self, state: Float[Tensor, "*batch S"], action: Float[Tensor, "*batch A"]) -> Predictive:
        """Return the predictive of the whitened target, in units of the training targets' std: the scale of all scores."""
        return self.posterior.predict(self.codec.encode(state, action).to(self.posterior.dtype))

    def save(self, path: str | Path) -> None:
        """Write all learned tensors to `path` (safetensors), atomically."""
        save_tensors(path, self.state_dict(), {"settings": json.dumps(self._settings())}, kind="model")

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote into this model, which must have the same codec and posterior.

        Raises `FileError` if the file is missing, damaged or of another model; this model then stays as it was.
        """
        tensors, metadata = load_tensors(path, kind="model")
        changed = differences(json.loads(metadata.get("settings", "{}")), self._settings())
        if changed:
            raise FileError(f"{path} holds another model ({'; '.join(changed)}); make this one with the same codec and posterior")
        before = dict(self.state_dict())
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            self.load_state_dict(before)
            raise FileError(f"{path} does not fit this model: {error}") from error

    def _settings(self) -> dict[str, Any]:
        return json.loads(json.dumps({"posterior": describe(self.posterior), "codec": describe(self.codec)}))
