"""The optional compiled kernel of networks: whole layers in registers, about as fast as matrix products alone.

`python -m bayesdyn.networks.compile_fused` makes it, once. From then on `NetworkFunction` uses it for float32 on a CPU under
`torch.no_grad()`; without it, nothing changes but the speed. Answers differ by rounding only.
"""

import ctypes
import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

_UNITS = 4  # outputs that are computed together
_LEAST_WORK = 2**25  # multiply-adds, about a millisecond: well above what starting a thread takes
ACTIVATIONS = ("silu", "tanh", "relu")  # in the order of fused.cpp
SOURCE = Path(__file__).with_name("fused.cpp")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
    "-pthread",
    f"-DUNITS={_UNITS}",
)


@dataclass(frozen=True, eq=False)
class Packed:
    """Weights and biases as the kernel reads them, one tensor [sets or 1, tiles, 1 + inputs, units] per layer."""

    layers: tuple[Float[Tensor, "_ _ _ _"], ...]
    widths: tuple[int, ...]
    activation: int


def pack(weights: Sequence[Float[Tensor, "_ _ _"]], biases: Sequence[Float[Tensor, "_ 1 _"]], activation: str) -> Packed:
    """Return networks of weights [L or 1, in, out] and biases [L or 1, 1, out] as the kernel wants them.

    >>> packed = pack([torch.ones(2, 3, 5)], [torch.zeros(1, 1, 5)], "relu")
    >>> packed.layers[0].shape, packed.widths
    (torch.Size([2, 2, 4, 4]), (3, 5))
    """
    layers = []
    for weight, bias in zip(weights, biases, strict=True):
        sets = max(weight.shape[0], bias.shape[0])
        rows = torch.cat([bias.expand(sets, -1, -1), weight.expand(sets, -1, -1)], 1)
        rows = functional.pad(rows, (0, -rows.shape[2] % _UNITS))
        layers.append(rows.unflatten(2, (-1, _UNITS)).transpose(1, 2).contiguous())
    widths = (weights[0].shape[1], *(weight.shape[2] for weight in weights))
    return Packed(tuple(layers), widths, ACTIVATIONS.index(activation))


def threads_for(networks: Packed, rows: int) -> int:
    """Return how many of `torch.get_num_threads()` are worth starting for so many rows, counted over all sets.

    >>> threads_for(pack([torch.ones(1, 3, 5)], [torch.zeros(1, 1, 5)], "relu"), rows=1000)
    1
    """
    work = rows * sum(before * after for before, after in pairwise(networks.widths))
    return max(1, min(torch.get_num_threads(), work // _LEAST_WORK))


class Kernel:
    """A compiled kernel; raises `OSError` for a file that cannot be loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        self._networks = library.fused_networks

    def __call__(self, x: Float[Tensor, "a R D"], networks: Packed, sets: int, threads: int) -> Float[Tensor, "L R columns"]:
        """Return the last layer's columns of L networks at rows of their own (a = L) or at shared rows (a = 1)."""
        x = x.contiguous()
        out = x.new_empty(sets, x.shape[1], networks.widths[-1])
        count = len(networks.layers)
        packed = (ctypes.c_void_p * count)(*(layer.data_ptr() for layer in networks.layers))
        steps = (ctypes.c_long * count)(*(layer.stride(0) if layer.shape[0] > 1 else 0 for layer in networks.layers))
        failed = self._networks(
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_long(x.stride(0) if x.shape[0] > 1 else 0),
            packed,
            steps,
            (ctypes.c_long * (count + 1))(*networks.widths),
            ctypes.c_long(count),
            ctypes.c_long(sets),
            ctypes.c_long(x.shape[1]),
            networks.activation,
            threads,
            ctypes.c_void_p(out.data_ptr()),
        )
        if failed:
            raise MemoryError(f"no memory for {sets} networks at {x.shape[1]} rows on {threads} threads")
        return out


@lru_cache(maxsize=1)
def installed() -> Kernel | None:
    """Return the kernel that was compiled for this processor, None where there is none."""
    path = default_path()
    try:
        return Kernel(path) if path.exists() else None
    except OSError:
        return None


def kernel_for(x: Tensor) -> Kernel | None:
    """Return the kernel if there is one that can answer at x: float32 in memory that no gradient, transform or compiler follows."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype != torch.float32 or x.device.type != "cpu":
        return None
    try:
        x.data_ptr()
    except RuntimeError:  # inside torch.func's transforms
        return None
    return installed() if forward_ad.unpack_dual(x).tangent is None else None


def default_path() -> Path:
    """Return where the kernel for this source and this processor is kept: one file per processor, for homes that machines share."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join((*FLAGS, platform.machine(), _processor())).encode())
    return cache / "bayesdyn" / f"fused-{key.hexdigest()[:16]}.so"


def _processor() -> str:
    """Return the name and the instruction sets of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
