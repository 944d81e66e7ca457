"""`check_posterior` accepts exact posteriors, and refuses each way in which a posterior is known to go wrong, by name."""

import copy
import importlib
import math
import re
from pathlib import Path

import pytest
import torch
from reference_posteriors import ConjugateRegression, LinearFunction
from torch import Tensor, nn

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import BayesdynError, ConfigurationError
from bayesdyn.functions import Function
from bayesdyn.numerics import fresh_generator
from bayesdyn.posteriors.base import FitReport, Posterior, check_training_data
from bayesdyn.testing import check_posterior
from bayesdyn.testing.conformance import ConformanceError
from bayesdyn.testing.posterior import CONTRACT
from bayesdyn.testing.posterior_case import toy_data


def copy_of(function: LinearFunction, kind: type[LinearFunction]) -> LinearFunction:
    return kind(function.features, function.weight, function.noise_var, function.inputs)


class WithFunction(ConjugateRegression):
    """The reference posterior, whose draws are of another class."""

    kind: type[LinearFunction] = LinearFunction

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        return copy_of(super().sample(n, generator), self.kind)


def with_function(kind: type[LinearFunction]) -> type[ConjugateRegression]:
    return type(kind.__name__, (WithFunction,), {"kind": kind})


# ---- posteriors that keep the contract


class DefaultPredict(ConjugateRegression):
    """Only `fit` and `sample`: the prediction is the mixture over 64 draws."""

    predict = Posterior.predict


