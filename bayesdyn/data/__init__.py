"""Data that models learn from: transitions and episodes, logs with lags, built-in logs, and files."""

from bayesdyn.data.builtin import load_log, quarter_drone
from bayesdyn.data.collection import collect, random_policy
from bayesdyn.data.episodes import Episode
from bayesdyn.data.logs import LagLayout, Log, lagged, resample
from bayesdyn.data.storage import (
    StoredTensors,
    atomic_path,
    load_arrays,
    load_tensors,
    make_folder,
    save_arrays,
    save_tensors,
    write_atomically,
)
from bayesdyn.data.transitions import Transitions

__all__ = [
    "Episode",
    "LagLayout",
    "Log",
    "StoredTensors",
    "Transitions",
    "atomic_path",
    "collect",
    "lagged",
    "load_arrays",
    "load_log",
    "load_tensors",
    "make_folder",
    "quarter_drone",
    "random_policy",
    "resample",
    "save_arrays",
    "save_tensors",
    "write_atomically",
]
