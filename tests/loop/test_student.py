"""Learning within a trial: `refit_every`, and what a refit sees."""

from pathlib import Path

import pytest
import torch
from point_mass import PointMass, assert_same_trials, make_agent, make_model, run_loop
from reference_posteriors import ConjugateRegression
from test_learn import POSTERIORS, KilledError, Killer

import bayesdyn as bd
from bayesdyn.errors import ConfigurationError
from bayesdyn.loop import learn
from bayesdyn.loop.student import Student


class Counting(ConjugateRegression):
    """The reference posterior, which remembers the rows and groups of each fit."""

    def __init__(self) -> None:
        super().__init__()
        self.fitted: list[tuple[int, int]] = []

    def fit_groups(self, x, y, groups, **options):
        self.fitted.append((len(x), len(groups.unique())))
        return super().fit_groups(x, y, groups, **options)


@pytest.mark.parametrize(
    ("refit_every", "fits"),
    [
        (None, [(8, 1)]),
        (3, [(8, 1), (11, 2), (14, 2)]),
        (4, [(8, 1), (12, 2)]),  # none at the end of the trial, where the next trial's fit follows
        (100, [(8, 1)]),
    ],
)
def test_a_refit_sees_all_earlier_trials_and_this_one_so_far_as_an_episode(refit_every: int | None, fits: list) -> None:
    posterior = Counting()
    trial = run_loop(posterior=posterior, trials=1, refit_every=refit_every).trials[1]
    assert posterior.fitted == fits
    assert trial.metrics.get("refits", 0.0) == len(fits) - 1


def test_the_next_plan_uses_the_refitted_model_and_the_scores_do_not() -> None:
    """Up to the first refit the trial is the same as without; the scores are of the model as it was before the trial."""

    class Deaf(ConjugateRegression):
        def append(self, x, y): ...

    plain, refitted = (run_loop(posterior=Deaf(), trials=1, refit_every=every).trials[1] for every in (None, 4))
    assert torch.equal(plain.episode.actions[:4], refitted.episode.actions[:4])
    assert not torch.equal(plain.episode.actions[4:], refitted.episode.actions[4:])
    model = make_model(Deaf())
    run = learn(PointMass(), model, make_agent(model), trials=1, refit_every=4)
    again = make_model(Deaf())
    again.fit(bd.Transitions.from_episodes([run.trials[0].episode]))
    rows = bd.Transitions.from_episodes([run.trials[1].episode])
    expected = float(
        (again.predict_target(rows.state, rows.action).mean - again.codec.target(rows.state, rows.next_state)).square().mean()
    )
    assert run.trials[1].metrics["rmse"] == pytest.approx(expected**0.5)


@pytest.mark.parametrize("name", ["Gaussian process", "ensemble"])
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_killed_run_with_refits_goes_on_to_the_same_end(name: str, warm_start: bool, tmp_path: Path) -> None:
    options = {"trials": 2, "refit_every": 3, "warm_start": warm_start}
    undisturbed = run_loop(tmp_path / "undisturbed", posterior=POSTERIORS[name](), **options)
    with pytest.raises(KilledError):
        run_loop(tmp_path / "run", posterior=POSTERIORS[name](), monitor=Killer("stepped", 21), **options)
    resumed = run_loop(tmp_path / "run", posterior=POSTERIORS[name](), **options)
    for run in (undisturbed, resumed):
        for trial in run.trials:
            trial.metrics.pop("refit_seconds", None)
    assert_same_trials(undisturbed, resumed)


def test_a_folder_made_with_other_refits_is_refused_and_one_without_goes_on(tmp_path: Path) -> None:
    run_loop(tmp_path / "run", trials=1)
    assert "refit_every" not in run_loop(tmp_path / "run", trials=2).config
    with pytest.raises(ConfigurationError, match="refit_every"):
        run_loop(tmp_path / "run", trials=3, refit_every=2)


def test_online_and_refits_add_up_to_each_row_once() -> None:
    """A refit replaces what was appended: the posterior holds the rows of both, none twice."""
    posterior = POSTERIORS["Gaussian process"]()
    model = bd.DynamicsModel(bd.Codec(), posterior)
    first = bd.Transitions.from_episodes([run_loop(trials=0).trials[0].episode])
    model.fit(first)
    student = Student(model, first, online=True, refit_every=2, generator=torch.Generator().manual_seed(0))
    rows = []
    for k in range(5):
        student.prepare()
        student.observe(bd.Transitions.from_arrays([[0.1 * k, 0.0]], [[0.3]], [[0.1 * k, 0.06]]))
        rows.append(len(posterior.x))
    assert rows == [9, 10, 11, 12, 13]
    assert student.fits == 2


def test_refits_without_meaning_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="refit_every >= 1 or None"):
        run_loop(trials=1, refit_every=0)
