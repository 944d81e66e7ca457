"""`Gaussian` and `Predictive`: closed forms, torch's own mixture, and the variance slips that other libraries make."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from bayesdyn.distributions import Gaussian, Predictive
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.testing.conformance import shape_checks_off

STANDARD_ERRORS = 5.0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_predictive(m: int = 4, batch: tuple[int, ...] = (3,), outputs: int = 2, seed: int = 0) -> Predictive:
    g = generator(seed)
    shape = (m, *batch, outputs)
    mean = torch.randn(shape, generator=g, dtype=torch.float64)
    epistemic, aleatoric = (0.05 + torch.rand(shape, generator=g, dtype=torch.float64) for _ in range(2))
    return Predictive(mean, epistemic, aleatoric)


def two_modes(aleatoric_var: float = 0.01) -> Predictive:
    return Predictive(torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1), torch.full((2, 1), aleatoric_var))


def torch_mixture(p: Predictive) -> MixtureSameFamily:
    """The same density built from torch's classes, which want the component axis last."""
    mean, std = p.component_mean.movedim(0, -2), p.component_var.sqrt().movedim(0, -2)
    return MixtureSameFamily(Categorical(torch.ones(mean.shape[:-1], dtype=mean.dtype)), Independent(Normal(mean, std), 1))


def test_gaussian_sample_scales_the_noise_by_the_std_and_not_by_the_variance() -> None:
    noise = torch.tensor([[1.0], [-2.0]])
    sample = Gaussian(torch.tensor([[3.0], [3.0]]), torch.tensor([[4.0], [4.0]])).sample(noise)
    torch.testing.assert_close(sample, torch.tensor([[5.0], [-1.0]]))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_variance_is_epistemic_plus_aleatoric_and_equals_torchs_mixture(batch: tuple[int, ...]) -> None:
    p = random_predictive(m=5, batch=batch)
    oracle = torch_mixture(p)
    torch.testing.assert_close(p.mean, oracle.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.variance, oracle.variance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.variance, p.epistemic_variance + p.aleatoric_variance, rtol=0, atol=0)
    torch.testing.assert_close(p.stddev.square(), p.variance)


def test_parameters_are_not_averaged_over_members() -> None:
    assert two_modes().stddev.item() == pytest.approx(math.sqrt(1.01), rel=1e-6)


def test_aleatoric_variance_is_the_mean_of_variances_not_of_their_logarithms_or_roots() -> None:
    p = Predictive(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([[0.01], [1.0]]))
    assert p.aleatoric_variance.item() == pytest.approx(0.505)  # the geometric mean is 0.1, the squared mean std 0.3025
    assert p.epistemic_variance.item() == 0.0


def test_total_variance_adds_variances_on_a_case_made_by_hand() -> None:
    # Var of the means (0, 2) is 1, mean epistemic 0.5, mean aleatoric 0.25; stds or mixed units would give another total.
    p = Predictive(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.25], [0.75]]), torch.tensor([[0.1], [0.4]]))
    assert (p.epistemic_variance.item(), p.aleatoric_variance.item(), p.variance.item()) == pytest.approx((1.5, 0.25, 1.75))


def test_draws_carry_no_epistemic_variance_inside_a_component() -> None:
    p = Predictive.from_draws(Gaussian(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.25]])))
    assert p.components == 1
    torch.testing.assert_close(p.epistemic_variance, torch.zeros(2))
    torch.testing.assert_close(p.variance, torch.tensor([0.5, 0.25]))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("extra", [(), (6,), (2, 6)])
def test_log_prob_is_that_of_torchs_mixture(batch: tuple[int, ...], extra: tuple[int, ...]) -> None:
    p = random_predictive(m=4, batch=batch)
    y = torch.randn((*extra, *batch, 2), generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(y), torch_mixture(p).log_prob(y), rtol=1e-12, atol=1e-12)


def test_log_prob_takes_the_product_over_outputs_inside_the_mixture() -> None:
    # Two fully dependent outputs: (1, -1) is impossible under either member, although both marginals make it likely.
    p = Predictive(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.zeros(2, 2), torch.full((2, 2), 0.01))
    y = torch.tensor([1.0, -1.0])
    assert p.log_prob(y).item() < -100
    torch.testing.assert_close(p.marginal_log_prob(y)[0], p.marginal_log_prob(y)[1])
    assert p.marginal_log_prob(y).sum().item() > 0


