"""Files that are either whole or absent: atomic writing, and tensors on disk with a kind and a version, never pickled."""

import os
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bayesdyn.errors import DataError, FileError

# The one name in a file that says whose it is: "kind/version".
_STAMP = "bayesdyn"
# safetensors has no checksum of its own, so a flipped bit would load as data.
_CHECKSUM = "bayesdyn_crc32"


class StoredTensors(NamedTuple):
    """What a tensor file holds: `tensors` by name, on the CPU, and `metadata`, text by name."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on leaving, flush it to disk and rename it to `path`.

    A reader sees the old file or the new one, never a part. If the body raises, the old file stays and nothing else is left.

    Raises `FileError` if the folder doesn't exist or the file can't be written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "note.txt") as temporary:
    ...     _ = temporary.write_text("all of it")
    >>> [p.name for p in folder.iterdir()]
    ['note.txt']
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileError(f"can't write {path}: there is no folder {path.parent}; create it first")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some systems can't open or flush a folder; the file itself is safe by now
        _flush(path.parent, os.O_RDONLY)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, unless it is there, and return its path.

    Raises `FileError` if something else has that name or it can't be made.

    >>> import tempfile
    >>> make_folder(Path(tempfile.mkdtemp()) / "a" / "b").is_dir()
    True
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"can't make the folder {path}: {error.strerror or error}; choose another place") from error
    return path


def write_atomically(path: str | os.PathLike[str], writer: Callable[[BinaryIO], object]) -> None:
    """Call `writer` with an open binary file that becomes `path` only when all of it is on disk.

    Raises `FileError` as `atomic_path` does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.json"
    >>> write_atomically(path, lambda file: file.write(b"{}"))
    >>> path.read_text()
    '{}'
    """
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        writer(file)


def save_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    kind: str = "tensors",
    version: int = 1,
) -> None:
    """Write named tensors, and text about them, as one safetensors file, atomically.

    `kind` says what the file is (a checkpoint, transitions) and `version` how it is laid out; `load_tensors` checks both.
    Tensors may live on any device, share memory or be views; each is stored whole and contiguous.

    Raises `FileError` if the file can't be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_tensors(path, {"weight": torch.eye(2)}, {"note": "identity"}, kind="example")
    >>> load_tensors(path, kind="example").tensors["weight"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    whole = {name: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for name, t in tensors.items()}
    text = dict(metadata or {})
    text[_STAMP] = f"{kind}/{version}"
    text[_CHECKSUM] = _checksum(whole, text)
    content = save(whole, text)
    write_atomically(path, lambda file: file.write(content))


def load_tensors(path: str | os.PathLike[str], *, kind: str = "tensors", version: int = 1) -> StoredTensors:
    """Read what `save_tensors` wrote; the tensors arrive on the CPU with the dtype they had.

    Raises `FileError`, naming the file and its fault, if it is missing, damaged, of another kind or of a later version.
    """
    path = _existing(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise FileError(f"{path} is damaged or no safetensors file: {error}") from error
    expected = metadata.pop(_CHECKSUM, "")
    _check_stamp(path, metadata.get(_STAMP, ""), kind, version)
    if _checksum(tensors, metadata) != expected:
        raise FileError(f"{path} is damaged: its contents don't match its checksum")
    del metadata[_STAMP]
    return StoredTensors(tensors, metadata)


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any], *, kind: str = "arrays", version: int = 1) -> None:
    """Write named numeric arrays as one compressed npz file, atomically; kind and version as in `save_tensors`.

    Raises `FileError` if the file can't be written and `DataError` for an array of objects, which would need pickle.
    """
    whole: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
    objects = [name for name, values in whole.items() if values.dtype.hasobject]
    if objects:
        raise DataError(f"save_arrays stores numbers and text only; {objects} hold Python objects")
    whole[_STAMP] = np.array(f"{kind}/{version}")
    write_atomically(path, lambda file: np.savez_compressed(file, **whole))


def load_arrays(path: str | os.PathLike[str], *, kind: str = "arrays", version: int = 1) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote; raises `FileError` as `load_tensors` does, also for a file that holds pickled objects."""
    arrays = read_npz(path)
    _check_stamp(Path(path), str(arrays.pop(_STAMP, "")), kind, version)
    return arrays


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read any npz file without unpickling; raises `FileError` if it is missing, damaged or holds Python objects."""
    path = _existing(path)
    try:
        # Opened here, because NumPy leaves its own handle open when it meets a damaged file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise FileError(f"{path} is damaged or no npz file of plain arrays: {error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise FileError(f"{path} is damaged: {error}") from error


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}" + (" (it is a folder)" if path.is_dir() else ""))
    return path


def _check_stamp(path: Path, stamp: str, kind: str, version: int) -> None:
    found, _, number = stamp.partition("/")
    if found != kind or not number.isdecimal():
        raise FileError(f"{path} holds {found or 'nothing that this package wrote'}; wanted {kind}")
    if int(number) > version:
        raise FileError(f"{path} is {kind} of layout version {number}; this release reads up to {version}: update {_STAMP}")


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    crc = zlib.crc32(repr(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
