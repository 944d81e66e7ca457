"""The command line: `bayesdyn demo`, `learn`, `compare` and `report`."""

from bayesdyn.cli.app import app, main

__all__ = ["app", "main"]
