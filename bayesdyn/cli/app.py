"""The commands, put together."""

from importlib import metadata
from typing import Annotated

import typer

from bayesdyn.cli.comparing import compare
from bayesdyn.cli.demo import demo
from bayesdyn.cli.learning import learn
from bayesdyn.cli.options import console
from bayesdyn.cli.reporting import report
from bayesdyn.cli.searching import pilco
from bayesdyn.cli.viewing import view

app = typer.Typer(
    name="bayesdyn",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> bool:
    if wanted:
        console.print(f"bayesdyn {metadata.version('bayesdyn')}", highlight=False)
        raise typer.Exit
    return wanted


@app.callback()
def bayesdyn(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Learn dynamics that know how sure they are, and act on it.

    New here? [bold]bayesdyn demo[/bold] takes a few minutes and ends with a page to look at.
    """


for command in (demo, learn, pilco, compare, report, view):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
