"""Posteriors on linear data with Gaussian noise, beside Bayesian linear regression in closed form."""

from collections.abc import Callable
from typing import NamedTuple

import pyro.distributions
import torch
from torch import Tensor

from bayesdyn.inference.monte_carlo import effective_sample_size
from bayesdyn.networks import Homoscedastic
from bayesdyn.posteriors.laplace import Laplace
from bayesdyn.posteriors.laplace_structures import FullGGN, LastLayer, Structure
from bayesdyn.posteriors.nuts import NUTS, NUTSSampling
from bayesdyn.posteriors.physics import Physics
from bayesdyn.posteriors.physics_inference import NUTSInference, VariationalInference
from bayesdyn.posteriors.physics_parameters import KnownNoise
from bayesdyn.posteriors.sghmc import SGHMC, SGHMCSampling
from benchmarks.acceptance import Acceptance, main

ROWS, NOISE_STD = 40, 0.5
DRAWS = 4000
# The largest of 3 means and 6 covariances passes 4.5 standard errors by chance once in 16,000.
ALLOWED = 4.5


class Regression(NamedTuple):
    """The joint posterior of f at the queries: mean [Q], covariance [Q, Q]."""

    mean: Tensor
    cov: Tensor


def data(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x [40, 2], y = 0.7 x_1 - 0.4 x_2 + 0.3 + 0.5 ε [40, 1] and queries [3, 2], on and off the data."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)
    noise = NOISE_STD * torch.randn(ROWS, 1, generator=generator, dtype=torch.float64)
    queries = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-3.0, 2.0]], dtype=torch.float64)
    return x, x @ torch.tensor([[0.7], [-0.4]], dtype=torch.float64) + 0.3 + noise, queries


