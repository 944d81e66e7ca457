import pytest
import torch

from bayesdyn.errors import ShapeError
from bayesdyn.gaussian_processes.pathwise import PathwiseFunction, draw_prior
from bayesdyn.kernels import RBF, KernelParameters, Matern32, Matern52, RBFLinear, covariance
from bayesdyn.posteriors.exact_gp import ExactGP

F64 = torch.float64
KERNELS = [RBF(), Matern32(), Matern52(), RBFLinear()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_gp(kernel=RBF(), rows: int = 12, features: int = 512, dtype=F64) -> ExactGP:
    x = torch.randn(rows, 2, generator=generator(1), dtype=F64)
    y = torch.stack([torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1], torch.cos(x[:, 1])], 1)
    return ExactGP.from_hyperparameters(
        x,
        y,
        torch.tensor([[0.8, 1.5], [2.0, 1.0]], dtype=F64),
        torch.tensor([1.0, 0.5], dtype=F64),
        torch.tensor([0.01, 0.04], dtype=F64),
        linear_var=torch.tensor([0.3, 0.1], dtype=F64) if kernel.linear else None,
        kernel=kernel,
        features=features,
        dtype=dtype,
    )


def queries(rows: int = 5) -> torch.Tensor:
    return 1.5 * torch.randn(rows, 2, generator=generator(2), dtype=F64)


