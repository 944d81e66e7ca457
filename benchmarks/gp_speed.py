"""Exact Gaussian process against GPyTorch: agreement, and CPU time of training steps, predictions and path evaluations."""

import time
from collections.abc import Callable

import gpytorch
import torch

from bayesdyn.kernels import RBF, KernelParameters
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.gp_training import GPModel, GPTraining, Hyperparameters
from benchmarks.acceptance import Acceptance, main

F64 = torch.float64
INPUTS, OUTPUTS = 6, 4
QUERIES = 10_000


class Peer(gpytorch.models.ExactGP):
    """The same model in GPyTorch, batch shape [E]."""

    def __init__(self, gp: ExactGP) -> None:
        model = GPModel(RBF(), INPUTS, OUTPUTS, GPTraining())
        model.write(Hyperparameters(gp.kernel_parameters, gp.noise_var))
        super().__init__(gp.x, gp.y.mT.contiguous(), model.likelihood)
        self.mean = gpytorch.means.ZeroMean(batch_shape=torch.Size([OUTPUTS]))
        self.covariance = model.covariance_module()

    def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.covariance(x))


def make_gp(rows: int) -> ExactGP:
    random = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, INPUTS, generator=random, dtype=F64)
    y = torch.sin(x @ torch.randn(INPUTS, OUTPUTS, generator=random, dtype=F64))
    parameters = KernelParameters(
        torch.full((OUTPUTS, INPUTS), 2.5, dtype=F64), torch.ones(OUTPUTS, dtype=F64), torch.zeros(OUTPUTS, dtype=F64)
    )
    noise = torch.full((OUTPUTS,), 0.01, dtype=F64)
    return ExactGP.from_hyperparameters(x, y, parameters.lengthscale, parameters.signal_var, noise, features=256)


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def alternate(peer: Callable[[], object], ours: Callable[[], object], repeats: int) -> list[float]:
    """Return peer time / own time of each of `repeats` pairs, timed alternately after one warm-up."""
    peer(), ours()
    return [seconds(peer) / seconds(ours) for _ in range(repeats)]


def measure(acceptance: Acceptance, quick: bool) -> None:
    torch.set_num_threads(1)
    repeats = 3 if quick else 10
    for rows, wanted in ((200, 3.0), (1000, 1.0)):
        gp = make_gp(rows)
        peer = Peer(gp).eval()
        x = torch.randn(QUERIES, INPUTS, generator=torch.Generator().manual_seed(1), dtype=F64)

        def predict_peer(peer: Peer = peer, x: torch.Tensor = x) -> tuple[torch.Tensor, torch.Tensor]:
            # In blocks, as the peer forms the joint covariance of all queries of a call.
            with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
                blocks = [peer(block) for block in x.split(500)]
                return torch.cat([b.mean for b in blocks], -1), torch.cat([b.variance for b in blocks], -1)

        prediction = gp.predict(x)
        mean, variance = (t.mT for t in predict_peer())
        error = ((prediction.mean - mean).abs() / mean.abs().clamp_min(1e-3)).max()
        acceptance.below(f"largest relative difference of means to GPyTorch, N = {rows}", [error.item()], 1e-8)
        error = ((prediction.epistemic_variance - variance).abs() / variance).max()
        acceptance.below(f"largest relative difference of variances to GPyTorch, N = {rows}", [error.item()], 1e-8)
        ratios = alternate(predict_peer, lambda gp=gp, x=x: gp.predict(x), repeats)
        acceptance.above(f"GPyTorch time / ours, mean and variance at {QUERIES} points, N = {rows}", ratios, wanted, " x")
    gp = make_gp(200)
    fits = [ExactGP().fit(gp.x, gp.y) for _ in range(repeats)]
    acceptance.inform("fit, N = 200, E = 4, D = 6", [f.seconds for f in fits], " s")
    acceptance.inform("one evaluation of one output in it", [f.seconds / f.steps * 1e3 for f in fits], " ms")
    function = make_gp(160).sample(10, torch.Generator().manual_seed(0)).to(dtype=torch.float32)
    for name, leading in (("own inputs", 10), ("shared inputs", 1)):
        x = torch.randn(leading, 200, INPUTS)
        times = [seconds(lambda x=x: [function(x) for _ in range(20)]) / 20 * 1e3 for _ in range(repeats + 1)][1:]
        acceptance.inform(f"10 draws at 200 candidates, {name}, N = 160, 256 features, float32", times, " ms")


if __name__ == "__main__":
    main("gp_speed", measure, __doc__ or "")
