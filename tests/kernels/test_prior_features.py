from collections.abc import Callable

import pytest
import torch
from gpytorch import kernels

from bayesdyn.kernels import GPyTorchKernel, NystromTerm, Term, UnknownSpectrumError, draw_terms, prior_terms
from bayesdyn.kernels.gpytorch_kernel import dense

F64 = torch.float64
Factory = Callable[[int], kernels.Kernel]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_values(kernel: kernels.Kernel, **values: object) -> kernels.Kernel:
    for name, value in values.items():
        setattr(kernel, name, torch.as_tensor(value))
    return kernel


def rbf(inputs: int) -> kernels.Kernel:
    return with_values(kernels.RBFKernel(ard_num_dims=inputs), lengthscale=[[0.7, 1.9]])


def periodic(**options: object) -> kernels.Kernel:
    return with_values(kernels.PeriodicKernel(**options), lengthscale=0.4, period_length=1.7)


def mixture(inputs: int) -> kernels.Kernel:
    return with_values(
        kernels.SpectralMixtureKernel(num_mixtures=3, ard_num_dims=inputs),
        mixture_weights=[0.5, 1.0, 0.3],
        mixture_means=[[[0.1, 0.5]], [[0.9, 0.02]], [[0.3, 0.3]]],
        mixture_scales=[[[0.2, 0.1]], [[0.05, 0.3]], [[0.4, 0.2]]],
    )


KERNELS: dict[str, Factory] = {
    "rbf": rbf,
    "rbf, one length-scale": lambda d: kernels.RBFKernel(),
    "rbf of one input": lambda d: kernels.RBFKernel(active_dims=(1,)),
    "matern 1/2": lambda d: kernels.MaternKernel(nu=0.5, ard_num_dims=d),
    "matern 3/2": lambda d: with_values(kernels.MaternKernel(nu=1.5, ard_num_dims=d), lengthscale=[[0.7, 1.9]]),
    "matern 5/2": lambda d: kernels.MaternKernel(nu=2.5),
    "rational quadratic": lambda d: with_values(kernels.RQKernel(ard_num_dims=d), lengthscale=[[0.7, 1.9]], alpha=0.8),
    "periodic": lambda d: periodic(ard_num_dims=d),
    "periodic of one input": lambda d: periodic(active_dims=(0,)),
    "periodic, short": lambda d: with_values(kernels.PeriodicKernel(), lengthscale=1e-3, period_length=3.0),
    "cosine of one input": lambda d: with_values(kernels.CosineKernel(active_dims=(1,)), period_length=1.3),
    "spectral mixture": mixture,
    "linear": lambda d: with_values(kernels.LinearKernel(), variance=0.6),
    "linear, one variance per input": lambda d: with_values(kernels.LinearKernel(ard_num_dims=d), variance=[[0.6, 0.2]]),
    "polynomial": lambda d: with_values(kernels.PolynomialKernel(power=3), offset=0.7),
    "constant": lambda d: with_values(kernels.ConstantKernel(), constant=2.3),
    "scaled": lambda d: with_values(kernels.ScaleKernel(rbf(d)), outputscale=2.5),
    "scaled kernel of one input": lambda d: with_values(kernels.ScaleKernel(kernels.RBFKernel(active_dims=(1,))), outputscale=2.5),
    "sum": lambda d: rbf(d) + kernels.ScaleKernel(kernels.LinearKernel()) + kernels.ConstantKernel(),
    "locally periodic": lambda d: kernels.ScaleKernel(periodic(ard_num_dims=d) * rbf(d)),
    "product of two cosines": lambda d: kernels.CosineKernel(active_dims=(0,)) * kernels.CosineKernel(active_dims=(0,)),
    "product with a trend": lambda d: kernels.LinearKernel() * rbf(d),
    "product of sums": lambda d: (rbf(d) + kernels.LinearKernel()) * (kernels.ConstantKernel() + periodic(active_dims=(1,))),
    "sum below active dimensions": lambda d: kernels.ScaleKernel(
        kernels.AdditiveKernel(kernels.RBFKernel(active_dims=(1,)), kernels.RBFKernel(active_dims=(0,)))
    ),
}


def points(rows: int = 5) -> torch.Tensor:
    return 1.5 * torch.randn(rows, 2, generator=generator(2), dtype=F64)


def features(terms: list[Term], x: torch.Tensor) -> torch.Tensor:
    return torch.cat([term(x) for term in terms], -1)