def exact_joint(gp: ExactGP, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    parameters = gp.kernel_parameters
    noisy = covariance(gp.kernel, parameters, gp.x, gp.x) + torch.diag_embed(gp.noise_var[:, None].expand(-1, len(gp.x)))
    cross = covariance(gp.kernel, parameters, gp.x, x)
    mean = cross.mT @ torch.linalg.solve(noisy, gp.y.mT.unsqueeze(-1))
    return mean.squeeze(-1), covariance(gp.kernel, parameters, x, x) - cross.mT @ torch.linalg.solve(noisy, cross)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_4000_draws_have_the_exact_joint_mean_and_covariance(kernel):
    # As E[φφᵀ] = K, mean and covariance averaged over feature sets are the exact posterior's, for any number of features. So 4,000
    # draws are taken as 400 feature sets of 10, and the standard error comes from the spread between the sets.
    gp, x, sets = make_gp(kernel, features=128), queries(), 400
    random = generator()
    mean, cov = exact_joint(gp, x)
    paths = torch.stack([gp.sample(10, random)(x.unsqueeze(0)).mean for _ in range(sets)])  # [sets, 10, c, E]
    deviation = paths.permute(0, 1, 3, 2) - mean
    for estimate in (deviation.mean(1), torch.einsum("snec,sned->secd", deviation, deviation) / 10 - cov):
        std_error = estimate.std(0) / sets**0.5
        # 60 numbers in all: the largest of 60 standard normals exceeds 4.5 with probability 4e-4.
        assert float((estimate.mean(0) / std_error).abs().max()) < 4.5


def test_paths_are_exactly_matherons_rule_given_their_features():
    # Given the frequencies, f is linear in (w, ε), so its covariance is known without Monte Carlo; 4,000 draws must show it.
    gp, x, n = make_gp(), queries(), 4000
    paths = gp.sample(n, generator(5))(x.unsqueeze(0)).mean
    prior = draw_prior(gp.kernel, gp.kernel_parameters, 1, gp.features, generator(5))  # the same frequencies: they are drawn first
    cross = covariance(gp.kernel, gp.kernel_parameters, gp.x, x)
    noisy = covariance(gp.kernel, gp.kernel_parameters, gp.x, gp.x) + torch.diag_embed(gp.noise_var[:, None].expand(-1, len(gp.x)))
    gain = torch.linalg.solve(noisy, cross)

    def features(points):
        phase = points @ prior.frequencies
        return torch.cat([phase.cos(), phase.sin()], -1) * (2 * gp.signal_var / gp.features).sqrt()[:, None, None]

    residual = features(x) - gain.mT @ features(gp.x)
    expected = residual @ residual.mT + gp.noise_var[:, None, None] * gain.mT @ gain
    deviation = paths.permute(2, 1, 0) - (gain.mT @ gp.y.mT.unsqueeze(-1))
    variance = expected.diagonal(dim1=-2, dim2=-1)
    assert float((deviation.mean(-1).abs() / (variance / n).sqrt()).max()) < 4.5
    sample = deviation @ deviation.mT / n
    # Var of a sample covariance of Gaussians: (Σ_ii Σ_jj + Σ_ij²)/n.
    std_error = ((variance.unsqueeze(-1) * variance.unsqueeze(-2) + expected.square()) / n).sqrt()
    assert float(((sample - expected) / std_error).abs().max()) < 4.5


def feature_error(features: int, sets: int) -> float:
    # Not Monte Carlo over draws: the conditional std of a path given each of several feature sets, against the exact std.
    gp, x = make_gp(rows=50), queries(20)
    _, cov = exact_joint(gp, x)
    cross = covariance(gp.kernel, gp.kernel_parameters, gp.x, x)
    noisy = covariance(gp.kernel, gp.kernel_parameters, gp.x, gp.x) + torch.diag_embed(gp.noise_var[:, None].expand(-1, len(gp.x)))
    gain = torch.linalg.solve(noisy, cross)
    errors = []
    for seed in range(sets):
        omega = draw_prior(gp.kernel, gp.kernel_parameters, 1, features, generator(seed)).frequencies
        phase, phase_data = x @ omega, gp.x @ omega
        residual = torch.cat([phase.cos() - gain.mT @ phase_data.cos(), phase.sin() - gain.mT @ phase_data.sin()], -1)
        var = residual.square().sum(-1) * 2 * gp.signal_var[:, None] / features + gp.noise_var[:, None] * gain.square().sum(-2)
        errors.append((var / cov.diagonal(dim1=-2, dim2=-1)).sqrt() - 1)
    return float(torch.stack(errors).square().mean().sqrt())


def test_the_feature_error_of_a_paths_std_falls_with_the_root_of_their_number():
    # 60 sets: each root mean square is known to about 1/√(2·60) = 9 % even if all 40 places erred alike, so the ratio, expected to
    # be √16 = 4, to 13 %; three standard errors are allowed.
    assert 4 * (1 - 0.39) < feature_error(64, 60) / feature_error(1024, 60) < 4 * (1 + 0.39)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_prior_draws_with_many_features_have_the_kernel_as_covariance(kernel):
    parameters = KernelParameters(
        torch.tensor([[0.7, 1.3]], dtype=F64),
        torch.tensor([1.5], dtype=F64),
        torch.full((1,), 0.2 if kernel.linear else 0.0, dtype=F64),
    )
    x, n = queries(4), 4000
    draws = draw_prior(kernel, parameters, n, 512, generator(7))(x)[0]
    expected = covariance(kernel, parameters, x, x)[0]
    variance = expected.diagonal()
    # Monte Carlo plus feature error: each of the M/2 features contributes variance at most s² to the covariance estimate.
    std_error = ((variance[:, None] * variance + expected.square()) / n + parameters.signal_var**2 / 256).sqrt()
    assert float(((draws @ draws.mT / n - expected) / std_error).abs().max()) < 4.5


def test_the_prior_variance_is_exact_whatever_the_features():
    parameters = KernelParameters(torch.ones(1, 2, dtype=F64), torch.tensor([2.0], dtype=F64), torch.zeros(1, dtype=F64))
    prior = draw_prior(RBF(), parameters, 1, 4, generator())
    phase = queries() @ prior.frequencies
    features = torch.cat([phase.cos(), phase.sin()], -1) * (2.0 / 2) ** 0.5
    torch.testing.assert_close(features.square().sum(-1), torch.full((1, 5), 2.0, dtype=F64))


def test_the_function_is_the_prior_plus_the_update():
    gp, random = make_gp(RBFLinear()), generator()
    prior = draw_prior(gp.kernel, gp.kernel_parameters, 3, 64, random)
    update = torch.randn(2, 12, 3, generator=random, dtype=F64)
    function = PathwiseFunction(gp.kernel, gp.kernel_parameters, prior, gp.x, update, gp.noise_var)
    expected = prior(queries()) + covariance(gp.kernel, gp.kernel_parameters, queries(), gp.x) @ update
    torch.testing.assert_close(function(queries().unsqueeze(0)).mean, expected.permute(2, 1, 0), rtol=1e-10, atol=1e-10)


def test_points_may_differ_between_outputs():
    gp, random = make_gp(), generator()
    prior = draw_prior(gp.kernel, gp.kernel_parameters, 3, 64, random)
    points = torch.randn(2, 12, 2, generator=random, dtype=F64)
    update = torch.randn(2, 12, 3, generator=random, dtype=F64)
    function = PathwiseFunction(gp.kernel, gp.kernel_parameters, prior, points, update, gp.noise_var)
    expected = prior(queries()) + covariance(gp.kernel, gp.kernel_parameters, queries(), points) @ update
    torch.testing.assert_close(function(queries().unsqueeze(0)).mean, expected.permute(2, 1, 0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_shared_inputs_agree_with_their_expansion_and_rows_with_single_draws(kernel):
    function = make_gp(kernel).sample(4, generator())
    x = queries(6).reshape(1, 2, 3, 2)
    shared, own = function(x), function(x.expand(4, -1, -1, -1))
    assert shared.mean.shape == own.mean.shape == own.var.shape == (4, 2, 3, 2)
    torch.testing.assert_close(shared.mean, own.mean, rtol=1e-10, atol=1e-10)
    changed = x.expand(4, -1, -1, -1).clone()
    changed[2] += 1
    difference = (function(changed).mean - own.mean).abs().amax((1, 2, 3))
    assert float(difference[2]) > 1e-3
    assert float(difference[[0, 1, 3]].max()) < 1e-10


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_agree_with_finite_differences(kernel, shared):
    function = make_gp(kernel).sample(3, generator())
    x = queries(2).expand(1 if shared else 3, -1, -1).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x).mean, (x,), rtol=1e-4, atol=1e-7)


def test_many_rows_are_evaluated_in_chunks_with_the_same_answer():
    function = make_gp(rows=300).sample(8, generator())
    x = queries(5000).unsqueeze(0)
    torch.testing.assert_close(function(x).mean[:, 4321], function(x[:, 4321:4322]).mean[:, 0], rtol=1e-10, atol=1e-10)


def test_float32_draws_are_the_same_functions_and_leave_the_original():
    function = make_gp().sample(4, generator())
    x = queries().unsqueeze(0)
    before = function(x).mean
    single = function.to(dtype=torch.float32)
    result = single(x.float())
    assert result.mean.dtype == result.var.dtype == torch.float32
    # The update's weights reach |v| ~ 100 here, so float32 rounding of k·v is about 100 · 6e-8 · √12.
    torch.testing.assert_close(result.mean.double(), before, rtol=0, atol=1e-3)
    assert torch.equal(function(x).mean, before)


def test_the_answer_is_the_same_bit_for_bit_after_a_refit_and_other_draws():
    gp = make_gp()
    function = gp.sample(4, generator())
    x = queries().expand(4, -1, -1)
    before = function(x)
    gp.fit(torch.randn(20, 2, generator=generator(3), dtype=F64), torch.randn(20, 2, generator=generator(4), dtype=F64))
    gp.append(torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64))
    gp.train()
    gp.sample(2, generator())
    after = function(x)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.var, after.var)


def test_draws_depend_on_the_generator_alone():
    gp, x = make_gp(), queries().unsqueeze(0)
    state = torch.random.get_rng_state()
    first, again, other = (gp.sample(2, generator(s))(x).mean for s in (0, 0, 1))
    gp.sample(1)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first[0], first[1])
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_noise_variance_comes_with_every_value():
    gp = make_gp()
    var = gp.sample(3, generator())(queries().unsqueeze(0)).var
    assert torch.equal(var, gp.noise_var.expand(3, 5, 2))


def test_far_from_the_data_a_path_returns_to_the_prior_and_stays_finite():
    function = make_gp().sample(200, generator())
    x = torch.full((1, 1, 2), 1e3, dtype=F64)
    for result in (function(x), function.to(dtype=torch.float32)(x.float())):
        assert bool(result.mean.isfinite().all())
        assert bool((result.mean.abs() < 6).all())


@pytest.mark.parametrize("shape", [(3, 2), (4, 1), (4, 5, 3)])
def test_a_wrong_shape_names_what_was_wanted(shape):
    with pytest.raises(ShapeError, match=r"\[4 or 1, \.\.\., 2\]"):
        make_gp().sample(4, generator())(torch.zeros(shape, dtype=F64))