class PointEstimate(ConjugateRegression):
    """All draws are the posterior mean."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        self.check_sample(n)
        noise_var = torch.full_like(self.mean[0], self.noise_var)
        return LinearFunction(self.features, self.mean.expand(n, -1, -1), noise_var, self.sizes[0])

    def predict(self, x: Tensor) -> Predictive:
        exact = super().predict(x)
        return Predictive(exact.component_mean, torch.zeros_like(exact.component_mean), exact.component_aleatoric_var)


class Members(ConjugateRegression):
    """Five draws made by `fit` and kept, as in an ensemble: blocks of members, the remainder from the generator."""

    members = 5

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0, 0, 0))

    def fit(self, x, y, *, warm_start=False, generator=None, progress=None) -> FitReport:
        report = super().fit(x, y)
        self.weight = super().sample(self.members, generator).weight
        return report

    def remainder(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randperm(self.members, generator=generator)[: n % self.members]

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        self.check_sample(n)
        remainder = self.remainder(n, generator or fresh_generator())
        index = torch.cat([torch.arange(self.members).repeat(n // self.members), remainder])
        return LinearFunction(self.features, self.weight[index], torch.full_like(self.mean[0], self.noise_var), self.sizes[0])

    def predict(self, x: Tensor) -> Predictive:
        self.check_inputs(x)
        noise_var = torch.full_like(self.mean[0], self.noise_var)
        return Predictive.from_draws(LinearFunction(self.features, self.weight, noise_var, self.sizes[0])(x.unsqueeze(0)))


def bumps(x: Tensor) -> Tensor:
    """Return features that vanish off the data: variance falls to zero where nothing is known."""
    near = (-0.1 * x.square().sum(-1, keepdim=True)).exp()
    return torch.cat([near, near * x, near * x.square()], -1)


SOUND = {
    "exact": (ConjugateRegression, {"exact_predict": True, "exact_fit": True}),
    "predict by sampling": (DefaultPredict, {"exact_fit": True, "compiles": False}),
    "point estimate": (PointEstimate, {"epistemic": False, "compiles": False}),
    "members": (Members, {"exact_predict": True, "compiles": False}),
    "certain off the data": (lambda: ConjugateRegression(bumps), {"grows_off_data": False, "compiles": False}),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_posteriors_pass_in_both_dtypes(name: str) -> None:
    make, stated = SOUND[name]
    before = torch.get_rng_state()
    check_posterior(make, **stated)
    assert torch.equal(before, torch.get_rng_state())


def test_the_guides_posterior_passes_whole_from_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "own-posterior.md").read_text(encoding="utf-8")
    draws, posterior = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    (tmp_path / "fourier_regression.py").write_text(draws + posterior, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    check_posterior(importlib.import_module("fourier_regression").FourierRegression, dtype=torch.float32)


def test_data_of_the_authors_own_are_used() -> None:
    def line(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(rows, 1, generator=generator)
        return x, x + 0.1 * torch.randn(rows, 1, generator=generator)

    check_posterior(ConjugateRegression, data=line, rows=20, dtype=torch.float64, compiles=False)


# ---- posteriors that break it


class RedrawsPerCall(LinearFunction):
    """Weights jitter from call to call, as dropout masks do in train mode."""

    calls = 0

    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        self.calls += 1
        return Gaussian(answer.mean * (1 + 1e-6 * self.calls), answer.var)


class UsesGlobalRandomness(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        return super().sample(n, None)


class MovesGlobalRandomness(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        torch.rand(1)
        return super().sample(n, generator)


class FitsWithGlobalRandomness(ConjugateRegression):
    def fit(self, x, y, **options) -> FitReport:
        order = torch.randperm(len(x))
        return super().fit(x[order], y[order], **options)


class BorrowsGlobalRandomness(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        return super().sample(n, generator or torch.default_generator)


class FixedSeed(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        return super().sample(n, generator or torch.Generator().manual_seed(0))


class EqualDraws(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        function = super().sample(n, generator)
        function.weight = function.weight[:1].expand_as(function.weight)
        return function


class IgnoresN(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        self.check_sample(n)
        return super().sample(1, generator)


class StdForVar(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        return Gaussian(answer.mean, answer.var.sqrt())


class PredictsStdForVar(ConjugateRegression):
    def predict(self, x: Tensor) -> Predictive:
        p = super().predict(x)
        return Predictive(p.component_mean, p.component_epistemic_var.sqrt(), p.component_aleatoric_var)


class ForgetsEpistemic(ConjugateRegression):
    def predict(self, x: Tensor) -> Predictive:
        p = super().predict(x)
        return Predictive(p.component_mean, torch.zeros_like(p.component_mean), p.component_aleatoric_var)


class ShiftsThePrediction(ConjugateRegression):
    def predict(self, x: Tensor) -> Predictive:
        p = super().predict(x)
        return Predictive(p.component_mean + 0.05, p.component_epistemic_var, p.component_aleatoric_var)


class AddedStds(Predictive):
    @property
    def variance(self) -> Tensor:
        return (self.epistemic_variance.sqrt() + self.aleatoric_variance.sqrt()).square()


class AddsStds(ConjugateRegression):
    def predict(self, x: Tensor) -> Predictive:
        p = super().predict(x)
        return AddedStds(p.component_mean, p.component_epistemic_var, p.component_aleatoric_var)


class LooksAtThePosterior(ConjugateRegression):
    """Draws keep a reference to the posterior and add their noise to whatever mean it has now."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        posterior = self

        class Live(LinearFunction):
            def __call__(self, x: Tensor) -> Gaussian:
                answer = super().__call__(x)
                return Gaussian(answer.mean + 0 * answer.mean.detach() + 1e-3 * len(posterior.x), answer.var)

        return copy_of(super().sample(n, generator), Live)

    def predict(self, x: Tensor) -> Predictive:
        p = super().predict(x)
        return Predictive(p.component_mean + 1e-3 * len(self.x), p.component_epistemic_var, p.component_aleatoric_var)


class RefitsInPlace(ConjugateRegression):
    def fit(self, x, y, **options) -> FitReport:
        old = self.mean
        report = super().fit(x, y, **options)
        self.mean = old.copy_(self.mean) if old.shape == self.mean.shape else self.mean
        return report

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        posterior_mean, function = self.mean, super().sample(n, generator)
        deviation = function.weight - posterior_mean

        class Shares(LinearFunction):
            def __call__(self, x: Tensor) -> Gaussian:
                return LinearFunction(self.features, deviation + posterior_mean, self.noise_var, self.inputs)(x)

            def to(self, *, dtype=None, device=None) -> LinearFunction:
                return copy_of(self, LinearFunction).to(dtype=dtype, device=device)

        return copy_of(function, Shares)


