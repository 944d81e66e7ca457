"""What a comparison's data are: in words, how long a step is, and how much there was to learn from and to test on: `About`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from bayesdyn.data import Transitions, write_atomically
from bayesdyn.errors import FileError

FEWEST_TEST_EPISODES, FEWEST_TEST_ROWS = 3, 50
"""With fewer, a ranking says more of these test data than of the models."""


class Size(NamedTuple):
    """How much data there are.

    >>> Size(2, 100).few, Size(3, 100).few
    (True, False)
    """

    episodes: int
    rows: int

    @classmethod
    def of(cls, data: Transitions) -> "Size":
        """Count the episodes and the rows."""
        return cls(len(data.episode.unique()), len(data))

    @property
    def few(self) -> bool:
        """Whether these are few to be tested on."""
        return self.episodes < FEWEST_TEST_EPISODES or self.rows < FEWEST_TEST_ROWS


@dataclass(frozen=True)
class About:
    """What is known of a comparison's data; `tests` has the data in distribution, `none`, and the shifts by their names.

    `note` says in a sentence what was recorded and how it was cut; `step_seconds` how long a step is, None where there is no time.
    """

    note: str = ""
    step_seconds: float | None = None
    train: Size | None = None
    calibration: Size | None = None
    tests: Mapping[str, Size] = field(default_factory=dict)

    @property
    def few(self) -> tuple[str, ...]:
        """The test data that are few."""
        return tuple(name for name, size in self.tests.items() if size.few)

    def write(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, atomically; raises `FileError` if that isn't possible."""
        content = json.dumps(asdict(self), indent=1).encode()
        write_atomically(path, lambda file: file.write(content))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "About":
        """Read what `write` wrote, nothing where there is no file, as in folders of older releases; raises `FileError` if damaged.

        >>> About.read("nowhere.json")
        About(note='', step_seconds=None, train=None, calibration=None, tests={})
        """
        if not Path(path).is_file():
            return cls()
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            tests = {name: Size(*size) for name, size in found["tests"].items()}
            return cls(found["note"], found["step_seconds"], _size(found["train"]), _size(found["calibration"]), tests)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"{path} is damaged: {error}; run the comparison again with the same folder") from error


def _size(found: Any) -> Size | None:
    return None if found is None else Size(*found)
