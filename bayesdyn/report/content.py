"""What a page says, apart from how it looks: `Page`, `Section`, `Table`, `Tile`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bayesdyn.report.canvas import Picture
from bayesdyn.report.interactive import Slider


@dataclass(frozen=True)
class Cell:
    """One entry of a table; `best` the best of its column, `tied` what can't be told from it; `note` stands below in small."""

    text: str
    best: bool = False
    note: str = ""
    tied: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names; the first cell names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    @classmethod
    def of_facts(cls, title: str, facts: Mapping[str, object]) -> "Table":
        """Return a table of names and values.

        >>> Table.of_facts("machine", {"cores": 2}).rows[0][1].text
        '2'
        """
        return cls(title, ("what", "value"), [(Cell(name), Cell(str(value))) for name, value in facts.items()])


@dataclass(frozen=True)
class Tile:
    """A headline: one figure that a reader should remember, what it means, and a few facts below."""

    name: str
    figure: str
    note: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """A part of the page: what to look for in `intro`, a legend of names, tables, pictures (`wide` ones have fewer columns).

    A `warning` is what a reader has to know before the tables. A `slider` moves all its pictures. `chooser` are the posteriors of
    which a reader may look at one alone, from here on downwards.
    """

    title: str
    intro: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    legend: Sequence[str] = ()
    wide: bool = False
    slider: Slider | None = None
    chooser: Sequence[str] = ()
    warning: str = ""


@dataclass(frozen=True)
class Formula:
    """What a figure is computed by, under an anchor: lines of mathematics, in which `_{}` lowers and `^{}` raises, and words."""

    anchor: str
    title: str
    lines: Sequence[str]
    meaning: str
    source: str = ""


@dataclass(frozen=True)
class Page:
    """Everything that a report shows, from top to bottom; `results` is where the table of all numbers is, seen from the page."""

    title: str
    lead: str
    date: str
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = ()
    formulas: Sequence[Formula] = ()
    results: str = ""
    appendix: Sequence[Table] = field(default_factory=tuple)