class DependsOnTheMode(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        function = super().sample(n, generator)
        function.weight = function.weight * (1.01 if self.training else 1.0)
        return function


class OutsideTheStateDict(ConjugateRegression):
    """Something that `fit` learned (here an offset) is a plain attribute."""

    offset: Tensor

    def fit(self, x, y, **options) -> FitReport:
        self.offset = y.mean(0)
        return super().fit(x, y, **options)

    def predict(self, x: Tensor) -> Predictive:
        p = super().predict(x)
        return Predictive(p.component_mean + 1e-3 * self.offset, p.component_epistemic_var, p.component_aleatoric_var)


class FixedSizeStateDict(ConjugateRegression):
    _load_from_state_dict = nn.Module._load_from_state_dict


class IgnoresHowMuchDataThereIs(ConjugateRegression):
    """A mean where the likelihood wants a sum: the posterior never concentrates."""

    def fit(self, x, y, **options) -> FitReport:
        report = super().fit(x, y, **options)
        phi = self.features(x)
        precision = 60 * phi.T @ phi / len(x) / self.noise_var + torch.eye(phi.shape[-1], dtype=x.dtype) / self.prior_var
        self.factor = torch.linalg.cholesky(precision)
        return report


class Marginals(LinearFunction):
    """At every x the right mean and variance, but no two inputs have anything to do with each other."""

    def __init__(self, posterior: ConjugateRegression, phase: Tensor) -> None:
        self.posterior, self.phase = posterior, phase
        (self.inputs, self.outputs), self.n = posterior.sizes, len(phase)

    def __call__(self, x: Tensor) -> Gaussian:
        self.check_inputs(x)
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        said = self.posterior.predict(flat)
        # √2 sin of a uniform phase has mean 0 and variance 1.
        noise = math.sqrt(2) * (1e4 * flat.sum(-1, keepdim=True) + self.phase).sin()
        mean = said.mean + said.epistemic_variance.sqrt() * noise
        return Gaussian(*(v.reshape(self.n, *x.shape[1:-1], -1) for v in (mean, said.aleatoric_variance.expand_as(mean))))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Marginals":
        return Marginals(copy.deepcopy(self.posterior).to(dtype), self.phase.to(dtype))


class IndependentMarginals(ConjugateRegression):
    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        self.check_sample(n)
        phase = 2 * math.pi * torch.rand(n, 1, 1, generator=generator or fresh_generator(), dtype=self.mean.dtype)
        return Marginals(copy.deepcopy(self), phase)


class NormalisesOverDraws(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        return Gaussian(answer.mean + 0.1 * answer.mean.mean(0), answer.var)


class NormalisesOverPoints(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        points = tuple(range(1, answer.mean.dim() - 1))
        return Gaussian(answer.mean - answer.mean.mean(points, keepdim=True) if points else answer.mean, answer.var)


class Detached(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        return super().__call__(x.detach())


class HalfDetached(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        return super().__call__(torch.cat([x[..., :1], x[..., 1:].detach()], -1))


class ExplodingNoise(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        return Gaussian(answer.mean, answer.var * (0.01 * x.square().sum(-1, keepdim=True)).exp())


class NegativeNoise(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        return Gaussian(answer.mean, answer.var - 1e-4 * x.square().sum(-1, keepdim=True))


class Branches(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        return Gaussian(answer.mean * 1.0, answer.var) if answer.mean.sum().item() > 0 else answer


class Numbered(LinearFunction):
    number = 0.0

    def __call__(self, x: Tensor) -> Gaussian:
        answer = super().__call__(x)
        return Gaussian(answer.mean + 1e-9 * self.number, answer.var)


class CarriesANumber(ConjugateRegression):
    """Each sample carries a Python number of its own, so each compiles anew."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> LinearFunction:
        function = copy_of(super().sample(n, generator), Numbered)
        function.number = float(function.weight[0, 0, 0])
        return function


class CastsInPlace(LinearFunction):
    def to(self, *, dtype=None, device=None) -> LinearFunction:
        self.weight, self.noise_var = self.weight.to(dtype), self.noise_var.to(dtype)
        return self


class AlwaysDouble(LinearFunction):
    def __call__(self, x: Tensor) -> Gaussian:
        return Gaussian(*(v.double() for v in super().__call__(x)))


class PrefersSomeMembers(Members):
    def remainder(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randperm(max(n % self.members, 2), generator=generator)[: n % self.members]


class AlwaysMemberZero(Members):
    def remainder(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.arange(n % self.members)


class KeepsOldData(ConjugateRegression):
    def fit(self, x, y, **options) -> FitReport:
        old = self.sizes[0] > 0
        x, y = (torch.cat([self.x, x]), torch.cat([self.y, y])) if old else (x, y)
        return super().fit(x, y, **options)


class ForgetsOldRows(ConjugateRegression):
    """Later rows weigh more, as in recursive least squares with forgetting."""

    def fit(self, x, y, **options) -> FitReport:
        check_training_data(x, y)
        keep = len(x) // 2
        report = super().fit(x[keep:], y[keep:], **options)
        self.x, self.y = x.clone(), y.clone()
        return report


class LearnsNothing(ConjugateRegression):
    def fit(self, x, y, **options) -> FitReport:
        return super().fit(x, y.flip(0), **options)


class NanReport(ConjugateRegression):
    def fit(self, x, y, **options) -> FitReport:
        r = super().fit(x, y, **options)
        return FitReport(math.nan, r.penalty, r.steps, r.seconds, r.r2_train)


class AcceptsNoDraws(ConjugateRegression):
    def check_sample(self, n: int) -> None:
        self.check_fitted()


class BroadcastsAnyInput(LinearFunction):
    """One feature is taken for all of them, three leading rows for four draws are left to matmul's own complaint."""

    def check_inputs(self, x: Tensor) -> None:
        pass

    def __call__(self, x: Tensor) -> Gaussian:
        return super().__call__(x.expand(*x.shape[:-1], self.inputs))


class SaysTooLittle(ConjugateRegression):
    def check_inputs(self, x: Tensor) -> None:
        self.check_fitted()
        if x.shape[-1] != self.sizes[0]:
            raise ConfigurationError("bad input")


class AcceptsNan(ConjugateRegression):
    def fit(self, x, y, **options) -> FitReport:
        if bool((~x.isfinite()).any()):
            x = x.nan_to_num()
        return super().fit(x, y, **options)


BROKEN = [
    (LearnsNothing, "fit_learns_and_reports", {}),
    (NanReport, "fit_learns_and_reports", {}),
    (FitsWithGlobalRandomness, "fit_learns_and_reports", {}),
    (IgnoresN, "draws_keep_shapes_and_dtype", {}),
    (with_function(AlwaysDouble), "draws_keep_shapes_and_dtype", {"dtype": torch.float32}),
    (with_function(CastsInPlace), "draws_keep_shapes_and_dtype", {}),
    (with_function(RedrawsPerCall), "draws_are_frozen", {}),
    (LooksAtThePosterior, "draws_are_frozen", {}),
    (RefitsInPlace, "draws_are_frozen", {}),
    (UsesGlobalRandomness, "draws_come_from_the_generator", {}),
    (MovesGlobalRandomness, "draws_come_from_the_generator", {}),
    (EqualDraws, "draws_differ", {}),
    (FixedSeed, "draws_differ", {}),
    (BorrowsGlobalRandomness, "draws_come_from_the_generator", {}),
    (AlwaysMemberZero, "draws_differ", {}),
    (PointEstimate, "draws_differ", {}),
    (DependsOnTheMode, "draws_ignore_the_mode", {}),
    (with_function(NormalisesOverDraws), "draws_and_points_are_separate", {}),
    (with_function(NormalisesOverPoints), "draws_and_points_are_separate", {}),
    (IndependentMarginals, "draws_are_continuous", {"dtype": torch.float64}),
    (with_function(Detached), "draws_are_differentiable", {}),
    (with_function(HalfDetached), "draws_are_differentiable", {}),
    (with_function(ExplodingNoise), "variance_is_sane_everywhere", {}),
    (with_function(NegativeNoise), "variance_is_sane_everywhere", {}),
    (AddsStds, "predict_splits_the_variance", {}),
    (with_function(StdForVar), "predict_agrees_with_draws", {}),
    (PredictsStdForVar, "predict_agrees_with_draws", {}),
    (ForgetsEpistemic, "predict_agrees_with_draws", {}),
    (ShiftsThePrediction, "predict_agrees_with_draws", {}),
    (PrefersSomeMembers, "single_draws_are_fair", {}),
    (lambda: ConjugateRegression(bumps), "epistemic_grows_off_the_data", {}),
    (IgnoresHowMuchDataThereIs, "epistemic_shrinks_with_data", {}),
    (KeepsOldData, "fit_starts_from_scratch", {}),
    (OutsideTheStateDict, "state_dict_holds_everything", {}),
    (FixedSizeStateDict, "state_dict_holds_everything", {}),
    (AcceptsNoDraws, "mistakes_are_named", {}),
    (with_function(BroadcastsAnyInput), "mistakes_are_named", {}),
    (SaysTooLittle, "mistakes_are_named", {}),
    (AcceptsNan, "mistakes_are_named", {}),
    (ForgetsOldRows, "row_order_does_not_matter", {"exact_fit": True}),
    (with_function(Branches), "draws_compile_to_one_graph", {"compiles": True}),
    (CarriesANumber, "draws_compile_to_one_graph", {"compiles": True}),
]


@pytest.mark.parametrize(("make", "item", "stated"), BROKEN, ids=[f"{m.__name__}-{i}" for m, i, _ in BROKEN])
def test_each_fault_is_refused_by_the_item_it_breaks(make: type[Posterior], item: str, stated: dict[str, object]) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_posterior(make, **{"compiles": False, **stated})
    assert caught.value.item == item, str(caught.value)


def test_every_item_refuses_something() -> None:
    plain = {"predict_keeps_shapes_and_dtype"}
    assert {item.__name__ for item in CONTRACT} - {item for _, item, _ in BROKEN} == plain


def test_predict_keeps_shapes_is_an_item_too() -> None:
    class Double(ConjugateRegression):
        def predict(self, x: Tensor) -> Predictive:
            p = super().predict(x)
            return Predictive(p.component_mean.double(), p.component_epistemic_var.double(), p.component_aleatoric_var.double())

    with pytest.raises(ConformanceError, match=r"predict_keeps_shapes_and_dtype.*float64.*float32"):
        check_posterior(Double, dtype=torch.float32)


def test_the_error_names_the_posterior_the_item_what_came_and_what_was_wanted() -> None:
    with pytest.raises(ConformanceError, match=r"EqualDraws in torch.float32 breaks 'draws_differ': got 16 equal") as caught:
        check_posterior(EqualDraws)
    assert isinstance(caught.value, BayesdynError)
    assert isinstance(caught.value, AssertionError)
    assert "The contract: The draws of one sample differ" in str(caught.value)


def test_the_allowance_for_features_is_relative_to_the_std() -> None:
    class TenPercentTooWide(ConjugateRegression):
        def predict(self, x: Tensor) -> Predictive:
            p = super().predict(x)
            return Predictive(p.component_mean, p.component_epistemic_var / 1.1**2, p.component_aleatoric_var)

    check_posterior(TenPercentTooWide, feature_error=0.1, compiles=False)
    with pytest.raises(ConformanceError, match=r"epistemic variance .* from predict"):
        check_posterior(TenPercentTooWide, compiles=False)


def test_every_item_states_its_property_in_one_sentence() -> None:
    for item in CONTRACT:
        first = (item.__doc__ or "").strip().splitlines()
        assert len(first) == 1, item.__name__
        assert first[0].endswith("."), item.__name__


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ConfigurationError, match="float16"):
        check_posterior(ConjugateRegression, dtype=torch.float16)


def test_toy_data_are_whitened() -> None:
    rows = 200_000
    x, y = toy_data(rows, torch.Generator().manual_seed(0))
    for values, var in ((x, 1.0), (y, 1.01)):
        centred = values - values.mean(0)
        fourth = (centred**4).mean(0)
        assert bool((values.mean(0).abs() < 5 * math.sqrt(var / rows)).all())
        assert bool(((centred.square().mean(0) - var).abs() < 5 * ((fourth - var**2) / rows).sqrt()).all())


def test_the_reference_is_the_closed_form() -> None:
    x, y = toy_data(40, torch.Generator().manual_seed(1))
    posterior = ConjugateRegression(prior_var=0.7, noise_var=0.2)
    posterior.fit(x, y)
    new = x[:5] + 0.3
    phi, phi_new = posterior.features(x), posterior.features(new)
    # The same posterior in the dual, function-space form: a GP with kernel prior_var φ(x)ᵀφ(x').
    kernel = 0.7 * phi @ phi.T + 0.2 * torch.eye(40, dtype=torch.float64)
    cross = 0.7 * phi_new @ phi.T
    mean = cross @ torch.linalg.solve(kernel, y)
    var = 0.7 * phi_new.square().sum(-1) - (cross * torch.linalg.solve(kernel, cross.T).T).sum(-1)
    said = posterior.predict(new)
    torch.testing.assert_close(said.mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(said.epistemic_variance, var.unsqueeze(-1).expand(5, 2), rtol=1e-8, atol=1e-10)


def test_functions_are_the_contracts_kind() -> None:
    assert issubclass(LinearFunction, Function)
