"""`compare` fills one table, keeps what is finished, records what fails, and sees a shift where there is one."""

import importlib
import math
from dataclasses import replace

import pytest
import torch
from reference_posteriors import ConjugateRegression
from small_comparison import QUICK, pendulum

from bayesdyn.codec import Codec
from bayesdyn.data import Transitions
from bayesdyn.errors import ConfigurationError, FileError, NumericalError, ShapeError, UnknownNameError
from bayesdyn.evaluation import Comparison, compare
from bayesdyn.evaluation.about import About, Size
from bayesdyn.evaluation.compare import REFERENCES
from bayesdyn.evaluation.comparison import Cell
from bayesdyn.evaluation.drone import quarter_drone_data
from bayesdyn.evaluation.open_loop import OpenLoop
from bayesdyn.evaluation.table import TIMINGS, Row, read_table, write_table
from bayesdyn.rollout import TS1, Mean, MomentMatching, TSInf


class Counting(ConjugateRegression):
    """Counts its fits, to see what a resumed comparison computes again."""

    fits = 0

    def fit(self, x, y, **options):
        type(self).fits += 1
        return super().fit(x, y, **options)


class Broken(ConjugateRegression):
    """Breaks down as a singular matrix would."""

    def fit(self, x, y, **options):
        raise NumericalError("K + σ²I is singular")


class Flaky(ConjugateRegression):
    """Breaks down while something that no setting says is not as it should be: memory, a package."""

    broken = True

    def fit(self, x, y, **options):
        if self.broken:
            raise NumericalError("there is no memory left")
        return super().fit(x, y, **options)


class Interrupted(ConjugateRegression):
    """Is killed while it is fitted."""

    def fit(self, x, y, **options):
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def data():
    return pendulum(6, 0), pendulum(4, 1), {"far": pendulum(4, 2, reach=4.0)}


def run(data, posteriors, **options):
    train, inside, shifted = data
    options = {"open_loop": QUICK, "replicates": 10, **options}
    return compare(posteriors, train, inside, lambda: Codec(angles=[0]), shifted=shifted, data="pendulum", **options)


@pytest.fixture(scope="module")
def comparison(data):
    return run(data, {"conjugate": ConjugateRegression}, seeds=(0, 1))


def test_every_posterior_and_reference_is_scored_on_every_data_set(comparison):
    assert comparison.failures == ()
    assert comparison.posteriors == ("conjugate", *REFERENCES)
    assert comparison.shifts == ("none", "far")
    for posterior in comparison.posteriors:
        for shift in comparison.shifts:
            assert comparison.summary(posterior, "nll", shift).seeds == 2
            assert comparison.summary(posterior, "rmse", shift, horizon=4, propagation="TSInf", output="1").mean > 0


def test_the_shift_is_seen_and_named(comparison):
    """Epistemic std grows away from the data and the shift score tells far points apart; persistence knows no ignorance."""
    inside, far = (comparison.summary("conjugate", "epistemic_std", shift).mean for shift in ("none", "far"))
    assert far > 1.5 * inside
    assert comparison.summary("conjugate", "auroc", "far").mean > 0.7
    assert comparison.summary("persistence", "auroc", "far").mean == 0.5
    with pytest.raises(UnknownNameError, match="auroc"):
        comparison.summary("conjugate", "auroc", "none")


def test_calibration_has_its_null_band_beside_it(comparison):
    rows = comparison.select(metric="coverage90", propagation="predictive")
    assert len(rows) == 3 * 2 * 2 * 2
    assert all(0 <= row.null_low <= row.null_high <= 1 for row in rows)


def test_uncertainty_is_ranked_at_every_horizon_with_its_null_band(comparison):
    for horizon in QUICK.horizons:
        rows = comparison.select(metric="ause_epistemic", propagation="TSInf", horizon=horizon, shift="none", output="1")
        values = {row.posterior: row.value for row in rows if row.seed == 0}
        assert 0 < values["conjugate"] < 1.5
        # A score that is the same everywhere is worth a random one.
        assert values["persistence"] == pytest.approx(1.0)
        assert all(row.null_low <= row.null_high for row in rows if row.posterior == "conjugate")
    for metric in ("spearman_total", "aurc_total", "excess_aurc_epistemic"):
        assert comparison.summary("conjugate", metric, horizon=4, propagation="TSInf", output="0").seeds == 2
        assert comparison.summary("conjugate", metric, output="0").seeds == 2


