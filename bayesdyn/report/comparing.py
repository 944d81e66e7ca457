"""What the page and the terminal say about a comparison: its table, its sections, its appendix."""

import statistics
from collections.abc import Sequence

from bayesdyn.evaluation import Comparison
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.evaluation.table import IN_DISTRIBUTION
from bayesdyn.plots.numbers import Query
from bayesdyn.report.active_figures import active_pictures
from bayesdyn.report.calibration_figures import calibration_pictures, calibration_table
from bayesdyn.report.canvas import Palette, Picture
from bayesdyn.report.compared import Compared, recording_of
from bayesdyn.report.content import Cell, Section, Table
from bayesdyn.report.decision_figures import decision_pictures, promise_pictures
from bayesdyn.report.fan_figures import fan_sections
from bayesdyn.report.horizon_figures import horizon_pictures
from bayesdyn.report.knowledge_figures import error_pictures, sparsification_pictures
from bayesdyn.report.ranking_table import ranking_table
from bayesdyn.report.recordings import few_test_data
from bayesdyn.report.score_figures import comparisons, difference_pictures
from bayesdyn.report.shift_figures import roc_pictures, score_pictures
from bayesdyn.report.toy_figures import toy_pictures, toy_table, variance_pictures


def comparison_table(comparison: Comparison, reference: str = "") -> Table:
    """Return posteriors × scores, the best of each column and those tied with it marked; see `ranking_table`.

    Raises `UnknownNameError` for a reference that was not compared.
    """
    return ranking_table(Compared(comparison, palette_of(comparison), reference))


def palette_of(comparison: Comparison, others: Sequence[str] = ()) -> Palette:
    """Return the colours of a comparison's posteriors, and of other names beside them."""
    names = [*others, *(name for name in comparison.posteriors if name not in REFERENCES)]
    return Palette(list(dict.fromkeys(names)), [name for name in comparison.posteriors if name in REFERENCES])


def comparison_sections(of: Compared) -> list[Section]:
    """Return the sections about a comparison; those whose data are not there are left out."""
    found = [
        _ranking(of),
        _calibration(of),
        _section(
            "How far ahead does it hold?",
            "Open loop from recorded states: the recorded actions are replayed and nothing is corrected on the way. Every "
            "trajectory "
            "keeps its one θ (TSInf); choose one model to see, dashed, other ways of taking steps.",
            horizon_pictures(of),
        ),
        _section(
            "Better than the reference, or chance?",
            f"Each difference is to {of.reference} on the same data and seed, {comparisons(of)} in all: of so many intervals at 95 "
            "%, "
            "one in twenty misses the truth by chance alone.",
            difference_pictures(of),
        ),
        _section(
            "Does it know where it is wrong?",
            "Epistemic uncertainty is the part that more data would remove: it ought to be large where the model errs.",
            sparsification_pictures(of),
        ),
        _section(
            "Error against epistemic std",
            "All test points, in distribution and shifted. Where the dark line rises, what the model says of itself is worth "
            "something; it lies above the dashed identity by the noise, and on the grey line where stated std and error agree. A "
            "model without an epistemic part is left out.",
            error_pictures(of),
        ),
        *fan_sections(of),
        _toy(of),
        _section("What do more data take away?", "The two variances of the toy, fitted at several sizes.", variance_pictures(of)),
        _section(
            "Are new kinds of data noticed?",
            "The shift score compares epistemic with aleatoric variance, point by point, and needs no truth.",
            [*roc_pictures(of), *score_pictures(of)],
        ),
        _section(
            "Learning from the rows that it asks for",
            "A model starts with few rows, asks for those it scores highest, is fitted anew, and so on.",
            active_pictures(of),
        ),
        _section(
            "Planned against realised return",
            "Plans are made with each model and carried out in the true dynamics. A planner seeks out what makes a model hopeful, "
            "its errors included: the gap between promise and return says by how much.",
            [*decision_pictures(of), *promise_pictures(of)],
        ),
    ]
    return [section for section in found if section is not None]


def comparison_appendix(comparison: Comparison) -> list[Table]:
    """Return every in-distribution figure that is in the table of results, and what went wrong."""
    of = Compared(comparison, palette_of(comparison))
    queries = dict.fromkeys(
        Query(row.metric, row.shift, row.horizon, row.propagation, row.objective, row.split)
        for row in comparison.rows
        if row.shift == IN_DISTRIBUTION and row.horizon > 0 and not row.metric.startswith("pit_")
    )
    rows = []
    for query in queries:
        found = of.numbers.values(query)
        means = [statistics.fmean(found[name].values()) if name in found else None for name in comparison.posteriors]
        how = ", ".join(part for part in (query.propagation, query.objective, query.split if query.split != "test" else "") if part)
        texts = [Cell("–" if mean is None else f"{mean:.4g}") for mean in means]
        rows.append([Cell(query.metric), Cell(str(query.horizon)), Cell(how), *texts])
    data = recording_of(comparison)
    warnings = [f"{c.posterior}, seed {c.seed}: {w}" for c in comparison.cells for w in c.warnings]
    failures = [f"{f.posterior}, seed {f.seed}: {f.message}" for f in comparison.failures]
    return [
        Table(f"{data.called}: every score in distribution", ("score", "horizon", "how", *comparison.posteriors), rows),
        Table.of_facts(
            f"{data.called}: seeds, warnings, failures",
            {
                "seeds": ", ".join(str(seed) for seed in dict.fromkeys(cell.seed for cell in comparison.cells)),
                "warnings of the fits": "; ".join(warnings) or "none",
                "failed fits": "; ".join(failures) or "none",
            },
        ),
    ]


def _section(title: str, intro: str, pictures: Sequence[Picture]) -> Section | None:
    return Section(title, intro, pictures, wide=True) if pictures else None


def _ranking(of: Compared) -> Section:
    bars = "Linear regression and persistence (nothing changes) are the yardsticks in grey."
    story = f"{of.data.story} {bars if set(REFERENCES) & set(of.comparison.posteriors) else ''}".strip()
    failed = [f"{failure.posterior} (seed {failure.seed})" for failure in of.comparison.failures]
    told = f" Failed, and counted as such: {', '.join(failed)}." if failed else ""
    few = few_test_data(of.data, of.comparison.about)
    title = f"Who is best at what: {of.data.called}"
    return Section(title, story + told, tables=[ranking_table(of)], chooser=of.learned, warning=few)


def _calibration(of: Compared) -> Section | None:
    pictures = calibration_pictures(of)
    if not pictures:
        return None
    intro = (
        "A calibrated model's 90 % quantile is exceeded one time in ten. How far its curve may stray from the diagonal by chance "
        "is "
        "simulated: truths are drawn from the model itself, one θ each, and scored like the real one."
    )
    return Section("Is it as unsure as it should be?", intro, pictures, [calibration_table(of)], wide=True)


def _toy(of: Compared) -> Section | None:
    pictures, table = toy_pictures(of), toy_table(of)
    if not pictures and table is None:
        return None
    intro = (
        "Data with a gap and known noise. Strong: the mean; thin lines: functions drawn, one θ each; dark band: epistemic, ± 2 "
        "std; "
        f"pale: with noise. Dashed is the truth, dotted its noise, ± 2 std.{_beside(of, pictures)}"
    )
    return Section("Over one input", intro, pictures, [table] if table is not None else [])


def _beside(of: Compared, pictures: Sequence[Picture]) -> str:
    """Say whose band is drawn beside the others', where it is."""
    return f" Filled in grey, the epistemic band of {of.reference}." if len(pictures) > 1 and of.reference in of.learned else ""
