"""Trigonometric features, squashes and costs against the official PILCO code: values and first derivatives."""

import pytest
import torch
from pilco_official import flat, numbers, official_cases, slopes, symmetrised

from bayesdyn.moments import (
    Columns,
    CostOf,
    Lift,
    QuadraticCost,
    SaturatingCost,
    SquashSat,
    SquashSin,
    Trig,
    cart_pole_cost,
    pendulum_cost,
)

SQUASHES = {"gSin": SquashSin, "gSat": SquashSat}
SCENARIOS = {"cp": (cart_pole_cost, 4, [3]), "pendulum": (pendulum_cost, 2, [1])}


def near(tolerance):
    return {"rtol": tolerance, "atol": tolerance}


def check_map(moment_map, case, derivatives=1e-11):
    m, v = numbers(case["m"]), numbers(case["v"])
    mean, cov, gain = moment_map.moments(m, v)
    torch.testing.assert_close(mean, numbers(case["M"]), **near(1e-12))
    torch.testing.assert_close(cov, numbers(case["V"]), **near(1e-12))
    torch.testing.assert_close(gain, numbers(case["C"]), **near(1e-12))
    to_mean = slopes(lambda x: moment_map.moments(x, v), m)
    to_cov = slopes(lambda x: moment_map.moments(m, x), v, covariance=True)
    for letter in "MVC":
        torch.testing.assert_close(to_mean[letter], numbers(case[f"d{letter}dm"]), **near(derivatives))
        torch.testing.assert_close(to_cov[letter], symmetrised(numbers(case[f"d{letter}dv"])), **near(derivatives))


@pytest.mark.parametrize("case", official_cases("gTrig"), ids=lambda case: case["name"])
def test_trigonometric_features(case):
    assert case["e"] == [1] * len(case["angi_1based"])
    check_map(Trig([i - 1 for i in case["angi_1based"]]), case)


@pytest.mark.parametrize("case", official_cases("gTrig"), ids=lambda case: case["name"])
def test_lifted_state(case):
    """The official features beside the state: cov(s, t) = Σ gain(t)."""
    m, v = numbers(case["m"]), numbers(case["v"])
    mean, cov, gain = Lift(len(m), [i - 1 for i in case["angi_1based"]]).moments(m, v)
    cross = v @ numbers(case["C"])
    torch.testing.assert_close(mean, torch.cat((m, numbers(case["M"]))), **near(1e-12))
    expected = torch.cat((torch.cat((v, cross), 1), torch.cat((cross.mT, numbers(case["V"])), 1)))
    torch.testing.assert_close(cov, expected, **near(1e-12))
    torch.testing.assert_close(gain, torch.cat((torch.eye(len(m)).double(), numbers(case["C"])), 1), **near(1e-12))


@pytest.mark.parametrize("case", official_cases("gSin_gSat_squash"), ids=lambda case: case["name"])
def test_squashes(case):
    columns = Columns([i - 1 for i in case["i_1based"]], len(case["m"]))
    check_map(columns.joined(SQUASHES[case["function"]](case["e"])), case)


@pytest.mark.parametrize("case", official_cases("loss_sat_quad"), ids=lambda case: case["name"])
def test_saturating_and_quadratic_costs(case):
    m, s, z, weight = (numbers(case[key]) for key in ("m", "s", "z", "W"))
    values, vectors = torch.linalg.eigh(weight)
    rows = (vectors * values.clamp_min(0).sqrt()).mT
    cost = SaturatingCost(z, rows) if case["function"] == "lossSat" else QuadraticCost(z, weight)
    mean, cov, gain = cost.moments(m, s)
    torch.testing.assert_close(mean[0], numbers(case["L"]), **near(1e-12))
    torch.testing.assert_close(cov[0, 0], numbers(case["S"]), **near(1e-12))
    torch.testing.assert_close(gain[:, 0], numbers(case["C"]), **near(1e-12))
    to_mean = slopes(lambda x: cost.moments(x, s), m)
    to_cov = slopes(lambda x: cost.moments(m, x), s, covariance=True)
    # The official derivatives of lossQuad's S do not belong to its S, which is ours; finite differences check those of ours.
    letters = {"M": "L", "V": "S", "C": "C"} if case["function"] == "lossSat" else {"M": "L"}
    for ours, theirs in letters.items():
        official = numbers(case[f"d{theirs}dm"]), numbers(case[f"d{theirs}ds"])
        torch.testing.assert_close(to_mean[ours].reshape(-1), official[0].reshape(-1), **near(1e-11))
        expected = official[1] if theirs == "C" else flat(official[1])[None]
        torch.testing.assert_close(to_cov[ours], symmetrised(expected), **near(1e-11))


@pytest.mark.parametrize("case", official_cases("loss_scenarios"), ids=lambda case: case["name"])
def test_scenario_costs_of_the_bare_state(case):
    make, size, angles = SCENARIOS[case["scenario"]]
    cost = CostOf(Lift(size, angles), make(case["width"], case["expl"]))
    m, s = numbers(case["m"]), numbers(case["s"])
    mean, cov, _ = cost.moments(m, s)
    torch.testing.assert_close(mean[0], numbers(case["L"]), **near(1e-12))
    torch.testing.assert_close(cov[0, 0], numbers(case["S2"]), **near(1e-12))
    torch.testing.assert_close(slopes(lambda x: cost.moments(x, s), m)["M"][0], numbers(case["dLdm"]), **near(1e-11))
    to_cov = slopes(lambda x: cost.moments(m, x), s, covariance=True)["M"][0]
    torch.testing.assert_close(to_cov, symmetrised(numbers(case["dLds_vec"])), **near(1e-11))