def test_skill_is_against_references_whose_width_is_right_at_each_horizon(comparison):
    """Ridge is nearly the Gaussian of its own residuals; persistence one step ahead is its own, and far worse than ridge."""
    ridge, still = REFERENCES
    for horizon in QUICK.horizons:
        where = {"horizon": horizon, "propagation": "TSInf", "output": "1"}
        assert abs(comparison.summary(ridge, f"skill_{ridge}", **where).mean) < 0.15
        assert comparison.summary(still, f"skill_{ridge}", **where).mean < -1
        assert comparison.summary(ridge, f"skill_{still}", **where).mean > 0.5
    assert comparison.summary(ridge, "valid_horizon", horizon=4, propagation="Mean", output="1").mean == 5.0


def test_the_true_model_class_beats_persistence(comparison):
    """Ridge on sine and cosine holds the pendulum's own equations."""
    ridge, still = (comparison.summary(name, "nll").mean for name in REFERENCES)
    assert ridge < still - 0.5


def test_arrays_for_figures_come_with_each_cell(comparison):
    arrays = comparison.cells[0].arrays
    assert arrays["none/pit"].shape == arrays["none/error"].shape == (100, 2)
    assert arrays["far/shift_score"].shape == (100,)
    steps, starts, outputs = arrays["none/fan_truth"].shape
    assert (steps, starts, outputs) == (5, 20, 2)
    assert arrays["none/fan_quantiles"].shape == (4, 5, 20, 2)
    assert arrays["none/fan_lines"].shape == (5, 5, 20, 2)
    assert arrays["none/fan_crps"].shape == (20,)


def test_fans_of_all_posteriors_start_in_the_same_states(comparison):
    first, *others = (cell.arrays["none/fan_truth"] for cell in comparison.cells)
    assert all((first == other).all() for other in others)


def test_the_calibration_curve_and_the_histogram_are_those_of_the_pit(comparison):
    """Their rows are shares of the points kept for figures: the curve rises, and the ten bins make one."""
    cell = comparison.cells[0]
    u = cell.arrays["far/pit"][:, 1]
    rows = {row.metric: row for row in cell.rows if (row.shift, row.output, row.propagation) == ("far", "1", "predictive")}
    curve = [rows[f"pit_below_{percent:02d}"].value for percent in range(5, 100, 5)]
    assert curve == pytest.approx([(u <= percent / 100).mean() for percent in range(5, 100, 5)])
    assert sum(rows[f"pit_tenth_{k}"].value for k in range(1, 11)) == pytest.approx(1.0)
    assert all(rows[name].null_low <= rows[name].null_high for name in rows if name.startswith("pit_"))


def test_a_calibrated_model_covers_simulated_truths_at_every_horizon(comparison):
    """Its particles and the truths are exchangeable: 90 % intervals hold 90 % of them, up to the Monte Carlo error of 100 truths.

    Points of one truth are as good as one when its θ rules them, so the standard error is at most √(.9 · .1/100) = .03; particles
    of one draw are not exchangeable, which takes off a little more with 20 particles of 5 draws.
    """
    rows = [row for row in comparison.select(metric="coverage90_null", posterior="conjugate") if row.shift == "none"]
    assert {row.horizon for row in rows} == set(QUICK.horizons)
    assert all(row.null_low <= row.value <= row.null_high for row in rows)
    assert all(0.75 < row.value < 1.0 for row in rows)


def test_the_same_seed_gives_the_same_numbers(data, comparison):
    def without_times(rows):
        return [(row.metric, row.output, row.shift, row.horizon, repr(row.value)) for row in rows if row.metric not in TIMINGS]

    again = run(data, {"conjugate": ConjugateRegression}, seeds=(1,), references=False)
    first = [row for row in comparison.rows if row.posterior == "conjugate" and row.seed == 1]
    assert without_times(again.rows) == without_times(first)


def test_a_failed_fit_is_recorded_and_the_others_go_on(data):
    stages = []
    found = run(data, {"broken": Broken, "conjugate": ConjugateRegression}, references=False, progress=stages.append)
    (failure,) = found.failures
    assert (failure.posterior, failure.seed) == ("broken", 0)
    assert failure.message == "NumericalError: K + σ²I is singular"
    assert [row.value for row in found.select(metric="failed")] == [1.0, 0.0]
    assert [s.stage for s in stages if s.stage in {"failed", "done"}] == ["failed", "done"]
    assert stages[-1].cell == 1
    assert stages[-1].cells == 2


