"""What a model says about y: `Gaussian` on the hot path, `Predictive` for people and scores."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from bayesdyn.errors import ConfigurationError, ShapeError

_LOG_2PI = math.log(2 * math.pi)
_BISECTIONS = 80
_ELEMENTS_AT_ONCE = 2**20


class Gaussian(NamedTuple):
    """p(y | x, θ) for each of n draws: independent normal outputs.

    `mean` and `var` (a variance, not a standard deviation) have shape [n, ..., E].
    """

    mean: Float[Tensor, "*shape"]
    var: Float[Tensor, "*shape"]

    def sample(self, noise: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return mean + √var·noise; `noise` is standard normal and broadcasts against [n, ..., E]."""
        return self.mean + self.var.sqrt() * noise


class Predictive(Distribution):
    r"""The posterior predictive p(y | x, D), a mixture of m Gaussian components that keeps its two variances apart.

    Component i (a draw of θ, an ensemble member, or the one Gaussian of a GP) has mean μ_i, epistemic variance e_i (what is still
    unknown about f inside the component; 0 for a draw) and aleatoric variance a_i (noise). With population moments over i

        mean = E_i μ_i,   epistemic = Var_i μ_i + E_i e_i,   aleatoric = E_i a_i,   variance = epistemic + aleatoric

    (law of total variance). The density is the mixture's, never that of its moment-matched Gaussian.

    Shapes: the three tensors are [m, ..., E]; `batch_shape` is [...], `event_shape` is [E].

    Raises `ShapeError` if the tensors' shapes differ.

    >>> p = Predictive(torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1), torch.full((2, 1), 0.01))
    >>> p.epistemic_variance.item(), round(p.aleatoric_variance.item(), 6), round(p.stddev.item(), 3)
    (1.0, 0.01, 1.005)
    """

    has_rsample = False
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(
        self,
        component_mean: Float[Tensor, "m *batch E"],
        component_epistemic_var: Float[Tensor, "m *batch E"],
        component_aleatoric_var: Float[Tensor, "m *batch E"],
    ) -> None:
        shapes = {tuple(t.shape) for t in (component_mean, component_epistemic_var, component_aleatoric_var)}
        if len(shapes) != 1 or component_mean.dim() < 2:
            raise ShapeError(f"a Predictive wants three tensors of one shape [m, ..., E]; got {sorted(shapes)}")
        self.component_mean = component_mean
        self.component_epistemic_var = component_epistemic_var
        self.component_aleatoric_var = component_aleatoric_var
        super().__init__(component_mean.shape[1:-1], component_mean.shape[-1:], validate_args=False)

    @classmethod
    def from_draws(cls, gaussian: Gaussian) -> "Predictive":
        """Return the equal-weight mixture over n draws, [n, ..., E]."""
        return cls(gaussian.mean, torch.zeros_like(gaussian.mean), gaussian.var)

    @property
    def components(self) -> int:
        """Number of mixture components m."""
        return self.component_mean.shape[0]

    @property
    def component_var(self) -> Float[Tensor, "m *batch E"]:
        """Total variance of each component, e_i + a_i."""
        return self.component_epistemic_var + self.component_aleatoric_var

    @property
    def mean(self) -> Float[Tensor, "*batch E"]:
        """E_i μ_i."""
        return self.component_mean.mean(0)

    @property
    def epistemic_variance(self) -> Float[Tensor, "*batch E"]:
        """Var_i μ_i + E_i e_i: what more data would remove."""
        return self.component_mean.var(0, correction=0) + self.component_epistemic_var.mean(0)

    @property
    def aleatoric_variance(self) -> Float[Tensor, "*batch E"]:
        """E_i a_i: the noise that stays."""
        return self.component_aleatoric_var.mean(0)

    @property
    def variance(self) -> Float[Tensor, "*batch E"]:
        """Epistemic + aleatoric variance, exactly."""
        return self.epistemic_variance + self.aleatoric_variance

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Predictive":
        """Return the same distribution broadcast to `batch_shape`."""
        shape = (self.components, *batch_shape, *self.event_shape)
        parts = (self.component_mean, self.component_epistemic_var, self.component_aleatoric_var)
        extra = len(batch_shape) - len(self.batch_shape)
        return Predictive(*(p.reshape(p.shape[:1] + (1,) * extra + p.shape[1:]).expand(shape) for p in parts))

    def log_prob(self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return log (1/m) Σ_i Π_d N(y_d | μ_id, e_id + a_id), one number per batch element, [...]."""
        return self._component_log_prob(value).sum(-1).logsumexp(0) - math.log(self.components)

    def marginal_log_prob(self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return log (1/m) Σ_i N(y_d | μ_id, e_id + a_id), one number per output, [..., E]."""
        return self._component_log_prob(value).logsumexp(0) - math.log(self.components)

    def _component_log_prob(self, value: Tensor) -> Tensor:
        if value.shape[-1:] != self.event_shape:
            raise ShapeError(f"log_prob wants y of shape [..., {self.event_shape[0]}]; got {list(value.shape)}")
        mean, var = self._components_for(value)
        return -0.5 * ((value - mean).square() / var + var.log() + _LOG_2PI)

    def _components_for(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance with the component axis in front of any extra leading axes of `value`."""
        extra = max(value.dim() - (self.component_mean.dim() - 1), 0)
        shape = (self.components, *(1,) * extra, *self.component_mean.shape[1:])
        return self.component_mean.reshape(shape), self.component_var.reshape(shape)

    def sample(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
        """Return independent draws of y, `sample_shape` + [..., E]: a component per draw and batch element, then its noise.

        `sample_shape` is a size, a tuple of sizes or an int.
        """
        size = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        return self._draw(torch.Size((*size, *self.batch_shape)), generator)[1]

    def _draw(self, shape: torch.Size, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return which component was drawn, `shape`, and the y drawn from it, `shape` + [E]."""
        dtype, device = self.component_mean.dtype, self.component_mean.device
        index = torch.randint(self.components, shape, generator=generator, device=device)
        noise = torch.randn((*shape, *self.event_shape), generator=generator, dtype=dtype, device=device)
        mean, var = self._pick(self.component_mean, index), self._pick(self.component_var, index)
        return index, mean + var.sqrt() * noise

    def _pick(self, values: Tensor, index: Tensor) -> Tensor:
        flat = values.reshape(self.components, -1, values.shape[-1])
        position = torch.arange(flat.shape[1], device=values.device).reshape(self.batch_shape)
        return flat[index, position.expand(index.shape)]

    def cdf(self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the marginal F_d(y_d) = (1/m) Σ_i Φ((y_d - μ_id) / √(e_id + a_id)), [..., E]."""
        mean, var = self._components_for(value)
        return torch.special.ndtr((value - mean) / var.sqrt()).mean(0)

    def icdf(self, probability: float | Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the marginal quantiles F_d⁻¹(p), [..., E], by bisection; p lies in (0, 1) and broadcasts against [..., E]."""
        p = torch.as_tensor(probability, dtype=self.component_mean.dtype, device=self.component_mean.device)
        if not bool(((p > 0) & (p < 1)).all()):
            raise ConfigurationError("icdf wants probabilities strictly between 0 and 1")
        std = self.component_var.sqrt()
        low = (self.component_mean - 10 * std).amin(0)
        high = (self.component_mean + 10 * std).amax(0)
        low, high, p = (t.clone() for t in torch.broadcast_tensors(low, high, p))
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def interval(self, coverage: float) -> tuple[Float[Tensor, "*batch E"], Float[Tensor, "*batch E"]]:
        """Return the central interval of each output that holds `coverage` of the probability."""
        tail = 0.5 * (1.0 - coverage)
        return self.icdf(tail), self.icdf(1.0 - tail)

    def moment_matched(self) -> Gaussian:
        """Return the Gaussian with the mixture's mean and total variance, [..., E]."""
        return Gaussian(self.mean, self.variance)

    def aleatoric_entropy(self) -> Float[Tensor, "*batch"]:
        """Return E_i H[N(μ_i, e_i + a_i)] in nats, the entropy that remains when the component is known."""
        return (0.5 * (self.component_var.log() + _LOG_2PI + 1)).sum(-1).mean(0)

    def mutual_information(self, samples: int = 256, generator: torch.Generator | None = None) -> Float[Tensor, "*batch"]:
        """Return I(y; component) in nats, [...], as the Monte Carlo mean of log p(y | i) - log p(y) over pairs (i, y).

        Each term is at most log m, and 0 for m = 1, so the estimate is too. `samples` draws are taken per batch element, with a
        fixed seed unless a generator is given, so that the call is repeatable.
        """
        generator = generator or torch.Generator(self.component_mean.device).manual_seed(0)
        total = torch.zeros_like(self.component_mean[0, ..., 0])
        # In portions: [m, samples, ..., E] would not fit for many points.
        portion = max(_ELEMENTS_AT_ONCE // max(self.component_mean.numel(), 1), 1)
        for first in range(0, samples, portion):
            index, y = self._draw(torch.Size((min(portion, samples - first), *self.batch_shape)), generator)
            parts = self._component_log_prob(y).sum(-1)
            total += (parts.gather(0, index.unsqueeze(0)).squeeze(0) - parts.logsumexp(0)).sum(0)
        return total / samples + math.log(self.components)

    def entropy_estimate(self, samples: int = 256, generator: torch.Generator | None = None) -> Float[Tensor, "*batch"]:
        """Return I(y; component) + E_i H[y | i] = H[y], the differential entropy in nats, [...], estimated from `samples` draws."""
        return self.mutual_information(samples, generator) + self.aleatoric_entropy()

    def __repr__(self) -> str:
        return f"Predictive(components={self.components}, batch_shape={tuple(self.batch_shape)}, outputs={self.event_shape[0]})"
