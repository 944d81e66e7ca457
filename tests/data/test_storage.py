"""A file is whole or absent, and a damaged one never passes for data."""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bayesdyn.data import atomic_path, load_arrays, load_tensors, make_folder, save_arrays, save_tensors, write_atomically
from bayesdyn.errors import DataError, FileError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("old")

    def interrupted(file):
        file.write(b"half of the new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["run.txt"]
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"
    assert names(tmp_path) == ["run.txt"]


def test_the_file_does_not_appear_before_it_is_whole(tmp_path):
    with atomic_path(tmp_path / "run.txt") as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path
        assert not (tmp_path / "run.txt").exists()
    assert names(tmp_path) == ["run.txt"]


def test_contents_are_on_disk_before_the_name_points_to_them(tmp_path, monkeypatch):
    path, flushed = tmp_path / "run.txt", []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (flushed.append((os.fstat(descriptor).st_size, path.exists())), real(descriptor))
    )
    write_atomically(path, lambda file: file.write(b"contents"))
    assert flushed[0] == (len(b"contents"), False)


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "tensors.safetensors", {"x": torch.zeros(1)})
    save_arrays(tmp_path / "arrays.npz", {"x": np.zeros(1)})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_what_cannot_be_written_is_an_error_that_names_the_path(tmp_path):
    with pytest.raises(FileError, match=r"absent; create it first"):
        save_tensors(tmp_path / "absent" / "x.safetensors", {"x": torch.zeros(1)})
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"can't write .*folder"):
        write_atomically(tmp_path / "folder", lambda file: file.write(b"x"))
    with pytest.raises(FileError, match=r"can't write .*nothing"), atomic_path(tmp_path / "nothing"):
        pass
    assert names(tmp_path) == ["folder"]


def test_any_dtype_layout_and_sharing_comes_back(tmp_path):
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    tensors = {
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "flag": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "count": torch.arange(3),
        "weight": weight,
        "tied": weight,
        "transposed": weight.T,
        "expanded": weight.expand(2, 4, 3),
        "parameter": torch.nn.Parameter(weight),
    }
    path = tmp_path / "model.safetensors"
    save_tensors(path, tensors, {"configuration": '{"layers": 2}', "format": "mine"}, kind="checkpoint", version=3)
    loaded = load_tensors(path, kind="checkpoint", version=4)
    assert loaded.metadata == {"configuration": '{"layers": 2}', "format": "mine"}
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_loaded_tensors_do_not_depend_on_the_file_any_more(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"x": torch.ones(1000)})
    loaded = load_tensors(path).tensors["x"]
    with path.open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        file.write(bytes(4000))
    assert float(loaded.sum()) == 1000.0


def save_sample_tensors(path):
    save_tensors(path, {"a": torch.arange(5.0), "b": torch.tensor([True, False])}, {"note": "sample"}, kind="sample")


def load_sample_tensors(path):
    loaded = load_tensors(path, kind="sample")
    assert loaded.metadata == {"note": "sample"}
    return {name: tensor.tolist() for name, tensor in loaded.tensors.items()}


def save_sample_arrays(path):
    save_arrays(path, {"a": np.arange(5.0), "b": np.array([True, False])}, kind="sample")


def load_sample_arrays(path):
    return {name: array.tolist() for name, array in load_arrays(path, kind="sample").items()}


FORMATS = pytest.mark.parametrize(
    ("save", "load", "name"),
    [
        (save_sample_tensors, load_sample_tensors, "sample.safetensors"),
        (save_sample_arrays, load_sample_arrays, "sample.npz"),
    ],
)


@FORMATS
def test_a_file_cut_short_anywhere_is_refused(tmp_path, save, load, name):
    path = tmp_path / name
    save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="sample"):
            load(path)


@FORMATS
def test_a_flipped_byte_is_refused_or_harmless_but_never_other_data(tmp_path, save, load, name):
    path = tmp_path / name
    save(path)
    whole, right = path.read_bytes(), load(path)
    refused = 0
    for position in range(len(whole)):
        for flip in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            try:
                assert load(path) == right
            except FileError:
                refused += 1
    assert refused > len(whole)


def test_kind_and_version_are_checked(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.zeros(1)}, kind="checkpoint", version=2)
    with pytest.raises(FileError, match="holds checkpoint; wanted transitions"):
        load_tensors(path, kind="transitions", version=2)
    with pytest.raises(FileError, match="version 2; this release reads up to 1"):
        load_tensors(path, kind="checkpoint", version=1)
    save_file({"x": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(FileError, match="nothing that this package wrote"):
        load_tensors(path)
    arrays = tmp_path / "x.npz"
    save_arrays(arrays, {"x": np.zeros(1)}, kind="figures", version=2)
    with pytest.raises(FileError, match="version 2; this release reads up to 1"):
        load_arrays(arrays, kind="figures")


@pytest.mark.parametrize("load", [load_tensors, load_arrays])
def test_missing_files_folders_and_foreign_files_are_refused_by_name(tmp_path, load):
    with pytest.raises(FileError, match=r"there is no file .*absent"):
        load(tmp_path / "absent")
    with pytest.raises(FileError, match="it is a folder"):
        load(tmp_path)
    for index, content in enumerate([b"", b"name,value\n", pickle.dumps({"x": 1}), bytes(100), os.urandom(100)]):
        path = tmp_path / f"foreign{index}"
        path.write_bytes(content)
        with pytest.raises(FileError, match=f"foreign{index}"):
            load(path)
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(FileError, match="single"):
        load(tmp_path / "single.npy")


class Bomb:
    """Would leave a mark if it were unpickled."""

    exploded = False

    def __reduce__(self):
        return (setattr, (Bomb, "exploded", True))


def test_pickles_are_neither_written_nor_read(tmp_path):
    objects = np.array([Bomb()], dtype=object)
    with pytest.raises(DataError, match="Python objects"):
        save_arrays(tmp_path / "x.npz", {"bomb": objects})
    np.savez(tmp_path / "x.npz", bomb=objects)
    with pytest.raises(FileError, match="plain arrays"):
        load_arrays(tmp_path / "x.npz")
    assert not Bomb.exploded


def test_a_folder_that_is_a_file_is_named(tmp_path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match=r"can't make the folder .*taken"):
        make_folder(tmp_path / "taken" / "run")
