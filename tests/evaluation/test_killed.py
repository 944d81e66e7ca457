"""A comparison that is killed and started again ends with the table of one that nobody disturbed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_comparison import small_comparison

from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.table import TIMINGS

HERE = Path(__file__).resolve().parent
PATH = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), str(HERE)])
KILLS = 10


def start(folder):
    """Start the comparison in a fresh process that has all modules loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warmed_comparison"])
    process = context.Process(target=small_comparison, args=(folder,))
    process.start()
    return process


def start_with_jobs(folder):
    """Start it with two workers, as a command."""
    return subprocess.Popen([sys.executable, HERE / "small_comparison.py", folder], env={**os.environ, "PYTHONPATH": PATH})


def table(folder):
    """Return the lines of the table without what a clock measured."""
    lines = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not any(f",{name}," in line for name in TIMINGS)]


def assert_same(folder, expected):
    assert table(folder) == table(expected)
    for cell, other in zip(Comparison.open(folder).cells, Comparison.open(expected).cells, strict=True):
        assert cell.arrays.keys() == other.arrays.keys()
        assert all(np.array_equal(cell.arrays[name], other.arrays[name], equal_nan=True) for name in cell.arrays)


def finished(folder):
    return len(list((folder / "cells").glob("*.npz")))


@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed_it_has_the_same_table(tmp_path, monkeypatch):
    """The moments are drawn from ten equal parts of what an undisturbed run takes."""
    monkeypatch.setenv("PYTHONPATH", PATH)  # by which the server that processes are forked from finds the modules
    start(tmp_path / "first").join()  # which loads the modules
    began = time.monotonic()
    start(tmp_path / "undisturbed").join()
    seconds = time.monotonic() - began
    random_moment, kept = random.Random(0), []
    for part in range(KILLS):
        folder = tmp_path / f"killed-{part}"
        process = start(folder)
        process.join((part + random_moment.random()) / KILLS * seconds)
        process.kill()
        process.join()
        kept.append(finished(folder) if process.exitcode == -signal.SIGKILL else None)
        again = start(folder)
        again.join()
        assert again.exitcode == 0
        assert_same(folder, tmp_path / "undisturbed")
    # Moments at which nothing or everything was finished would say little.
    assert len({number for number in kept if number is not None and 0 < number < 8}) >= 3, kept


@pytest.mark.slow
def test_killed_at_ten_moments_with_two_workers_it_has_the_same_table(tmp_path):
    small_comparison(tmp_path / "undisturbed")
    random_moment = random.Random(1)
    for part in range(KILLS):
        folder = tmp_path / f"killed-{part}"
        with start_with_jobs(folder) as process:
            # Loading the modules takes longest; from the first cell on, the moments are spread over the cells.
            while finished(folder) < part and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.2 * random_moment.random())
            process.kill()
        with start_with_jobs(folder) as process:
            assert process.wait() == 0
        assert_same(folder, tmp_path / "undisturbed")