@pytest.mark.parametrize("name", KERNELS)
def test_features_have_the_covariance_of_their_kernel(name):
    kernel, x, sets = GPyTorchKernel(KERNELS[name]).build(2), points(), 150
    random = generator()
    drawn = [features(draw_terms(kernel, 2, 32, random, x), x) for _ in range(sets)]
    estimate = torch.stack([phi @ phi.mT for phi in drawn])
    expected = dense(kernel, x, x).detach()
    # The standard error comes from the spread between the sets; where features are exact there is none, only rounding, to which
    # GPyTorch adds its own, 1e-8 of a distance. 24 kernels with 15 numbers each: 4.5 is exceeded with probability 2e-3.
    allowed = 4.5 * estimate.std(0) / sets**0.5 + 1e-7 * expected.abs().max()
    assert bool(((estimate.mean(0) - expected).abs() <= allowed).all())


STATIONARY = [n for n in KERNELS if not any(word in n for word in ("linear", "polynomial", "sum", "trend"))]


@pytest.mark.parametrize("name", STATIONARY)
def test_the_variance_is_exact_with_any_number_of_frequencies(name):
    kernel, x = GPyTorchKernel(KERNELS[name]).build(2), points()
    phi = features(draw_terms(kernel, 2, 3, generator(), x), x)
    torch.testing.assert_close(phi.square().sum(-1), kernel(x, diag=True).detach().expand(5), rtol=1e-6, atol=0)


def test_features_come_in_the_dtype_that_is_asked_for_and_can_be_cast():
    kernel, x = GPyTorchKernel(KERNELS["product of sums"]).build(2), points()
    for dtype in (torch.float32, F64):
        assert features(draw_terms(kernel.to(dtype), 2, 8, generator(), x.to(dtype)), x.to(dtype)).dtype == dtype
    terms = draw_terms(kernel.double(), 2, 8, generator(), x)
    single = features([term.to(dtype=torch.float32) for term in terms], x.float())
    torch.testing.assert_close(single.double(), features(terms, x), rtol=0, atol=1e-4)


def test_features_depend_on_the_generator_alone():
    kernel, x = GPyTorchKernel(KERNELS["rational quadratic"]).build(2), points()
    before = torch.get_rng_state()
    one, two, other = (features(draw_terms(kernel, 2, 8, generator(seed), x), x) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)
    assert torch.equal(before, torch.get_rng_state())


class Rough(kernels.RBFKernel):
    """A subclass that computes something else, as its parent's features cannot know."""

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, **options: object) -> torch.Tensor:
        return super().forward(x1, x2, **options) ** 2


@pytest.mark.parametrize(
    "factory",
    [
        lambda: kernels.PiecewisePolynomialKernel(),
        lambda: Rough(),
        lambda: kernels.ScaleKernel(Rough()),
        lambda: kernels.RBFKernel() + kernels.ScaleKernel(kernels.PiecewisePolynomialKernel()),
        lambda: kernels.CosineKernel(),
        lambda: kernels.PolynomialKernel(power=9),
    ],
)
def test_kernels_without_features_are_refused(factory):
    with pytest.raises(UnknownSpectrumError):
        draw_terms(factory().double(), 2, 4, generator(), points())


def test_a_user_may_register_a_kernel():
    class Mine(kernels.RBFKernel):
        pass

    kernel, x = Mine().double(), points()
    with pytest.raises(UnknownSpectrumError, match="Mine"):
        draw_terms(kernel, 2, 4, generator(), x)

    @prior_terms.register
    def _(kernel: Mine, request):
        return [request.term(request.normal(len(request.columns)) / request.per_column(kernel.lengthscale))]

    assert features(draw_terms(kernel + kernels.LinearKernel().double(), 2, 4, generator(), x), x).shape == (5, 10)


def test_nystrom_features_are_exact_at_their_points_and_say_what_they_lack_elsewhere():
    kernel, x = Rough().double().requires_grad_(False), points(20)
    term = NystromTerm.at(kernel, x)
    torch.testing.assert_close(term(x) @ term(x).mT, dense(kernel, x, x), rtol=0, atol=1e-8)
    assert float(term.missing(x).max()) < 1e-8
    far = torch.tensor([[50.0, 0.0], [0.3, 0.2]], dtype=F64)
    missing = term.missing(far)
    # 1 - q/k, the conditional variance given the points, in units of the prior variance.
    gain = torch.linalg.solve(dense(kernel, x, x) + 1e-12 * torch.eye(20, dtype=F64), dense(kernel, x, far))
    expected = 1 - (dense(kernel, x, far) * gain).sum(0)
    torch.testing.assert_close(missing, expected, rtol=1e-5, atol=1e-8)
    assert float(missing[0]) == pytest.approx(1.0)
