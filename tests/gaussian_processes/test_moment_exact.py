"""Moments of Gaussian processes where floating point is weakest, against the textbook formulas in 60 digits."""

import mpmath
import pytest
import torch

from bayesdyn.gaussian_processes.moment_map import GPMoments, Uncertainty

F64 = torch.float64
ROWS = 14


def waves(rows: int, inputs: int, shift: float) -> torch.Tensor:
    index = torch.arange(rows * inputs, dtype=F64).reshape(rows, inputs)
    return 1.2 * torch.sin(1.7 * index + shift) + 0.4 * torch.cos(0.31 * index**1.3)


def problem(lengthscale: list[float], noise_std: float, spread: float, at_data: bool):
    """Return x [N, 2], y [N, 1], length-scales, noise variance and a belief, all of them float64 numbers to be taken as exact."""
    x = waves(ROWS, 2, 0.3)
    y = torch.sin(x[:, :1] + 0.5 * x[:, 1:])
    mean = x[3].clone() if at_data else torch.tensor([0.2, -0.1], dtype=F64)
    return x, y, lengthscale, noise_std**2, mean, spread * torch.tensor([[1.0, 0.3], [0.3, 0.7]], dtype=F64)


def exactly(x, y, lengthscale, noise_var, mean, cov) -> tuple[float, float, list[float]]:
    """Return mean, variance and gain for E = 1, σf = 1 (Deisenroth, Fox & Rasmussen, PAMI 2015, eqs. 14-23 as printed)."""
    with mpmath.workdps(60):
        number = mpmath.mpf
        points = [[number(v) for v in row] for row in x.tolist()]
        precision = mpmath.diag([1 / number(v) ** 2 for v in lengthscale])
        spread = mpmath.matrix(cov.tolist())
        size, eye = len(lengthscale), mpmath.eye(len(lengthscale))
        nu = [mpmath.matrix([p - number(m) for p, m in zip(row, mean.tolist(), strict=True)]) for row in points]
        apart = [[(a - b).T * precision * (a - b) for b in nu] for a in nu]
        gram = mpmath.matrix([[mpmath.exp(-one[0] / 2) for one in row] for row in apart])
        inverse = (gram + number(noise_var) * mpmath.eye(len(nu))) ** -1
        beta = inverse * mpmath.matrix([[number(v)] for v in y[:, 0].tolist()])
        wide = (spread + precision**-1) ** -1
        scale = 1 / mpmath.sqrt(mpmath.det(spread * precision + eye))
        q = [scale * mpmath.exp(-(n.T * wide * n)[0] / 2) for n in nu]
        mean_out = mpmath.fsum(b * one for b, one in zip(beta, q, strict=True))
        both = (spread + precision**-1 / 2) ** -1
        scale = 1 / mpmath.sqrt(mpmath.det(2 * spread * precision + eye))
        total, trace = number(0), number(0)
        for i in range(len(nu)):
            for j in range(len(nu)):
                middle = (nu[i] + nu[j]) / 2
                pair = scale * mpmath.exp(-apart[i][j][0] / 4 - (middle.T * both * middle)[0] / 2)
                total += beta[i] * beta[j] * pair
                trace += inverse[i, j] * pair
        gain = [mpmath.fsum(beta[i] * q[i] * (wide * nu[i])[d] for i in range(len(nu))) for d in range(size)]
        return float(mean_out), float(total - mean_out**2 + 1 - trace), [float(g) for g in gain]


# Rounding of the sums is of the order ε|β|²/var, with |β| of 3 in the usual cases, 70 with the irrelevant input and up to 1e4 at a
# signal-to-noise ratio of 1e4; sums over many rows gain from averaging. The last three are ten times what is reached.
HARD = {
    "usual": ([1.0, 1.5], 0.1, 0.1, False, 3e-13),
    "wide": ([1.0, 1.5], 0.1, 100.0, False, 3e-13),
    "irrelevant input": ([1.0, 1e4], 0.1, 0.1, False, 1e-11),
    "signal-to-noise 1e4 at a data point": ([1.0, 1.5], 1e-4, 1e-10, True, 7e-7),
    "length-scale 8, signal-to-noise 1000": ([8.0, 8.0], 1e-3, 0.1, False, 1e-6),
    "length-scale 20, signal-to-noise 1000": ([20.0, 20.0], 1e-3, 0.1, False, 1e-6),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_cases_keep_their_digits(name):
    *settings, allowed = HARD[name]
    x, y, lengthscale, noise_var, mean, cov = problem(*settings)
    scaled = x / torch.tensor(lengthscale, dtype=F64)
    gram = (-0.5 * (scaled[:, None] - scaled[None]).square().sum(-1)).exp()
    root = torch.linalg.cholesky(gram + noise_var * torch.eye(ROWS, dtype=F64))[None]
    beta = torch.cholesky_solve(y, root[0]).mT
    one = torch.ones(1, dtype=F64)
    gp = GPMoments(
        x, torch.tensor([lengthscale], dtype=F64), one, beta, uncertainty=Uncertainty(root, torch.cholesky_inverse(root))
    )
    wanted_mean, wanted_var, wanted_gain = exactly(x, y, lengthscale, noise_var, mean, cov)
    for moments in (gp.moments, gp.taped().moments):
        found = moments(mean, cov)
        assert float(found.cov) == pytest.approx(wanted_var, rel=allowed)
        assert float(found.mean) == pytest.approx(wanted_mean, rel=max(allowed, 1e-11))
        torch.testing.assert_close(found.gain[:, 0], torch.tensor(wanted_gain, dtype=F64), rtol=max(allowed, 1e-10), atol=1e-11)
