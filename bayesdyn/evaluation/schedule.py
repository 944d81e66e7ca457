"""Which cells of a comparison are there, which are computed, and in which order they are told of and kept."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

from bayesdyn.evaluation.comparison import Cell, CellFolder, Origin
from bayesdyn.evaluation.made_of import made_of
from bayesdyn.evaluation.parts import Job, compute
from bayesdyn.evaluation.workers import Tell, Workers


class CellProgress(NamedTuple):
    """Where a comparison stands: `cell` of `cells` are finished, and this one has done `done` of `total` steps of its stage.

    Stages are `fit`, the name of the data being scored or of another part, and `done`, `kept` (found in the folder) or `failed`.
    Of cells that other processes compute, only the last three are heard of.
    """

    posterior: str
    seed: int
    stage: str
    done: int
    total: int
    cell: int
    cells: int


ComparisonProgress = Callable[[CellProgress], None]


def cells_of(
    jobs: Sequence[Job], workers: Workers, store: CellFolder | None, progress: ComparisonProgress, *, retry: bool = False
) -> list[Cell]:
    """Return the cell of each job, in their order: from the folder, or computed and kept there as soon as it is finished.

    A cell that failed is kept, too, since with the same seed it fails again, unless `retry` asks for it once more: what it failed
    for may have been the machine's, or may have been repaired.

    Raises what a job raises, and `ConfigurationError` for a cell in the folder that was computed from something else.
    """
    cells: dict[int, Cell] = {}

    def tell(job: Job) -> Tell:
        def at(stage: str, done: int, total: int) -> None:
            progress(CellProgress(job.candidate.name, job.seed, stage, done, total, len(cells), len(jobs)))

        return at

    origins = [Origin("")] * len(jobs) if store is None else _origins(jobs)
    for place, (job, origin) in enumerate(zip(jobs, origins, strict=True)):
        kept = None if store is None else store.load(job.candidate.name, job.seed, job.part.name, origin)
        if kept is not None and not (retry and kept.failure):
            tell(job)("kept", 1, 1)
            cells[place] = kept
    missing = [place for place in range(len(jobs)) if place not in cells]
    if missing:
        tell(jobs[missing[0]])("fit", 0, 1)  # other processes take a while to be heard of
    with closing(workers.run(compute, _prepared([jobs[place] for place in missing], workers), tell)) as found:
        for index, cell in found:
            place = missing[index]
            if store is not None:
                store.save(cell, origins[place])
                store.write_results(done for _, done in sorted({**cells, place: cell}.items(), key=lambda item: item[0]))
            tell(jobs[place])("failed" if cell.failure else "done", 1, 1)
            cells[place] = cell
    if store is not None:
        store.write_results(cells[place] for place in range(len(jobs)))
    return [cells[place] for place in range(len(jobs))]


def _origins(jobs: Sequence[Job]) -> list[Origin]:
    """Return what each job's cell comes from; seeds share one."""
    known = {}
    for job in jobs:
        key = job.part.name, job.candidate.name
        if key not in known:
            known[key] = Origin(job.part.fingerprint(job.candidate), made_of(job.part, job.candidate))
    return [known[job.part.name, job.candidate.name] for job in jobs]


def _prepared(jobs: Sequence[Job], workers: Workers) -> list[Job]:
    """Return the jobs with what those of one part share computed."""
    seeds: dict[str, dict[int, None]] = {}
    for job in jobs:
        seeds.setdefault(job.part.name, {})[job.seed] = None
    ready = {job.part.name: job.part for job in jobs}
    ready = {name: part.prepared(list(seeds[name]), workers) for name, part in ready.items()}
    return [replace(job, part=ready[job.part.name]) for job in jobs]
