"""The command line: `bayesdyn demo`, `learn`, `pilco`, `compare` and `report`."""

from bayesdyn.cli.app import app, main

__all__ = ["app", "main"]
