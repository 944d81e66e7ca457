"""What `compare` asks on request: recalibrated scores, decisions, the toy, active learning; each part is kept by itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference_posteriors import ConjugateRegression
from small_comparison import pendulum, small_comparison, swing

from bayesdyn.codec import Codec
from bayesdyn.data import Transitions
from bayesdyn.envs import CARTPOLE_ID, make
from bayesdyn.errors import ConfigurationError, DataError, NumericalError, ShapeError
from bayesdyn.evaluation import (
    ActiveLearning,
    Comparison,
    DecisionTask,
    Disentanglement,
    Processes,
    active_learning_rows,
    decision_anchor,
    decision_rows,
    disentanglement_rows,
    known_dynamics,
    plant_dynamics,
    simulated_decisions,
)
from bayesdyn.evaluation.table import Row, without_timings
from bayesdyn.model import DynamicsModel
from bayesdyn.planners import Box, RandomShooting
from bayesdyn.posteriors import Recalibrated
from bayesdyn.presets import icem

TOY = Disentanglement(sizes=(20, 40), rows=40)
ACTIVE = ActiveLearning(start=20, batch=10, rounds=2)
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def narrow():
    """A posterior that knows the noise to be 100 times smaller in variance than it is."""
    return ConjugateRegression(noise_var=1e-4)


def task(**options):
    """Getting a pendulum to turn fast within five steps."""
    starts = pendulum(6, 3).state[:6].float()
    made = {"draws": 3, "predictions": 20, "plans": 8, "replicates": 5, **options}
    return DecisionTask(
        known_dynamics(swing), turned, Box.of([-1.0], [1.0]), starts, RandomShooting(horizon=5, candidates=30), **made
    )


def turned(state, action, next_state):
    return next_state[..., 1]


@pytest.fixture(scope="module")
def calibration():
    return pendulum(12, 5)


@pytest.fixture(scope="module")
def recalibrated(calibration):
    return small_comparison(None, posteriors={"narrow": narrow}, calibration=calibration, decisions=task())


def values(comparison, **criteria):
    return [row.value for row in comparison.select(**criteria)]


def test_recalibration_widens_what_was_too_narrow_and_is_told_apart(recalibrated):
    for seed in (0, 1):
        where = {"posterior": "narrow", "seed": seed, "shift": "none", "horizon": 1, "propagation": "predictive"}
        for output in ("0", "1"):
            (before,) = recalibrated.select(metric="coverage90", output=output, **where)
            (after,) = recalibrated.select(metric="coverage90", output=output, split="recalibrated", **where)
            assert before.split == "test"
            assert before.value < before.null_low
            # Scaled so that the calibration set's errors are as large as predicted; a Gaussian's coverage then is 90 %.
            assert abs(after.value - 0.9) < 4 * math.sqrt(0.09 / after.count)
        (scale,) = recalibrated.select(metric="calibration_aleatoric_scale", posterior="narrow", seed=seed, output="0")
        (ratio,) = recalibrated.select(metric="calibration_ratio", posterior="narrow", seed=seed, output="0")
        assert scale.value > 1.5
        assert scale.value == pytest.approx(ratio.value)
        assert scale.split == "calibration"


def test_recalibration_leaves_what_was_found_before_as_it_is(recalibrated):
    plain = small_comparison(None, posteriors={"narrow": narrow}, decisions=task())
    before = [row for row in without_timings(recalibrated.rows) if row.split not in ("recalibrated", "calibration")]
    assert repr(tuple(before)) == repr(without_timings(plain.rows))


def test_recalibrated_scores_are_those_of_the_recalibrated_posterior(recalibrated, calibration):
    codec = Codec(angles=[0])
    model = DynamicsModel(codec, Recalibrated(narrow()))
    model.fit(pendulum(6, 0))
    model.calibrate(calibration)
    test = pendulum(4, 1)
    said = model.predict_target(test.state, test.action)
    arrays = recalibrated.cells[0].arrays
    np.testing.assert_allclose(arrays["recalibrated/none/aleatoric_std"], said.aleatoric_variance.sqrt().numpy(), rtol=1e-6)
    assert arrays["none/aleatoric_std"].mean() < 0.7 * arrays["recalibrated/none/aleatoric_std"].mean()
    assert "recalibrated/decisions/Expected/TSInf/pit" in arrays
    crps = {"posterior": "narrow", "metric": "crps", "horizon": 4, "propagation": "TSInf", "output": "1"}
    before, after = values(recalibrated, **crps, split="test"), values(recalibrated, **crps, split="recalibrated")
    assert len(before) == len(after) == 2
    assert all(a < b for a, b in zip(after, before, strict=True))
    # Linear regression is a posterior; persistence is none and has nothing to scale.
    assert recalibrated.select(posterior="ridge-linear", split="recalibrated", metric="nll")
    assert not recalibrated.select(posterior="persistence", split="recalibrated")
    assert recalibrated.select(posterior="narrow", metric="nll") == recalibrated.select(
        posterior="narrow", metric="nll", split="test"
    )


def test_calibration_data_share_no_row_with_others_and_are_enough(calibration):
    for taken, name in ((pendulum(6, 0), "'train'"), (pendulum(4, 1), "'none'")):
        with pytest.raises(DataError, match=f"25 of .* rows of the calibration data are among the data {name}"):
            small_comparison(None, calibration=calibration + taken.select(torch.arange(25)))
    with pytest.raises(DataError, match="at least 5 episodes"):
        small_comparison(None, calibration=pendulum(4, 5))
    rows = torch.zeros(300, 3)
    with pytest.raises(ShapeError, match="'calibration'"):
        small_comparison(None, calibration=Transitions.from_arrays(rows, rows[:, :1], rows))


def test_decisions_are_those_of_the_fitted_model(recalibrated):
    """Rows are what `decision_rows` says of the same fit, and figures have the numbers that the rows are made of."""
    model = DynamicsModel(Codec(angles=[0]), narrow())
    model.fit(pendulum(6, 0))
    row = Row("narrow", "pendulum", "none", 1, "test", "")
    wanted = decision_rows(model, task(), decision_anchor(task(), 1), row)
    found = recalibrated.select(posterior="narrow", seed=1, objective="Expected", split="test")
    assert [row.metric for row in found] == [row.metric for row in wanted]
    np.testing.assert_allclose([row.value for row in found], [row.value for row in wanted], rtol=1e-6)
    arrays = next(cell.arrays for cell in recalibrated.cells if cell.key == ("narrow", 1))
    gap = arrays["decisions/Expected/TSInf/predicted"][:, 0] - arrays["decisions/Expected/TSInf/realised"][:, 0]
    (row,) = [row for row in found if row.metric == "exploitation_gap"]
    assert row.value == pytest.approx(gap.mean() / arrays["decisions/Expected/TSInf/scale"])
    regret = arrays["decisions/Expected/TSInf/best"] - arrays["decisions/Expected/TSInf/realised"][:, 0]
    assert regret.mean() / arrays["decisions/Expected/TSInf/scale"] == pytest.approx(
        next(row.value for row in found if row.metric == "regret")
    )
    # Who knows nothing plans at random, and loses by it; ridge holds the pendulum's own equations.
    earned = {row.posterior: row.value for row in recalibrated.select(metric="realised_return", seed=0)}
    assert earned["ridge-linear"] > earned["persistence"]


def test_decisions_want_the_sizes_of_the_data_and_true_dynamics():
    with pytest.raises(ShapeError, match=r"\(2, 1\).*\(3, 1\)"):
        small_comparison(None, decisions=replace(task(), starts=torch.zeros(4, 3)))
    with pytest.raises(ConfigurationError, match=r"got a function: known_dynamics\(step\)"):
        DecisionTask(swing, turned, Box.of([-1.0], [1.0]), torch.zeros(4, 2), RandomShooting(horizon=2, candidates=8))


def test_the_plant_of_a_task_is_its_environment_without_noise():
    env = make(CARTPOLE_ID)
    _, info = env.reset(seed=0)
    truth, state = plant_dynamics(env), torch.from_numpy(info["state"]).unsqueeze(0)
    for force in (-100.0, 3.0):  # the first is far beyond the actuator's limit
        _, _, _, _, info = env.step(np.array([force], dtype=np.float32))
        state = truth(state, torch.tensor([[force]], dtype=torch.float64)).mean
        torch.testing.assert_close(state[0], torch.from_numpy(info["state"]))
    preset = icem(CARTPOLE_ID)
    found = simulated_decisions(preset, torch.zeros(3, 4), replicates=0)
    assert (found.planner, found.reward, found.draws, found.replicates) == (preset.planner, preset.reward, preset.draws, 0)
    np.testing.assert_array_equal(found.space.box("a test").high, env.action_space.high)
    with pytest.raises(ConfigurationError, match="no plant"):
        plant_dynamics(make("Pendulum-v1"))


def test_toy_and_active_learning_are_asked_of_posteriors_only_and_say_what_their_functions_say():
    found = small_comparison(None, posteriors={"known": ConjugateRegression}, seeds=(0,), toy=TOY, active_learning=ACTIVE)
    assert found.failures == ()
    wanted = disentanglement_rows(ConjugateRegression, "known", 0, TOY)
    assert repr(found.select(posterior="known", data="noisy-sine", split="test")) == repr(tuple(wanted))
    row = Row("known", "pendulum", "none", 0, "active-learning", "", count=40)
    codec = lambda: Codec(angles=[0])  # noqa: E731
    model = lambda codec: DynamicsModel(codec, ConjugateRegression())  # noqa: E731
    wanted = active_learning_rows(model, codec, pendulum(6, 0), pendulum(4, 1), row, ACTIVE)
    assert [row for row in found.rows if row.posterior == "known" and row.metric.startswith("active")] == wanted
    arrays = found.cells[0].arrays
    assert arrays["toy/draws"].shape == (20, 200)
    assert arrays["toy/rows_x"].shape == (40,)
    # The mean lies among its draws, and is surest where there are data.
    sure = np.abs(arrays["toy/x"]) < 1.4
    assert arrays["toy/epistemic_std"][sure].mean() < arrays["toy/epistemic_std"][~sure].mean()
    assert np.abs(arrays["toy/draws"].mean(0) - arrays["toy/mean"]).max() < 4 * arrays["toy/epistemic_std"].max()
    assert not found.select(posterior="persistence", metric="epistemic_slope")
    assert [row.split for row in found.select(posterior="known", metric="failed")] == ["test", "toy", "active-learning"]


class Counting(ConjugateRegression):
    """Counts its fits."""

    fits = 0

    def fit(self, x, y, **options):
        type(self).fits += 1
        return super().fit(x, y, **options)


def test_a_part_that_is_asked_for_later_costs_no_other_part(tmp_path):
    Counting.fits = 0
    first = small_comparison(tmp_path, posteriors={"counting": Counting}, references=False)
    assert Counting.fits == 2
    both = small_comparison(tmp_path, posteriors={"counting": Counting}, references=False, toy=TOY)
    assert Counting.fits == 2 + 2 * (len(TOY.sizes) + 2)
    assert repr(tuple(row for row in both.rows if row.data == "pendulum")) == repr(first.rows)
    assert repr(Comparison.open(tmp_path).rows) == repr(both.rows)
    assert len(Comparison.open(tmp_path).cells) == len(both.cells) == 2
    # The table has what was asked for last, whatever else is kept.
    again = small_comparison(tmp_path, posteriors={"counting": Counting}, references=False)
    assert repr(Comparison.open(tmp_path).rows) == repr(again.rows) == repr(first.rows)
    other = Disentanglement(sizes=(20, 30), rows=30)
    with pytest.raises(ConfigurationError, match="other data, settings"):
        small_comparison(tmp_path, posteriors={"counting": Counting}, references=False, toy=other)


class OnlyStates(ConjugateRegression):
    """Breaks down on anything but the pendulum's four features."""

    def fit(self, x, y, **options):
        if x.shape[1] != 4:
            raise NumericalError("too few features")
        return super().fit(x, y, **options)


def test_a_part_that_fails_leaves_the_others_and_is_counted():
    found = small_comparison(None, posteriors={"picky": OnlyStates}, references=False, seeds=(0,), toy=TOY)
    (failure,) = found.failures
    assert failure.message == "toy: NumericalError: too few features"
    assert [(row.split, row.value) for row in found.select(metric="failed")] == [("test", 0.0), ("toy", 1.0)]
    assert found.select(posterior="picky", metric="nll")


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(DataError, match="at least 170 rows; the training data have 150"):
        small_comparison(None, active_learning=ActiveLearning())
    with pytest.raises(DataError, match="pool"):
        small_comparison(None, active_learning=ActiveLearning(start=151, batch=1, rounds=1))


def test_parts_have_the_same_numbers_in_other_processes(recalibrated, calibration):
    options = {"posteriors": {"narrow": narrow}, "calibration": calibration, "decisions": task()}
    found = small_comparison(None, Processes(2), **options)
    assert repr(without_timings(found.rows)) == repr(without_timings(recalibrated.rows))
