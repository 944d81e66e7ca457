"""Real tosses of a cube, from the user's copy of the file: `load_tosses`, `kinetic_energy`."""

from os import PathLike

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bayesdyn.data.episodes import Episode
from bayesdyn.data.storage import read_npz
from bayesdyn.errors import FileError

_STATE = 13
# Of a homogeneous cube of edge 2 and mass 1, about any axis: edge²/6.
_INERTIA = 2.0 / 3.0


def load_tosses(path: str | PathLike[str]) -> list[Episode]:
    """Return the tosses of an .npz file with `states` [N, 13], one toss after another, and `lengths`, the samples of each.

    A state is position, quaternion (scalar first), velocity and angular velocity in the body's frame; lengths are in half-widths of
    the cube, times in s, 1/148 s a sample. Nothing is controlled, so A = 0. Velocities are backward differences of positions.

    Source: DAIRLab/contact-nets (BSD-3), Pfrommer, Halm, Posa 2020 (ContactNets).

    Raises `FileError` for a missing file or one of other contents.
    """
    arrays = read_npz(path)
    missing = {"states", "lengths"} - arrays.keys()
    if missing:
        raise FileError(f"{path} holds no tosses: it lacks {sorted(missing)}; it has {sorted(arrays)}")
    states, lengths = arrays["states"], arrays["lengths"].astype(np.int64)
    if states.ndim != 2 or states.shape[1] != _STATE or lengths.sum() != len(states) or (lengths < 2).any():
        raise FileError(
            f"{path} has to hold states [N, {_STATE}] and lengths of at least 2 that sum to N; got {list(states.shape)} and a sum "
            f"of {lengths.sum()}"
        )
    pieces = np.split(states, np.cumsum(lengths)[:-1])
    return [Episode.from_arrays(piece, np.zeros((len(piece) - 1, 0))) for piece in pieces]


def kinetic_energy(state: Float[Tensor, "*batch 13"]) -> Float[Tensor, "*batch"]:
    """Return ½|v|² + ½ I |ω|² of a homogeneous cube of mass 1, in half-widths² per s².

    >>> import torch
    >>> state = torch.zeros(13)
    >>> state[7], state[12] = 2.0, 3.0
    >>> round(float(kinetic_energy(state)), 6)
    5.0
    """
    velocity, spin = state[..., 7:10], state[..., 10:13]
    return 0.5 * velocity.square().sum(-1) + 0.5 * _INERTIA * spin.square().sum(-1)
