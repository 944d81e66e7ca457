"""Tables of a user's own: the same numbers from CSV, Parquet and NPZ, several recordings in a file, errors that name the place."""

import datetime
import sys

import numpy as np
import pytest

from bayesdyn.data import load_log, load_logs, read_columns
from bayesdyn.errors import DataError, FileError, MissingExtraError, UnknownNameError

COLUMNS = {"t": [0.0, 0.1, 0.2, 0.3], "y": [1.0, -2.5, 3.25, 1e-3], "u": [0.0, 1.0, 0.0, -1.0], "run": [3.0, 3.0, 1.0, 1.0]}


def write(path):
    if path.suffix == ".npz":
        np.savez(path, **{name: np.array(values) for name, values in COLUMNS.items()})
    elif path.suffix == ".csv":
        rows = zip(*COLUMNS.values(), strict=True)
        path.write_text("\n".join([",".join(COLUMNS), *(",".join(map(repr, row)) for row in rows)]))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(COLUMNS), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_every_kind_of_file_holds_the_same_log(tmp_path, suffix):
    log = load_log(write(tmp_path / f"arm{suffix}"), outputs=["y"], inputs=["u"], time="t")
    assert log.name == "arm"
    assert log.time.tolist() == COLUMNS["t"]
    assert log.output[:, 0].tolist() == COLUMNS["y"]
    assert log.input[:, 0].tolist() == COLUMNS["u"]


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_recordings_are_cut_by_their_number_in_the_order_of_the_file(tmp_path, suffix):
    logs = load_logs(write(tmp_path / f"arm{suffix}"), outputs=["y"], inputs=[], time=None, episode="run")
    assert [log.output[:, 0].tolist() for log in logs] == [COLUMNS["y"][:2], COLUMNS["y"][2:]]
    assert logs[1].time.diff().tolist() == [1.0]


def test_parquet_of_other_types_gives_its_numbers_truth_values_and_times(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    began = datetime.datetime(2026, 5, 1)
    table = pyarrow.table(
        {
            "when": [began, began + datetime.timedelta(milliseconds=20)],
            "count": pyarrow.array([1, None], type=pyarrow.int32()),
            "flag": [True, False],
            "note": ["a", "b"],
        }
    )
    parquet.write_table(table, tmp_path / "mixed.parquet")
    columns = read_columns(tmp_path / "mixed.parquet")
    assert list(columns) == ["when", "count", "flag"]
    assert columns["when"].tolist() == [0.0, 0.02]
    assert columns["flag"].tolist() == [1.0, 0.0]
    assert np.isnan(columns["count"]).tolist() == [False, True]
    with pytest.raises(DataError, match="non-finite"):
        load_log(tmp_path / "mixed.parquet", outputs=["count"], inputs=[], time="when")


def test_a_parquet_file_that_is_none_is_said_to_be_unreadable(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(FileError, match=r"can't read .*bad.parquet"):
        read_columns(tmp_path / "bad.parquet")
    with pytest.raises(FileError, match="nowhere"):
        read_columns(tmp_path / "nowhere.parquet")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "arm.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bayesdyn\[data\]'"):
        read_columns(path)


def test_what_cannot_be_used_is_named(tmp_path):
    path = write(tmp_path / "arm.csv")
    with pytest.raises(FileError, match=r"\.csv, \.npz, \.parquet"):
        read_columns(tmp_path / "arm.xlsx")
    with pytest.raises(UnknownNameError, match=r"no column 'z'; it has 't', 'y', 'u', 'run'"):
        load_log(path, outputs=["z"], inputs=[], time="t")
    (tmp_path / "back.csv").write_text("run,y\n1,0\n2,0\n1,0\n")
    with pytest.raises(DataError, match="comes back after another one"):
        load_logs(tmp_path / "back.csv", outputs=["y"], inputs=[], time=None, episode="run")
    (tmp_path / "hole.csv").write_text("run,y\n1,0\nnan,0\n")
    with pytest.raises(DataError, match=r"hole\.csv, column 'run' has 1 non-finite value\(s\), the first in data row 1"):
        load_logs(tmp_path / "hole.csv", outputs=["y"], inputs=[], time=None, episode="run")
    assert len(load_logs(tmp_path / "hole.csv", outputs=["y"], inputs=[], time=None)[0]) == 2  # a column that nobody asked for
