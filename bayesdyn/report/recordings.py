"""What the report knows about recorded data beyond its numbers: units, the length of a step, what the shifts are."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bayesdyn.evaluation.about import FEWEST_TEST_EPISODES, FEWEST_TEST_ROWS, About, Size
from bayesdyn.evaluation.table import IN_DISTRIBUTION


@dataclass(frozen=True)
class Recording:
    """Recorded data in words; `unit` is that of the outputs, `shifts` says what each test set is.

    `title` is what to call the data in a sentence (empty: the name in quotes).
    """

    name: str
    story: str = ""
    title: str = ""
    unit: str = ""
    step_seconds: float | None = None
    shifts: Mapping[str, str] = field(default_factory=dict)

    def shift(self, name: str) -> str:
        """Return what a test set is called on the page: a stranger by its name in quotes."""
        return self.shifts.get(name, "like the training data" if name == IN_DISTRIBUTION else f"“{name}”")

    def time(self, steps: float) -> float:
        """Return steps in seconds where a step's length is known."""
        return steps if self.step_seconds is None else steps * self.step_seconds

    @property
    def called(self) -> str:
        """What to call the data in a sentence: a stranger by its name in quotes.

        >>> recording("arm").called, recording("quarter-drone").called
        ('“arm”', 'the quarter-drone')
        """
        return self.title or f"“{self.name}”"

    @property
    def clock(self) -> str:
        """What `time` counts."""
        return "steps" if self.step_seconds is None else "s"


_KNOWN = {
    "quarter-drone": Recording(
        name="quarter-drone",
        title="the quarter-drone",
        story="A drone's arm, free to turn about one axis, was recorded under three kinds of motor command. The models learned "
        "from the first kind, a multisine. They never saw how that recording ends, with a landing, nor the other two kinds, steps "
        "and a sequence. Source of the recordings: helonayala/sysid, data/quarter_drone, the Unlicense.",
        unit="°",
        step_seconds=0.05,
        shifts={IN_DISTRIBUTION: "same kind", "landing": "new: landing", "steps": "new: steps", "seq": "new: sequence"},
    ),
    "ball-hoop": Recording(
        name="ball-hoop",
        title="the ball in a hoop",
        story="A motor turns a hoop in which a ball rolls; what it is told is held for five seconds at a time. The models learned "
        "from small commands and never saw large ones.",
        shifts={IN_DISTRIBUTION: "small commands", "large commands": "new: large commands"},
    ),
}


def recording(name: str, about: About = About()) -> Recording:  # noqa: B008 (frozen)
    """Return what is known about data: what the package knows, and what is said and counted in the comparison's own folder.

    >>> recording("quarter-drone").unit, recording("arm").clock
    ('°', 'steps')
    """
    known = _KNOWN.get(name, Recording(name))
    step_seconds = known.step_seconds if about.step_seconds is None else about.step_seconds
    found = replace(known, step_seconds=step_seconds)
    note = f"Data: {about.note}." if about.note else ""
    return replace(found, story=" ".join(filter(None, [known.story, note, _sizes(found, about)])))


def few_test_data(of: Recording, about: About) -> str:
    """Say which test data are few and what that means, nothing where none are.

    >>> few_test_data(recording("arm"), About(tests={"none": Size(1, 300)})).split(":")[0]
    'Few data to test on'
    >>> few_test_data(recording("arm"), About(tests={"none": Size(3, 50)}))
    ''
    """
    if not about.few:
        return ""
    few = "; ".join(f"{of.shift(name)}, {_counted(about.tests[name])}" for name in about.few)
    return (
        f"Few data to test on: {few}. Seeds tell how fits differ, not how recordings do: with fewer than {FEWEST_TEST_EPISODES} "
        f"episodes or {FEWEST_TEST_ROWS} rows, others of the same kind may rank the models in another order."
    )


def _sizes(of: Recording, about: About) -> str:
    """Say how much there was to learn from, to calibrate on and to test on."""
    if about.train is None:
        return ""
    calibration = f"calibrated on {_counted(about.calibration)}" if about.calibration else "not recalibrated"
    tests = "; ".join(f"{of.shift(name)}, {_counted(size)}" for name, size in about.tests.items())
    return f"Learned from {_counted(about.train)}, {calibration}. Tested on {tests}."


def _counted(size: Size) -> str:
    return f"{size.episodes} episode{'s' if size.episodes > 1 else ''} ({size.rows:,} row{'s' if size.rows > 1 else ''})"
