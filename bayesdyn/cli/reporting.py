"""`bayesdyn report`: write the page again from the folders of runs and comparisons."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bayesdyn.cli.options import Debug, Threads, job, where_to_look
from bayesdyn.errors import ConfigurationError, FileError
from bayesdyn.evaluation import Comparison
from bayesdyn.loop import Run
from bayesdyn.report import write_report


@job
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of runs, and of at most one comparison.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    threads: Threads = 1,
    debug: Debug = False,
) -> None:
    """Write one page about runs and a comparison from their folders; nothing is computed again.

    [bold]Examples[/bold]

      bayesdyn report runs/demo/gp runs/demo/ensemble

      bayesdyn report runs/* --out all.html
    """
    runs, comparison = opened(folders)
    where_to_look(write_report(out, runs, comparison, results=_results(folders)))


def opened(folders: Sequence[Path]) -> tuple[dict[str, Run], Comparison | None]:
    """Read runs, by names that tell them apart, and at most one comparison.

    Raises `FileError` for a folder that is none or holds neither, `ConfigurationError` for a second comparison.
    """
    runs: dict[str, Run] = {}
    comparison: Comparison | None = None
    for folder in folders:
        if not folder.is_dir():
            raise FileError(f"there is no folder {folder}; name folders that learn, compare or demo wrote")
        if (folder / "results.csv").is_file():
            if comparison is not None:
                raise ConfigurationError(f"a page shows one comparison; {folder} is a second one: write another page for it")
            comparison = Comparison.open(folder)
        else:
            runs[_name(folder, runs)] = Run.open(folder)
    return runs, comparison


def _results(folders: Sequence[Path]) -> Path | None:
    return next((folder / "results.csv" for folder in folders if (folder / "results.csv").is_file()), None)


def _name(folder: Path, taken: dict[str, Run]) -> str:
    """Return the shortest end of the folder's path that isn't taken."""
    parts = folder.resolve().parts
    names = ("/".join(parts[-length:]) for length in range(1, len(parts) + 1))
    return next(name for name in names if name not in taken)
