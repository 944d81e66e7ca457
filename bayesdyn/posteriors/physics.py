"""`Physics`: a posterior over the few parameters of a known dynamics step (system identification)."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.functions import Function
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data, r_squared
from bayesdyn.posteriors.physics_inference import Inference, Inferred, NUTSInference, VariationalInference
from bayesdyn.posteriors.physics_parameters import NOISE, OBSERVED, LearnedNoise, Noise, Parameters, labels, with_points_axis
from bayesdyn.progress import Progress

_MOST_FOR_NUTS = 20  # parameters up to which chains are the default
_PREDICTIVE_DRAWS = 256
_SCORED_DRAWS = 64
_DETERMINED = 0.95  # a correlation beyond which two parameters count as known only together
_CHECKED_SETS, _CHECKED_ROWS, _CHECK_TOLERANCE = 3, 2, 1e-5

_ADVICE = (
    "write it with ..., as in theta, omega = state[..., 0], state[..., 1] and torch.stack([...], -1): a scalar parameter has shape "
    "[n, 1] and meets state[..., 0], [n, points]"
)

# (state [n, points, S], action [n, points, A], parameters [n, 1, ...]) -> next state [n, points, S]
Step = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class ParameterSummary:
    """What the posterior says of one number; R-hat is NaN for variational inference, `effective` the number of effective draws."""

    name: str
    mean: float
    std: float
    r_hat: float
    effective: float


@dataclass(frozen=True)
class PhysicsReport(FitReport):
    """A `FitReport` with the posterior of every parameter and of the noise, and the transitions that diverged."""

    summary: tuple[ParameterSummary, ...] = ()
    divergences: int = 0


class Physics(Posterior):
    r"""p(θ, σ | D) of s' = step(s, a, θ) + ε, ε ~ N(0, diag σ²), θ ~ the given priors; x = (s, a), y = s', in physical units.

    `step(state, action, parameters)` maps state [n, points, S] and action [n, points, A] to the next state [n, points, S], with
    `parameters[name]` [n, 1, ...]: written with `...` (`state[..., 0]`, `torch.stack([...], -1)`), it serves all draws at once.
    `RK4` and `AdaptiveODE` make a step of a differential equation. S is the size of the targets, A what is left of the features, so
    a `DynamicsModel` wants an `IdentityCodec`. `priors` are Pyro distributions; take LogNormal ones for positive parameters.

    `inference` is `NUTSInference()` or `VariationalInference()`; None takes the first up to 20 parameters and the second beyond.
    `noise` is `LearnedNoise()`, or `KnownNoise((std, ...))`. Computations are in float64. `sample` takes stored draws without
    replacement, and `predict` is the mixture over 256 of them, evenly spread.

    Only the targets may be noisy: noise in the states that a step starts from pulls the parameters towards less dependence (errors
    in variables), which a one-step regression cannot see.

    Raises `ConfigurationError` for priors without a meaning.

    >>> from pyro.distributions import Normal
    >>> x = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(20, 2)
    >>> def step(state, action, parameters): return state + parameters["gain"].unsqueeze(-1) * action
    >>> posterior = Physics(step, {"gain": Normal(0.0, 1.0)}, inference=VariationalInference(steps=30))
    >>> report = posterior.fit(x, x[:, :1] + 0.7 * x[:, 1:], generator=torch.Generator().manual_seed(0))
    >>> round(report.summary[0].mean, 2), posterior.sample(5).n
    (0.7, 5)
    """

    theta: Tensor
    noise_std: Tensor
    widths: Tensor

    def __init__(
        self,
        step: Step,
        priors: Mapping[str, Any],
        *,
        inference: Inference | None = None,
        noise: Noise = LearnedNoise(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.step, self.priors, self.noise = step, Parameters(priors), noise
        few = self.priors.size <= _MOST_FOR_NUTS
        self.inference = inference or (NUTSInference() if few else VariationalInference())
        self.register_buffer("theta", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("noise_std", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("widths", torch.zeros(2, dtype=torch.int64))

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E) = (S + A, S) of the fitted posterior, (0, 0) before `fit`."""
        inputs, outputs = self.widths.tolist()
        return inputs, outputs

    @property
    def parameter_draws(self) -> dict[str, Tensor]:
        """The stored draws of every parameter by name, [draws, ...]; raises `NotFittedError` before `fit`."""
        self.check_fitted()
        return self.priors.named(self.theta)

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> PhysicsReport:
        """Infer p(θ, σ | D), from the priors or with `warm_start` from where the last fit ended.

        The report has the expected nll and, as its penalty, E[-log p(θ)]/N, under the posterior. Warnings name parameters that the
        data determine only together, chains that disagree, and divergences.

        Raises `ConfigurationError` for a step that does not serve several parameter sets at once, `ShapeError` or `DataError` for
        unusable data, `NumericalError` where no draw from the priors has a finite density.
        """
        check_training_data(x, y)
        if x.shape[1] < y.shape[1]:
            raise ShapeError(f"x = (state, action) wants at least the {y.shape[1]} columns of the state y; got {list(x.shape)}")
        begun = time.perf_counter()
        generator = generator or torch.Generator().manual_seed(0)
        warm = warm_start and self.sizes[0] > 0
        if warm and self.sizes != (x.shape[1], y.shape[1]):
            raise ShapeError(f"a warm start wants the sizes of the last fit, {self.sizes}; got {(x.shape[1], y.shape[1])}")
        x, y = x.detach().double(), y.detach().double()
        scale = _scale(y)
        check_step(self.step, self.priors, x, y.shape[1], generator)
        last = {**self.parameter_draws, **self.noise.values(self.noise_std, scale)} if warm else None
        with torch.enable_grad():
            found = self.inference.infer(self._model(x, y, scale), last, generator, progress)
        theta = self.priors.flat(found.values)
        if not bool(theta.isfinite().all()):
            raise NumericalError("draws of the parameters are not finite; the model overflows at some values, narrow the priors")
        self.theta, self.noise_std = theta, self.noise.std(found.values, scale, len(theta))
        self.widths = torch.tensor([x.shape[1], y.shape[1]])
        return self._report(found, x, y, begun)

    def _model(self, x: Tensor, y: Tensor, scale: Tensor) -> Callable[[], None]:
        import pyro

        state, action = x[:, : y.shape[1]], x[:, y.shape[1] :]

        def model() -> None:
            values = {name: pyro.sample(name, prior) for name, prior in self.priors.priors.items()}
            std = self.noise.draw(scale).unsqueeze(-2)
            draws = len(next(iter(values.values())))
            mean = self.step(state.expand(draws, -1, -1), action.expand(draws, -1, -1), with_points_axis(values))
            pyro.sample(OBSERVED, pyro.distributions.Normal(mean, std).to_event(2), obs=y)

        return model

    def sample(self, n: int, generator: torch.Generator | None = None) -> "PhysicsFunction":
        """Take n stored draws: without replacement while n is at most their number, else whole repeats and a remainder.

        Raises `ConfigurationError` for n < 1 and `NotFittedError` before `fit`.
        """
        self.check_sample(n)
        generator, stored = generator or fresh_generator(), len(self.theta)
        orders = [torch.randperm(stored, generator=generator, device=generator.device) for _ in range(math.ceil(n / stored))]
        return self._function(torch.cat(orders)[:n].to(self.theta.device))

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return p(s' | s, a, D): the mixture over 256 stored draws, evenly spread over the chains (all, if there are fewer)."""
        self.check_inputs(x)
        return Predictive.from_draws(self._function(self._spread(_PREDICTIVE_DRAWS))(x.unsqueeze(0)))

    def _spread(self, count: int) -> Tensor:
        stored = len(self.theta)
        return torch.arange(min(count, stored), device=self.theta.device) * stored // min(count, stored)

    def _function(self, rows: Tensor) -> "PhysicsFunction":
        return PhysicsFunction(self.step, self.priors.named(self.theta[rows]), self.noise_std[rows].square(), self.sizes[0])

    @torch.no_grad()
    def _report(self, found: Inferred, x: Tensor, y: Tensor, begun: float) -> PhysicsReport:
        mean, var = self._function(self._spread(_SCORED_DRAWS))(x.unsqueeze(0))
        nll = 0.5 * ((y - mean).square() / var + (2 * math.pi * var).log()).sum(-1).mean()
        summary = self._summary(found)
        return PhysicsReport(
            nll=float(nll),
            penalty=-float(self.priors.log_prior(self.theta).mean()) / len(x),
            steps=found.steps,
            seconds=time.perf_counter() - begun,
            r2_train=r_squared(y, mean.mean(0)),
            warnings=found.warnings + self._undetermined(),
            curves=found.curves,
            summary=summary,
            divergences=found.divergences,
        )

    def _summary(self, found: Inferred) -> tuple[ParameterSummary, ...]:
        rows: list[ParameterSummary] = []
        noise = {NOISE: self.noise_std} if NOISE in found.values else {}
        for name, value in {**self.parameter_draws, **noise}.items():
            parts = (value.mean(0), value.std(0), found.r_hat[name], found.effective[name])
            entries = zip(labels(name, tuple(value.shape[1:])), *(part.flatten().tolist() for part in parts), strict=True)
            rows += [ParameterSummary(*entry) for entry in entries]
        return tuple(rows)

    def _undetermined(self) -> tuple[str, ...]:
        """Return a sentence for each pair of parameters that the data determine only together, on scales without bounds."""
        z, names = self.priors.unconstrained(self.theta), self.priors.labels
        if z.shape[1] != len(names):
            return ()  # a simplex, for one, has fewer free numbers than entries
        std = z.std(0)
        whitened = (z - z.mean(0)) / torch.where(std > 0, std, 1.0)
        correlation = (whitened.mT @ whitened / len(z)).triu(1)
        return tuple(
            f"{names[i]} and {names[j]} have a correlation of {float(correlation[i, j]):+.3f}: the data determine only a "
            "combination of them, such as their ratio or product; fix one of them, or vary the states and actions more"
            for i, j in (correlation.abs() > _DETERMINED).nonzero().tolist()
        )


class PhysicsFunction(Function):
    """n steps with parameters drawn from p(θ|D): mean step(s, a, θ_i), var σ_i²; answers in the dtype of x, whatever its own."""

    def __init__(self, step: Step, values: Mapping[str, Tensor], var: Float[Tensor, "n E"], inputs: int) -> None:
        self.n, self.inputs, self.outputs = len(var), inputs, var.shape[1]
        self.step, self.values, self.var = step, dict(values), var
        self._parameters = with_points_axis(self.values)

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Step from x = (state, action) [n or 1, ..., S + A]; raises `ShapeError` for other sizes."""
        self.check_inputs(x)
        batch = x.shape[1:-1]
        rows = x.to(self.var.dtype).reshape(x.shape[0], math.prod(batch), self.inputs).expand(self.n, -1, -1)
        mean = self.step(rows[..., : self.outputs], rows[..., self.outputs :], self._parameters)
        mean = mean.reshape(self.n, *batch, self.outputs).to(x.dtype)
        var = self.var.to(x.dtype).reshape(self.n, *(1,) * len(batch), self.outputs)
        return Gaussian(mean, var.expand(mean.shape))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "PhysicsFunction":
        """Return the same draws with their parameters cast or moved."""
        moved = copy.copy(self)
        moved.values = {name: value.to(dtype=dtype, device=device) for name, value in self.values.items()}
        moved.var = self.var.to(dtype=dtype, device=device)
        moved._parameters = with_points_axis(moved.values)
        return moved


@torch.no_grad()
def check_step(step: Step, priors: Parameters, x: Float[Tensor, "N D"], outputs: int, generator: torch.Generator) -> None:
    """Raise `ConfigurationError` unless three parameter sets at once give what each of them gives alone, [3, points, S]."""
    rows = x[:_CHECKED_ROWS]
    values = priors.draw(_CHECKED_SETS, generator)

    def stepped(some: slice) -> Tensor:
        count = len(range(_CHECKED_SETS)[some])
        state, action = (part.expand(count, -1, -1) for part in (rows[:, :outputs], rows[:, outputs:]))
        try:
            answer = step(state, action, with_points_axis({name: value[some] for name, value in values.items()}))
        except (RuntimeError, IndexError, TypeError, ValueError, KeyError) as error:
            shapes = f"state {list(state.shape)}, action {list(action.shape)} and {count} parameter sets [{count}, 1, ...]"
            raise ConfigurationError(f"the step fails for {shapes}: {error}; {_ADVICE}") from error
        wanted = list(state.shape)
        if not isinstance(answer, Tensor) or list(answer.shape) != wanted:
            came = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ConfigurationError(f"the step wants to return the next state, a tensor {wanted}; got {came}; {_ADVICE}")
        return answer

    alone = torch.cat([stepped(slice(i, i + 1)) for i in range(_CHECKED_SETS)])
    together = stepped(slice(None))
    gap = (alone - together).abs().nan_to_num(0.0).max()
    if bool(gap > _CHECK_TOLERANCE * (1 + together.abs().nan_to_num(0.0).max())):
        raise ConfigurationError(
            f"the step gives other next states for {_CHECKED_SETS} parameter sets at once than for each alone, "
            f"by up to {float(gap):.3g}; {_ADVICE}"
        )


def _scale(y: Float[Tensor, "N E"]) -> Float[Tensor, " E"]:
    """Return the std of each target, or of a constant one its size (1 for 0)."""
    std, size = y.std(0, correction=0), y.abs().amax(0)
    return torch.where(std > 1e-10 * size, std, torch.where(size > 0, size, 1.0))
