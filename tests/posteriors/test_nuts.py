"""NUTS on networks: its density against Pyro, linear networks against exact regression, what is stored, said and refused."""

import math

import pytest
import torch

from bayesdyn.errors import ConfigurationError, DataError, ShapeError
from bayesdyn.inference.monte_carlo import effective_sample_size
from bayesdyn.inference.no_u_turn import NoUTurn
from bayesdyn.inference.nuts_metric import ChainwiseMetric
from bayesdyn.inference.pyro_density import PyroDensity
from bayesdyn.networks import Homoscedastic, Network
from bayesdyn.posteriors.nuts import NUTS, NUTSSampling
from bayesdyn.posteriors.nuts_density import NetworkDensity
from bayesdyn.testing import check_posterior

DOUBLE = torch.float64
TINY = NUTSSampling(chains=2, warmup=10, warm_warmup=5, draws=10, stored=20, max_tree_depth=3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def line(rows: int, dtype: torch.dtype = DOUBLE) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 2, generator=generator(1), dtype=DOUBLE)
    noise = torch.randn(rows, 1, generator=generator(2), dtype=DOUBLE)
    return x.to(dtype), (x @ torch.tensor([[0.7], [-0.4]], dtype=DOUBLE) + 0.3 + 0.5 * noise).to(dtype)


@pytest.fixture(scope="module")
def tiny() -> NUTS:
    posterior = NUTS((3,), sampling=NUTSSampling(chains=20, warmup=10, draws=4, stored=20, max_tree_depth=3))
    posterior.fit(*line(15), generator=generator())
    return posterior


