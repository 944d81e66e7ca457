"""Ranking scores agree with their definitions written out, with closed forms, and with what a perfect model has to reach."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from bayesdyn.codec import Codec
from bayesdyn.data import Transitions
from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ShapeError
from bayesdyn.evaluation.open_loop import Windows, replay
from bayesdyn.evaluation.ranking import OwnNoise, aurc, ause, excess_aurc, horizon_ranking, ranking, sparsification
from bayesdyn.rollout import PlainDynamics, rollout


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_curves_are_their_definitions_written_out():
    score, error = normal(40, 3), normal(40, 3, seed=1).abs()
    for d in range(3):
        order = np.argsort(score[:, d].numpy())
        sorted_error = error[:, d].numpy()[order]
        risk = [sorted_error[:k].mean() for k in range(1, 41)]
        assert aurc(score, error)[d].item() == pytest.approx(np.mean(risk), abs=1e-12)
        left = [math.sqrt((sorted_error[: 40 - k] ** 2).mean()) for k in range(40)]
        np.testing.assert_allclose(sparsification(score, error)[:, d].numpy(), left, atol=1e-12)
        best = np.sort(error[:, d].numpy())
        oracle = np.mean([math.sqrt((best[:k] ** 2).mean()) for k in range(1, 41)])
        expected = (np.mean(left) - oracle) / (math.sqrt((best**2).mean()) - oracle)
        assert ause(score, error)[d].item() == pytest.approx(expected, abs=1e-12)


def test_equal_scores_are_worth_the_mean_over_their_orders():
    """Risk is linear in the order, so the mean over random tie-breaks is what one call has to return."""
    score, error = torch.tensor([0.0, 1, 1, 1, 2, 2]).double(), normal(6, seed=3).abs()
    trials = 1000
    noise = torch.rand(trials, 6, generator=generator(), dtype=torch.float64)
    broken = torch.stack([aurc(score + 0.5 * tie, error) for tie in noise])
    assert aurc(score, error).item() == pytest.approx(broken.mean().item(), abs=4 * broken.std().item() / math.sqrt(trials))


def test_closed_forms_of_evenly_spread_errors():
    """Errors j/J: the share r with the smallest has RMSE r/√3, with the largest √((1 - (1 - r)³)/3r); a sum is off by 1/J."""
    rows = 4000
    error = torch.arange(1, rows + 1, dtype=torch.float64) / rows
    oracle, random = 1 / (2 * math.sqrt(3)), 1 / math.sqrt(3)
    worst = scipy.integrate.quad(lambda r: math.sqrt((1 - (1 - r) ** 3) / (3 * r)), 0, 1)[0]
    assert ause(error, error).item() == 0.0
    assert ause(torch.zeros(rows).double(), error).item() == pytest.approx(1.0, abs=1e-9)
    assert ause(-error, error).item() == pytest.approx((worst - oracle) / (random - oracle), abs=4 / rows)
    # Mean risk: r/2 of the smallest share r, 1 - r/2 of the largest.
    assert aurc(error, error).item() == pytest.approx(0.25, abs=1 / rows)
    assert excess_aurc(-error, error).item() == pytest.approx(0.5, abs=1 / rows)
    assert excess_aurc(error, error).item() == 0.0


def test_order_and_monotone_changes_of_the_score_do_not_matter_and_units_do_not_move_ause():
    score, error = normal(300, 2).exp(), normal(300, 2, seed=1).abs()
    shuffle = torch.randperm(300, generator=generator())
    before = ranking(score, error)
    for name, value in ranking(score[shuffle].log(), error[shuffle]).items():
        torch.testing.assert_close(value, before[name], rtol=1e-10, atol=1e-12)
    scaled = ranking(score, 7 * error)
    for name in ("spearman", "ause"):
        torch.testing.assert_close(scaled[name], before[name])
    for name in ("aurc", "excess_aurc"):
        torch.testing.assert_close(scaled[name], 7 * before[name])


@pytest.mark.parametrize(("spread", "ceiling"), [(0.1, 0.11), (0.3, 0.30), (0.5, 0.45), (1.0, 0.69)])
def test_a_perfect_std_reaches_the_ceiling_of_its_spread_and_no_more(spread, ceiling):
    rows = 40_000
    std = (spread * normal(rows)).exp()
    error = std * normal(rows, seed=1)
    found = ranking(std, error)
    assert found["spearman"].item() == pytest.approx(scipy.stats.spearmanr(std, error.abs()).statistic, abs=1e-12)
    # Ceilings have two digits; a rank correlation has a standard error below 1/√J.
    assert found["spearman"].item() == pytest.approx(ceiling, abs=0.005 + 4 / math.sqrt(rows))
    assert 0 < found["ause"].item() < 1


def test_a_score_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="own shape"):
        ranking(torch.zeros(3), torch.zeros(4))


def constant_rates(rates, noise_var=0.0):
    """s' = s + θ_i a + ε: unknown slope θ, so the epistemic variance after h steps is var(θ) (Σ a)²."""

    def step(state, action):
        shape = (len(rates), *(1,) * (state.dim() - 1))
        mean = state + rates.reshape(shape) * action
        return Gaussian(mean, torch.full_like(mean, noise_var))

    return PlainDynamics(step, len(rates))


