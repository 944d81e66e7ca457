"""The optional compiled kernel of moment matching: whole moments with their Jacobian, no matrix of pairs ever stored.

`python -m bayesdyn.gaussian_processes.compile_moments` makes it, once. From then on it is used for float64 on a CPU; without it
nothing changes but the speed. Answers differ by rounding only.
"""

import ctypes
import hashlib
import math
import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bayesdyn.belief_arrays import ArrayMoments
from bayesdyn.errors import NumericalError
from bayesdyn.gaussian_processes.moment_factors import BROKEN_BELIEF

# The first includes the others: one unit for the compiler.
SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("moment_rbf.cpp", "moment_gp.cpp", "moment_small.cpp", "moment_pairs.cpp")
)
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
LANES = 4  # sizes are multiples of this


class Compact(NamedTuple):
    """Gaussian processes as the kernel reads them: points filled up to a multiple of 4, n; matrices lower triangular."""

    points: np.ndarray  # [E, D, n]
    beta: np.ndarray  # [E, n]
    log_signal: np.ndarray  # [E]
    signal_var: np.ndarray  # [E]
    own: np.ndarray  # [E, D], inverse squares of the length-scales
    weight: np.ndarray | None  # [E, n, n]: W, half of it on the diagonal
    root: np.ndarray | None  # [E, n, n]: inverses of L and of R
    reduction: np.ndarray | None
    rows: int  # how many points there are

    @classmethod
    def certain(cls, points: np.ndarray, beta: np.ndarray, lengthscale: np.ndarray) -> "Compact":
        """Return it for functions known to be Σ_i β_ei exp(...), with points [N, D] in common, β [E, N] and ℓ [E, D]."""
        (rows, inputs), outputs = points.shape, len(beta)
        missing = -rows % LANES
        return cls(
            np.ascontiguousarray(np.broadcast_to(np.pad(points.T, ((0, 0), (0, missing))), (outputs, inputs, rows + missing))),
            np.ascontiguousarray(np.pad(beta, ((0, 0), (0, missing)))),
            np.zeros(outputs),
            np.ones(outputs),
            np.ascontiguousarray(lengthscale**-2),
            None,
            None,
            None,
            rows,
        )


class _Compact(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in Compact._fields[:-1]] + [
        (name, ctypes.c_long) for name in ("outputs", "count", "size", "width")
    ]


def _compact(gp: Compact) -> _Compact:
    outputs, inputs, size = gp.points.shape
    return _Compact(*(None if array is None else array.ctypes.data for array in gp[:-1]), outputs, gp.rows, size, inputs)


class Kernel:
    """A compiled kernel; raises `OSError` for a file that cannot be loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        self._sums, self._linearised = library.moment_pair_sums, library.moment_linearised
        self._radial_back = library.moment_radial_back

    def linearised(
        self, gp: Compact, mean: np.ndarray, cov: np.ndarray, *, gradient: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Return means, covariances, gains and Jacobian of `linearised` at beliefs [B, D], [B, D, D]; `NumericalError` likewise."""
        (outputs, inputs, _), batch = gp.points.shape, len(mean)
        given = _compact(gp)
        mean, cov = np.ascontiguousarray(mean), np.ascontiguousarray(cov)
        found = (np.empty((batch, outputs)), np.empty((batch, outputs, outputs)), np.empty((batch, inputs, outputs)))
        rows = outputs * (1 + outputs + inputs)
        jacobian = np.empty((batch, rows, inputs + inputs**2)) if gradient else None
        for i in range(batch):
            arrays = (mean[i], cov[i], *(part[i] for part in found))
            slopes = None if jacobian is None else ctypes.c_void_p(jacobian[i].ctypes.data)
            if self._linearised(ctypes.byref(given), *(ctypes.c_void_p(array.ctypes.data) for array in arrays), slopes):
                raise NumericalError(BROKEN_BELIEF)
        return *found, jacobian

    def radial_back(self, gp: Compact, mean: np.ndarray, cov: np.ndarray, to: ArrayMoments) -> tuple[np.ndarray, ...]:
        """Return the gradients of `moment_radial.pull_back`: to mean, covariance, points, β and length-scales.

        `to` are those to mean, covariance and gain [B, D, E].
        """
        (outputs, inputs, size), batch = gp.points.shape, len(mean)
        given = _compact(gp)
        shared = (np.zeros((inputs, size)), np.zeros((outputs, size)), np.zeros((outputs, inputs)))
        own = (np.zeros((batch, inputs)), np.zeros((batch, inputs, inputs)))
        every = [np.ascontiguousarray(array) for array in (mean, cov, *to)]
        for i in range(batch):
            arrays = (*(array[i] for array in every), *(array[i] for array in own), *shared)
            if self._radial_back(ctypes.byref(given), *(ctypes.c_void_p(array.ctypes.data) for array in arrays)):
                raise NumericalError(BROKEN_BELIEF)
        points, beta, scale = shared
        return *own, points[:, : gp.rows].T, beta[:, : gp.rows], scale / np.sqrt(gp.own)

    def sums(
        self,
        left: np.ndarray,
        right: np.ndarray,
        row_factor: np.ndarray,
        column_factors: np.ndarray,
        weight: np.ndarray | None,
        limit: float | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `rows` and `columns` of `pair_sums` for float64; `weight` is filled up by zeros to a multiple of 4."""
        count, size, width = left.shape
        factors = column_factors.shape[1]
        full = size + -size % LANES
        a, b = np.zeros((2, count, width, full))
        w, v = np.zeros((count, full)), np.zeros((count, factors, full))
        w[:, :size], v[:, :, :size] = row_factor, column_factors
        a[:, :, :size], b[:, :, :size] = left.swapaxes(-1, -2), right.swapaxes(-1, -2)
        rows, columns = np.empty((count, full)), np.zeros_like(v)
        failed = self._sums(
            *(ctypes.c_void_p(array.ctypes.data) for array in (a, b, w, v)),
            ctypes.c_void_p(None if weight is None else weight.ctypes.data),
            ctypes.c_long(0 if weight is None else len(weight)),
            ctypes.c_double(math.inf if limit is None else limit),
            *(ctypes.c_long(number) for number in (count, full, width, factors)),
            *(ctypes.c_void_p(array.ctypes.data) for array in (rows, columns)),
        )
        if failed:
            raise MemoryError(f"the compiled kernel of moment matching cannot do {factors} columns of {full} rows")
        return rows[:, :size], columns[:, :, :size]


@lru_cache(maxsize=1)
def installed() -> Kernel | None:
    """Return the kernel that was compiled for this processor, None where there is none."""
    path = default_path()
    try:
        return Kernel(path) if path.exists() else None
    except OSError:
        return None


def default_path() -> Path:
    """Return where the kernel for this source and this processor is kept: one file per processor, for homes that machines share."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(
        b"".join(source.read_bytes() for source in SOURCES) + " ".join((*FLAGS, platform.machine(), _processor())).encode()
    )
    return cache / "bayesdyn" / f"moments-{key.hexdigest()[:16]}.so"


def _processor() -> str:
    """Return the name and the instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
