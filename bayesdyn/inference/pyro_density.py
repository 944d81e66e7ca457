"""The density of a Pyro model's unobserved sites, for many parameter values at once, over unconstrained rows of numbers."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from bayesdyn.errors import NumericalError, ShapeError

_STARTS = 16  # draws from the prior per chain, of which the best is its start


class PyroDensity:
    """log p(data, sites) of a Pyro model over z [C, P], the sites' values mapped to all real numbers, side by side.

    `model` is evaluated for C values at once, inside `pyro.plate("chains", C)`: a site `Normal(0, 1)` has the value [C], a site
    with `to_event(1)` over P numbers [C, P], and observations want one density per row, `Normal(mean, std).to_event(2)` for a mean
    [C, N, E]. It computes in the dtype of its own distributions. The global random state stays as it was.

    Raises `ShapeError` where a site has no single density per row.

    >>> from pyro.distributions import LogNormal
    >>> density = PyroDensity(lambda: pyro.sample("mass", LogNormal(0.0, 1.0)), torch.Generator().manual_seed(0))
    >>> density.constrained(torch.zeros(3, 1))
    {'mass': tensor([1., 1., 1.])}
    """

    def __init__(self, model: Callable[[], object], generator: torch.Generator) -> None:
        self.model = model
        sites = self._prior(1, generator)
        self.transforms = {name: biject_to(site["fn"].support) for name, site in sites.items()}
        free = {name: self.transforms[name].inv(site["value"]) for name, site in sites.items()}
        self.shapes = {name: value.shape[1:] for name, value in free.items()}

    def prior_draws(self, count: int, generator: torch.Generator) -> Float[Tensor, "count P"]:
        """Return independent draws from the prior."""
        return self.flat({name: site["value"] for name, site in self._prior(count, generator).items()})

    def starts(self, chains: int, generator: torch.Generator) -> Float[Tensor, "chains P"]:
        """Return for each chain the densest of 16 draws from the prior; raises `NumericalError` where none has a finite density."""
        z = self.prior_draws(_STARTS * chains, generator)
        with torch.no_grad():
            log_density = self(z).nan_to_num(-math.inf, -math.inf, -math.inf).reshape(chains, _STARTS)
        if not bool(log_density.amax(1).isfinite().all()):
            raise NumericalError(
                f"none of {_STARTS} draws from the prior has a finite density; narrow the priors to where the model is finite"
            )
        return z.unflatten(0, (chains, _STARTS))[torch.arange(chains), log_density.argmax(1)]

    def flat(self, values: dict[str, Tensor]) -> Float[Tensor, "*batch P"]:
        """Return the rows z of the sites' values, [..., *event] each."""
        free = {name: self.transforms[name].inv(values[name]).detach() for name in self.shapes}
        return torch.cat([v.reshape(*v.shape[: v.dim() - len(self.shapes[n])], -1) for n, v in free.items()], -1)

    def constrained(self, z: Float[Tensor, "*batch P"]) -> dict[str, Tensor]:
        """Return the sites' values, [..., *event] each."""
        return {name: self.transforms[name](part) for name, part in self._parts(z).items()}

    def __call__(self, z: Float[Tensor, "C P"]) -> Float[Tensor, " C"]:
        """Return log p(data, sites) + log |∂sites/∂z| of each row."""
        parts = self._parts(z)
        values = {name: self.transforms[name](part) for name, part in parts.items()}
        with pyro.validation_enabled(False), _explained(len(z)):
            trace = poutine.trace(poutine.condition(self._in_plate(len(z)), data=values)).get_trace()
            trace.compute_log_prob()
        total = z.new_zeros(len(z))
        for name, site in _sites(trace).items():
            if site["log_prob"].shape != total.shape:
                came = f"got {list(site['log_prob'].shape)}; declare the other axes with to_event"
                raise ShapeError(f"site {name!r} wants one density for each of the {len(z)} rows; {came}")
            total = total + site["log_prob"]
        for name, part in parts.items():
            total = total + self.transforms[name].log_abs_det_jacobian(part, values[name])
        return total

    def _parts(self, z: Tensor) -> dict[str, Tensor]:
        columns = z.split([shape.numel() for shape in self.shapes.values()], -1)
        return {name: c.reshape(*z.shape[:-1], *self.shapes[name]) for name, c in zip(self.shapes, columns, strict=True)}

    def _prior(self, count: int, generator: torch.Generator) -> dict[str, Any]:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        # Pyro draws from the global random state.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), pyro.validation_enabled(False), torch.no_grad():
            torch.manual_seed(seed)
            with _explained(count):
                trace = poutine.trace(self._in_plate(count)).get_trace()
        return {name: site for name, site in _sites(trace).items() if not site["is_observed"]}

    def _in_plate(self, count: int) -> Callable[[], None]:
        def model() -> None:
            with pyro.plate("chains", count, dim=-1):
                self.model()

        return model


@contextmanager
def _explained(count: int) -> Iterator[None]:
    """Raise `ShapeError` for the errors of shapes that do not broadcast, which Pyro and torch raise as general ones."""
    try:
        yield
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise
    except (ValueError, RuntimeError) as error:
        raise ShapeError(
            f"the model fails for {count} chains at once: {error}; sites want one density per chain, [{count}], with all other "
            "axes declared by to_event"
        ) from error


def _sites(trace: Any) -> dict[str, Any]:
    return {n: site for n, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)}
