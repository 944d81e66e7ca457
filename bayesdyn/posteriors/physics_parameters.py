"""The parameters of a physics model: their priors, their place in a flat row, and the noise of what is observed."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from math import isfinite, prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to

from bayesdyn.errors import ConfigurationError, ShapeError

NOISE = "noise_std"
OBSERVED = "next_state"


class Parameters:
    """Named parameters with independent priors, side by side in θ [..., P] in the order given; priors are kept in float64.

    Raises `ConfigurationError` for no prior, a name that the model needs itself, or anything but Pyro distributions.

    >>> from pyro.distributions import LogNormal, Normal
    >>> parameters = Parameters({"mass": LogNormal(0.0, 0.5), "force": Normal(torch.zeros(2), 1.0)})
    >>> parameters.labels
    ('mass', 'force[0]', 'force[1]')
    """

    def __init__(self, priors: Mapping[str, Any]) -> None:
        from pyro.distributions.torch_distribution import TorchDistributionMixin  # Pyro is slow to import

        if not priors:
            raise ConfigurationError(
                'a physics posterior wants at least one prior, as {"mass": pyro.distributions.LogNormal(0, 0.5)}'
            )
        for name, prior in priors.items():
            if name in (NOISE, OBSERVED):
                raise ConfigurationError(f"the name {name!r} belongs to the model itself; name the parameter otherwise")
            if not isinstance(prior, TorchDistributionMixin):
                raise ConfigurationError(f"the prior of {name!r} wants to be from pyro.distributions; got {prior!r}")
        # The axes of a batch of priors are axes of one parameter.
        self.priors: dict[str, Any] = {
            name: _cast(copy.deepcopy(prior).to_event(len(prior.batch_shape)), set()) for name, prior in priors.items()
        }
        self.shapes = {name: tuple(prior.event_shape) for name, prior in self.priors.items()}

    @property
    def size(self) -> int:
        """P."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per number of θ."""
        return tuple(label for name, shape in self.shapes.items() for label in labels(name, shape))

    def flat(self, values: Mapping[str, Tensor]) -> Float[Tensor, "n P"]:
        """Return θ of values [n, *event]."""
        return torch.cat([values[name].reshape(len(values[name]), -1) for name in self.shapes], 1)

    def named(self, theta: Float[Tensor, "n P"]) -> dict[str, Tensor]:
        """Return the values [n, *event] of θ."""
        columns = theta.split([prod(shape) for shape in self.shapes.values()], 1)
        return {n: c.reshape(len(theta), *shape) for (n, shape), c in zip(self.shapes.items(), columns, strict=True)}

    def unconstrained(self, theta: Float[Tensor, "n P"]) -> Float[Tensor, "n Q"]:
        """Return θ on scales without bounds (positive parameters: their logarithms)."""
        values = self.named(theta)
        return torch.cat([biject_to(p.support).inv(values[n]).reshape(len(theta), -1) for n, p in self.priors.items()], 1)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return draws from the priors, [count, *event]; the global random state stays as it was."""
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            return {name: prior.sample((count,)) for name, prior in self.priors.items()}

    def log_prior(self, theta: Float[Tensor, "n P"]) -> Float[Tensor, " n"]:
        """Return log p(θ)."""
        values = self.named(theta)
        return torch.stack([prior.log_prob(values[name]) for name, prior in self.priors.items()]).sum(0)


def labels(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return one name per entry of a tensor.

    >>> labels("force", (2,)), labels("mass", ())
    (('force[0]', 'force[1]'), ('mass',))
    """
    entries = torch.cartesian_prod(*(torch.arange(size) for size in shape)).reshape(-1, len(shape)).tolist() if shape else []
    return tuple(f"{name}{entry}".replace(" ", "") for entry in entries) if shape else (name,)


