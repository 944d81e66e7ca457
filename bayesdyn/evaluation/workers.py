"""Where the cells of a comparison are computed: in this process, in several on this machine, or on a Ray cluster.

A job is a picklable object, and the work a function of it and of nothing else, so the results are the same wherever it runs.
"""

import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from bayesdyn.errors import ConfigurationError, MissingExtraError, NumericalError

Job = TypeVar("Job")
Result = TypeVar("Result")

Tell = Callable[[str, int, int], None]
"""Is told what stage a job is in, and how many of how many steps of it are done."""

_LOOK_SECONDS = 0.5


class Workers(ABC):
    """Runs independent jobs and yields each result as soon as it is there.

    `threads` is how many processor threads each job has. The last digits of a result depend on it, and so it is a setting and not
    the rest of the machine: cells have the same numbers in one process, in many, and on a cluster of such machines.
    """

    threads: int

    @abstractmethod
    def run(
        self, work: Callable[[Job, Tell], Result], jobs: Sequence[Job], tell: Callable[[Job], Tell]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield (index of the job, work(job)) in the order in which jobs end; `tell(job)` hears of those of this process only.

        Raises what a job raises; those that run then are stopped, and so they are when the iterator is closed.
        """


@dataclass(frozen=True)
class InProcess(Workers):
    """One job after the other, in this process.

    >>> list(InProcess().run(lambda job, tell: 2 * job, [1, 2], lambda job: silent))
    [(0, 2), (1, 4)]
    """

    threads: int = 1

    def __post_init__(self) -> None:
        _at_least_one("InProcess", threads=self.threads)

    def run(
        self, work: Callable[[Job, Tell], Result], jobs: Sequence[Job], tell: Callable[[Job], Tell]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield results in the order of the jobs."""
        for index, job in enumerate(jobs):
            with _threads(self.threads):
                result = work(job, tell(job))
            yield index, result


@dataclass(frozen=True)
class Processes(Workers):
    """So many processes of this machine, with `threads` each; they end with this one, even if it is killed.

    Raises `NumericalError` if the system ends one of them, as it does when memory runs out.

    >>> Processes(2)
    Processes(jobs=2, threads=1)
    """

    jobs: int
    threads: int = 1

    def __post_init__(self) -> None:
        _at_least_one("Processes", jobs=self.jobs, threads=self.threads)

    def run(
        self, work: Callable[[Job, Tell], Result], jobs: Sequence[Job], tell: Callable[[Job], Tell]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield results as processes finish them."""
        calls = [delayed(_numbered)(self.threads, work, index, job) for index, job in enumerate(jobs)]
        # Without memory maps of arrays: a killed run would leave their files behind.
        settings = {"max_nbytes": None, "inner_max_num_threads": self.threads, "initializer": _attend, "initargs": (os.getpid(),)}
        with parallel_config(backend="loky", **settings):
            pool = Parallel(n_jobs=self.jobs, batch_size=1, pre_dispatch="n_jobs", return_as="generator_unordered")
        with closing(pool(calls)) as results:
            try:
                yield from results
            except TerminatedWorkerError as error:
                raise NumericalError(
                    "the system ended a process of the comparison, most likely for want of memory; what was finished is kept: "
                    f"run it again with fewer than {self.jobs} jobs"
                ) from error


@dataclass(frozen=True)
class Ray(Workers):
    """Processes of a Ray cluster: that at `address`, the one of the environment ("auto"), or one of this machine's own ("local").

    `jobs` is how many run at once, None for as many as the cluster has processors. Every node needs this package.

    Raises `MissingExtraError` without Ray, `ConfigurationError` if there is no cluster at the address.

    >>> Ray(jobs=2).address
    'local'
    """

    address: str = "local"
    jobs: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        _at_least_one("Ray", jobs=1 if self.jobs is None else self.jobs, threads=self.threads)

    def run(
        self, work: Callable[[Job, Tell], Result], jobs: Sequence[Job], tell: Callable[[Job], Tell]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield results as the cluster finishes them."""
        ray = _imported_ray()
        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        remote = ray.remote(num_cpus=self.threads)(_numbered)
        waiting = list(enumerate(jobs))[::-1]
        running: list[Any] = []
        try:
            while waiting or running:
                while waiting and len(running) < (self.jobs or len(jobs)):
                    running.append(remote.remote(self.threads, work, *waiting.pop()))
                (done,), running = ray.wait(running)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise NumericalError(f"the Ray cluster lost a cell, run it again to go on: {error}") from error
        finally:
            for each in running:
                ray.cancel(each, force=True)
            if started:
                ray.shutdown()

    def _connect(self, ray: ModuleType) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere that nobody asked for
        own = {}
        if self.address == "local":
            # Its processes find what this one finds, a posterior of the user's own for instance.
            own = {
                "num_cpus": self.jobs and self.jobs * self.threads,
                "include_dashboard": False,
                "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
            }
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigurationError(
                f"there is no Ray cluster at {self.address!r} ({error}); start one with `ray start --head`, or say local"
            ) from error


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def _numbered(threads: int, work: Callable[[Job, Tell], Result], index: int, job: Job) -> tuple[int, Result]:
    with _threads(threads):
        return index, work(job, silent)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _attend(parent: int) -> None:
    """Prepare a process: it leaves Ctrl-C to its parent, and ends soon after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed parent ends nobody, and a fit can take minutes.
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def _imported_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("a Ray cluster needs Ray: pip install 'bayesdyn[ray]'; Processes(jobs) does without") from error
    return ray


def _at_least_one(who: str, **numbers: int) -> None:
    if min(numbers.values()) < 1:
        given = ", ".join(f"{name}={value}" for name, value in numbers.items())
        raise ConfigurationError(f"{who} wants numbers of 1 and more; got {given}")
