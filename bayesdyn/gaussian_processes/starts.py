"""Where the search for hyper-parameters starts."""

from jaxtyping import Float
from torch import Tensor

from bayesdyn.gaussian_processes.training import GPTraining, Hyperparameters, column_std, default_start
from bayesdyn.kernels import KernelParameters


def cold_starts(x: Float[Tensor, "N D"], y: Float[Tensor, "N E"], training: GPTraining) -> list[Hyperparameters]:
    """Return where a first fit starts: `default_start`, then, per restart, length-scales three times as long and a tenth of σ².

    With `scaled_start` the first is PILCO's: ℓ_d = std(x_d), s = var(y), σ² = s/100 and b = s/10, with N - 1; a constant column
    counts as one of std 1.
    """
    starts = [_scaled_start(x, y) if training.scaled_start else default_start(x, y.shape[1])]
    for _ in range(training.restarts):
        last = starts[-1]
        kernel = last.kernel._replace(lengthscale=3 * last.kernel.lengthscale)
        starts.append(Hyperparameters(kernel, 0.1 * last.noise_var))
    return starts


def _scaled_start(x: Tensor, y: Tensor) -> Hyperparameters:
    signal_var = column_std(y.double()).square()
    lengthscale = column_std(x.double()).expand(y.shape[1], -1)
    return Hyperparameters(KernelParameters(lengthscale, signal_var, 0.1 * signal_var), 0.01 * signal_var)