def with_points_axis(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return values [n, *event] as [n, 1, *event], which meet states [n, points, S]."""
    return {name: value.unsqueeze(1) for name, value in values.items()}


class Noise(ABC):
    """How large the observation noise of each output is; frozen, hashable."""

    @abstractmethod
    def draw(self, scale: Float[Tensor, " E"]) -> Float[Tensor, "*chains E"]:
        """Return the std in a Pyro model, stating a site for it if it is not known; `scale` is the std of the targets."""

    @abstractmethod
    def std(self, values: Mapping[str, Tensor], scale: Float[Tensor, " E"], n: int) -> Float[Tensor, "n E"]:
        """Return the std of n draws of the model's sites."""

    @abstractmethod
    def values(self, std: Float[Tensor, "n E"], scale: Float[Tensor, " E"]) -> dict[str, Tensor]:
        """Return the site's values that `std` came from."""


@dataclass(frozen=True)
class LearnedNoise(Noise):
    """σ_e = s_e (floor + η_e), η_e ~ HalfNormal(1), where s_e is the std of target e: from a thousandth of it to about twice.

    The floor keeps the posterior proper for outputs that the step predicts without error.

    Raises `ConfigurationError` for a floor that is not positive.

    >>> LearnedNoise().std({"noise_std": torch.tensor([[0.1]])}, torch.tensor([2.0]), 1)
    tensor([[0.2020]])
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise ConfigurationError(
                f"the floor of learned noise, a share of the targets' std, wants to be in (0, 1); got {self.floor}"
            )

    def draw(self, scale: Float[Tensor, " E"]) -> Float[Tensor, "*chains E"]:
        """State the site of η and return σ."""
        import pyro

        share = pyro.sample(NOISE, pyro.distributions.HalfNormal(torch.ones_like(scale)).to_event(1))
        return scale * (self.floor + share)

    def std(self, values: Mapping[str, Tensor], scale: Float[Tensor, " E"], n: int) -> Float[Tensor, "n E"]:
        """Return σ."""
        return scale * (self.floor + values[NOISE])

    def values(self, std: Float[Tensor, "n E"], scale: Float[Tensor, " E"]) -> dict[str, Tensor]:
        """Return η, at least a tenth of the floor: the scale may be another one than when σ was found."""
        return {NOISE: (std / scale - self.floor).clamp_min(0.1 * self.floor)}


@dataclass(frozen=True)
class KnownNoise(Noise):
    """A std per output in the units of the state, or one for all, that is known and not inferred.

    Raises `ConfigurationError` for a std that is not positive, and `ShapeError` when used with another number of outputs.

    >>> KnownNoise((0.1, 0.2)).draw(torch.ones(2))
    tensor([0.1000, 0.2000])
    """

    known: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.known or not all(std > 0 and isfinite(std) for std in self.known):
            raise ConfigurationError(f"known noise wants positive finite standard deviations; got {self.known}")

    def draw(self, scale: Float[Tensor, " E"]) -> Float[Tensor, "*chains E"]:
        """Return the known σ."""
        if len(self.known) not in (1, len(scale)):
            raise ShapeError(f"known noise wants one std or one per output, {len(scale)}; got {len(self.known)}")
        return torch.tensor(self.known, dtype=scale.dtype, device=scale.device).expand(len(scale))

    def std(self, values: Mapping[str, Tensor], scale: Float[Tensor, " E"], n: int) -> Float[Tensor, "n E"]:
        """Return the known σ, n times."""
        return self.draw(scale).expand(n, -1).clone()

    def values(self, std: Float[Tensor, "n E"], scale: Float[Tensor, " E"]) -> dict[str, Tensor]:
        """Return nothing: there is no site."""
        return {}


@singledispatch
def _cast(value: Any, seen: set[int]) -> Any:
    """Return the value with all tensors in it in float64; distributions and transforms are changed in place, each once."""
    return value


@_cast.register
def _(value: Tensor, seen: set[int]) -> Tensor:
    return value.double() if value.is_floating_point() else value


@_cast.register(Distribution | Transform)
def _(value: Any, seen: set[int]) -> Any:
    # A transform and its inverse know each other.
    if id(value) not in seen:
        seen.add(id(value))
        vars(value).update({name: _cast(part, seen) for name, part in list(vars(value).items())})
    return value


@_cast.register(list | tuple)
def _(value: Any, seen: set[int]) -> Any:
    return type(value)([_cast(part, seen) for part in value])
