"""A posterior that knows the noise passes every criterion, and each kind of confusion fails its own."""

import math

import pytest
import torch
from reference_posteriors import ConjugateRegression

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ConfigurationError
from bayesdyn.evaluation.disentanglement import (
    THRESHOLDS,
    Disentanglement,
    disentanglement_rows,
    log_slope,
    log_variance_rmse,
    verdicts,
)
from bayesdyn.evaluation.toys import NoisySine

TOY = NoisySine()
CENTRES = torch.linspace(-4, 4, 25, dtype=torch.float64) / 7**0.5
QUICK = Disentanglement(sizes=(50, 200, 800, 3200))


def bumps(x):
    return torch.exp(-0.5 * ((x - CENTRES) / 0.25).square())


class KnownNoise(ConjugateRegression):
    """Exact regression on 25 bumps with σ(x) known up to its scale, which is estimated from residuals: the right answer, nearly."""

    def fit(self, x, y, **options):
        self.unit = TOY.std(x)
        first = self._solve(x, y, 1.0)
        freedom = max(len(x) - len(CENTRES), 1)
        self.scale = float((((y - bumps(x) @ first) / self.unit).square().sum() / freedom).sqrt())
        self._solve(x, y, self.scale)
        self.x, self.y = x, y

    def _solve(self, x, y, scale):
        phi, target = bumps(x) / (scale * self.unit), y / (scale * self.unit)
        self.factor = torch.linalg.cholesky(phi.T @ phi + 0.1 * torch.eye(len(CENTRES), dtype=x.dtype))
        self.mean = torch.cholesky_solve(phi.T @ target, self.factor)
        return self.mean

    def sample(self, n, generator=None):
        noise = torch.randn((n, *self.mean.shape), generator=generator, dtype=self.mean.dtype)
        weight = self.mean + torch.linalg.solve_triangular(self.factor.T, noise, upper=True)
        return lambda x: Gaussian(bumps(x) @ weight, (self.scale * TOY.std(x)).square().expand(n, *x.shape[1:]))

    def predict(self, x):
        mean = bumps(x) @ self.mean
        epistemic = torch.linalg.solve_triangular(self.factor, bumps(x).T, upper=False).square().sum(0).unsqueeze(1)
        return Predictive(mean[None], epistemic[None], (self.scale * TOY.std(x)).square()[None])


class Swapped(KnownNoise):
    """Calls ignorance noise and noise ignorance."""

    def predict(self, x):
        p = super().predict(x)
        return Predictive(p.component_mean, p.component_aleatoric_var, p.component_epistemic_var)


class EqualNoise(KnownNoise):
    """Takes the noise for the same everywhere, and fits as well."""

    def predict(self, x):
        p = super().predict(x)
        flat = p.component_aleatoric_var.mean().expand_as(p.component_aleatoric_var)
        return Predictive(p.component_mean, p.component_epistemic_var, flat)


class Forgetful(KnownNoise):
    """Its draws are anew at every call, as with dropout masks that are not kept."""

    def sample(self, n, generator=None):
        generator = generator or torch.Generator().manual_seed(0)
        return lambda x: super(Forgetful, self).sample(n, generator)(x)


def values(make, seed=0, settings=QUICK):
    rows = disentanglement_rows(lambda: make().double(), "posterior", seed, settings)
    return {row.metric: row.value for row in rows if row.metric in THRESHOLDS}, rows


def test_the_exact_posterior_passes_every_criterion():
    rows = [row for seed in range(3) for row in values(KnownNoise, seed)[1]]
    assert verdicts(rows) == dict.fromkeys(THRESHOLDS, True)
    found, _ = values(KnownNoise)
    # σ up to a scale from 775 degrees of freedom: log variance is off by √(2/775), everywhere alike.
    assert found["log_noise_rmse"] < 4 * math.sqrt(2 / 775)
    # Twice the noise on the same x and ε: linear regression doubles its residuals exactly, but for the prior's small pull.
    assert found["aleatoric_ratio"] == pytest.approx(4.0, rel=0.02)
    assert found["epistemic_slope"] == pytest.approx(-1.0, abs=0.25)


def test_every_criterion_is_one_row_and_the_curves_one_for_each_size():
    _, rows = values(KnownNoise, seed=5)
    assert sorted(row.metric for row in rows if row.metric in THRESHOLDS) == sorted(THRESHOLDS)
    for metric in ("epistemic_var", "aleatoric_var"):
        assert [row.count for row in rows if row.metric == metric] == list(QUICK.sizes)
    assert {(row.posterior, row.data, row.seed) for row in rows} == {("posterior", "noisy-sine", 5)}


@pytest.mark.parametrize(
    ("make", "failing"),
    [
        # The toy's own noise is three times larger in the gap, so that the gap alone does not tell the two parts apart.
        (Swapped, {"log_noise_rmse", "epistemic_slope", "aleatoric_per_tenfold"}),
        (EqualNoise, {"log_noise_rmse"}),
        (Forgetful, {"one_draw_epistemic"}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_confusion_fails_the_criteria_that_it_concerns(make, failing):
    found = verdicts(values(make)[1])
    assert {metric for metric, passed in found.items() if not passed} == failing


def test_data_of_a_seed_are_the_same_for_every_posterior():
    seen = []

    class Watching(KnownNoise):
        def fit(self, x, y, **options):
            seen.append((x, y))
            return super().fit(x, y)

    for _ in range(2):
        disentanglement_rows(lambda: Watching().double(), "posterior", 3, Disentanglement(sizes=(50, 200), rows=200))
    first, again = seen[:3], seen[3:]
    assert all(torch.equal(a[i], b[i]) for a, b in zip(first, again, strict=True) for i in (0, 1))
    (small, _), (x, y), (x2, wider) = first
    assert torch.equal(small, x[:50])
    assert torch.equal(x2, x)
    torch.testing.assert_close(wider - TOY.mean(x), 2 * (y - TOY.mean(x)))


def test_slope_and_log_error_have_their_closed_forms():
    size = torch.tensor([50.0, 100, 400], dtype=torch.float64)
    assert log_slope(size, 7 * size**-0.6).item() == pytest.approx(-0.6)
    assert log_slope(size, torch.ones_like(size)).item() == pytest.approx(0.0, abs=1e-12)
    truth = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    assert log_variance_rmse(3 * truth, truth).item() == pytest.approx(math.log(3))


def test_settings_without_a_meaning_are_refused():
    for sizes, rows in (((50,), 50), ((50, 100), 800), ((1, 50), 50)):
        with pytest.raises(ConfigurationError, match="two sizes"):
            Disentanglement(sizes, rows)