def features(x: Tensor) -> Tensor:
    """Return (x, 1)."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def given_noise(x: Tensor, y: Tensor, at: Tensor, precision: Tensor, noise_var: Tensor) -> Regression:
    """Return the closed form for a known noise variance and prior precision [3] (Bishop 2006, equations 3.50-3.51)."""
    phi, query = features(x), features(at)
    inverse = torch.linalg.inv(phi.mT @ phi / noise_var + torch.diag(precision))
    return Regression((query @ inverse @ phi.mT @ y / noise_var).squeeze(1), query @ inverse @ query.mT)


def noise_averaged(x: Tensor, y: Tensor, at: Tensor, precision: Tensor) -> Regression:
    """Return the posterior under std ~ HalfNormal(1): the closed form given the noise, by quadrature over its log std."""
    log_std = torch.linspace(-4, 2, 2001, dtype=torch.float64)
    var = (2 * log_std).exp()
    phi = features(x)
    covariance = phi @ torch.diag(1 / precision) @ phi.mT + var[:, None, None] * torch.eye(len(x), dtype=torch.float64)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(len(x), dtype=torch.float64), covariance).log_prob(y[:, 0])
    weight = (evidence - 0.5 * var + log_std).softmax(0)
    parts = [given_noise(x, y, at, precision, v) for v in var]
    means, covs = torch.stack([p.mean for p in parts]), torch.stack([p.cov for p in parts])
    mean = weight @ means
    deviation = means - mean
    return Regression(mean, torch.einsum("g,gqr->qr", weight, covs + torch.einsum("gq,gr->gqr", deviation, deviation)))


def z_scores(values: Tensor, wanted: Regression) -> tuple[float, float]:
    """Return the largest deviation of mean and covariance of draws [chains, draws, Q], in standard errors for effective draws."""
    deviation = values - wanted.mean
    products = torch.einsum("cdq,cdr->cdqr", deviation, deviation).flatten(2)
    found = []
    for drawn, target in ((values, wanted.mean), (products, wanted.cov.flatten())):
        error = drawn.flatten(0, 1).std(0) / effective_sample_size(drawn).sqrt()
        found.append(float(((drawn.mean((0, 1)) - target).abs() / error).max()))
    return found[0], found[1]


PRIOR = torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)  # W ~ N(0, 1/fan_in), b ~ N(0, 1)
STILL = 1  # the state of the regression as physics, which does not matter


def slope_and_offset(state: Tensor, action: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """The regression as physics: the next state from a state that is ignored and two actions."""
    return (action * parameters["slope"]).sum(-1, keepdim=True) + parameters["offset"].unsqueeze(-1) + 0 * state


def physics(inference: NUTSInference | VariationalInference, chains: int, seed: int) -> tuple[float, float]:
    """Return the z-scores of `Physics` with the noise known."""
    x, y, at = data(seed)
    zero = torch.zeros((), dtype=torch.float64)
    priors = {
        "slope": pyro.distributions.Normal(zero.expand(2), PRIOR[:2].rsqrt()).to_event(1),
        "offset": pyro.distributions.Normal(zero, PRIOR[2].rsqrt()),
    }
    posterior = Physics(slope_and_offset, priors, inference=inference, noise=KnownNoise((NOISE_STD,)))
    posterior.fit(torch.cat([torch.zeros(ROWS, STILL), x], 1), y, generator=torch.Generator().manual_seed(seed))
    drawn = posterior.parameter_draws
    # In the stored order, [draw, chain]: their effective number depends on it.
    values = drawn["slope"] @ at.mT + drawn["offset"].unsqueeze(-1)
    wanted = given_noise(x, y, at, PRIOR, torch.tensor(NOISE_STD**2, dtype=torch.float64))
    return z_scores(values.unflatten(0, (-1, chains)).transpose(0, 1), wanted)


def nuts(seed: int) -> tuple[float, float]:
    """Return the z-scores of `NUTS` on a network without hidden layers, its noise unknown."""
    x, y, at = data(seed)
    sampling = NUTSSampling(chains=16, warmup=150, draws=250, stored=4000, max_tree_depth=5)
    posterior = NUTS((), sampling=sampling)
    posterior.fit(x, y, generator=torch.Generator().manual_seed(seed))
    values = posterior.network.function(posterior.draws)(at.unsqueeze(0)).mean[..., 0]  # [draw, chain] in turn
    return z_scores(values.unflatten(0, (-1, sampling.chains)).transpose(0, 1), noise_averaged(x, y, at, PRIOR))


def sghmc(seed: int) -> tuple[float, float]:
    """Return the z-scores of `SGHMC` on a network without hidden layers, its noise unknown."""
    x, y, at = data(seed)
    chains = 16
    posterior = SGHMC(chains, (), noise=Homoscedastic(), sampling=SGHMCSampling(steps=4000, draws=4000))
    posterior.fit(x, y, generator=torch.Generator().manual_seed(seed))
    values = posterior.network.function(posterior.draws)(at.unsqueeze(0)).mean[..., 0]  # chain after chain
    return z_scores(values.unflatten(0, (chains, -1)), noise_averaged(x, y, at, PRIOR))


def laplace(structure: Structure, seed: int) -> tuple[float, float, float]:
    """Return z-scores of a Laplace approximation's draws, and its largest relative error, given the noise and prior it chose."""
    x, y, at = data(seed)
    posterior = Laplace(structure, hidden=())
    generator = torch.Generator().manual_seed(seed)
    posterior.fit(x, y, generator=generator)
    predictive = posterior.predict(at)
    wanted = given_noise(x, y, at, posterior.prior_precision, predictive.aleatoric_variance[0, 0])
    values = posterior.sample(DRAWS, generator)(at.unsqueeze(0)).mean[..., 0]
    mean, var = predictive.mean[:, 0], predictive.epistemic_variance[:, 0]
    gap = torch.stack([(mean - wanted.mean) / wanted.mean, var / wanted.cov.diag() - 1]).abs().max()
    return *z_scores(values.unsqueeze(0), wanted), float(gap)


def measure(acceptance: Acceptance, quick: bool) -> None:
    """Measure over several data sets."""
    torch.set_num_threads(1)
    seeds = range(2 if quick else 5)
    chains = 4
    drawn: dict[str, Callable[[int], tuple[float, ...]]] = {
        "full Laplace": lambda seed: laplace(FullGGN(), seed),
        "last-layer Laplace": lambda seed: laplace(LastLayer(), seed),
        "NUTS": nuts,
        "SGHMC": sghmc,
        "physics by NUTS": lambda seed: physics(NUTSInference(chains=chains, draws=1000), chains, seed),
        "physics by a full-rank Normal": lambda seed: physics(VariationalInference(draws=DRAWS), 1, seed),
    }
    for name, scores in drawn.items():
        mean, cov, *gap = zip(*(scores(seed) for seed in seeds), strict=True)
        acceptance.below(f"{name}: mean of draws against the closed form, largest deviation in standard errors", mean, ALLOWED)
        acceptance.below(f"{name}: covariance across inputs, largest deviation in standard errors", cov, ALLOWED)
        if gap:
            acceptance.below(f"{name}: mean and variance of predict, largest relative difference", gap[0], 1e-6)


if __name__ == "__main__":
    main("closed_forms", measure, __doc__.splitlines()[0])
