"""Moments of Gaussian processes and their derivatives against the official PILCO code and against 60 digits."""

import pytest
import torch
from pilco_golden import SHAPES, belief, cases, exact_gp, gp0, gp2_weights, hyperparameters, jacobian, tensor

from bayesdyn.gaussian_processes.moment_inducing import fitc_moments
from bayesdyn.gaussian_processes.moment_map import rbf_moments

GP0 = cases("gp0_moment_matching.json")
REGULAR = [case for case in GP0 if not case["name"].startswith("fp_")]
EXACT = {case["name"]: case for case in cases("gp0_exact_highprecision.json")}
GP1 = cases("gp1_fitc_moment_matching.json")
GP2 = cases("gp2_rbf_moment_matching.json")
BOTH = pytest.mark.parametrize("taped", [False, True], ids=["closed", "taped"])

# Relative error of the diagonal of the covariance that this form reaches where numbers cancel, times ten; 3e-14 elsewhere.
ATTAINABLE = {"fp_snr_1e4": 3e-13, "fp_duplicate_inputs": 3e-13, "fp_long_ell8_snr100": 1e-10}
USUAL = 3e-14


def by_name(case) -> str:
    return case["name"]


def check(found: torch.Tensor, wanted: list, tolerance: float) -> None:
    wanted = tensor(wanted).reshape(found.shape)
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))


def check_derivatives(case: dict, suffix: str, found: dict[str, torch.Tensor], tolerance: float) -> None:
    for letter, value in found.items():
        check(value, case[f"d{letter}d{suffix}"], tolerance)


@BOTH
@pytest.mark.parametrize("case", REGULAR, ids=by_name)
def test_an_exact_gp_agrees_with_the_official_code(case, taped):
    gp = gp0(case)
    moments = (gp.taped() if taped else gp).moments(*belief(case))
    for letter, name in SHAPES.items():
        check(getattr(moments, name), case[letter], 1e-11)


@BOTH
@pytest.mark.parametrize("case", [case for case in GP0 if "dMdm" in case], ids=by_name)
def test_derivatives_of_an_exact_gp_agree_with_the_official_code(case, taped):
    gp, (m, s) = gp0(case), belief(case)
    moments = (gp.taped() if taped else gp).moments
    check_derivatives(case, "m", jacobian(lambda m: moments(m, s), m), 1e-11)
    check_derivatives(case, "s", jacobian(lambda s: moments(m, s), s, symmetric=True), 1e-11)


@BOTH
@pytest.mark.parametrize("case", [case for case in GP0 if case["name"] in EXACT], ids=by_name)
def test_moments_agree_with_60_digits(case, taped):
    gp, exact = gp0(case), EXACT[case["name"]]
    moments = (gp.taped() if taped else gp).moments(*belief(case))
    variance, wanted = moments.cov.diagonal(), tensor(exact["S_exact"]).diagonal()
    allowed = 10 * ATTAINABLE.get(case["name"], USUAL)
    assert float(((variance - wanted) / wanted).abs().max()) < allowed
    # Off the diagonal nothing of the size of σf² cancels; mean and gain carry the rounding of β, up to 1e-11 at long length-scales.
    check(moments.cov, exact["S_exact"], allowed)
    check(moments.mean, exact["M_exact"], 1e-10)
    check(moments.gain, exact["V_exact"], 1e-10)


def test_every_hard_case_has_its_60_digits():
    hard = {case["name"] for case in GP0 if case["name"].startswith("fp_")}
    assert hard <= set(EXACT)
    assert set(ATTAINABLE) <= hard


@BOTH
@pytest.mark.parametrize("case", GP1, ids=by_name)
def test_fitc_agrees_with_the_official_code(case, taped):
    z = tensor(case["induce"])
    lengthscale, signal_var, noise_var = hyperparameters(tensor(case["log_hyp"]))
    points = z.movedim(-1, 0) if z.dim() == 3 else z
    gp = fitc_moments(tensor(case["inputs"]), tensor(case["targets"]), points, lengthscale, signal_var, noise_var)
    moments, (m, s) = (gp.taped() if taped else gp).moments, belief(case)
    for letter, name in SHAPES.items():
        check(getattr(moments(m, s), name), case[letter], 1e-11)
    check_derivatives(case, "m", jacobian(lambda m: moments(m, s), m), 1e-11)
    check_derivatives(case, "s", jacobian(lambda s: moments(m, s), s, symmetric=True), 1e-11)


@pytest.mark.parametrize("case", GP2, ids=by_name)
def test_radial_basis_functions_agree_with_the_official_code(case):
    (m, s), x, y, log_hyp = belief(case), tensor(case["inputs"]), tensor(case["targets"]), tensor(case["log_hyp"])

    def moments(m, s, x, y, log_hyp):
        return rbf_moments(m, s, x, gp2_weights(x, y, log_hyp), log_hyp[:-2].exp().mT)

    found = moments(m, s, x, y, log_hyp)
    check(found.mean, case["M"], 1e-11)
    check(found.gain, case["V"], 1e-11)
    # The 1e-6 that is added costs digits where the rest is smaller: 6e-11 of it at s = 0.
    torch.testing.assert_close(found.cov, tensor(case["S"]), rtol=1e-10, atol=1e-15)
    if "dMdm" in case:
        check_derivatives(case, "m", jacobian(lambda m: moments(m, s, x, y, log_hyp), m), 1e-11)
        check_derivatives(case, "s", jacobian(lambda s: moments(m, s, x, y, log_hyp), s, symmetric=True), 1e-11)
        check_derivatives(case, "i", jacobian(lambda x: moments(m, s, x, y, log_hyp), x), 1e-11)
        check_derivatives(case, "t", jacobian(lambda y: moments(m, s, x, y, log_hyp), y), 1e-11)
        check_derivatives(case, "X", jacobian(lambda h: moments(m, s, x, y, h), log_hyp), 1e-11)


def test_predictions_follow_the_targets_and_not_the_hyperparameters_alone():
    case = GP0[1]
    x, y, log_hyp = tensor(case["inputs"]), tensor(case["targets"]), tensor(case["log_hyp"])
    first, second = (exact_gp(x, targets, log_hyp).moments(*belief(case)) for targets in (y, 2 * y))
    torch.testing.assert_close(second.mean, 2 * first.mean)
    assert not torch.allclose(second.cov, first.cov)
