"""Radial-basis-function and linear policies, bare and squashed, against the official PILCO code."""

import json
from pathlib import Path

import pytest
import torch

from bayesdyn.moments import SquashSat, SquashSin
from bayesdyn.policies import LinearPolicy, RBFPolicy, Squashed

CASES = json.loads((Path(__file__).parents[1] / "golden" / "pilco" / "policy_congp_conlin.json").read_text())["cases"]


def numbers(values):
    return torch.as_tensor(values, dtype=torch.float64)


def policy_of(case):
    if case["type"] == "conlin":
        return LinearPolicy(numbers(case["w"]), numbers(case["b"]))
    lengthscale = numbers(case["log_hyp"])[: case["D"]].exp().mT
    return RBFPolicy(numbers(case["inputs"]), numbers(case["targets"]), lengthscale)


def columns_first(matrix):
    """Return the entries of a matrix column by column, as the files have them; those of a vector as they are."""
    return matrix.mT.reshape(-1) if matrix.dim() == 2 else matrix.reshape(-1)


def derivatives(values, argument):
    rows = [
        torch.autograd.grad(value, argument, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
        for value in columns_first(values)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("squash", ["raw", "gSin", "gSat"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_moments(case, squash):
    """The variance of RBFs at Σ = 0 is the jitter 1e-6 alone, to which the official rounding of 1e-16 is 1e-10."""
    policy = policy_of(case)
    if squash != "raw":
        policy = Squashed(policy, {"gSin": SquashSin, "gSat": SquashSat}[squash](case["maxU"]))
    found = policy.moments(numbers(case["m"]), numbers(case["s"]))
    for letter, values in zip("MSC", found, strict=True):
        torch.testing.assert_close(values, numbers(case[f"{squash}_{letter}"]), rtol=1e-10 if letter == "S" else 1e-11, atol=1e-13)


@pytest.mark.parametrize("case", [case for case in CASES if "gSat_dMdp" in case], ids=lambda case: case["name"])
def test_derivatives_of_squashed_policies(case):
    inner = policy_of(case)
    policy = Squashed(inner, SquashSat(case["maxU"]))
    m, s = numbers(case["m"]).requires_grad_(), numbers(case["s"]).requires_grad_()
    for letter, values in zip("MSC", policy.moments(m, s), strict=True):
        if f"gSat_d{letter}dm" in case:
            to_cov = derivatives(values, s)
            to_cov = torch.stack([columns_first(row) for row in 0.5 * (to_cov + to_cov.mT)])
            close(derivatives(values, m), case[f"gSat_d{letter}dm"])
            close(to_cov, case[f"gSat_d{letter}ds"])
        close(to_parameters(inner, case, values), case[f"gSat_d{letter}dp"])


def to_parameters(policy, case, values):
    """Return the derivatives in the official order: b and w, or [log ℓ, log σf, log σn] per action, centres and targets."""
    if case["type"] == "conlin":
        return torch.cat([derivatives(values, policy.bias), derivatives(values, policy.weight).mT.flatten(-2)], -1)
    log_hyp = torch.nn.functional.pad(derivatives(values, policy.log_lengthscale), (0, 2)).flatten(-2)
    rest = [derivatives(values, p).mT.flatten(-2) for p in (policy.centres, policy.targets)]
    return torch.cat([log_hyp, *rest], -1)


def close(found, stored):
    torch.testing.assert_close(found, numbers(stored), rtol=1e-10, atol=1e-10)
