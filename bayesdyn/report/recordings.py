"""What the report knows about recorded data beyond its numbers: units, the length of a step, what the shifts are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bayesdyn.evaluation.table import IN_DISTRIBUTION


@dataclass(frozen=True)
class Recording:
    """Recorded data in words; `unit` is that of the outputs, `shifts` says what each test set is."""

    name: str
    story: str = ""
    unit: str = ""
    step_seconds: float | None = None
    shifts: Mapping[str, str] = field(default_factory=dict)

    def shift(self, name: str) -> str:
        """Return what a test set is called on the page."""
        return self.shifts.get(name, "like the training data" if name == IN_DISTRIBUTION else name)

    def time(self, steps: float) -> float:
        """Return steps in seconds where a step's length is known."""
        return steps if self.step_seconds is None else steps * self.step_seconds

    @property
    def clock(self) -> str:
        """What `time` counts."""
        return "steps" if self.step_seconds is None else "s"


_KNOWN = {
    "quarter-drone": Recording(
        name="quarter-drone",
        story="A drone's arm, free to turn about one axis, was recorded under three kinds of motor command. The models learned "
        "from 70 seconds of the first kind, a multisine. They never saw how that recording ends, with a landing, nor the other two "
        "kinds, steps and a sequence. Source of the recordings: helonayala/sysid, data/quarter_drone, the Unlicense.",
        unit="°",
        step_seconds=0.05,
        shifts={IN_DISTRIBUTION: "same kind", "landing": "new: landing", "steps": "new: steps", "seq": "new: sequence"},
    )
}


def recording(name: str) -> Recording:
    """Return what is known about data; for a stranger, its name.

    >>> recording("quarter-drone").unit, recording("arm").clock
    ('°', 'steps')
    """
    return _KNOWN.get(name, Recording(name))
