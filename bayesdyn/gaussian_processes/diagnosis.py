"""What to tell the user about a fitted Gaussian process: parameters at a bound, unusual scales, why a covariance is singular."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.errors import ConfigurationError, DataError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.training import GPTraining, Hyperparameters

_LARGEST_DISTANCE_ROWS = 4000
_HOPELESS = 100.0


class AtBound(NamedTuple):
    """One hyper-parameter that ended at a bound of its interval."""

    name: str
    output: int
    feature: int | None
    side: str
    value: float

    def __str__(self) -> str:
        place = f"output {self.output}" + ("" if self.feature is None else f", feature {self.feature}")
        return f"{self.name}[{place}] = {self.value:g} ({self.side} bound)"


def at_bounds(values: Hyperparameters, training: GPTraining, linear: bool) -> list[AtBound]:
    """Return every hyper-parameter within 1 % of a bound."""
    named: list[tuple[str, Tensor, tuple[float, float]]] = [
        ("lengthscale", values.kernel.lengthscale, training.lengthscale),
        ("signal_var", values.kernel.signal_var, training.signal_var),
        ("noise_var", values.noise_var, training.noise_var),
    ]
    if linear:
        named.append(("linear_var", values.kernel.linear_var, training.linear_var))
    found = []
    for name, tensor, (lower, upper) in named:
        for side, hit, bound in (("lower", tensor <= 1.01 * lower, lower), ("upper", tensor >= 0.99 * upper, upper)):
            for index in hit.nonzero().tolist():
                found.append(AtBound(name, index[0], index[1] if len(index) > 1 else None, side, bound))
    return found


def bound_warnings(bounds: list[AtBound]) -> tuple[str, ...]:
    """Return a sentence for each kind of bound that makes a fit suspicious; a long length-scale only means an unused feature."""
    causes = {
        ("lengthscale", "lower"): "the function changes faster than the data resolve; predictions are over-confident. Look for "
        "quantised or interpolated targets, or add a linear part",
        ("signal_var", "lower"): "the output looks constant",
        ("signal_var", "upper"): "the targets are not whitened, or the function is a trend; try RBFLinear",
        ("noise_var", "lower"): "the data look noiseless or hold repeated rows; the noise may be under-estimated",
        ("noise_var", "upper"): "the noise exceeds the whitened targets; are they whitened?",
    }
    found = []
    for (name, side), cause in causes.items():
        outputs = sorted({b.output for b in bounds if (b.name, b.side) == (name, side)})
        if outputs:
            found.append(f"{name} ended at its {side} bound for output {', '.join(map(str, outputs))}: {cause}")
    return tuple(found)


def check_target_scale(y: Float[Tensor, "N E"], training: GPTraining) -> None:
    """Raise `DataError` if an output is more than a hundred times larger than the prior can be, sure to be wrong by far.

    Targets that are too small only drown in the smallest noise allowed: what is said of them is vague, not wrong.
    """
    largest = (training.signal_var[1] + training.noise_var[1]) ** 0.5
    rms = y.detach().double().square().mean(0).sqrt()
    if bool((rms > _HOPELESS * largest).any()):
        raise DataError(
            f"y has a root mean square of {float(rms.max()):.2g} in column {int(rms.argmax())}, far beyond the largest prior "
            f"std, {largest:.2g}; whiten y first, or wrap the posterior, Standardize(posterior)"
        )


def explain_singular(error: NumericalError, x: Tensor, values: Hyperparameters) -> NumericalError:
    """Return an error that adds the likely cause of a singular K + σ²I: duplicate rows, a long length-scale or little noise."""
    closest = closest_rows(x / values.kernel.lengthscale.amin(0).to(x))
    longest, noise = float(values.kernel.lengthscale.max()), float(values.noise_var.min())
    return NumericalError(
        f"{error}. Smallest distance between two rows, in length-scales: {closest}; longest length-scale {longest:.3g}; smallest "
        f"noise variance {noise:.1e}. Remove duplicate rows, raise the noise variance or shorten the length-scale"
    )


def closest_rows(x: Float[Tensor, "N D"]) -> str:
    """Return the smallest distance between two of the first rows, as text."""
    distance = torch.pdist(x[:_LARGEST_DISTANCE_ROWS])
    return f"{float(distance.min()):.1e}" if distance.numel() else "none (one row)"


def check_hyperparameters(values: Hyperparameters, inputs: int, outputs: int, linear: bool) -> None:
    """Raise `ShapeError` or `ConfigurationError` unless the values are positive and of the sizes that D and E want."""
    wanted = {"lengthscale": (outputs, inputs), "signal_var": (outputs,), "linear_var": (outputs,), "noise_var": (outputs,)}
    given = {**values.kernel._asdict(), "noise_var": values.noise_var}
    for name, shape in wanted.items():
        check_positive(name, given[name], shape, zero=name == "linear_var" and not linear)


def check_positive(name: str, given: Tensor, shape: tuple[int, ...], *, zero: bool = False) -> None:
    """Raise `ShapeError` for another shape, `ConfigurationError` unless all values are finite and positive (or `zero` allowed)."""
    if tuple(given.shape) != shape:
        raise ShapeError(f"{name} wants shape {list(shape)}, for the D and E of the data; got {list(given.shape)}")
    if not zero and not bool((given.isfinite() & (given > 0)).all()):
        raise ConfigurationError(f"{name} wants positive finite numbers; got {given.tolist()}")
