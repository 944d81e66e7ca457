"""The compiled sums over pairs of points: the same numbers as without."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from moment_cases import F64, belief, generator, posterior
from pilco_golden import belief as golden_belief
from pilco_golden import cases, gp0

from bayesdyn.errors import ConfigurationError, NumericalError
from bayesdyn.gaussian_processes import moment_jacobian, moment_kernel, moment_radial
from bayesdyn.gaussian_processes.compile_moments import build
from bayesdyn.gaussian_processes.moment_inducing import fitc_moments
from bayesdyn.gaussian_processes.moment_jacobian import linearised
from bayesdyn.gaussian_processes.moment_map import GPMoments, rbf_moments
from bayesdyn.gaussian_processes.moment_pairs import pair_sums

CASES = cases("gp0_moment_matching.json")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> moment_kernel.Kernel:
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    return moment_kernel.Kernel(build(tmp_path_factory.mktemp("kernel") / "moments.so"))


@pytest.mark.parametrize("size", [1, 4, 7, 33, 110])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("limit", [None, 1.5])
def test_sums_are_those_over_the_whole_matrix(kernel, size, weighted, limit):
    random = np.random.default_rng(0)
    left, right = random.normal(size=(2, 6, size, 5))
    row, columns = random.normal(size=(6, size)), random.normal(size=(6, 3, size))
    full = size + -size % 4
    weight = np.zeros((3, full, full))
    weight[:, :size, :size] = np.tril(random.normal(size=(3, size, size)))
    exponents = left @ right.swapaxes(-1, -2)
    covered = np.expm1(exponents if limit is None else np.minimum(exponents, limit))
    covered = covered * (np.tile(weight[:, :size, :size], (2, 1, 1)) if weighted else 1)
    given = torch.from_numpy(weight) if weighted else None
    plain = pair_sums(left, right, row, columns, given, limit)
    compiled = kernel.sums(left, right, row, columns, weight if weighted else None, limit)
    for sums, wanted in zip((*plain, *compiled), 2 * [(covered @ row[..., None])[..., 0], columns @ covered], strict=True):
        np.testing.assert_allclose(sums, wanted, rtol=1e-12, atol=1e-12 * np.abs(covered).max())
    alone = pair_sums(left, right, row, None, given, limit)
    assert alone.columns is None
    np.testing.assert_allclose(alone.rows, plain.rows, rtol=1e-12, atol=1e-12)


def test_the_exponential_has_full_relative_precision(kernel):
    small = 10.0 ** np.linspace(-300, 0, 200)
    x = np.concatenate([-small, small, np.linspace(-800, 690, 1200)])
    left, column = np.zeros((1, x.size, 1)), np.zeros((1, 1, x.size))
    left[0, 0, 0] = column[0, 0, 0] = 1
    _, found = kernel.sums(left, x[None, :, None], np.zeros((1, x.size)), column, None, None)
    # Two roundings of the series and one of the sum, and NumPy's own.
    np.testing.assert_allclose(found[0, 0], np.expm1(x), rtol=4 * np.finfo(float).eps, atol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_moments_and_gradients_are_the_same(kernel, monkeypatch, case):
    answers = []
    for found in (kernel, None):
        monkeypatch.setattr(moment_jacobian, "installed", lambda found=found: found)
        mean, cov = (t.requires_grad_() for t in golden_belief(case))
        moments = gp0(case).moments(mean, cov)
        answers.append([*moments, *torch.autograd.grad(sum(part.sum() for part in moments), (mean, cov))])
    # The hardest of these cases keep ten digits.
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.detach().abs().max()))


@pytest.mark.parametrize("rows", [1, 5, 8, 30])
@pytest.mark.parametrize("kind", ["exact", "inducing", "certain"])
def test_whole_moments_are_those_of_plain_arrays(kernel, monkeypatch, kind, rows):
    """To 1e-12 of the largest number of its kind, with gradients and without."""
    gp = posterior(rows=rows).exact_moment_map(process_noise=True)
    if kind == "certain":
        # Transposed in memory, as tensors that come from elsewhere may be.
        gp = GPMoments(*(t.mT.contiguous().mT if t.dim() > 1 else t for t in gp.factors[:4]))
    if kind == "inducing":
        random = generator()
        x, y = torch.randn(40, 3, generator=random, dtype=F64), torch.randn(40, 2, generator=random, dtype=F64)
        one = torch.ones(2, dtype=F64)
        gp = fitc_moments(x, y, x[:rows], 1.5 * torch.ones(2, 3, dtype=F64), one, 0.1 * one)
    mean, cov = (part.numpy() for part in belief(3, 0, 0.5, (4,)))
    answers = {}
    for gradient in (True, False):
        for name, found in (("compiled", kernel), ("plain", None)):
            monkeypatch.setattr(moment_jacobian, "installed", lambda found=found: found)
            answers[gradient, name] = linearised(gp._prepared, mean, cov, gradient=gradient)
    wanted = answers[True, "plain"]
    for (gradient, _), given in answers.items():
        for one_part, other in zip(given, wanted if gradient else wanted._replace(jacobian=None), strict=True):
            if one_part is not None:
                np.testing.assert_allclose(one_part, other, rtol=1e-12, atol=1e-12 * np.abs(other).max())


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.5, 10.0])
@pytest.mark.parametrize(("centres", "outputs"), [(1, 1), (6, 1), (8, 3)])
def test_radial_basis_functions_are_those_of_plain_arrays(kernel, monkeypatch, centres, outputs, scale):
    """To 1e-12 of the largest number of its kind, with the gradients to beliefs and parameters."""
    random = generator()
    tensors = [*belief(3, 0, scale, (4,)), torch.randn(centres, 3, generator=random, dtype=F64)]
    # Transposed in memory, as tensors that come from elsewhere may be.
    tensors += [torch.randn(centres, outputs, generator=random, dtype=F64).mT]
    tensors += [0.5 + torch.rand(3, outputs, generator=random, dtype=F64).mT]
    answers = []
    for found in (kernel, None):
        monkeypatch.setattr(moment_radial, "installed", lambda found=found: found)
        inputs, weights = [t.clone().requires_grad_() for t in tensors], generator(2)
        moments = rbf_moments(*inputs)
        total = sum((torch.randn(part.shape, generator=weights, dtype=F64) * part).sum() for part in moments)
        answers.append([*moments, *torch.autograd.grad(total, inputs)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * float(other.detach().abs().max()))


def test_a_belief_that_is_none_is_refused(kernel, monkeypatch):
    monkeypatch.setattr(moment_jacobian, "installed", lambda: kernel)
    monkeypatch.setattr(moment_radial, "installed", lambda: kernel)
    mean, cov = belief()
    centres, one = torch.randn(4, 3, generator=generator(), dtype=F64), torch.ones(1, 4, dtype=F64)
    for broken in (-1e3 * cov, cov * torch.nan):
        with pytest.raises(NumericalError, match="belief"):
            posterior().exact_moment_map().moments(mean, broken)
        with pytest.raises(NumericalError, match="belief"):
            rbf_moments(mean, broken, centres, one, one[:, :3])


def test_without_a_compiler_the_error_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigurationError, match="go on without"):
        build(tmp_path / "moments.so")


def test_a_file_that_is_no_library_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    moment_kernel.installed.cache_clear()
    try:
        assert moment_kernel.installed() is None
        moment_kernel.default_path().parent.mkdir(parents=True)
        moment_kernel.default_path().write_text("not a library")
        moment_kernel.installed.cache_clear()
        assert moment_kernel.installed() is None
    finally:
        moment_kernel.installed.cache_clear()
