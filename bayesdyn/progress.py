"""How long work tells how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, figures to show); a progress bar is one such callable."""
