"""What all network posteriors share: data of a hopeless scale are refused, groups are held out whole, warnings are told."""

from collections.abc import Callable

import pytest
import torch

from bayesdyn import Codec, DynamicsModel, Standardize, Transitions
from bayesdyn.errors import DataError, NotFittedError, ShapeError
from bayesdyn.networks import Training
from bayesdyn.posteriors import BootstrapEnsemble, FitReport, MaximumLikelihood, MCDropout, Posterior
from bayesdyn.posteriors.network_posterior import Fit, NetworkPosterior
from bayesdyn.testing.conformance import shape_checks_off

SHORT = Training(steps=20, warm_steps=10)
STOPPING: dict[str, Callable[[], Posterior]] = {
    "ensemble": lambda: BootstrapEnsemble(members=3, hidden=(8,), training=SHORT),
    "maximum likelihood": lambda: MaximumLikelihood(hidden=(8,), training=SHORT),
    "dropout": lambda: MCDropout(hidden=(8,), training=SHORT),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 2, generator=generator(1))
    return x, x[:, :1].sin() + 0.1 * torch.randn(rows, 1, generator=generator(2))


@pytest.mark.parametrize("make", STOPPING.values(), ids=STOPPING)
@pytest.mark.parametrize(("name", "x_scale", "y_scale"), [("x", 1e6, 1.0), ("y", 1.0, 1e6)])
def test_data_far_from_whitened_are_refused_with_the_way_out(
    make: Callable[[], Posterior], name: str, x_scale: float, y_scale: float
) -> None:
    x, y = wave(30)
    with pytest.raises(DataError, match=rf"{name} has a root mean square of .*e\+0.*Standardize"):
        make().fit(x_scale * x, y_scale * y)
    Standardize(make()).fit(x_scale * x, y_scale * y, generator=generator())  # which is that way


def test_small_targets_are_warned_of() -> None:
    x, y = wave(30)
    report = MaximumLikelihood(hidden=(8,), training=SHORT).fit(x, 1e-6 * y, generator=generator())
    assert any("y is not whitened" in warning for warning in report.warnings)


def test_what_predicts_no_better_than_the_mean_is_named() -> None:
    x, _ = wave(60)
    noise = torch.randn(60, 1, generator=generator(3))
    report = MaximumLikelihood(hidden=(8,), training=SHORT).fit(x, torch.cat([4 * x[:, :1], noise], 1), generator=generator())
    told = [w for w in report.warnings if "predicted no better than by the mean on held-out rows" in w]
    assert len(told) == 1
    assert "1" in told[0]


def test_every_member_of_an_ensemble_holds_out_groups_of_its_own() -> None:
    x, y = wave(100)
    groups = torch.arange(10).repeat_interleave(10)
    ensemble = BootstrapEnsemble(members=6, hidden=(8,), training=SHORT)
    ensemble.fit_groups(x, y, groups, generator=generator())
    held = (ensemble.counts == 0).unflatten(1, (10, 10))
    assert bool((held.all(2) == held.any(2)).all())
    assert held.all(2).sum(1).tolist() == [1] * 6  # a tenth of ten groups
    assert len({int(h) for h in held.all(2).long().argmax(1)}) > 1
    drawn = ensemble.counts.clamp_min(0)
    assert drawn.sum(1).tolist() == [90] * 6
    # Drawn with replacement: of 90 rows, 90(1 - 1/90)^90 = 33 are missed, with a standard deviation of 3.3.
    missed = (ensemble.counts < 0).sum(1).double().mean()
    assert abs(float(missed) - 33) < 4.5 * 3.3 / 6**0.5


def test_a_warm_start_keeps_the_groups_that_were_held_out() -> None:
    x, y = wave(70)
    groups = torch.arange(7).repeat_interleave(10)
    ensemble = BootstrapEnsemble(members=3, hidden=(8,), training=SHORT)
    ensemble.fit_groups(x[:60], y[:60], groups[:60], generator=generator())
    before = ensemble.counts
    ensemble.fit_groups(x, y, groups, warm_start=True, generator=generator(1))
    assert ensemble.counts[:, :60].equal(before)
    assert bool((ensemble.counts[:, 60:] != 0).all())


