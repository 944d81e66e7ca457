"""Data that models learn from: transitions and episodes, logs with lags, built-in logs, and files."""

from bayesdyn.data.behaviours import ou_policy, pd_policy
from bayesdyn.data.builtin import ball_hoop, quarter_drone
from bayesdyn.data.collection import collect, random_policy
from bayesdyn.data.cube_tosses import load_tosses
from bayesdyn.data.episodes import Episode
from bayesdyn.data.log_files import load_log, load_logs
from bayesdyn.data.logs import LagLayout, Log, lagged, resample
from bayesdyn.data.minari_datasets import load_minari
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
from bayesdyn.data.tables import read_columns
from bayesdyn.data.transitions import Transitions

__all__ = [
    "Episode",
    "LagLayout",
    "Log",
    "StoredTensors",
    "Transitions",
    "atomic_path",
    "ball_hoop",
    "collect",
    "lagged",
    "load_arrays",
    "load_log",
    "load_logs",
    "load_minari",
    "load_tensors",
    "load_tosses",
    "make_folder",
    "ou_policy",
    "pd_policy",
    "quarter_drone",
    "random_policy",
    "read_columns",
    "resample",
    "save_arrays",
    "save_tensors",
    "write_atomically",
]