@pytest.mark.parametrize("hidden", [(), (3,), (4, 2)])
def test_the_density_written_by_hand_is_that_of_the_model_stated_in_pyro(hidden: tuple[int, ...]) -> None:
    x = torch.randn(7, 2, generator=generator(1), dtype=DOUBLE)
    y = torch.randn(7, 3, generator=generator(2), dtype=DOUBLE)
    density = NetworkDensity(Network(2, hidden, 3, "tanh", Homoscedastic()), x, y)
    stated = PyroDensity(density.model, generator())
    z = torch.randn(4, density.network.size + 3, generator=generator(3), dtype=DOUBLE)
    whitened, log_std = z[:, :-3].clone().requires_grad_(), z[:, -3:].clone().requires_grad_()
    theta = (whitened * density.std).detach().requires_grad_()
    # In whitened weights the density is larger by the volume Π s.
    by_hand = density(torch.cat([whitened, log_std], 1))
    by_pyro = stated(torch.cat([theta, log_std], 1)) + density.std.log().sum()
    torch.testing.assert_close(by_hand, by_pyro, rtol=1e-12, atol=1e-10)
    hand, hand_noise = torch.autograd.grad(by_hand.sum(), (whitened, log_std))
    pyro, pyro_noise = torch.autograd.grad(by_pyro.sum(), (theta, log_std))
    torch.testing.assert_close(hand, pyro * density.std, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(hand_noise, pyro_noise, rtol=1e-9, atol=1e-9)


def test_rows_and_networks_stand_for_each_other() -> None:
    density = NetworkDensity(Network(2, (3,), 2, "tanh", Homoscedastic()), *(torch.zeros(4, 2, dtype=DOUBLE) for _ in range(2)))
    z = torch.randn(5, density.network.size + 2, generator=generator(), dtype=DOUBLE)
    parameters = density.parameters(z)
    torch.testing.assert_close(density.rows(parameters), z)
    var = density.network.function(parameters)(torch.zeros(1, 6, 2, dtype=DOUBLE)).var
    torch.testing.assert_close(var, (2 * z[:, -2:]).exp().unsqueeze(1).expand(5, 6, 2))


def exact_regression(x: torch.Tensor, y: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean and variance of f at some inputs, and E σ²: closed form given σ, quadrature over log σ."""
    log_std = torch.linspace(-4, 2, 4001, dtype=DOUBLE)
    features, queries = (torch.cat([v, torch.ones(len(v), 1, dtype=DOUBLE)], 1) for v in (x, at))
    prior = torch.diag(torch.tensor([0.5, 0.5, 1.0], dtype=DOUBLE))
    var = (2 * log_std).exp()
    covariance = features @ prior @ features.mT + var[:, None, None] * torch.eye(len(x), dtype=DOUBLE)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(len(x), dtype=DOUBLE), covariance).log_prob(y[:, 0])
    weight = (evidence - 0.5 * var + log_std).softmax(0)
    precision = features.mT @ features / var[:, None, None] + torch.linalg.inv(prior)
    inverse = torch.linalg.inv(precision)
    means = queries @ (inverse @ features.mT @ y / var[:, None, None]).squeeze(-1).mT  # [Q, grid]
    variances = torch.einsum("qi,gij,qj->qg", queries, inverse, queries)
    mean = means @ weight
    return mean, (variances + (means - mean[:, None]).square()) @ weight, float(var @ weight)


@pytest.mark.usefixtures("unchecked_fits")
def test_a_linear_network_agrees_with_exact_bayesian_regression_and_says_that_its_chains_agree() -> None:
    x, y = line(12)
    at = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-3.0, 2.0]], dtype=DOUBLE)
    mean, var, noise_var = exact_regression(x, y, at)
    # Many short chains, because a gradient costs as much for one as for all; every draw is stored.
    posterior = NUTS((), sampling=NUTSSampling(chains=32, warmup=80, draws=64, stored=2048, max_tree_depth=5))
    report = posterior.fit(x, y, generator=generator())
    values, noise = (part[..., 0] for part in posterior.sample(2048, generator())(at.unsqueeze(0)))
    # Each is a mean over draws, whose standard error is that of as many independent ones as are effective; 4.5 of them.
    for drawn, wanted in ((values, mean), ((values - mean).square(), var), (noise[:, :1], torch.tensor([noise_var]))):
        effective = effective_sample_size(drawn.unflatten(0, (64, 32)).transpose(0, 1))
        error = drawn.std(0) / effective.sqrt()
        assert bool(((drawn.mean(0) - wanted).abs() < 4.5 * error).all()), (drawn.mean(0), wanted, error)
        # The comparison means something only if it is sharp.
        assert bool((error < 0.1 * wanted.abs().clamp_min(0.5)).all())
    said = posterior.predict(at)
    torch.testing.assert_close(said.mean[:, 0], values.mean(0))
    torch.testing.assert_close(said.epistemic_variance[:, 0], values.var(0, correction=0))
    torch.testing.assert_close(said.aleatoric_variance[:, 0], noise.mean(0))
    assert report.warnings == ()
    assert max(report.curves["r_hat"]) < 1.05
    assert len(report.curves["r_hat"]) == 12 + 1
    assert not report.collapsed


def test_every_chain_has_the_metric_of_its_own_draws() -> None:
    # Two chains in modes 20 apart, of widths 0.1 and 2: pooled, both would have a std of 10.
    draws, width, centre = 400, torch.tensor([[0.1], [2.0]]), torch.tensor([[-10.0], [10.0]])
    seen = centre + width * torch.randn(draws, 2, 3, generator=generator())
    metric = ChainwiseMetric(torch.ones(2, 3)).adapted(seen.flatten(0, 1))
    # A std from n draws has a relative error of 1/√(2n), and is shrunk by 5/(n + 5)/2.
    assert bool(((metric.std / width - 1).abs() < 4.5 / (2 * draws) ** 0.5 + 2.5 / draws).all())
    torch.testing.assert_close(metric.unwhiten(metric.whiten(seen)), seen)
    assert metric.adapted(seen[0]) is metric


def test_chains_that_cannot_be_believed_are_reported() -> None:
    x, y = line(15)
    sampling = NUTSSampling(chains=3, warmup=1, draws=4, stored=12, max_tree_depth=1)
    report = NUTS((3,), sampling=sampling).fit(x, y, generator=generator())
    assert any("R-hat" in warning for warning in report.warnings)
    assert any("effective sample size" in warning for warning in report.warnings)


def test_divergent_trajectories_are_reported() -> None:
    # Unwhitened rows: the energy falls by more than the integrator can follow with the step of a single transition.
    x, y = line(15)
    sampling = NUTSSampling(chains=2, warmup=1, draws=10, stored=2, target_accept=0.01, max_tree_depth=3)
    report = NUTS((), sampling=sampling).fit(30 * x, 30 * y, generator=generator())
    assert sum(report.curves["divergences"]) > 0
    assert any("diverged" in warning for warning in report.warnings)


def test_stored_draws_are_evenly_spaced_and_end_with_the_last_of_each_chain() -> None:
    x, y = line(15)
    sampling = NUTSSampling(chains=2, warmup=5, draws=30, stored=6, max_tree_depth=3)
    posterior, density = NUTS((3,), sampling=sampling), NetworkDensity(Network(2, (3,), 1, "tanh", Homoscedastic()), x, y)
    posterior.fit(x, y, generator=generator())
    g = generator()
    start = density.starts(2, g)
    chains = NoUTurn(density, max_tree_depth=3).run(start, 5, 30, g, metric=ChainwiseMetric(torch.ones_like(start)))
    wanted = density.parameters(chains.z[:, [9, 19, 29]].transpose(0, 1).flatten(0, 1))
    assert torch.equal(posterior.theta, wanted.theta)
    assert torch.equal(posterior.noise_parameters, wanted.noise)


def test_draws_are_without_replacement_until_there_are_no_more(tiny: NUTS) -> None:
    x = line(15)[0][:1]
    stored = tiny.predict(x).component_mean[:, 0, 0]
    assert len(stored.unique()) == 20

    def counts(n: int, seed: int) -> list[int]:
        drawn = tiny.sample(n, generator(seed))(x.unsqueeze(0)).mean[:, 0, 0]
        assert len(drawn) == n
        return (drawn.unsqueeze(1) - stored).abs().argmin(1).bincount(minlength=20).tolist()

    for n in (1, 7, 20):
        assert sorted(counts(n, 1), reverse=True) == [1] * n + [0] * (20 - n)
    assert sorted(counts(47, 1), reverse=True) == [3] * 7 + [2] * 13
    assert counts(7, 1) == counts(7, 1)
    assert counts(7, 1) != counts(7, 2)


def test_each_draw_keeps_its_own_noise_beyond_the_stored_number(tiny: NUTS) -> None:
    x = line(15)[0]
    function = tiny.sample(47, generator())
    mean, var = function(x.unsqueeze(0))
    stored = tiny.predict(x)
    index = (mean[:, 0, 0].unsqueeze(1) - stored.component_mean[:, 0, 0]).abs().argmin(1)
    torch.testing.assert_close(mean, stored.component_mean[index])
    torch.testing.assert_close(var, stored.component_aleatoric_var[index])
    assert len(stored.component_aleatoric_var[:, 0, 0].unique()) == 20


def test_a_warm_start_goes_on_where_the_chains_ended() -> None:
    x, y = line(15)
    posterior = NUTS((3,), sampling=TINY)
    posterior.fit(x, y, generator=generator())
    ends = posterior.draws.select(torch.tensor([19, 18]))
    density = NetworkDensity(posterior.network, x, y)
    report = posterior.fit(x, y, warm_start=True, generator=generator(1))
    assert report.steps == 15
    start = density.rows(ends)
    metric = ChainwiseMetric(torch.ones_like(start))
    chains = NoUTurn(density, max_tree_depth=3).run(start, 5, 10, generator(1), metric=metric)
    torch.testing.assert_close(posterior.theta, density.parameters(chains.z.transpose(0, 1).flatten(0, 1)).theta)
    with pytest.raises(ShapeError, match="warm start"):
        posterior.fit(x[:, :1], y, warm_start=True)


def test_what_is_too_large_is_refused_with_the_way_out() -> None:
    x, y = line(15)
    with pytest.raises(ConfigurationError, match=r"1000 weights.*\(2, 300, 1\).*1201.*most_parameters"):
        NUTS((300,)).fit(x, y)
    with pytest.raises(DataError, match=r"10 rows.*15.*most_rows"):
        NUTS((3,), sampling=NUTSSampling(most_rows=10)).fit(x, y)
    with pytest.raises(ConfigurationError, match="multiple of chains = 4"):
        NUTSSampling(stored=30)
    with pytest.raises(ConfigurationError, match="4000"):
        NUTSSampling(stored=4004)
    for wrong in ({"chains": 0}, {"warmup": 0}, {"target_accept": 1.0}, {"target_accept": math.nan}, {"draws": 3}):
        with pytest.raises(ConfigurationError, match="positive counts"):
            NUTSSampling(**wrong)


def test_an_interrupted_fit_leaves_the_last_one_whole(tiny: NUTS) -> None:
    x, y = line(15)
    before, random = {k: v.clone() for k, v in tiny.state_dict().items()}, torch.get_rng_state()

    def stop(done: int, total: int, figures: dict[str, float]) -> None:
        assert total == 14
        assert figures.keys() >= {"acceptance", "divergences"}
        if done > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.fit(x + 1, y - 1, generator=generator(5), progress=stop)
    after = tiny.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("unchecked_fits")
def test_the_posterior_keeps_the_contract(dtype: torch.dtype) -> None:
    # Fewer units have more modes that chains cannot leave: then more rows do not make them agree.
    sampling = NUTSSampling(warmup=100, warm_warmup=10, draws=50, stored=100, max_tree_depth=5)
    check_posterior(lambda: NUTS((12,), sampling=sampling), dtype=dtype, exact_predict=True)
