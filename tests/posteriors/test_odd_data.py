"""Odd data: every posterior gives finite answers, or an error of the package that says what is wrong with them."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from bayesdyn.errors import BayesdynError
from bayesdyn.kernels import GPyTorchKernel
from bayesdyn.networks import Training
from bayesdyn.posteriors import (
    FITC,
    NUTS,
    SGHMC,
    SWAG,
    Averaging,
    BootstrapEnsemble,
    ConcreteDropout,
    DiagonalGGN,
    ExactGP,
    FullGGN,
    Laplace,
    LastLayer,
    MaximumLikelihood,
    MCDropout,
    MeanField,
    NUTSSampling,
    Posterior,
    SGHMCSampling,
    SparseGP,
    Standardize,
    Stochastic,
    VariationalTraining,
)

SHORT, SMALL = Training(steps=100), (8,)
WALK = Averaging(steps=150, burn_in=40)


def brought() -> ExactGP:
    from gpytorch.kernels import MaternKernel, ScaleKernel

    return ExactGP(GPyTorchKernel(lambda inputs: ScaleKernel(MaternKernel(ard_num_dims=inputs))))


POSTERIORS: dict[str, Callable[[], Posterior]] = {
    "exact GP": ExactGP,
    "brought kernel": brought,
    "collapsed": lambda: SparseGP(inducing=10),
    "FITC": lambda: SparseGP(inducing=10, objective=FITC(max_steps=30)),
    "stochastic": lambda: SparseGP(inducing=10, objective=Stochastic(steps=30)),
    "ensemble": lambda: BootstrapEnsemble(3, SMALL, training=SHORT),
    "mean field": lambda: MeanField(SMALL, training=VariationalTraining(steps=100)),
    "MC dropout": lambda: MCDropout(hidden=SMALL, training=SHORT),
    "concrete dropout": lambda: ConcreteDropout(hidden=SMALL, training=SHORT),
    "full Laplace": lambda: Laplace(FullGGN(), SMALL, training=SHORT),
    "diagonal Laplace": lambda: Laplace(DiagonalGGN(), SMALL, training=SHORT),
    "last layer": lambda: Laplace(LastLayer(), SMALL, training=SHORT),
    "SWAG": lambda: SWAG(hidden=SMALL, training=SHORT, averaging=WALK),
    "SGHMC": lambda: SGHMC(hidden=SMALL, training=SHORT, sampling=SGHMCSampling(steps=60, burn_in=20, draws=20)),
    "NUTS": lambda: NUTS((4,), sampling=NUTSSampling(chains=2, warmup=10, draws=10, stored=20, max_tree_depth=3)),
    "maximum likelihood": lambda: MaximumLikelihood(SMALL, training=SHORT),
}


def odd() -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator)
    y = torch.cat([x[:, :1].sin(), x[:, 1:]], 1) + 0.1 * torch.randn(40, 2, generator=generator)
    constant = torch.tensor([1.0, 0.0])
    yield "constant feature", x * constant + 3 * (1 - constant), y
    yield "constant target", x, y * constant + 3 * (1 - constant)
    yield "repeated rows", x[:10].repeat(4, 1), y[:10].repeat(4, 1)
    yield "one row only", x[:1].repeat(20, 1), y[:1].repeat(20, 1)
    yield "five rows", x[:5], y[:5]
    for scale in (1e-6, 1e6):
        yield f"targets of {scale:g}", x, scale * y
        yield f"features of {scale:g}", scale * x, y


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_fits")
@pytest.mark.parametrize("case", odd(), ids=lambda case: case[0])
@pytest.mark.parametrize("name", POSTERIORS)
def test_odd_data_give_finite_answers_or_a_clear_error(name: str, case: tuple[str, Tensor, Tensor]) -> None:
    _, x, y = case
    for posterior in (POSTERIORS[name](), Standardize(POSTERIORS[name]())):
        try:
            report = posterior.fit(x, y, generator=torch.Generator().manual_seed(0))
        except BayesdynError as error:
            # Raw data may be refused, with the way out; that way has to work.
            if isinstance(posterior, Standardize) or "Standardize" not in str(error):
                raise
            continue
        said = posterior.predict(x)
        drawn = posterior.sample(3, torch.Generator().manual_seed(1))(x.unsqueeze(0))
        answers = (said.mean, said.epistemic_variance, said.aleatoric_variance, said.log_prob(y), drawn.mean, drawn.var)
        assert all(bool(part.isfinite().all()) for part in (*answers, torch.tensor([report.nll, report.penalty])))
