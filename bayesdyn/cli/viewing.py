"""`bayesdyn view`: look at a run or a comparison in the browser."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from bayesdyn.cli.options import Debug, console, job, where_to_look
from bayesdyn.cli.reporting import opened
from bayesdyn.report import write_report


@job
def view(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a run or of a comparison.")],
    out: Annotated[
        Path | None, typer.Option(help="The page to write (default: page.html in that folder).", show_default=False)
    ] = None,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    debug: Debug = False,
) -> None:
    """Look at one run or comparison: write its page, and open it in a browser.

    Of a run: the learning curve, what was imagined at each moment against what happened, and what the planner believed its return
    would be and what it got. `report` puts several folders on one page.

    [bold]Examples[/bold]

      bayesdyn view runs/demo/gp

      bayesdyn view runs/compare-quarter-drone --no-open --out drone.html
    """
    runs, comparison = opened([folder])
    page = write_report(out or folder / "page.html", runs, comparison, results=folder / "results.csv")
    where_to_look(page)
    if show and not webbrowser.open(page.resolve().as_uri()):
        console.print("There is no browser here that could be started.", highlight=False)
