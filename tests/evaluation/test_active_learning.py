"""Asking for rows follows the closed form of linear regression, is paired across acquisitions, and pays where it should."""

import math

import pytest
import torch
from reference_posteriors import ConjugateRegression

from bayesdyn.codec import Codec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Predictive
from bayesdyn.errors import ConfigurationError, DataError, ShapeError
from bayesdyn.evaluation.active_learning import (
    ActiveLearning,
    active_learning_rows,
    area,
    area_gain,
    at_random,
    information,
    learning_curve,
    top_rows,
    total_variance,
)
from bayesdyn.evaluation.pairs import paired_interval
from bayesdyn.evaluation.table import Row
from bayesdyn.model import DynamicsModel


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def two_outputs(epistemic, aleatoric):
    mean = torch.zeros(1, len(epistemic), 2, dtype=torch.float64)
    return Predictive(mean, *(torch.tensor(v, dtype=torch.float64).unsqueeze(0) for v in (epistemic, aleatoric)))


def test_acquisitions_are_their_formulas():
    predictive = two_outputs([[1.0, 2.0], [0.0, 9.0]], [[0.5, 1.0], [4.0, 3.0]])
    expected = [0.5 * math.log(3) + 0.5 * math.log(3), 0.5 * math.log(4)]
    assert information(predictive).tolist() == pytest.approx(expected)
    assert total_variance(predictive).tolist() == pytest.approx([4.5, 16.0])
    assert at_random(predictive).tolist() == [0.0, 0.0]


def test_ties_are_broken_evenly_and_numbers_come_before_what_is_none():
    score = torch.tensor([1.0, 5.0, 1.0, math.nan, 1.0])
    picked = torch.stack([top_rows(score, 2, generator(seed)) for seed in range(600)])
    assert bool((picked[:, 0] == 1).all())
    counts = torch.bincount(picked[:, 1], minlength=5)
    assert counts[[1, 3]].tolist() == [0, 0]
    # Three equal ones share 600 second places: 200 ± √(600 · 1/3 · 2/3) each.
    assert (counts[[0, 2, 4]] - 200).abs().max().item() < 4 * math.sqrt(600 * 2 / 9)
    assert top_rows(score, 5, generator())[-1].item() == 3


def test_area_is_that_of_the_polygon_and_gain_its_share():
    rows = torch.tensor([10.0, 20.0, 40.0], dtype=torch.float64)
    curve = torch.tensor([[1.0, 2.0], [0.5, 2.0], [0.1, 2.0]], dtype=torch.float64)
    assert area(rows, curve).tolist() == pytest.approx([7.5 + 6.0, 60.0])
    assert area(rows, curve[:, 0]).item() == pytest.approx(13.5)
    assert area_gain(rows, curve, curve).tolist() == [0.0, 0.0]
    assert area_gain(rows, 0.25 * curve, curve).tolist() == pytest.approx([0.75, 0.75])
    assert area_gain(rows, 2 * curve, curve).tolist() == pytest.approx([-1.0, -1.0])
    with pytest.raises(ShapeError, match="one shape"):
        area_gain(rows, curve, curve[:, :1])


def make(codec):
    return DynamicsModel(codec, ConjugateRegression().double())


def crowded_pool(rows=400, seed=0):
    """s' = s + 0.3 s² + noise, with 19 of 20 rows crowded near 0: rows at random miss the few that say something."""
    g = generator(seed)
    near = 0.1 * torch.randn(rows, 1, generator=g, dtype=torch.float64)
    far = 6 * torch.rand(rows, 1, generator=g, dtype=torch.float64) - 3
    state = torch.where(torch.rand(rows, 1, generator=g) < 0.05, far, near)
    noise = 0.05 * torch.randn(rows, 1, generator=g, dtype=torch.float64)
    return Transitions.from_arrays(state, torch.zeros_like(state), state + 0.3 * state.square() + noise)


def even_test():
    state = torch.linspace(-3, 3, 50, dtype=torch.float64).unsqueeze(1)
    return Transitions.from_arrays(state, torch.zeros_like(state), state + 0.3 * state.square())


def test_the_first_batch_is_the_closed_form_of_linear_regression():
    """Noise is constant, so both acquisitions ask for the largest φᵀA⁻¹φ of the first fit."""
    pool, seen = crowded_pool(), []

    class Watching(ConjugateRegression):
        def fit(self, x, y, **options):
            seen.append(x)
            return super().fit(x, y, **options)

    settings = ActiveLearning(10, 5, 1)
    codecs = []

    def codec():
        codecs.append(Codec())
        return codecs[-1]

    learning_curve(lambda c: DynamicsModel(c, Watching().double()), codec, pool, even_test(), information, 3, settings)
    states = [x[:, :1] * c.feature_std[0] + c.feature_mean[0] for x, c in zip(seen, codecs[1:], strict=True)]
    first, second = ({round(v, 10) for v in s.flatten().tolist()} for s in states)
    x = codecs[1].encode(pool.state, pool.action)
    phi, known = torch.cat([torch.ones(len(x), 1).double(), x, x.square()], 1), seen[0]
    at = torch.cat([torch.ones(len(known), 1).double(), known, known.square()], 1)
    precision = at.T @ at / 0.05 + torch.eye(5, dtype=torch.float64)
    leverage = (phi * torch.linalg.solve(precision, phi.T).T).sum(1)
    order = [round(v, 10) for v in pool.state[leverage.argsort(descending=True), 0].tolist()]
    expected = [v for v in order if v not in first][:5]
    assert second - first == set(expected)


def test_curves_of_one_seed_start_alike_and_random_is_random_by_ties():
    settings = ActiveLearning(10, 5, 2)
    curves = [learning_curve(make, Codec, crowded_pool(), even_test(), a, 1, settings) for a in (information, at_random, at_random)]
    assert curves[0].shape == (3, 1)
    assert torch.equal(curves[0][0], curves[1][0])
    assert torch.equal(curves[1], curves[2])
    other = learning_curve(make, Codec, crowded_pool(), even_test(), at_random, 2, settings)
    assert not torch.equal(other[0], curves[1][0])


def test_asking_pays_where_random_rows_are_redundant():
    settings = ActiveLearning(10, 5, 4)
    rows = []
    for seed in range(6):
        row = Row("conjugate", "crowded", "", seed, "", "")
        rows += active_learning_rows(make, Codec, crowded_pool(seed=seed), even_test(), row, settings)
    gains = [row.value for row in rows if row.metric == "active_gain" and row.objective == "information"]
    found = paired_interval(gains)
    assert found.low > 0.1
    assert {row.objective for row in rows if row.metric == "active_gain"} == {"information", "total_variance"}
    curve = [row for row in rows if row.metric == "active_nrmse" and row.objective == "random" and row.seed == 0]
    assert [row.count for row in curve] == list(settings.sizes) == [10, 15, 20, 25, 30]
    mean = [row.value for row in rows if row.metric == "active_area" and row.objective == "random" and row.seed == 0]
    expected = area(torch.tensor([10.0, 15, 20, 25, 30]).double(), torch.tensor([row.value for row in curve]).double()) / 20
    assert mean == [pytest.approx(expected.item())]


def test_what_cannot_be_run_is_refused():
    with pytest.raises(DataError, match="pool of 170"):
        learning_curve(make, Codec, crowded_pool(100), even_test(), information, 0)
    for start, batch, rounds in ((1, 1, 1), (2, 0, 1), (2, 1, 0)):
        with pytest.raises(ConfigurationError, match="active learning"):
            ActiveLearning(start, batch, rounds)
