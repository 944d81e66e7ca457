"""Items of the posterior contract that concern fitting, predicting, saving and refusing."""

import io
import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, DataError, NotFittedError, ShapeError
from bayesdyn.posteriors.base import r_squared
from bayesdyn.testing.conformance import generator, require, require_close, require_same, shape_checks_off
from bayesdyn.testing.function_checks import STANDARD_ERRORS
from bayesdyn.testing.posterior_case import PosteriorCase

# Posterior variance falls as 1/N for parametric models and as N^-½ or slower for smooth functions in a few dimensions.
_SHRINKAGE = 4**-0.25


def fit_learns_and_reports(case: PosteriorCase) -> None:
    """`fit` explains data it has not seen better than their mean does, and reports finite losses and one R² per output."""
    posterior, report = case.fit_once
    finite = math.isfinite(report.nll) and math.isfinite(report.penalty)
    require(finite, f"a FitReport with nll {report.nll} and penalty {report.penalty}", "finite figures")
    require(len(report.r2_train) == case.sizes[1], f"{len(report.r2_train)} values of R²", f"one per output, {case.sizes[1]}")
    require(posterior.sizes == case.sizes, f"sizes {posterior.sizes} after a fit", f"(D, E) = {case.sizes}")
    r2 = r_squared(case.probe_targets, case.predictive.mean)
    require(min(r2) >= 0.05, f"R² = {min(r2):.3g} on held-out data", "at least 0.05, or nothing was learned")


def predict_keeps_shapes_and_dtype(case: PosteriorCase) -> None:
    """`predict` maps x [..., D] to a `Predictive` over [..., E] in the dtype of x."""
    inputs, outputs = case.sizes
    for batch in ((), (5,), (2, 3)):
        said = case.fitted.predict(torch.randn(*batch, inputs, generator=generator(), dtype=torch.float64).to(case.dtype))
        require(isinstance(said, Predictive), f"a {type(said).__name__}", "a bayesdyn.Predictive")
        shape = (*said.batch_shape, *said.event_shape)
        require(shape == (*batch, outputs), f"shape {list(shape)} at x {[*batch, inputs]}", f"{[*batch, outputs]}")
        for part in (said.component_mean, said.component_epistemic_var, said.component_aleatoric_var):
            require(part.dtype == case.dtype, f"components in {part.dtype} from x in {case.dtype}", f"{case.dtype}")


def predict_splits_the_variance(case: PosteriorCase) -> None:
    """Law of total variance: epistemic = Var_i mean_i + E_i epistemic_i, aleatoric = E_i aleatoric_i >= 0, total their sum."""
    said = case.predictive
    for name, part in (("epistemic", said.component_epistemic_var), ("aleatoric", said.component_aleatoric_var)):
        require(bool((part >= 0).all()), f"a component's {name} variance of {part.min():.3g}", "none below 0")
    epistemic = said.component_mean.var(0, correction=0) + said.component_epistemic_var.mean(0)
    total = epistemic + said.component_aleatoric_var.mean(0)
    for name, wanted, value in (("epistemic", epistemic, said.epistemic_variance), ("total", total, said.variance)):
        gap = ((value - wanted).abs() / wanted.clamp_min(torch.finfo(case.dtype).tiny)).max()
        require(gap <= 1e-6, f"{name} variance off by a factor of 1 + {gap:.3g}", "the law of total variance to 1e-6")