def slopes(starts=200, steps=6, truth=None, noise=0.3, seed=0):
    """Windows of s' = s + θ a + ε with one action held in each: the larger, the less sure is what follows."""
    held = normal(starts, 1, seed=seed).expand(steps, starts, 1)
    states = [normal(starts, 1, seed=seed + 1)]
    g = generator(seed + 2)
    for action in held:
        states.append(states[-1] + truth * action + noise * torch.randn(starts, 1, generator=g, dtype=torch.float64))
    return Windows(torch.stack(states), held.contiguous())


@pytest.fixture(scope="module")
def codec():
    codec = Codec()
    codec.fit(Transitions.from_arrays(normal(9, 1), normal(9, 1, seed=1), normal(9, 1, seed=2)))
    return codec


def replayed(codec, truth, draws=100, paths=4, replicates=100, seed=0):
    cut = slopes(truth=truth, seed=10 * seed)
    moved = replay(constant_rates(normal(draws, seed=seed + 1), 0.09), cut, codec, particles=paths, generator=generator(seed))
    simulated = replay(
        constant_rates(normal(replicates, seed=seed + 2), 0.09), cut, codec, propagation=OwnNoise(generator(seed + 3))
    )
    return cut, moved, simulated[:, :, 0]


def test_split_at_a_horizon_is_that_of_the_linear_system(codec):
    """After h steps epistemic = (h a)² and aleatoric = 0.09 h; n = 400 draws give the first to 4 √(2/399)."""
    cut, moved, _ = replayed(codec, 1.5, draws=400)
    from bayesdyn.evaluation.samples import split_variance

    for horizon in (1, 6):
        epistemic, aleatoric = split_variance(moved[horizon])
        expected = (horizon * cut.actions[0]).square()
        known = expected > 20 * 0.09 * horizon  # where θ dominates, the noise's own error is small beside it
        assert (epistemic[known] / expected[known] - 1).abs().max().item() < 4 * math.sqrt(2 / 399) * 1.1
        assert aleatoric.mean().item() == pytest.approx(0.09 * horizon, rel=4 * math.sqrt(2 / (400 * 3)))


def test_epistemic_std_ranks_the_error_where_theta_dominates(codec):
    """With θ = 1.5 against a mean of 0 the error is 1.5 h |a| and noise of variance 0.09 h: the order becomes perfect with h."""
    _, moved, _ = replayed(codec, 1.5)
    first, last = (horizon_ranking(moved[h]) for h in (1, 6))
    assert last["spearman_epistemic"][0].item() > 0.9
    assert last["spearman_epistemic"][0] > first["spearman_epistemic"][0]
    assert last["ause_epistemic"][0].item() < 0.2
    assert last["ause_epistemic"][1] is None


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_null_band_holds_the_score_of_truths_that_the_model_holds_possible(codec):
    """θ drawn as the model says: the scores lie in the 5-95 % band nine times in ten (100 repetitions, binomial error)."""
    repetitions, inside = 100, 0
    for seed in range(repetitions):
        truth = float(normal(1, seed=1000 + seed))
        _, moved, simulated = replayed(codec, truth, draws=30, replicates=60, seed=seed)
        value, band = horizon_ranking(moved[6], simulated[6])["spearman_epistemic"]
        inside += int(band.low <= value <= band.high)
    # The band is of 60 replicates; a further one falls outside either end with (.05·59 + 1)/61.
    expected = 1 - 2 * (0.05 * 59 + 1) / 61
    assert inside / repetitions == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / repetitions))


def test_own_noise_gives_every_start_its_own_and_keeps_one_theta():
    g = generator()
    dynamics = constant_rates(torch.tensor([0.0, 5.0], dtype=torch.float64), 1.0)
    found = rollout(
        dynamics,
        torch.zeros(5000, 1, dtype=torch.float64),
        torch.ones(2, 1, 1, dtype=torch.float64),
        lambda s, a, s2: s2[..., 0] - s[..., 0],
        particles=2,
        propagation=OwnNoise(g),
    ).returns
    assert found.shape == (2, 2, 5000)
    rows = found.flatten(0, 1)
    error = 4 / math.sqrt(5000)
    assert rows.mean(1).tolist() == pytest.approx([0, 0, 10, 10], abs=math.sqrt(2) * error)
    # Two steps of variance 1, independent between starts, paths and draws.
    assert rows.var(1).tolist() == pytest.approx([2.0] * 4, abs=2 * math.sqrt(2) * error)
    correlation = torch.corrcoef(rows) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max().item() < 4.5 / math.sqrt(5000)
