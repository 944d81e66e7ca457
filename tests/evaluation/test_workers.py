"""Cells are the same to the last digit wherever they are computed, and no process outlives the comparison."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from small_comparison import small_comparison

from bayesdyn.errors import ConfigurationError, MissingExtraError, NumericalError, UnknownNameError
from bayesdyn.evaluation import Comparison, InProcess, Processes, Ray
from bayesdyn.evaluation.table import without_timings
from bayesdyn.evaluation.workers import silent
from bayesdyn.testing.conformance import shape_checks_off

HERE = Path(__file__).resolve().parent
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the extra bayesdyn[ray])")
ELSEWHERE = [pytest.param(Processes(2), id="processes"), pytest.param(Ray(jobs=2), id="ray", marks=needs_ray)]


def run(workers, work, jobs):
    return list(workers.run(work, jobs, lambda job: silent))


@pytest.fixture(scope="module")
def here():
    with shape_checks_off():
        return small_comparison(None)


@pytest.mark.parametrize("workers", ELSEWHERE)
def test_numbers_are_the_same_to_the_last_digit_in_other_processes(here, workers, tmp_path):
    stages = []
    found = small_comparison(tmp_path, workers, progress=stages.append)
    for other in (found, Comparison.open(tmp_path)):
        assert repr(without_timings(other.rows)) == repr(without_timings(here.rows))
        for cell, expected in zip(other.cells, here.cells, strict=True):
            assert cell.arrays.keys() == expected.arrays.keys()
            assert all(np.array_equal(cell.arrays[name], expected.arrays[name], equal_nan=True) for name in cell.arrays)
    told = [("fit", 0, 8), *(("done", done, 8) for done in range(8))]
    assert [(state.stage, state.cell, state.cells) for state in stages] == told


@pytest.mark.parametrize("workers", [InProcess(3), Processes(2, 3)])
def test_every_job_has_the_threads_that_were_asked_for(workers):
    before = torch.get_num_threads()
    found = run(workers, lambda job, tell: (job, torch.get_num_threads()), ["a", "b"])
    assert sorted(found) == [(0, ("a", 3)), (1, ("b", 3))]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("workers", [InProcess(), *ELSEWHERE])
def test_an_error_is_raised_as_it_is(workers):
    def work(job, tell):
        raise UnknownNameError(f"no {job}")

    with pytest.raises(UnknownNameError, match=r"^no name$"):
        run(workers, work, ["name"])


def test_a_process_that_the_system_ends_is_named_with_what_to_do():
    def work(job, tell):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(NumericalError, match=r"memory.*fewer than 2 jobs"):
        run(Processes(2), work, [1, 2])


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"bayesdyn\[ray\]"):
        run(Ray(), lambda job, tell: job, [1])


@needs_ray
def test_a_cluster_that_is_not_there_is_a_mistake(monkeypatch):
    def refuse(**options):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(ConfigurationError, match=r"no Ray cluster at 'auto' \(nobody answers\)"):
        run(Ray("auto"), lambda job, tell: job, [1])


def test_numbers_below_one_are_refused():
    for make in (lambda: InProcess(0), lambda: Processes(0), lambda: Processes(2, 0), lambda: Ray(jobs=0), lambda: Ray(threads=0)):
        with pytest.raises(ConfigurationError, match="1 and more"):
            make()


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_a_comparison_that_is_killed_or_interrupted(kill, tmp_path):
    """Ctrl-C in a terminal reaches all processes of the group; what was finished stays."""
    sleepers, folder = tmp_path / "sleepers", tmp_path / "run"
    sleepers.mkdir()
    command = [sys.executable, HERE / "small_comparison.py", folder, sleepers]
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), str(HERE)])
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, start_new_session=True, stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: len(list(sleepers.iterdir())) == 2 or process.poll() is not None)
        pids = [int(file.name) for file in sleepers.iterdir()]
        assert len(pids) == 2
        if kill == signal.SIGINT:
            os.killpg(process.pid, kill)
        else:
            process.send_signal(kill)
        said = process.communicate(timeout=300)[1].decode()
    assert (process.returncode == -signal.SIGKILL) == (kill == signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids)))
    assert "semlock" in said or said.count("Traceback") <= 2, said
    assert len(list((folder / "cells").glob("narrow-*.npz"))) == 2


def wait_until(condition, seconds=180.0):
    """Wait for something that is to come, however slow the machine is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid):
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")
