"""What all commands share: the console, the options, and how a command ends when something is wrong."""

import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape

from bayesdyn.errors import BayesdynError, NotFittedError, NumericalError

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130

console = Console()
_errors = Console(stderr=True)

Threads = Annotated[int, typer.Option(min=1, help="Processor threads to use; small models are fastest on one.")]
Seed = Annotated[int, typer.Option(min=0, help="All random numbers come from it: the same seed gives the same run.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where in the code an error came from.")]


def job(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command, whose `threads` and `debug` it obeys, so that it ends as the shell expects.

    0 done, 1 the job failed, 2 a mistake of the user's, 130 interrupted; the last three with one line that says what to do.
    """

    @functools.wraps(command)
    def run(**options: Any) -> None:
        torch.set_num_threads(options.get("threads", torch.get_num_threads()))
        try:
            command(**options)
        except KeyboardInterrupt:
            started = Path(sys.argv[0]).name
            again = shlex.join([*(["python", "-m", "bayesdyn"] if started == "__main__.py" else [started]), *sys.argv[1:]])
            _errors.print("\n[yellow]Interrupted.[/] What was finished is on disk. To go on, run the same command again:")
            _errors.print(f"  {escape(again)}", highlight=False, soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        except BayesdynError as error:
            if options.get("debug"):
                raise
            _errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(_exit_code(error)) from None

    return run


def where_to_look(path: Path) -> None:
    """End a job by naming the file that a person opens next."""
    console.print(f"\n[bold green]Done.[/] Open [bold]{escape(str(path))}[/] in a browser.", highlight=False, soft_wrap=True)


def _exit_code(error: BayesdynError) -> int:
    return {NumericalError: FAILED, NotFittedError: FAILED}.get(type(error), MISTAKE)
