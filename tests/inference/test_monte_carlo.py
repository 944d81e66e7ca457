"""NUTS leaves its target as it is, finds closed-form posteriors, and says when its chains may not be believed."""

import math
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.distributions import Beta, Dirichlet, LogNormal, Normal
from pyro.ops import stats as pyro_stats
from scipy import stats

from bayesdyn.errors import ConfigurationError, NumericalError, ShapeError
from bayesdyn.inference.chain_adaptation import metric_windows
from bayesdyn.inference.density_mode import find_mode, inverse_curvature_factor
from bayesdyn.inference.monte_carlo import Samples, effective_sample_size, run_nuts, split_r_hat
from bayesdyn.inference.no_u_turn import NoUTurn
from bayesdyn.inference.pyro_density import PyroDensity

ERRORS = 4.5  # standard errors; a few dozen comparisons


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def autoregressive(phi: float, chains: int, draws: int, copies: int) -> torch.Tensor:
    """Independent stationary AR(1) chains, [chains, draws, copies]."""
    noise = torch.randn(draws, chains, copies, generator=generator(1), dtype=torch.float64)
    rows = [noise[0] / math.sqrt(1 - phi**2)]
    for e in noise[1:]:
        rows.append(phi * rows[-1] + e)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.5])
def test_effective_size_of_an_autoregressive_chain_is_that_of_theory(phi: float) -> None:
    values = autoregressive(phi, 4, 2000, 200)
    each = effective_sample_size(values)
    wanted = 8000 * (1 - phi) / (1 + phi)
    # Truncating the sum of correlations costs a few per cent: Geyer's rule stops at about the noise of the correlations.
    assert float(each.mean()) == pytest.approx(wanted, rel=0.05)
    # What it promises: the mean of the draws has the variance of that many independent ones.
    variance_of_mean = float(values.mean((0, 1)).var())
    independent = float(values.var()) / wanted
    assert abs(variance_of_mean / independent - 1) < ERRORS * math.sqrt(2 / 200)


def test_diagnostics_agree_with_pyro() -> None:
    values = autoregressive(0.6, 4, 501, 7)
    apart = values + torch.arange(4.0).reshape(4, 1, 1) * 0.2
    torch.testing.assert_close(split_r_hat(apart), pyro_stats.split_gelman_rubin(apart, 0, 1))
    halves = torch.cat([values[:, :250], values[:, -250:]])
    ours, theirs = effective_sample_size(values), pyro_stats.effective_sample_size(halves, 0, 1)
    # Pyro divides the autocovariance at lag t by h - t, not by h; the sums end at lags of about 20 of 250.
    torch.testing.assert_close(ours, theirs, rtol=20 / 250, atol=0.0)


def test_r_hat_tells_chains_that_disagree_or_drift() -> None:
    mixed = torch.randn(4, 500, generator=generator(), dtype=torch.float64)
    assert float(split_r_hat(mixed)) < 1.01
    assert float(split_r_hat(mixed + torch.arange(4.0).unsqueeze(1))) > 1.5
    assert float(split_r_hat(mixed + torch.linspace(0, 3, 500))) > 1.2
    assert bool(split_r_hat(torch.ones(2, 8)).isnan())
    for diagnostic in (split_r_hat, effective_sample_size):
        with pytest.raises(ShapeError, match="at least 4 draws"):
            diagnostic(mixed[:, :3])