def test_what_is_finished_survives_a_kill_and_is_not_computed_again(data, tmp_path):
    Counting.fits = 0
    with pytest.raises(KeyboardInterrupt):
        run(data, {"counting": Counting, "interrupted": Interrupted}, references=False, folder=tmp_path)
    assert Counting.fits == 1
    before = read_table(tmp_path / "results.csv")
    assert {row.posterior for row in before} == {"counting"}
    stages = []
    resumed = run(
        data, {"counting": Counting, "other": ConjugateRegression}, references=False, folder=tmp_path, progress=stages.append
    )
    assert Counting.fits == 1
    assert stages[0].stage == "kept"
    assert repr(read_table(tmp_path / "results.csv")) == repr(resumed.rows)
    assert repr(resumed.rows[: len(before)]) == repr(before)
    assert resumed.cells[0].arrays.keys() == resumed.cells[1].arrays.keys()


def test_a_comparison_knows_what_its_data_are_and_so_does_its_folder(data, tmp_path):
    said = {"note": "a pendulum of 1 m", "step_seconds": 0.1}
    found = run(data, {"conjugate": ConjugateRegression}, references=False, folder=tmp_path, **said)
    assert found.about == About("a pendulum of 1 m", 0.1, Size(6, 150), None, {"none": Size(4, 100), "far": Size(4, 100)})
    assert found.about.few == ()
    assert Comparison.open(tmp_path).about == found.about
    (tmp_path / "about.json").write_text("{}")
    with pytest.raises(FileError, match=r"about\.json is damaged"):
        Comparison.open(tmp_path)
    (tmp_path / "about.json").unlink()  # as in the folders of older releases
    assert Comparison.open(tmp_path).about == About()


def test_a_folder_of_other_data_or_options_is_refused(data, tmp_path):
    run(data, {"conjugate": ConjugateRegression}, references=False, folder=tmp_path)
    _, inside, shifted = data
    with pytest.raises(ConfigurationError, match="other data, settings"):
        run((pendulum(6, 9), inside, shifted), {"conjugate": ConjugateRegression}, references=False, folder=tmp_path)
    with pytest.raises(ConfigurationError, match="settings or options"):
        run(data, {"conjugate": lambda: ConjugateRegression(noise_var=0.1)}, references=False, folder=tmp_path)


def test_a_folder_of_something_else_says_in_what_it_differs(data, tmp_path):
    conjugate = {"conjugate": ConjugateRegression}
    run(data, conjugate, references=False, folder=tmp_path)
    with pytest.raises(ConfigurationError, match=r"version \(replicates: 10 there, 11 now\); choose"):
        run(data, conjugate, references=False, folder=tmp_path, replicates=11)
    longer = replace(QUICK, starts=21)
    with pytest.raises(ConfigurationError, match=r"\(open loop\.starts: 20 there, 21 now\); choose"):
        run(data, conjugate, references=False, folder=tmp_path, open_loop=longer)
    fewer = (pendulum(5, 0), *data[1:])
    told = r"\(training data: '150 rows of 6 episodes, checksum \w{8}' there, '125 rows of 5 episodes, checksum \w{8}' now\)"
    with pytest.raises(ConfigurationError, match=told):
        run(fewer, conjugate, references=False, folder=tmp_path)


def test_what_failed_is_kept_as_failed_and_computed_again_on_request(data, tmp_path):
    """What is done stays as it is; a cell that fails again is one more failure of the same kind."""
    Counting.fits, makers = 0, {"counting": Counting, "flaky": Flaky}
    Flaky.broken = True
    first = run(data, makers, references=False, folder=tmp_path)
    Flaky.broken = False
    kept = run(data, makers, references=False, folder=tmp_path)
    assert [f.posterior for f in first.failures] == [f.posterior for f in kept.failures] == ["flaky"]
    retried = run(data, makers, references=False, folder=tmp_path, retry=True)
    assert retried.failures == ()
    assert repr(retried.cells[0].rows) == repr(first.cells[0].rows)
    assert Counting.fits == 1
    assert Comparison.open(tmp_path).failures == ()


