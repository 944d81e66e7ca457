"""What all figures of a comparison share: its numbers, what is known of its data, the palette, the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bayesdyn.errors import UnknownNameError
from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.evaluation.table import IN_DISTRIBUTION
from bayesdyn.plots.numbers import OPEN_LOOP, Numbers, Query
from bayesdyn.report.canvas import Palette, Picture
from bayesdyn.report.interactive import Plot, Style, markup
from bayesdyn.report.recordings import Recording, recording

RECALIBRATED = "recalibrated"


@dataclass(frozen=True)
class Compared:
    """A comparison as figures see it; `reference` is what differences are to (empty: the first posterior).

    Raises `UnknownNameError` for a reference that was not compared.
    """

    comparison: Comparison
    palette: Palette
    reference_name: str = ""

    def __post_init__(self) -> None:
        if self.reference_name and self.reference_name not in self.comparison.posteriors:
            known = ", ".join(self.comparison.posteriors)
            raise UnknownNameError(f"there is no posterior {self.reference_name!r} to compare with; known: {known}")

    @cached_property
    def numbers(self) -> Numbers:
        """The rows, indexed."""
        return Numbers(self.comparison)

    @cached_property
    def data(self) -> Recording:
        """What is known about the data."""
        return recording_of(self.comparison)

    @cached_property
    def learned(self) -> list[str]:
        """The posteriors that could be scored, without linear regression and persistence."""
        scored = self.numbers.values(Query("nll"))
        return [name for name in self.comparison.posteriors if name not in REFERENCES and name in scored]

    @property
    def reference(self) -> str:
        """What differences are to: the name given, else the first of several posteriors, else the first of all others."""
        if self.reference_name:
            return self.reference_name
        others = [name for name in self.comparison.posteriors if name in REFERENCES]
        first = self.learned if len(self.learned) > 1 else [*others, *self.learned]
        return next(iter(first), "")

    def doubts(self, name: str) -> bool:
        """Whether a model has an epistemic part: a single network has none, and nothing to rank its errors by."""
        stated = self.numbers.values(Query("epistemic_std")).get(name, {})
        return not stated or any(value > 0 for value in stated.values())

    def seeds_of(self, name: str) -> int:
        """How many seeds of a model could be scored."""
        return len(self.numbers.values(Query("nll")).get(name, {}))

    @property
    def shifts(self) -> Sequence[str]:
        """Names of the shifted data."""
        return [shift for shift in self.comparison.shifts if shift != IN_DISTRIBUTION]

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len({cell.seed for cell in self.comparison.cells})

    @property
    def unit(self) -> str:
        """The unit of the outputs in brackets, if it is known."""
        return f" ({self.data.unit})" if self.data.unit else ""

    @cached_property
    def ahead(self) -> list[int]:
        """The two horizons that tables show: 1 and 10 where they are, else the first and the middle one."""
        horizons = self.numbers.horizons("crps", propagation=OPEN_LOOP) or self.numbers.horizons("rmse")
        late = 10 if 10 in horizons else next(iter(horizons[len(horizons) // 2 :]), 1)
        return list(dict.fromkeys([1, late]))

    def style(self, name: str) -> Style:
        """Return how a name's traces look."""
        return Style.of(self.palette, name)

    def steps(self, horizon: int) -> str:
        """Return a horizon in words, with its time where that is known."""
        steps = f"{horizon} step{'s' if horizon > 1 else ''}"
        return steps if self.data.step_seconds is None else f"{steps} ({self.data.time(horizon):g} s)"


def recording_of(comparison: Comparison) -> Recording:
    """Return what is known about the data that a comparison is over."""
    return recording(next((row.data for row in comparison.rows), "data"), comparison.about)


def picture(plot: Plot, name: str, title: str, reading: str, alt: str, formula: str) -> Picture:
    """Return an interactive figure of the page."""
    return Picture(title, reading, alt, markup(plot, name, alt), formula, plot.owner, interactive=True)