@pytest.mark.parametrize("make", STOPPING.values(), ids=STOPPING)
def test_groups_of_one_row_each_or_few_are_no_different_from_rows(make: Callable[[], Posterior]) -> None:
    x, y = wave(60)
    plain, grouped = make(), make()
    plain.fit(x, y, generator=generator())
    grouped.fit_groups(x, y, torch.arange(60) // 20, generator=generator())
    torch.testing.assert_close(plain.predict(x).mean, grouped.predict(x).mean, rtol=0, atol=0)


def test_a_group_for_each_row_is_wanted() -> None:
    x, y = wave(30)
    with shape_checks_off(), pytest.raises(ShapeError, match=r"30 rows; got \[3\]"):
        BootstrapEnsemble().fit_groups(x, y, torch.zeros(3, dtype=torch.int64))


class Listening(NetworkPosterior):
    """Hears what a fit is asked for."""

    heard: Fit

    def learn(self, fit: Fit) -> FitReport:
        self.heard = fit
        self.keep(fit.network, torch.zeros(1))
        return FitReport(0.0, 0.0, 1, fit.seconds, (1.0,))

    def sample(self, n: int, generator: torch.Generator | None = None):
        raise AssertionError


def test_episodes_reach_a_posterior_as_groups_through_model_and_standardisation() -> None:
    states = torch.randn(12, 1, dtype=torch.float64, generator=generator()).numpy()
    episode = [0] * 4 + [1] * 4 + [2] * 4
    data = Transitions.from_arrays(states, states, states + 1, episode=episode)
    inner = Listening((4,), "silu", MaximumLikelihood().noise)
    for posterior in (inner, Standardize(inner)):
        DynamicsModel(Codec(), posterior).fit(data)
        assert inner.heard.groups is not None
        assert inner.heard.groups.tolist() == episode


@pytest.mark.parametrize("fitted", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", STOPPING.values(), ids=STOPPING)
def test_answers_come_in_the_dtype_of_the_question(make: Callable[[], Posterior], fitted: torch.dtype) -> None:
    x, y = wave(30)
    posterior = make()
    posterior.fit(x.to(fitted), y.to(fitted), generator=generator())
    for asked in (torch.float32, torch.float64):
        said, drawn = posterior.predict(x.to(asked)), posterior.sample(3, generator())(x.to(asked).unsqueeze(0))
        assert {said.mean.dtype, said.variance.dtype, drawn.mean.dtype, drawn.var.dtype} == {asked}


@pytest.mark.parametrize("make", [*STOPPING.values(), lambda: Standardize(MaximumLikelihood(hidden=(8,), training=SHORT))])
def test_what_is_no_floating_point_tensor_is_named(make: Callable[[], Posterior]) -> None:
    x, y = wave(30)
    posterior = make()
    posterior.fit(x, y, generator=generator())
    function = posterior.sample(1, generator())
    with shape_checks_off():
        for call in (lambda v: make().fit(v, y), posterior.predict, function):
            with pytest.raises(DataError, match=r"got a ndarray; torch\.as_tensor"):
                call(x.numpy())
            with pytest.raises(DataError, match=r"floating-point numbers; got torch\.int64"):
                call(x.long())
        with pytest.raises(DataError, match=r"x in torch.float32 and y in torch.float64; convert"):
            make().fit(x, y.double())


def test_a_fit_is_whole_or_did_not_happen() -> None:
    x, y = wave(30)
    broken = Listening((4,), "silu", MaximumLikelihood().noise)
    for posterior in (broken, Standardize(broken)):
        posterior.fit(x, y)
        before = {name: value.clone() for name, value in posterior.state_dict().items()}

        def interrupted(fit: Fit) -> FitReport:
            broken.keep(fit.network, torch.ones(7))
            raise KeyboardInterrupt

        broken.learn, learn = interrupted, broken.learn  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            posterior.fit(torch.cat([x, x], 1), y)
        broken.learn = learn  # type: ignore[method-assign]
        after = posterior.state_dict()
        assert all(after[name].equal(value) for name, value in before.items())


@pytest.mark.parametrize("make", STOPPING.values(), ids=STOPPING)
def test_fits_do_not_care_whether_gradients_are_recorded(make: Callable[[], Posterior]) -> None:
    x, y = wave(30)
    plain, odd = make(), make()
    plain.fit(x, y, generator=generator())
    with torch.no_grad():
        odd.fit(x.clone().requires_grad_(), y, generator=generator())
    torch.testing.assert_close(plain.predict(x).mean, odd.predict(x).mean, rtol=0, atol=0)


def test_rows_to_append_are_checked_where_they_are_left_to_the_next_fit() -> None:
    x, y = wave(30)
    posterior = MaximumLikelihood(hidden=(8,), training=SHORT)
    with pytest.raises(NotFittedError):
        posterior.append(x, y)
    posterior.fit(x, y, generator=generator())
    posterior.append(x[:1], y[:1])
    with pytest.raises(ShapeError, match=r"append wants \(D, E\) = \(2, 1\)"):
        posterior.append(x[:, :1], y)