def test_log_prob_is_one_number_per_point_so_points_are_averaged_outside_the_mixture() -> None:
    p = random_predictive(m=3, batch=(5,))
    y = torch.zeros(5, 2, dtype=torch.float64)
    alone = [
        Predictive(*(t[:, i] for t in (p.component_mean, p.component_epistemic_var, p.component_aleatoric_var))) for i in range(5)
    ]
    torch.testing.assert_close(p.log_prob(y), torch.stack([q.log_prob(y[i]) for i, q in enumerate(alone)]))


def test_density_is_the_mixtures_and_not_the_moment_matched_gaussians() -> None:
    p = two_modes()
    matched = p.moment_matched()
    at_zero = Normal(matched.mean, matched.var.sqrt()).log_prob(torch.zeros(1))
    assert p.log_prob(torch.zeros(1)).item() < -40 < at_zero.item()


def test_one_component_equals_the_gaussian_formulas() -> None:
    p = random_predictive(m=1)
    oracle = Normal(p.component_mean[0], p.component_var[0].sqrt())
    y = torch.randn(3, 2, generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close(p.marginal_log_prob(y), oracle.log_prob(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.cdf(y), oracle.cdf(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.icdf(0.9), oracle.icdf(torch.tensor(0.9, dtype=torch.float64)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.aleatoric_entropy(), oracle.entropy().sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.mutual_information(), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_cdf_has_the_marginal_density_as_its_slope() -> None:
    p = random_predictive()
    y = torch.randn(3, 2, generator=generator(3), dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(p.cdf(y).sum(), y)
    torch.testing.assert_close(slope, p.marginal_log_prob(y.detach()).exp(), rtol=1e-10, atol=1e-12)


@settings(max_examples=50)
@given(
    probability=st.floats(1e-6, 1 - 1e-6),
    separation=st.floats(0.0, 50.0),
    narrow=st.floats(1e-4, 1.0),
    wide=st.floats(1.0, 1e4),
)
def test_icdf_inverts_the_cdf(probability: float, separation: float, narrow: float, wide: float) -> None:
    mean = torch.tensor([[0.0], [separation]], dtype=torch.float64)
    p = Predictive(mean, torch.zeros_like(mean), torch.tensor([[narrow], [wide]], dtype=torch.float64))
    assert p.cdf(p.icdf(probability)).item() == pytest.approx(probability, abs=1e-10)


def test_icdf_broadcasts_probabilities_and_is_increasing() -> None:
    p = random_predictive()
    probabilities = torch.linspace(0.01, 0.99, 9, dtype=torch.float64).reshape(9, 1, 1)
    quantiles = p.icdf(probabilities)
    assert quantiles.shape == (9, 3, 2)
    assert bool((quantiles.diff(dim=0) > 0).all())
    torch.testing.assert_close(p.cdf(quantiles), probabilities.expand(9, 3, 2), rtol=0, atol=1e-10)


def test_interval_holds_its_coverage() -> None:
    low, high = random_predictive().interval(0.9)
    p = random_predictive()
    torch.testing.assert_close(p.cdf(high) - p.cdf(low), torch.full((3, 2), 0.9, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(p.cdf(low), torch.full((3, 2), 0.05, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_icdf_names_the_range_it_wants(probability: float) -> None:
    with pytest.raises(ConfigurationError, match="strictly between 0 and 1"):
        two_modes().icdf(probability)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_samples_have_the_predictives_moments_and_are_independent_over_the_batch(batch: tuple[int, ...]) -> None:
    p, draws = random_predictive(batch=batch, seed=4), 20_000
    y = p.sample((draws,), generator=generator(5))
    assert y.shape == (draws, *batch, 2)
    centred = y - y.mean(0)
    var = centred.square().mean(0)
    mean_error = (var / draws).sqrt()
    var_error = ((centred**4).mean(0) - var.square()).div(draws).sqrt()
    assert bool(((y.mean(0) - p.mean).abs() < STANDARD_ERRORS * mean_error).all())
    assert bool(((var - p.variance).abs() < STANDARD_ERRORS * var_error).all())
    if batch:
        correlation = torch.corrcoef(y[:, :, 0].T)[0, 1].item()
        assert abs(correlation) < STANDARD_ERRORS / math.sqrt(draws)


def test_the_outputs_of_a_sample_come_from_one_component() -> None:
    p = Predictive(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.zeros(2, 2), torch.full((2, 2), 0.01))
    y = p.sample(500, generator=generator(6))
    assert bool((y.sign().sum(-1).abs() == 2).all())
    assert (
        0.5 - STANDARD_ERRORS * 0.5 / math.sqrt(500)
        < (y[:, 0] > 0).double().mean().item()
        < 0.5 + STANDARD_ERRORS * 0.5 / math.sqrt(500)
    )


def test_samples_come_from_the_generator_alone() -> None:
    p, before = random_predictive(), torch.get_rng_state()
    torch.testing.assert_close(p.sample((3,), generator=generator(7)), p.sample((3,), generator=generator(7)), rtol=0, atol=0)
    p.mutual_information()
    p.entropy_estimate()
    assert torch.equal(before, torch.get_rng_state())


def test_expand_repeats_the_distribution() -> None:
    p = random_predictive(batch=(3,))
    wide = p.expand((4, 3))
    y = torch.randn(4, 3, 2, generator=generator(8), dtype=torch.float64)
    assert (wide.batch_shape, wide.event_shape, wide.components) == (torch.Size([4, 3]), torch.Size([2]), 4)
    torch.testing.assert_close(wide.log_prob(y), p.log_prob(y), rtol=0, atol=0)
    torch.testing.assert_close(wide.mean[2], p.mean, rtol=0, atol=0)
    assert wide.sample((5,), generator=generator()).shape == (5, 4, 3, 2)
    torch.testing.assert_close(random_predictive(batch=(1,)).expand((6,)).variance[5], random_predictive(batch=(1,)).variance[0])


def test_mutual_information_of_two_separate_modes_is_log_two() -> None:
    assert two_modes(1e-4).mutual_information().item() == pytest.approx(math.log(2), rel=1e-5)
    gaussian_formula = 0.5 * math.log(two_modes(1e-4).variance.item() / 1e-4)
    assert gaussian_formula > 4  # what a moment-matched entropy would report


@settings(max_examples=50)
@given(m=st.integers(1, 6), spread=st.floats(0.0, 20.0))
def test_mutual_information_is_at_most_log_m(m: int, spread: float) -> None:
    mean = spread * torch.randn(m, 2, 1, generator=generator(m), dtype=torch.float64)
    p = Predictive(mean, torch.zeros_like(mean), torch.full_like(mean, 0.1))
    assert bool((p.mutual_information(64) <= math.log(m) + 1e-9).all())


def test_mutual_information_equals_quadrature() -> None:
    p = Predictive.from_draws(Gaussian(torch.tensor([[-0.5], [0.3], [0.9]]).double(), torch.tensor([[0.2], [0.1], [0.4]]).double()))
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64).unsqueeze(-1)
    log_density = p.log_prob(grid)
    entropy = torch.trapezoid(-log_density.exp() * log_density, grid.squeeze(-1))
    repeats = torch.stack([p.mutual_information(64, generator(s)) for s in range(50)])
    error = repeats.std() / math.sqrt(50)
    assert abs(repeats.mean() - (entropy - p.aleatoric_entropy())) < STANDARD_ERRORS * error
    repeats = torch.stack([p.entropy_estimate(64, generator(s)) for s in range(50)])
    assert abs(repeats.mean() - entropy) < STANDARD_ERRORS * repeats.std() / math.sqrt(50)


def test_order_of_components_does_not_matter() -> None:
    p = random_predictive(m=5)
    parts: tuple[Tensor, ...] = (p.component_mean, p.component_epistemic_var, p.component_aleatoric_var)
    q = Predictive(*(t.flip(0) for t in parts))
    y = torch.zeros(3, 2, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(y), q.log_prob(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.variance, q.variance, rtol=1e-12, atol=1e-12)


def test_wrong_shapes_are_named() -> None:
    with shape_checks_off(), pytest.raises(ShapeError, match=r"\[m, ..., E\].*\(2, 2\)"):
        Predictive(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, 2))
    with shape_checks_off(), pytest.raises(ShapeError, match="three tensors"):
        Predictive(torch.zeros(2), torch.zeros(2), torch.zeros(2))
    with pytest.raises(ShapeError, match=r"\[..., 1\].*\[3\]"):
        two_modes().log_prob(torch.zeros(3))