def predict_agrees_with_draws(case: PosteriorCase) -> None:
    """Mean, epistemic and aleatoric variance of `predict` equal those of 4096 draws within their standard errors."""
    x, calls, stream = case.probes[:16], 32, generator(16)
    said = case.fitted.predict(x)
    answers = [case.fitted.sample(128, stream)(x.unsqueeze(0)) for _ in range(calls)]
    # [calls, draws, P, E]. Draws of one call may share random features, so their errors are taken from call to call.
    mean, noise = (torch.stack(parts).detach().double() for parts in zip(*answers, strict=True))
    square = (mean - mean.mean((0, 1))).square()
    var = square.mean((0, 1))
    # A predict that is itself a mixture over m draws has their Monte Carlo error, and a population variance of (m - 1)/m.
    own = 0.0 if said.components == 1 or case.exact_predict else 1 / said.components
    rounding = 100 * torch.finfo(case.dtype).eps * mean.square().max().clamp_min(1.0)
    for name, told, drawn, factor, allowance in (
        ("mean", said.mean, mean, 1.0, rounding),
        ("epistemic variance", said.epistemic_variance, square, 1 - own, ((1 + case.feature_error) ** 2 - 1) * var),
        ("aleatoric variance", said.aleatoric_variance, noise, 1.0, 1e-3 * rounding),
    ):
        wanted = factor * drawn.mean((0, 1))
        error = (drawn.mean(1).var(0) / calls + own * drawn.var((0, 1))).sqrt()
        allowed = STANDARD_ERRORS * error + allowance + rounding * wanted.abs().clamp_min(1e-3)
        gap = (told.double() - wanted).abs()
        worst = int((gap / allowed).argmax())
        came = f"{name} {told.flatten()[worst]:.5g} from predict and {wanted.flatten()[worst]:.5g} from {calls} × 128 draws"
        require(bool((gap <= allowed).all()), came, f"a difference of at most {allowed.flatten()[worst]:.3g}")


def epistemic_grows_off_the_data(case: PosteriorCase) -> None:
    """Epistemic variance is larger five standard deviations away than on the training data."""
    near, far = (case.fitted.predict(x).epistemic_variance.mean(0) for x in (case.x, case.away(5.0)))
    shown = f"epistemic variances of {near.tolist()} on the data and {far.tolist()} off them"
    require(bool((far > near).all()), shown, "larger ones off the data, for every output")


def epistemic_shrinks_with_data(case: PosteriorCase) -> None:
    """Four times the data leave less epistemic variance in their support: a ratio below 4^-¼."""
    few, many = (said.epistemic_variance.mean().item() for said in (case.predictive, case.refitted.large))
    came = f"epistemic variance {few:.4g} from {case.rows} rows and {many:.4g} from {4 * case.rows}"
    require(many < _SHRINKAGE * few, came, f"a ratio below {_SHRINKAGE:.2f}")


def fit_starts_from_scratch(case: PosteriorCase) -> None:
    """Without `warm_start`, a fit depends on its data and its generator alone, not on earlier fits."""
    again = case.refitted.posterior.predict(case.probes)
    _require_same_predictive(again, case.predictive, "of a fresh posterior and one that was fitted on other data before")


def state_dict_holds_everything(case: PosteriorCase) -> None:
    """A fresh object that loads the saved state (`weights_only`) equals the fitted one, whatever it held before; its draws stay."""
    stream = io.BytesIO()
    torch.save(case.fitted.state_dict(), stream)
    stream.seek(0)
    state, x = torch.load(stream, weights_only=True), case.probes.unsqueeze(0)
    fresh, used = case.make(), case.make()
    used.load_state_dict(case.refitted.large_state)
    draws = used.sample(3, generator(17))
    before = draws(x).mean.detach().clone()
    for name, target in (("fresh", fresh), ("used", used)):
        target.load_state_dict(state)
        require(target.sizes == case.sizes, f"sizes {target.sizes} after loading into a {name} object", f"{case.sizes}")
        dtype = case.fitted.dtype
        require(target.dtype == dtype, f"dtype {target.dtype} after loading {dtype} into a {name} object", "the one saved")
        _require_same_predictive(target.predict(case.probes), case.predictive, f"of a fitted and a loaded, {name} object")
        loaded, own = (p.sample(3, generator(18))(x) for p in (target, case.fitted))
        require_close(loaded.mean, own.mean, f"draws of a fitted and a loaded, {name} object")
    require_same(before, draws(x).mean, "means of one draw before and after its posterior loaded another state")