def test_cells_that_were_scored_otherwise_are_refused(data, tmp_path, monkeypatch):
    run(data, {"conjugate": ConjugateRegression}, references=False, folder=tmp_path)
    monkeypatch.setattr(importlib.import_module("bayesdyn.evaluation.parts"), "SCORES", 0)
    with pytest.raises(ConfigurationError, match="other data, settings"):
        run(data, {"conjugate": ConjugateRegression}, references=False, folder=tmp_path)


def test_no_posterior_is_a_mistake_even_beside_the_references(data):
    with pytest.raises(ConfigurationError, match="at least one posterior"):
        run(data, {})


def test_a_damaged_cell_is_named(data, tmp_path):
    run(data, {"conjugate": ConjugateRegression}, references=False, folder=tmp_path)
    (path,) = (tmp_path / "cells").iterdir()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FileError, match=path.name):
        run(data, {"conjugate": ConjugateRegression}, references=False, folder=tmp_path)


def test_all_propagations_fill_the_table(data):
    kinds = {"TSInf": TSInf(), "TS1": TS1(), "Mean": Mean(), "MM": MomentMatching()}
    settings = OpenLoop(horizons=(1, 3), starts=10, particles=20, propagations=kinds)
    found = run(data, {"conjugate": ConjugateRegression}, references=False, open_loop=settings, replicates=0)
    assert found.failures == ()
    for name in kinds:
        assert math.isfinite(found.summary("conjugate", "state_nrmse", horizon=3, propagation=name, output="0").mean)
    with pytest.raises(UnknownNameError):
        found.summary("conjugate", "crps", horizon=3, propagation="Mean", output="0")


def test_unrelated_rows_are_scored_one_step_ahead():
    """Rows that make no trajectory leave only h = 1 of the open loop."""
    state = torch.linspace(-1, 1, 40, dtype=torch.float64).unsqueeze(1)
    rows = Transitions.from_arrays(state, 0.5 * state.flip(0), 0.8 * state)
    found = compare({"conjugate": ConjugateRegression}, rows, rows, Codec, replicates=0, references=False)
    assert found.failures == ()
    assert {row.horizon for row in found.select(propagation="TSInf")} == {1}


def test_options_without_a_meaning_are_refused(data):
    make = {"conjugate": ConjugateRegression}
    for options, message in (
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (1, 1)}, "each once"),
        ({"replicates": -1}, "replicates"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            run(data, make, **options)
    with pytest.raises(ConfigurationError, match="at least one posterior"):
        run(data, {}, references=False)
    with pytest.raises(ConfigurationError, match="name references"):
        run(data, {"persistence": ConjugateRegression})
    with pytest.raises(ConfigurationError, match="another name"):
        run((data[0], data[1], {"none": data[1]}), make)
    rows = torch.zeros(4, 3)
    wider = Transitions.from_arrays(rows, rows[:, :1], rows)
    with pytest.raises(ShapeError, match=r"'far' \(3, 1\)"):
        run((data[0], data[1], {"far": wider}), make)


def test_the_table_reads_back_exactly(tmp_path):
    rows = (
        Row("a, \"b\"", "data", "none", 3, "test", "nll", 1, "predictive", value=0.1 + 0.2, count=7),
        Row("a", "data", "steps", 3, "test", "crps", 10, "TSInf", value=math.inf, null_low=-1e-300),
    )  # fmt: skip
    write_table(tmp_path / "rows.csv", rows)
    assert repr(read_table(tmp_path / "rows.csv")) == repr(rows)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileError, match="no table of results"):
        read_table(tmp_path / "other.csv")
    with pytest.raises(FileError, match="can't read"):
        read_table(tmp_path / "missing.csv")


def test_a_summary_is_over_seeds():
    cells = tuple(
        Cell("gp", seed, (Row("gp", "toy", "none", seed, "test", "nll", 1, "predictive", value=value),))
        for seed, value in enumerate((1.0, 3.0))
    )
    assert Comparison(cells).summary("gp", "nll") == (2.0, math.sqrt(2), 2)


def test_the_drone_data_share_no_sample_and_leave_the_landing_out():
    found = quarter_drone_data()
    assert [len(found.in_distribution), *map(len, found.shifted.values())] == [296, 296, 1996, 1211]

    def fastest(data):
        return float((data.next_state[:, 0] - data.state[:, 0]).abs().max())

    # Degrees per step of 0.05 s: held-out multisine stays within what training holds, the landing and the other logs do not.
    assert fastest(found.in_distribution) < fastest(found.train) < min(fastest(data) for data in found.shifted.values())
