"""What a comparison asks of its options and data before anything is computed."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from bayesdyn.data import Transitions
from bayesdyn.errors import ConfigurationError, DataError, ShapeError
from bayesdyn.evaluation.decisions import DecisionTask
from bayesdyn.posteriors.held_out_rows import check_held_out, fingerprints


def check_options(seeds: Sequence[int], replicates: int) -> None:
    """Raise `ConfigurationError` for seeds or replicates without a meaning."""
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigurationError(f"compare wants at least one seed, each once and none negative; got {list(seeds)}")
    if replicates < 0:
        raise ConfigurationError(f"compare wants replicates >= 0; got {replicates}")


def check_sizes(train: Transitions, others: Mapping[str, Transitions]) -> None:
    """Raise `ShapeError` for other data than the training data that have other sizes."""
    want = (train.state_size, train.action_size)
    for name, data in others.items():
        if (data.state_size, data.action_size) != want:
            raise ShapeError(f"training data have (S, A) = {want}, data {name!r} {(data.state_size, data.action_size)}")


def check_calibration(calibration: Transitions, train: Transitions, tests: Mapping[str, Transitions]) -> None:
    """Raise `DataError` for a calibration set that shares rows with training or test data, or that is too small."""
    check_held_out(calibration.state, calibration.episode)
    mine = _rows(calibration)
    for name, data in {"train": train, **tests}.items():
        shared = int(torch.isin(mine, _rows(data)).sum())
        if shared:
            raise DataError(
                f"{shared} of {len(calibration)} rows of the calibration data are among the data {name!r}; "
                "split by episode into parts that share none, as Transitions.split does"
            )


def check_decisions(task: DecisionTask, train: Transitions) -> None:
    """Raise `ShapeError` for a task whose states or actions are not those of the data."""
    have = (task.starts.shape[1], task.space.size)
    want = (train.state_size, train.action_size)
    if have != want:
        raise ShapeError(f"training data have (S, A) = {want}; decisions start in states and take actions of sizes {have}")


def _rows(data: Transitions) -> Int[Tensor, " N"]:
    return fingerprints(torch.cat([data.state, data.action], 1), data.next_state)
