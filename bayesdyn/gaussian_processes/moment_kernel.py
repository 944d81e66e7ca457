"""The optional compiled kernel of moment matching: sums over all pairs of points in registers.

`python -m bayesdyn.gaussian_processes.compile_moments` makes it, once. From then on `pair_sums` uses it for float64 on a CPU;
without it nothing changes but the speed. Answers differ by rounding only.
"""

import ctypes
import hashlib
import math
import os
import platform
from functools import lru_cache
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("moment_pairs.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
LANES = 4  # sizes are multiples of this


class PairKernel:
    """A compiled kernel; raises `OSError` for a file that cannot be loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sums = ctypes.CDLL(str(path)).moment_pair_sums

    def __call__(
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
        a, b = np.zeros((count, full, width)), np.zeros((count, width, full))
        w, v = np.zeros((count, full)), np.zeros((count, factors, full))
        a[:, :size], b[:, :, :size], w[:, :size], v[:, :, :size] = left, right.swapaxes(-1, -2), row_factor, column_factors
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
def installed() -> PairKernel | None:
    """Return the kernel that was compiled for this processor, None where there is none."""
    path = default_path()
    try:
        return PairKernel(path) if path.exists() else None
    except OSError:
        return None


def default_path() -> Path:
    """Return where the kernel for this source and this processor is kept: one file per processor, for homes that machines share."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join((*FLAGS, platform.machine(), _processor())).encode())
    return cache / "bayesdyn" / f"moments-{key.hexdigest()[:16]}.so"


def _processor() -> str:
    """Return the name and the instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
