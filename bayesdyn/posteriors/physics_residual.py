"""`WithResidual`: a posterior plus a second one of what the first leaves unexplained."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.functions import Function
from bayesdyn.numerics import fresh_generator, keep_buffers_on_error
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data, r_squared
from bayesdyn.posteriors.standardize import Standardize, grouped
from bayesdyn.progress import Progress


class WithResidual(Posterior):
    r"""p(y | x, D) of y = f(x) + r(x) + ε: f from `base` (known physics), r from `residual`, a GP or a network, on what is left.

        f ~ p(f | D),   r ~ p(r | x, y - E f(x)),   ε ~ the residual's noise

    The residual is fitted to y - E f(x), whitened on its own (`Standardize`). Both are drawn independently and added. The noise of
    `base` held all that f could not explain, which is now r plus the residual's noise, so that alone is the aleatoric variance.
    The residual does not know which f was drawn: where data could tell f from r, the sum is a little too uncertain, and the
    parameters of f are those of the fit without r, which a large r pulls.

    >>> from bayesdyn.posteriors import ExactGP, MaximumLikelihood
    >>> WithResidual(MaximumLikelihood(), ExactGP()).sizes
    (0, 0)
    """

    def __init__(self, base: Posterior, residual: Posterior) -> None:
        super().__init__()
        self.base, self.residual = base, Standardize(residual)

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E) of both, (0, 0) before `fit`."""
        return self.base.sizes if self.base.sizes == self.residual.sizes else (0, 0)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the base works in."""
        return self.base.dtype

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Fit the base, then the residual on y minus the base's mean.

        The report is the base's, with the residual's nll, R² of the sum, and penalty, steps and warnings of both.

        Raises what the two raise; both are then as they were.
        """
        return self._fit(self.base.fit, self.residual.fit, x, y, warm_start, generator, progress)

    def fit_groups(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        groups: Int[Tensor, " N"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Fit as `fit` does; rows with one number in `groups` belong together."""
        base, residual = (partial(grouped, part, groups) for part in (self.base, self.residual))
        return self._fit(base, residual, x, y, warm_start, generator, progress)

    def _fit(
        self,
        base: Callable[..., FitReport],
        residual: Callable[..., FitReport],
        x: Tensor,
        y: Tensor,
        warm_start: bool,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> FitReport:
        check_training_data(x, y)
        begun = time.perf_counter()
        generator = generator or torch.Generator().manual_seed(0)
        with keep_buffers_on_error(self):
            first = base(x, y, warm_start=warm_start, generator=generator, progress=progress)
            known = self.base.predict(x).mean.detach()
            second = residual(x, y - known, warm_start=warm_start, generator=generator, progress=progress)
        total = known + self.residual.predict(x).mean
        return replace(
            first,
            nll=second.nll,
            penalty=first.penalty + second.penalty,
            steps=first.steps + second.steps,
            seconds=time.perf_counter() - begun,
            r2_train=r_squared(y, total.detach()),
            r2_held_out=None,
            warnings=first.warnings + second.warnings,
        )

    def append(self, x: Float[Tensor, "k D"], y: Float[Tensor, "k E"]) -> None:
        """Take k more rows into account where that is exact and cheap: the residual does, with the base's mean as it is."""
        self.check_fitted()
        check_training_data(x, y, minimum=1)
        self.residual.append(x, y - self.base.predict(x).mean)

    def sample(self, n: int, generator: torch.Generator | None = None) -> "SumFunction":
        """Draw n functions of both, independently.

        Raises `ConfigurationError` for n < 1 and `NotFittedError` before `fit`.
        """
        self.check_sample(n)
        generator = generator or fresh_generator()
        return SumFunction(self.base.sample(n, generator), self.residual.sample(n, generator))


class SumFunction(Function):
    """Draw by draw f_i(x) + r_i(x), with the noise variance of r_i."""

    def __init__(self, base: Function, residual: Function) -> None:
        self.n, self.inputs, self.outputs = base.n, base.inputs, base.outputs
        self.base, self.residual = base, residual

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x [n or 1, ..., D]; raises `ShapeError` for another number of draws or features."""
        self.check_inputs(x)
        rest = self.residual(x)
        return Gaussian(self.base(x).mean + rest.mean, rest.var)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "SumFunction":
        """Return the same draws cast or moved."""
        return SumFunction(self.base.to(dtype=dtype, device=device), self.residual.to(dtype=dtype, device=device))
