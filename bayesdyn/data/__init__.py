"""Data that models learn from: transitions and episodes, logs with lags, built-in logs, and files."""

from bayesdyn.data.episodes import Episode
from bayesdyn.data.storage import StoredTensors, atomic_path, load_arrays, load_tensors, save_arrays, save_tensors, write_atomically
from bayesdyn.data.transitions import Transitions

__all__ = [
    "Episode",
    "StoredTensors",
    "Transitions",
    "atomic_path",
    "load_arrays",
    "load_tensors",
    "save_arrays",
    "save_tensors",
    "write_atomically",
]
