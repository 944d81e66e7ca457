"""Physics posteriors: closed forms, a pendulum, the contract, and what is said of parameters that the data cannot tell apart."""

import math
import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from pyro.distributions import HalfNormal, LogNormal, Normal, Uniform
from torch import Tensor

import bayesdyn as bd
from bayesdyn.codec import IdentityCodec
from bayesdyn.errors import ConfigurationError, MissingExtraError, NumericalError, ShapeError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.physics import Physics
from bayesdyn.posteriors.physics_inference import Inference, NUTSInference, VariationalInference
from bayesdyn.posteriors.physics_integrators import RK4, AdaptiveODE
from bayesdyn.posteriors.physics_parameters import KnownNoise, LearnedNoise, Parameters
from bayesdyn.posteriors.physics_residual import WithResidual
from bayesdyn.testing import check_posterior

ERRORS = 4.5
QUICK = NUTSInference(chains=2, warmup=60, warm_warmup=40, draws=60)
SVI = VariationalInference(steps=60, draws=400)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pendulum_rates(state: Tensor, action: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """A point mass on a rod with a motor: l ω' = -g sin θ + u/(m l)."""
    angle, speed = state[..., 0], state[..., 1]
    mass, length = parameters["mass"], parameters["length"]
    return torch.stack([speed, -9.81 / length * angle.sin() + action[..., 0] / (mass * length**2)], -1)


PENDULUM = RK4(pendulum_rates, dt=0.05)
PRIORS = {"mass": LogNormal(0.0, 0.5), "length": LogNormal(0.0, 0.5)}
TRUTH = {"mass": torch.tensor([[1.2]]).double(), "length": torch.tensor([[0.8]]).double()}


@cache
def pendulum(rows: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (angle, speed, torque) and the next (angle, speed), with noise of std 0.02."""
    g = generator(seed)
    x = (2 * torch.rand(rows, 3, generator=g, dtype=torch.float64) - 1) * torch.tensor([math.pi, 4.0, 4.0])
    y = PENDULUM(x[None, :, :2], x[None, :, 2:], TRUTH)[0]
    return x, y + 0.02 * torch.randn(rows, 2, generator=g, dtype=torch.float64)


def linear(state: Tensor, action: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    return (torch.cat([state, action], -1).unsqueeze(-2) @ parameters["weight"]).squeeze(-2)


@pytest.mark.parametrize("inference", [NUTSInference(warmup=60, draws=80), VariationalInference(steps=100)], ids=["nuts", "svi"])
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_linear_step_with_known_noise_is_bayesian_linear_regression(inference: Inference) -> None:
    g, rows, std = generator(3), 25, 0.3
    x = torch.randn(rows, 3, generator=g, dtype=torch.float64)
    x[:, 2] = 0.9 * x[:, 0] + 0.4 * x[:, 2]
    weight = torch.randn(3, 2, generator=g, dtype=torch.float64)
    y = x @ weight + std * torch.randn(rows, 2, generator=g, dtype=torch.float64)
    posterior = Physics(linear, {"weight": Normal(torch.zeros(3, 2), 0.7)}, inference=inference, noise=KnownNoise((std,)))
    report = posterior.fit(x, y, generator=generator())
    covariance = torch.linalg.inv(x.T @ x / std**2 + torch.eye(3) / 0.7**2)
    mean = covariance @ x.T @ y / std**2
    wanted = covariance.diagonal().sqrt().unsqueeze(1).expand(3, 2)
    effective = torch.tensor([row.effective for row in report.summary]).reshape(3, 2)
    assert effective.min() > 100
    draws = posterior.parameter_draws["weight"]
    assert bool(((draws.mean(0) - mean).abs() < ERRORS * wanted / effective.sqrt()).all())
    # A second moment mixes more slowly than a mean by at most about two here, and has relative variance 2/draws.
    assert bool(((draws.var(0) / wanted.square() - 1).abs() < ERRORS * (4 / effective).sqrt()).all())
    correlation = torch.corrcoef(draws[..., 0].T)[0, 2]
    exact = covariance[0, 2] / (covariance[0, 0] * covariance[2, 2]).sqrt()
    assert abs(float(correlation - exact)) < ERRORS * float((1 - exact**2) / effective.min().sqrt())
    assert [row.name for row in report.summary][:3] == ["weight[0,0]", "weight[0,1]", "weight[1,0]"]
    assert torch.equal(posterior.noise_std, torch.full_like(posterior.noise_std, std))


def check_pendulum(posterior: Physics, seed: int) -> None:
    x, y = pendulum(seed=seed)
    report = posterior.fit(x, y, generator=generator())
    told = {row.name: row for row in report.summary}
    # Fisher information at the truth: what 60 rows can say, which prior and curvature change by a few per cent.
    truth = torch.tensor([1.2, 0.8], dtype=torch.float64)

    def predicted(theta: Tensor) -> Tensor:
        return PENDULUM(x[None, :, :2], x[None, :, 2:], {"mass": theta[:1, None], "length": theta[1:, None]})[0].flatten()

    slope = torch.autograd.functional.jacobian(predicted, truth)
    std = torch.linalg.inv(slope.mT @ slope / 0.02**2).diagonal().sqrt()
    for name, exact, wanted in zip(("mass", "length"), truth.tolist(), std.tolist(), strict=True):
        assert abs(told[name].mean - exact) < ERRORS * wanted
        # The noise itself is known to 1/√(2·60) per output, so the std is too.
        assert told[name].std == pytest.approx(wanted, rel=0.4)
    for name in ("noise_std[0]", "noise_std[1]"):
        assert told[name].mean == pytest.approx(0.02, rel=ERRORS / math.sqrt(120))
    assert report.divergences == 0
    assert min(report.r2_train) > 0.99
    assert not report.collapsed


def test_a_pendulum_is_identified_within_standard_errors() -> None:
    check_pendulum(Physics(PENDULUM, PRIORS, inference=VariationalInference(steps=100)), seed=0)


@pytest.mark.slow
def test_short_chains_identify_a_pendulum_within_standard_errors() -> None:
    check_pendulum(Physics(PENDULUM, PRIORS, inference=QUICK), seed=1)


@pytest.mark.slow
def test_full_length_chains_identify_the_pendulum_and_mix() -> None:
    posterior = Physics(PENDULUM, PRIORS)
    check_pendulum(posterior, seed=0)
    report = posterior.fit(*pendulum(seed=0), generator=generator())
    assert max(row.r_hat for row in report.summary) < 1.02
    assert min(row.effective for row in report.summary) > 400
    assert report.warnings == ()


def curves(state: Tensor, action: Tensor, p: dict[str, Tensor]) -> Tensor:
    """A step that can learn the toy function of the contract: linear in its parameters."""
    first = p["a"] * state[..., 0].sin() + p["b"] * state[..., 1]
    return torch.stack([first, p["c"] * action[..., 0].cos() + p["d"] * state[..., 0] + p["e"]], -1)


def toy_physics(inference: Inference) -> Physics:
    return Physics(curves, {name: Normal(0.0, 2.0) for name in "abcde"}, inference=inference)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("unchecked_fits")
def test_the_normal_posterior_keeps_the_contract(dtype: torch.dtype) -> None:
    check_posterior(lambda: toy_physics(SVI), dtype=dtype, grows_off_data=False)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_fits")
def test_the_chains_keep_the_contract() -> None:
    check_posterior(lambda: toy_physics(QUICK), grows_off_data=False)


def straight(state: Tensor, action: Tensor, p: dict[str, Tensor]) -> Tensor:
    """A step that leaves the curves of the toy function to the residual."""
    return torch.stack([p["a"] * state[..., 0] + p["b"] * state[..., 1], p["d"] * state[..., 0] + p["e"]], -1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("unchecked_fits")
def test_a_residual_keeps_the_contract(dtype: torch.dtype) -> None:
    def make() -> WithResidual:
        base = Physics(straight, {name: Normal(0.0, 2.0) for name in "abde"}, inference=SVI)
        return WithResidual(base, ExactGP(training=GPTraining(restarts=0)))

    check_posterior(make, dtype=dtype, feature_error=0.05, compiles=False)


def test_a_ratio_alone_is_reported_as_such() -> None:
    def pull(state: Tensor, action: Tensor, p: dict[str, Tensor]) -> Tensor:
        return state + (p["force"] / p["mass"]).unsqueeze(-1) * action

    g = generator(5)
    x = torch.randn(40, 2, generator=g, dtype=torch.float64)
    y = x[:, :1] + 2.0 * x[:, 1:] + 0.1 * torch.randn(40, 1, generator=g, dtype=torch.float64)
    posterior = Physics(pull, {"force": LogNormal(0.0, 1.0), "mass": LogNormal(0.0, 1.0)}, inference=SVI)
    report = posterior.fit(x, y, generator=generator())
    (warning,) = [w for w in report.warnings if "correlation" in w]
    assert "force and mass" in warning
    draws = posterior.parameter_draws
    ratio = draws["force"] / draws["mass"]
    assert float(ratio.std()) < 0.05 < float(draws["mass"].std())
    assert not any("correlation" in w for w in toy_fit()[1])


@cache
def toy_fit() -> tuple[Physics, tuple[str, ...]]:
    x, y = pendulum()
    posterior = Physics(PENDULUM, PRIORS, inference=SVI)
    return posterior, posterior.fit(x, y, generator=generator()).warnings


def test_draws_are_taken_without_replacement_then_in_whole_repeats() -> None:
    posterior, stored = toy_fit()[0], len(toy_fit()[0].theta)
    for n in (1, 7, stored):
        assert len(posterior.sample(n, generator()).values["mass"].unique()) == n
    twice = posterior.sample(2 * stored + 5, generator()).values["mass"]
    counts = twice.unique(return_counts=True)[1]
    assert sorted(counts.unique().tolist()) == [2, 3]
    assert int((counts == 3).sum()) == 5


@pytest.mark.slow
def test_a_warm_start_goes_on_and_agrees_with_a_fit_from_the_priors() -> None:
    x, y = pendulum(80)
    posterior = Physics(PENDULUM, PRIORS, inference=QUICK)
    posterior.fit(x[:60], y[:60], generator=generator())
    report = posterior.fit(x, y, warm_start=True, generator=generator(1))
    assert report.steps == 2 * (40 + 60)
    fresh = Physics(PENDULUM, PRIORS, inference=SVI)
    fresh.fit(x, y, generator=generator())
    warm = Physics(PENDULUM, PRIORS, inference=SVI)
    warm.load_state_dict(posterior.state_dict())
    warm.fit(x, y, warm_start=True, generator=generator(2))
    for one, error in ((posterior, 30), (warm, 200)):
        for name, draws in one.parameter_draws.items():
            other = fresh.parameter_draws[name]
            assert abs(float(draws.mean() - other.mean())) < ERRORS * float(other.std()) / error**0.5
    with pytest.raises(ShapeError, match="warm start"):
        posterior.fit(x, y[:, :1], warm_start=True)


def test_the_number_of_parameters_chooses_the_inference() -> None:
    assert isinstance(Physics(linear, {"weight": Normal(torch.zeros(20), 1.0)}).inference, NUTSInference)
    assert isinstance(Physics(linear, {"weight": Normal(torch.zeros(21), 1.0)}).inference, VariationalInference)


def test_priors_of_any_kind_are_kept_in_float64() -> None:
    priors = {"a": LogNormal(0.1, 0.5), "b": Uniform(-1.0, torch.tensor([1.0, 2.0])), "c": HalfNormal(0.3).expand([2]).to_event(1)}
    parameters = Parameters(priors)
    values = parameters.draw(1000, generator())
    assert {value.dtype for value in values.values()} == {torch.float64}
    assert {name: tuple(value.shape[1:]) for name, value in values.items()} == {"a": (), "b": (2,), "c": (2,)}
    theta = parameters.flat(values)
    assert all(torch.equal(value, values[name]) for name, value in parameters.named(theta).items())
    wanted = sum(prior.log_prob(values[name].float()).reshape(1000, -1).sum(1) for name, prior in priors.items() if name != "c")
    wanted = wanted + priors["c"].log_prob(values["c"].float())
    torch.testing.assert_close(parameters.log_prior(theta).float(), wanted, rtol=1e-4, atol=1e-4)
    assert parameters.unconstrained(theta).shape == theta.shape
    assert priors["a"].loc.dtype == torch.float32


def test_the_report_separates_nll_and_prior() -> None:
    x, y = pendulum()
    posterior, (mean, var) = toy_fit()[0], toy_fit()[0].sample(400, generator())(x.unsqueeze(0))
    report = posterior.fit(x, y, generator=generator())
    nll = -torch.distributions.Normal(mean, var.sqrt()).log_prob(y).sum(-1).mean()
    # Half a nat per parameter and data set, over 60 rows, is what draws differ by.
    assert report.nll == pytest.approx(float(nll), abs=0.02)
    prior = sum(PRIORS[name].log_prob(value.float()).mean() for name, value in posterior.parameter_draws.items())
    assert report.penalty == pytest.approx(-float(prior) / 60, rel=1e-4)


def test_a_gp_on_the_residual_learns_what_the_step_leaves_out() -> None:
    x, y = pendulum(120)
    y = y + torch.stack([torch.zeros(120), -0.5 * x[:, 1].tanh()], -1)  # a friction that the step does not know
    plain = Physics(PENDULUM, PRIORS, inference=SVI)
    plain.fit(x[:80], y[:80], generator=generator())

    def make() -> WithResidual:
        gp = ExactGP(training=GPTraining(restarts=0, max_steps=40))
        return WithResidual(Physics(PENDULUM, PRIORS, inference=SVI), gp)

    both = make()
    report = both.fit(x[:80], y[:80], generator=generator())
    error = {name: float((p.predict(x[80:]).mean - y[80:])[:, 1].std()) for name, p in (("plain", plain), ("both", both))}
    assert error["both"] < 0.3 * error["plain"]
    assert float(both.predict(x[80:]).aleatoric_variance[:, 1].mean().sqrt()) < 0.1 < float(plain.noise_std[:, 1].mean())
    assert report.r2_train[1] > 0.99
    assert report.summary[0].name == "mass"
    fresh = make()
    fresh.load_state_dict(both.state_dict())
    torch.testing.assert_close(fresh.predict(x).mean, both.predict(x).mean)
    torch.testing.assert_close(fresh.predict(x).variance, both.predict(x).variance)
    before = both.predict(x[80:]).epistemic_variance.mean()
    both.append(x[80:], y[80:])
    assert float(both.predict(x[80:]).epistemic_variance.mean()) < float(before)


def test_it_plugs_into_a_dynamics_model_and_a_rollout() -> None:
    x, y = pendulum()
    wrapped = torch.stack([torch.remainder(y[:, 0] + math.pi, 2 * math.pi) - math.pi, y[:, 1]], -1)
    model = bd.DynamicsModel(IdentityCodec(angles=[0]), Physics(PENDULUM, PRIORS, inference=SVI))
    model.fit(bd.Transitions.from_arrays(x[:, :2], x[:, 2:], wrapped), generator=generator())
    said = model.predict(x[:, :2], x[:, 2:])
    assert float((said.mean - y).abs().max()) < 0.1
    dynamics = model.sample(5, generator(), dtype=torch.float64)
    answer = dynamics(x[None, :, :2], x[None, :, 2:])
    torch.testing.assert_close(answer.mean, dynamics.function(x.unsqueeze(0)).mean)


def oscillate(state: Tensor, action: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    return torch.stack([state[..., 1], -(parameters["rate"] ** 2) * state[..., 0]], -1)


def oscillator_error(step: Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor], dt: float) -> float:
    rate = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    start = torch.tensor([0.5, -1.0], dtype=torch.float64).expand(2, 4, 2)
    end = step(start, start[..., :0], {"rate": rate})[..., 0]
    exact = 0.5 * (rate * dt).cos() - (rate * dt).sin() / rate
    return float((end - exact).abs().max())


def test_runge_kutta_is_of_fourth_order() -> None:
    errors = [oscillator_error(RK4(oscillate, dt=0.5, substeps=k), 0.5) for k in (4, 8, 16)]
    assert all(14 < coarse / fine < 18 for coarse, fine in pairwise(errors))
    for wrong in ({"dt": 0.0}, {"dt": 0.1, "substeps": 0}):
        with pytest.raises(ConfigurationError, match="substep"):
            RK4(oscillate, **wrong)


def test_an_adaptive_step_meets_its_tolerance() -> None:
    pytest.importorskip("torchdiffeq")
    assert oscillator_error(AdaptiveODE(oscillate, dt=0.5), 0.5) < 1e-7


def test_an_adaptive_step_names_the_extra_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(MissingExtraError, match=r"bayesdyn\[ode\]"):
        AdaptiveODE(oscillate, dt=0.5)


def fit_with(step: Callable[..., object], priors: dict[str, object] | None = None) -> None:
    x, y = pendulum()
    Physics(step, priors or PRIORS, inference=SVI).fit(x, y, generator=generator())  # type: ignore[arg-type]


def test_steps_that_do_not_serve_many_parameter_sets_are_refused() -> None:
    def unbatched(state: Tensor, action: Tensor, p: dict[str, Tensor]) -> Tensor:
        return state * p["mass"]  # [n, 1] against [n, points, S]

    def flat(state: Tensor, action: Tensor, p: dict[str, Tensor]) -> Tensor:
        return state[..., 0]

    def mixing(state: Tensor, action: Tensor, p: dict[str, Tensor]) -> Tensor:
        return state + p["mass"].mean()

    def misspelt(state: Tensor, action: Tensor, p: dict[str, Tensor]) -> Tensor:
        return state * p["masss"].unsqueeze(-1)

    for step, said in ((unbatched, "3 parameter sets"), (flat, "next state"), (mixing, "for each alone"), (misspelt, "masss")):
        with pytest.raises(ConfigurationError, match=said):
            fit_with(step)


def test_other_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="at least one prior"):
        Physics(PENDULUM, {})
    with pytest.raises(ConfigurationError, match="noise_std"):
        Physics(PENDULUM, {"noise_std": Normal(0.0, 1.0)})
    with pytest.raises(ConfigurationError, match=r"pyro\.distributions"):
        Physics(PENDULUM, {"mass": torch.distributions.Normal(0.0, 1.0)})
    with pytest.raises(ConfigurationError, match="floor"):
        LearnedNoise(floor=0.0)
    with pytest.raises(ConfigurationError, match="positive finite"):
        KnownNoise((0.1, -1.0))
    for inference in (NUTSInference, VariationalInference):
        with pytest.raises(ConfigurationError, match="positive"):
            inference(draws=0)
    x, y = pendulum()
    with pytest.raises(ShapeError, match="one per output"):
        Physics(PENDULUM, PRIORS, inference=SVI, noise=KnownNoise((0.1, 0.1, 0.1))).fit(x, y)
    with pytest.raises(ShapeError, match="state, action"):
        Physics(PENDULUM, PRIORS).fit(x[:, :1], y)
    with pytest.raises(NumericalError, match="finite density"):
        fit_with(lambda s, a, p: s / (0 * p["mass"].unsqueeze(-1)))


def test_draws_and_priors_of_other_kinds_survive_a_draw_of_many_shapes() -> None:
    function = toy_fit()[0].sample(3, generator())
    for batch in ((), (4,), (2, 5), (0,)):
        answer = function(torch.zeros(1, *batch, 3, dtype=torch.float32))
        assert answer.mean.shape == answer.var.shape == (3, *batch, 2)
        assert answer.mean.dtype == torch.float32
