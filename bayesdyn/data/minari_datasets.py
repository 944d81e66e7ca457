"""Episodes of a Minari dataset that is on this machine: `load_minari`."""

from typing import Any

import numpy as np

from bayesdyn.data.episodes import Episode
from bayesdyn.errors import DataError, FileError, MissingExtraError, UnknownNameError


def load_minari(name: str, limit: int | None = None) -> list[Episode]:
    """Return the episodes of a local Minari dataset, such as "pendulum/random-v0", at most the first `limit`.

    Nothing is downloaded: `minari download NAME` does that, into the folder that MINARI_DATASETS_PATH names. Observations and
    actions have to be vectors of numbers; a discrete action becomes one column.

    Raises `MissingExtraError` without the package minari, `UnknownNameError` for a dataset that is not on this machine, `FileError`
    for one that can't be read and `DataError` for one without episodes or of dictionaries or images.
    """
    minari = _minari()
    local = sorted(minari.list_local_datasets())
    if name not in local:
        held = ", ".join(local) or "none"
        raise UnknownNameError(
            f"there is no Minari dataset {name!r} on this machine, which has {held}; nothing is downloaded here: "
            f"minari download {name}"
        )
    try:
        dataset = minari.load_dataset(name)
        indices = dataset.episode_indices[:limit] if limit else None
        recorded = list(dataset.iterate_episodes(indices))
    except (OSError, KeyError, ImportError, ValueError) as error:
        raise FileError(f"can't read the Minari dataset {name!r}: {error}") from error
    episodes = [_episode(name, found) for found in recorded]
    if not episodes:
        raise DataError(f"the Minari dataset {name!r} has no episode; record or download another")
    return episodes


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise MissingExtraError("a Minari dataset is read by the package minari: pip install 'bayesdyn[data]'") from error
    return minari


def _episode(name: str, found: Any) -> Episode:
    states = _vectors(f"observations of the Minari dataset {name!r}", found.observations)
    actions = _vectors(f"actions of the Minari dataset {name!r}", found.actions)
    ended = bool(np.asarray(found.terminations)[-1])
    return Episode.from_arrays(states, actions, found.rewards, ended)


def _vectors(what: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} have to be vectors of numbers; got {type(values).__name__}: make a dataset of flat ones, with "
            "gymnasium.wrappers.FlattenObservation around the environment"
        ) from error
    if array.ndim > 2:
        raise DataError(f"{what} have to be vectors; got arrays of shape {list(array.shape[1:])}, such as images")
    return array.reshape(len(array), -1)