def _require_same_predictive(a: Predictive, b: Predictive, whose: str) -> None:
    require_close(a.mean, b.mean, f"means {whose}")
    require_close(a.epistemic_variance, b.epistemic_variance, f"epistemic variances {whose}")
    require_close(a.aleatoric_variance, b.aleatoric_variance, f"aleatoric variances {whose}")


def row_order_does_not_matter(case: PosteriorCase) -> None:
    """Permuting the rows of the data changes an exact fit by less than 1e-8 (in float32, 2e-4)."""
    order = torch.randperm(case.rows, generator=generator(19))
    posterior = case.make()
    case.fit(posterior, case.x[order], case.y[order])
    said, allowed = posterior.predict(case.probes), 1e-8 * (torch.finfo(case.dtype).eps / torch.finfo(torch.float64).eps) ** 0.5
    for name, a, b in (("mean", said.mean, case.predictive.mean), ("variance", said.variance, case.predictive.variance)):
        gap = (a - b).abs().max()
        require(gap < allowed, f"a {name} that moved by {gap:.3g} when the rows were permuted", f"less than {allowed:.2g}")


def mistakes_are_named(case: PosteriorCase) -> None:
    """Wrong sizes, n < 1, unusable data and use before `fit` raise the package's errors and say what came and what was wanted."""
    inputs, posterior, fresh = case.sizes[0], case.fitted, case.make()
    function = posterior.sample(4, generator(20))
    broken = case.x.clone()
    broken[1, 0] = math.nan
    zeros = torch.zeros(4, 3, inputs + 1, dtype=case.dtype)
    calls: list[tuple[str, type[Exception], list[object], Callable[[], object]]] = [
        ("sampling before fit", NotFittedError, ["fit"], lambda: fresh.sample(1, generator())),
        ("predicting before fit", NotFittedError, ["fit"], lambda: fresh.predict(case.probes)),
        ("sample(0)", ConfigurationError, [0], lambda: posterior.sample(0, generator())),
        ("sample(-3)", ConfigurationError, [-3], lambda: posterior.sample(-3, generator())),
        ("predict with a feature too many", ShapeError, [inputs, inputs + 1], lambda: posterior.predict(zeros)),
        ("predict with one feature", ShapeError, [inputs, 1], lambda: posterior.predict(zeros[..., :1])),
        ("a draw called with a feature too many", ShapeError, [inputs, inputs + 1], lambda: function(zeros)),
        ("a draw called with one feature", ShapeError, [inputs, 1], lambda: function(zeros[..., :1])),
        ("4 draws called with 3 leading rows", ShapeError, [4, 3], lambda: function(zeros[:3, ..., :-1])),
        ("fit with x and y of other lengths", ShapeError, [case.rows, case.rows - 1], lambda: fresh.fit(case.x, case.y[1:])),
        ("fit with y of one axis", ShapeError, [case.rows], lambda: fresh.fit(case.x, case.y[:, 0])),
        ("fit with a NaN in x", DataError, ["x", 1], lambda: fresh.fit(broken, case.y)),
        ("fit with a NaN in y", DataError, ["y"], lambda: fresh.fit(case.x, torch.full_like(case.y, math.nan))),
    ]
    if inputs == 1:
        calls = [call for call in calls if "one feature" not in call[0]]
    with shape_checks_off():
        for what, wanted, mentions, call in calls:
            _require_error(what, wanted, mentions, call)


def _require_error(what: str, wanted: type[Exception], mentions: list[object], call: Callable[[], object]) -> None:
    try:
        answer = call()
    except wanted as error:
        missing = [str(m) for m in mentions if str(m) not in str(error)]
        require(not missing, f"'{error}' for {what}, without {', '.join(missing)}", "what came and what was wanted in the message")
    except Exception as error:
        raise AssertionError(f"got {type(error).__name__} ({error}) for {what}; wanted {wanted.__name__}") from error
    else:
        shown = f"a tensor {list(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
        raise AssertionError(f"got {shown} for {what}; wanted {wanted.__name__}")