TARGETS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], object]] = {
    "logistic": (lambda z: -(z + 2 * torch.nn.functional.softplus(-z)).sum(-1), stats.logistic),
    "normal": (lambda z: -0.5 * z.square().sum(-1), stats.norm),
    "skewed": (lambda z: (2 * z - z.exp()).sum(-1), stats.loggamma(2)),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_transition_leaves_its_target_as_it_is(name: str) -> None:
    """Chains that start at exact draws still have their distribution after transitions of a fixed step size."""
    log_density, target = TARGETS[name]
    uniform = torch.rand(4000, 2, generator=generator(2), dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    exact = torch.from_numpy(target.ppf(uniform.numpy()))
    sampler = NoUTurn(log_density)
    for step in (0.3, 1.1):
        z = sampler.transitions(exact, step, 3, generator(3))
        assert float((z - exact).abs().mean()) > 0.3
        for column in z.T:
            assert stats.kstest(column.numpy(), target.cdf).pvalue > 1e-4


@pytest.mark.parametrize("full_mass", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_normal_of_unequal_scales_is_found_with_its_moments(full_mass: bool) -> None:
    factor = torch.tensor([[2.0, 0.0, 0.0], [0.2, 0.4, 0.0], [0.0, 0.1, 0.2]], dtype=torch.float64)
    mean = double(1.0, -2.0, 30.0)

    def model() -> None:
        pyro.sample("z", pyro.distributions.MultivariateNormal(mean, scale_tril=factor))

    samples = run_nuts(model, chains=4, warmup=60, draws=80, full_mass=full_mass, generator=generator())
    z = samples.values["z"]
    assert z.dtype == torch.float64
    assert z.shape == (4, 80, 3)
    std = factor.square().sum(1).sqrt()
    error = std / effective_sample_size(z).sqrt()
    assert bool(((z.mean((0, 1)) - mean).abs() < ERRORS * error).all())
    square = ((z - mean) / std).square()
    assert bool(((square.mean((0, 1)) - 1).abs() < ERRORS * (2 / effective_sample_size(square)).sqrt()).all())
    assert float(split_r_hat(z).max()) < 1.05
    assert bool((samples.divergences == 0).all())


@pytest.mark.usefixtures("unchecked_shapes")
def test_bounded_sites_come_back_in_their_own_space() -> None:
    o = double(1.0)[0]

    def model() -> None:
        pyro.sample("scale", LogNormal(0 * o, 0.5 * o))
        pyro.sample("share", Beta(2 * o, 5 * o))
        pyro.sample("parts", Dirichlet(double(1.0, 2.0, 3.0)))

    samples = run_nuts(model, chains=3, warmup=50, draws=60, generator=generator())
    wanted = {"scale": double(math.exp(0.125))[0], "share": double(2 / 7)[0], "parts": double(1 / 6, 2 / 6, 3 / 6)}
    for name, mean in wanted.items():
        values = samples.values[name]
        error = values.std((0, 1)) / effective_sample_size(values).sqrt()
        assert bool(((values.mean((0, 1)) - mean).abs() < ERRORS * error).all())
    assert bool((samples.values["parts"].sum(-1) - 1).abs().max() < 1e-12)


def height() -> None:
    pyro.sample("height", Normal(2.0, 0.1))


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_generator_decides_and_nothing_global_moves() -> None:
    pyro.clear_param_store()
    before, validation = torch.get_rng_state(), torch.distributions.Distribution._validate_args

    def run(seed: int) -> torch.Tensor:
        return run_nuts(height, chains=2, warmup=20, draws=20, generator=generator(seed)).values["height"]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.distributions.Distribution._validate_args == validation
    assert len(pyro.get_param_store()) == 0


def test_chains_go_on_from_where_they_are_told() -> None:
    first = run_nuts(height, chains=2, warmup=20, draws=20, generator=generator())
    seen: list[tuple[int, int]] = []
    run_nuts(
        height,
        chains=2,
        warmup=10,
        draws=5,
        generator=generator(),
        initial=first.last(),
        progress=lambda done, total, figures: seen.append((done, total)),
    )
    assert seen[-1] == (15, 15)
    density = PyroDensity(height, generator())
    torch.testing.assert_close(density.constrained(density.flat(first.last()))["height"], first.values["height"][:, -1])
    merged = first.merged("height")
    assert torch.equal(merged[:2], first.values["height"][:, 0])
    assert torch.equal(merged[-2:], first.values["height"][:, -1])


def test_ctrl_c_leaves_at_once_and_changes_nothing() -> None:
    before = torch.get_rng_state()

    def interrupt(done: int, total: int, figures: dict[str, float]) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_nuts(height, chains=2, warmup=100, draws=100, generator=generator(), progress=interrupt)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_funnel_makes_transitions_diverge() -> None:
    def funnel() -> None:
        width = pyro.sample("width", Normal(double(0.0)[0], 3.0))
        pyro.sample("z", Normal(torch.zeros(*width.shape, 5).double(), (0.5 * width).exp().unsqueeze(-1)).to_event(1))

    samples = run_nuts(funnel, chains=8, warmup=20, draws=30, max_tree_depth=4, generator=generator())
    assert int(samples.divergences.sum()) > 0


def test_mistakes_are_named() -> None:
    def run(model: Callable[[], object] = height, **options: object) -> Samples:
        return run_nuts(model, **{"chains": 2, "warmup": 5, "draws": 5, "generator": generator(), **options})  # type: ignore[arg-type]

    for options in ({"chains": 0}, {"warmup": 0}, {"draws": -1}, {"target_accept": 1.0}):
        with pytest.raises(ConfigurationError, match=str(next(iter(options)))):
            run(**options)
    with pytest.raises(ShapeError, match=r"one start per chain, \[2"):
        run(initial={"height": torch.zeros(3)})

    def undeclared() -> None:
        mean = pyro.sample("mean", Normal(0.0, 1.0))
        pyro.sample("y", Normal(mean.unsqueeze(-1), 1.0), obs=torch.zeros(5))

    with pytest.raises(ShapeError, match="to_event"):
        run(undeclared)

    def impossible() -> None:
        pyro.sample("mean", Normal(0.0, 1.0))
        pyro.sample("y", Normal(torch.tensor(math.inf), 1.0), obs=torch.tensor(0.0))

    with pytest.raises(NumericalError, match="finite density"):
        run(impossible)


def test_windows_cover_the_warm_up_and_double() -> None:
    for warmup in (1, 5, 20, 100, 149, 150, 300, 1000):
        windows = metric_windows(warmup)
        assert windows.adapting.stop <= warmup + 1
        assert list(windows.ends) == sorted(set(windows.ends))
        assert not windows.ends or windows.ends[-1] == windows.adapting.stop - 1
    assert metric_windows(1000).ends == (100, 150, 250, 450, 950)


def test_mode_and_curvature_of_a_normal_are_its_moments() -> None:
    covariance = torch.tensor([[4.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    target = torch.distributions.MultivariateNormal(double(3.0, -100.0), covariance)
    mode = find_mode(target.log_prob, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(mode, target.mean, rtol=1e-5, atol=1e-5)
    factor = inverse_curvature_factor(target.log_prob, mode)
    torch.testing.assert_close(factor, torch.linalg.cholesky(covariance))
