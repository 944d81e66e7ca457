"""`Recalibrated`: any posterior, made as wide as its errors on held-out episodes are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesdyn.beliefs import MomentMap
from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.functions import Function
from bayesdyn.gaussian_processes.moment_map import GPMoments
from bayesdyn.numerics import keep_buffers_on_error
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data
from bayesdyn.posteriors.calibration_report import CalibrationReport
from bayesdyn.posteriors.held_out_rows import check_held_out, check_unseen, fingerprints
from bayesdyn.posteriors.mean_functions import mean_function
from bayesdyn.posteriors.quantile_map import QuantileMap
from bayesdyn.posteriors.scaled_moments import ScaledMoments
from bayesdyn.posteriors.scaling import ScaledFunction, Scales, Scaling, TotalScale
from bayesdyn.posteriors.standardize import grouped
from bayesdyn.progress import Progress


class Recalibrated(Posterior):
    r"""p(θ|D) of a posterior with its two parts scaled, per output, so that errors on held-out episodes are as large as predicted.

        f → f̄ + s_epi (f - f̄),   var → s_ale² var,   f̄ = E_θ f_θ

    A draw keeps its θ: s_epi moves its function away from the mean function or towards it at every input alike, s_ale multiplies
    its noise. `predict`, `sample`, planners and rollouts see the same scaled posterior, total = epistemic + aleatoric.

    `fit` learns as the wrapped posterior does and leaves the scales at 1: what was right for the last fit need not be for this one.
    `calibrate` then takes a calibration set of its own, of episodes that the fit has not seen (the wrapper remembers a fingerprint
    of each row that it was given, so it has to be there when the posterior is fitted), and finds the scales by `method`:
    `TotalScale()`, `CoverageScale()` or `TwoScales()`. `DynamicsModel.calibrate` does it from transitions. What is calibrated one
    step ahead need not be k steps ahead: look at both.

    A draw costs one more evaluation, of f̄: a mean for a Gaussian process, K networks for an ensemble, 64 for other networks.

    Raises `ConfigurationError` for another method.

    Source: Levi, Gispan, Giladi, Fetaya 2022; Malik, Kuleshov, Song, Nemer, Seymour, Ermon 2019 for models that plan.

    >>> from bayesdyn.posteriors import ExactGP
    >>> x = torch.linspace(-1, 1, 240, dtype=torch.float64).unsqueeze(1)
    >>> noise = 0.1 * torch.randn(240, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> rows = torch.arange(240)
    >>> train, held_out = rows % 6 == 0, rows % 6 > 0
    >>> model = Recalibrated(ExactGP())
    >>> report = model.fit(x[train], x[train].sin() + noise[train])
    >>> model.calibrate(x[held_out], x[held_out].sin() + 2 * noise[held_out], rows[held_out] // 40).episodes  # twice the noise
    6
    >>> bool(1.5 < model.aleatoric_scale[0] < 2.5)
    True
    """

    epistemic_scale: Tensor
    aleatoric_scale: Tensor
    seen: Tensor

    def __init__(self, posterior: Posterior, method: Scaling = TotalScale()) -> None:  # noqa: B008
        super().__init__()
        if not isinstance(method, Scaling):
            raise ConfigurationError(
                f"Recalibrated wants TotalScale(), CoverageScale() or TwoScales(), which draws of θ can follow; got {method!r}. "
                "A quantile map has no meaning under draws: apply it to what `predict` says of one step, and make it with "
                "Recalibrated.quantile_map"
            )
        self.posterior, self.method = posterior, method
        for name in ("epistemic_scale", "aleatoric_scale"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        self.register_buffer("seen", torch.empty(0, dtype=torch.int64))

    @property
    def sizes(self) -> tuple[int, int]:
        """(D, E) of the wrapped posterior."""
        return self.posterior.sizes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the wrapped posterior works in."""
        return self.posterior.dtype

    @property
    def calibrated(self) -> bool:
        """Whether `calibrate` has been called since the last `fit`."""
        return len(self.epistemic_scale) > 0

    @property
    def _scales(self) -> Scales:
        return Scales(self.epistemic_scale, self.aleatoric_scale)

    def fit(
        self,
        x: Float[Tensor, "N D"],
        y: Float[Tensor, "N E"],
        *,
        warm_start: bool = False,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> FitReport:
        """Fit the wrapped posterior, not calibrated until `calibrate` is called again; the report says so if it was before.

        Raises what the wrapped posterior raises; fit and scales then stay as they were.
        """
        return self._fit(self.posterior.fit, x, y, warm_start, generator, progress)

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
        return self._fit(partial(grouped, self.posterior, groups), x, y, warm_start, generator, progress)

    def _fit(
        self,
        fit: Callable[..., FitReport],
        x: Tensor,
        y: Tensor,
        warm_start: bool,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> FitReport:
        lost = ("the scales were those of the last fit and are back at 1; call calibrate again",) if self.calibrated else ()
        with keep_buffers_on_error(self):
            report = fit(x, y, warm_start=warm_start, generator=generator, progress=progress)
            self.seen = fingerprints(x, y)
            self.epistemic_scale = self.aleatoric_scale = self.epistemic_scale.new_empty(0)
        return replace(report, warnings=lost + report.warnings)

    def append(self, x: Float[Tensor, "k D"], y: Float[Tensor, "k E"]) -> None:
        """Take k more rows into account as the wrapped posterior does; the scales stay, as its hyper-parameters do."""
        self.check_fitted()
        self.posterior.append(x, y)
        self.seen = torch.cat([self.seen, fingerprints(x, y).to(self.seen.device)])

    @torch.no_grad()
    def calibrate(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], groups: Int[Tensor, " N"]) -> CalibrationReport:
        """Find the scales on N held-out rows of the episodes `groups` [N]; rows without time are an episode each, arange(N).

        It starts from the wrapped posterior each time, so that calling it again with other rows replaces the scales.

        Raises `NotFittedError` before `fit`, and `ConfigurationError` for a posterior that was fitted before it was wrapped;
        `DataError` for rows that the fit has seen, for fewer than 5 episodes or 200 rows, and for unusable rows; `ShapeError` for
        other sizes than the fitted ones.
        """
        self._check_held_out(x, y, groups)
        said, truth = _double(self.posterior.predict(x)), y.double()
        scales = self.method.learn(said, truth)
        ratio, error = _ratio(said, truth, groups)
        self.epistemic_scale, self.aleatoric_scale = scales
        return CalibrationReport(
            rows=len(x),
            episodes=len(groups.unique()),
            ratio=tuple(ratio.tolist()),
            ratio_error=tuple(error.tolist()),
            epistemic_scale=tuple(scales.epistemic.tolist()),
            aleatoric_scale=tuple(scales.aleatoric.tolist()),
            nll_before=_nll(said, truth),
            nll_after=_nll(scales.predictive(said), truth),
            warnings=self.method.warnings(scales),
        )

    @torch.no_grad()
    def quantile_map(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], groups: Int[Tensor, " N"]) -> QuantileMap:
        """Return the map of probabilities that N held-out rows ask for, beyond what the present scales put right.

        It is for what `predict` says of one step; draws know nothing of it. Raises what `calibrate` raises.
        """
        self._check_held_out(x, y, groups)
        return QuantileMap(_double(self.predict(x)).cdf(y.double()))

    def check_unseen(self, x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> None:
        """Raise `DataError` for rows that the fit has seen, `ConfigurationError` if it was fitted before it was wrapped."""
        self.check_fitted()
        if not len(self.seen):
            raise ConfigurationError(
                f"{type(self.posterior).__name__} was fitted before it was wrapped, so nobody knows which rows are held out; "
                "fit it through Recalibrated"
            )
        check_unseen(x, y, self.seen)

    def _check_held_out(self, x: Tensor, y: Tensor, groups: Tensor) -> None:
        check_training_data(x, y, minimum=1)
        self.check_unseen(x, y)
        check_held_out(x, groups)
        if (x.shape[1], y.shape[1]) != self.sizes:
            raise ShapeError(f"calibration wants (D, E) = {self.sizes}, as fitted; got {(x.shape[1], y.shape[1])}")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Function:
        """Draw n functions of the wrapped posterior, scaled.

        Raises `ConfigurationError` for n < 1 and `NotFittedError` before `fit`.
        """
        self.check_sample(n)
        draws = self.posterior.sample(n, generator)
        if not self.calibrated:
            return draws
        moved = bool((self.epistemic_scale != 1).any())
        return ScaledFunction(draws, mean_function(self.posterior) if moved else None, self._scales)

    def predict(self, x: Float[Tensor, "*batch D"]) -> Predictive:
        """Return p(y | x, D) with each component scaled about the mean, which stays as it is.

        Raises `NotFittedError` before `fit` and `ShapeError` for other features.
        """
        self.check_inputs(x)
        said = self.posterior.predict(x)
        return self._scales.predictive(said) if self.calibrated else said

    def exact_moment_map(self, process_noise: bool = False) -> MomentMap | None:
        """Return the closed form of a Gaussian process, scaled, and None where there is none."""
        exact = self.posterior.exact_moment_map(process_noise)
        if not self.calibrated:
            return exact
        return ScaledMoments(exact, self._scales) if isinstance(exact, GPMoments) else None


def _double(said: Predictive) -> Predictive:
    parts = (said.component_mean, said.component_epistemic_var, said.component_aleatoric_var)
    return Predictive(*(part.double() for part in parts))


def _nll(said: Predictive, y: Float[Tensor, "N E"]) -> float:
    return float(-said.marginal_log_prob(y).sum(-1).mean())


def _ratio(said: Predictive, y: Float[Tensor, "N E"], groups: Int[Tensor, " N"]) -> tuple[Tensor, Tensor]:
    """Return √(mean z²) of each output and its standard error over G episodes, by the delta method.

    s.e.(mean z²) = √(G/(G - 1) Σ_g (Σ_{j in g} (z_j² - mean z²))²)/N, and half of that over √(mean z²) is that of the root.
    """
    square = (y - said.mean).square() / said.variance
    mean = square.mean(0)
    _, index = groups.unique(return_inverse=True)
    episodes = int(index.max()) + 1
    sums = torch.zeros(episodes, y.shape[1], dtype=y.dtype, device=y.device).index_add_(0, index.to(y.device), square - mean)
    error = (episodes / (episodes - 1) * sums.square().sum(0)).sqrt() / len(y)
    root = mean.sqrt()
    return root, error / (2 * root.clamp_min(torch.finfo(root.dtype).tiny))
