import pytest
import torch

from bayesdyn.errors import NumericalError
from bayesdyn.linalg import add_diagonal, extend_cholesky, jittered_cholesky, triangular_inverse

F64 = torch.float64


def positive_definite(batch: int, size: int, seed: int = 0) -> torch.Tensor:
    root = torch.randn(batch, size, size, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return root @ root.mT + 0.1 * torch.eye(size, dtype=F64)


def test_a_positive_definite_matrix_gets_no_jitter_and_its_own_factor():
    matrix = positive_definite(3, 5)
    factor, jitter = jittered_cholesky(matrix)
    assert jitter.tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(factor, torch.linalg.cholesky(matrix))


def test_only_the_matrices_that_fail_get_jitter():
    good = positive_definite(1, 4)[0]
    singular = torch.ones(4, 4, dtype=F64)
    indefinite = torch.ones(4, 4, dtype=F64) - 3e-7 * torch.eye(4, dtype=F64)
    factor, jitter = jittered_cholesky(torch.stack([good, singular, indefinite]))
    assert jitter[0] == 0
    assert 0 < float(jitter[1]) <= 1e-8
    assert float(jitter[2]) == pytest.approx(1e-6, rel=1e-5)
    torch.testing.assert_close(factor[0], torch.linalg.cholesky(good), rtol=0, atol=0)
    torch.testing.assert_close(factor[2] @ factor[2].mT, add_diagonal(indefinite[None], jitter[2:])[0], rtol=0, atol=1e-14)


def test_jitter_scales_with_the_matrix():
    _, small = jittered_cholesky(1e-6 * torch.ones(4, 4, dtype=F64))
    _, large = jittered_cholesky(1e6 * torch.ones(4, 4, dtype=F64))
    assert 0 < float(small) < 1e-13 < float(large)


def test_float32_starts_at_a_jitter_it_can_resolve():
    _, jitter = jittered_cholesky(torch.ones(4, 4))
    assert float(jitter) >= 1e-6 * (1 - 1e-6)


@pytest.mark.parametrize("matrix", [-torch.eye(3, dtype=F64), torch.full((3, 3), float("nan"), dtype=F64)], ids=["negative", "nan"])
def test_a_hopeless_matrix_raises(matrix):
    with pytest.raises(NumericalError, match=r"positive definite|non-finite"):
        jittered_cholesky(matrix)


def test_extending_a_factor_equals_factorising_anew():
    full = positive_definite(2, 9)
    old, new = full[:, :6, :6], torch.linalg.cholesky(full)
    factor = torch.linalg.cholesky(old)
    extended, inverse = extend_cholesky(factor, triangular_inverse(factor), full[:, :6, 6:], full[:, 6:, 6:])
    torch.testing.assert_close(extended, new, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inverse @ full @ inverse.mT, torch.eye(9, dtype=F64).expand(2, 9, 9), rtol=0, atol=1e-10)


def test_extending_with_a_repeated_row_of_a_noiseless_matrix_raises():
    factor = torch.eye(2, dtype=F64)[None]
    with pytest.raises(NumericalError, match="singular"):
        extend_cholesky(factor, factor, torch.tensor([[[1.0], [0.0]]], dtype=F64), torch.ones(1, 1, 1, dtype=F64))
