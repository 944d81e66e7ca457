"""The compiled kernel against torch's own products, and networks in bfloat16."""

import shutil
import subprocess
import sys

import pytest
import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.networks import Network, NetworkFunction, Parameters, fused
from bayesdyn.networks.compile_fused import build
from bayesdyn.networks.dropout import Binary
from bayesdyn.posteriors import BootstrapEnsemble, ExactGP


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> fused.Kernel:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler here")
    return fused.Kernel(build(tmp_path_factory.mktemp("kernel") / "fused.so"))


@pytest.fixture
def two_threads():
    """Let torch have two threads, whatever it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def double_by_default():
    """Let torch make float64 where nothing else is asked for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Put a kernel, or none, in the place of the one in the user's cache."""
    return lambda kernel: monkeypatch.setattr(fused, "installed", lambda: kernel)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_function(sets: int, n: int, hidden: tuple[int, ...] = (37, 50), activation: str = "silu") -> NetworkFunction:
    network = Network(3, hidden, 2, activation)
    parameters = network.initial(sets, generator())
    theta = parameters.theta + 0.1 * torch.randn(parameters.theta.shape, generator=generator(1))
    return network.function(Parameters(theta, parameters.noise), n)


@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
@pytest.mark.parametrize(("sets", "n", "lead"), [(3, 3, 3), (3, 6, 6), (2, 4, 1), (1, 5, 5)])
@pytest.mark.parametrize("rows", [1, 23, 24, 500])
def test_kernel_answers_like_torch_in_double_precision(
    kernel, install, activation: str, sets: int, n: int, lead: int, rows: int
) -> None:
    function = make_function(sets, n, activation=activation)
    x = 2 * torch.randn(lead, rows, 3, generator=generator(2))
    exact = function.to(dtype=torch.float64)(x.double())
    install(kernel)
    with torch.no_grad():
        answer = function(x)
    # Some hundred roundings of 6e-8 each, in sums of numbers of about 1.
    torch.testing.assert_close(answer.mean.double(), exact.mean, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(answer.var.double(), exact.var, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("hidden", [(), (1,), (5, 200, 16)])
def test_layers_of_every_width_fit_the_kernel(kernel, install, hidden: tuple[int, ...]) -> None:
    function, x = make_function(2, 2, hidden), torch.randn(2, 30, 3, generator=generator(3))
    install(kernel)
    with torch.no_grad():
        torch.testing.assert_close(
            function(x).mean, function.to(dtype=torch.float64)(x.double()).mean.float(), rtol=1e-5, atol=5e-6
        )


def test_a_row_is_answered_alike_whatever_the_others_are_and_on_every_number_of_threads(kernel, install) -> None:
    function, x = make_function(2, 2), torch.randn(2, 700, 3, generator=generator(4))
    install(kernel)
    with torch.no_grad():
        whole = function(x).mean
        assert torch.equal(function(x[:, 123:150]).mean, whole[:, 123:150])
        poisoned = x.clone()
        poisoned[:, ::2] = torch.nan
        answer = function(poisoned).mean
        assert torch.equal(answer[:, 1::2], whole[:, 1::2])
        assert bool(answer[:, ::2].isnan().all())
        packed = function._packed
        for threads in (2, 3, 64):
            assert torch.equal(kernel(x, packed, 2, threads), kernel(x, packed, 2, 1))


def test_few_rows_are_left_to_one_thread(two_threads) -> None:
    packed = make_function(1, 1, (200, 200))._packed  # 3 x 200 + 200 x 200 + 200 x 4 multiply-adds a row
    enough = -(-(2 * 2**25) // 41400)
    assert [fused.threads_for(packed, rows) for rows in (0, 1, 20, enough - 1, enough, 10**6)] == [1, 1, 1, 1, 2, 2]


def test_layers_ask_for_as_many_threads_as_their_rows_are_worth(kernel, install, two_threads) -> None:
    asked = []

    class Recorded(fused.Kernel):
        def __call__(self, x, networks, sets, threads):
            asked.append(threads)
            return super().__call__(x, networks, sets, threads)

    install(Recorded(kernel.path))
    function = make_function(2, 2, (200, 200))
    with torch.no_grad():
        for rows in (20, 1000):
            function(torch.zeros(2, rows, 3))
    assert asked == [1, 2]


_STARVED = """
import resource, sys
from ctypes import CDLL, addressof, c_float, c_long, c_void_p
kernel, rows = CDLL(sys.argv[1]).fused_networks, 64 * 480
x, packed, out = (c_float * rows)(*range(rows)), (c_float * 8)(1, 1, 1, 1, 2, 2, 2, 2), (c_float * (4 * rows))()
pointers, steps, widths = (c_void_p * 1)(addressof(packed)), (c_long * 1)(0), (c_long * 2)(1, 4)
pages, (_, most) = int(open("/proc/self/statm").read().split()[0]), resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**25, most))
failed = kernel(x, c_long(0), pointers, steps, widths, c_long(1), c_long(1), c_long(rows), 0, 64, out)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
assert failed == 0
assert all(out[4 * row] == 1 + 2 * row for row in range(rows))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_rows_are_answered_where_the_system_refuses_more_threads(kernel) -> None:
    """64 threads' stacks take more than the 32 MB that this process may still have."""
    ended = subprocess.run([sys.executable, "-c", _STARVED, str(kernel.path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("rows", [0, 50])
def test_answers_do_not_depend_on_the_default_dtype(kernel, install, rows: int, double_by_default) -> None:
    function, x = make_function(3, 3).to(dtype=torch.float32), torch.randn(3, rows, 3, generator=generator(8)).float()
    install(kernel)
    with torch.no_grad():
        answer, exact = function(x), function.to(dtype=torch.float64)(x.double())
    assert answer.mean.dtype == answer.var.dtype == torch.float32
    torch.testing.assert_close(answer.mean.double(), exact.mean, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
def test_kernel_saturates_like_torch_and_passes_on_what_is_not_finite(kernel, install, activation: str) -> None:
    weights, biases = [torch.ones(1, 1, 1), torch.ones(1, 1, 1)], [torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)]
    columns = kernel(
        torch.tensor([-1e30, -200.0, -90.0, -50.0, -1e-3, 0.0, 1e-3, 50.0, 90.0, 1e30, torch.inf, torch.nan]).view(1, -1, 1),
        fused.pack(weights, biases, activation),
        1,
        1,
    ).flatten()
    limits = [1.0, 1.0, 1.0] if activation == "tanh" else [50.0, 90.0, 1e30]
    low = -1.0 if activation == "tanh" else 0.0
    torch.testing.assert_close(columns[:4], torch.full((4,), low), rtol=1e-6, atol=1e-15)
    torch.testing.assert_close(columns[7:10], torch.tensor(limits), rtol=1e-6, atol=0)
    assert not bool(columns[10:].isfinite().any())
    assert float(columns[5]) == 0.0


def test_gradients_transforms_and_other_dtypes_go_another_way(kernel, install) -> None:
    calls = []

    class Counted(fused.Kernel):
        def __call__(self, *args):
            calls.append(args)
            return super().__call__(*args)

    install(Counted(kernel.path))
    function, x = make_function(2, 2), torch.randn(2, 4, 3, generator=generator(5))
    assert function(x.clone().requires_grad_()).mean.requires_grad
    with torch.no_grad():
        function.to(dtype=torch.float64)(x.double())
        _, change = torch.func.jvp(lambda inputs: function(inputs).mean, (x,), (torch.ones_like(x),))
        torch.func.vmap(lambda row: function(row.unsqueeze(1)).mean, in_dims=1)(x)
        assert not calls
        function(x)
    assert len(calls) == 1
    assert float(change.abs().max()) > 0


def test_a_compiler_that_is_not_there_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigurationError, match="no-such-compiler"):
        build(tmp_path / "fused.so")
    assert list(tmp_path.iterdir()) == []


def test_draws_of_planners_have_their_dropped_units_cut_out() -> None:
    network = Network(3, (64, 64), 2)
    masks = Binary().draw(torch.zeros(2), network.hidden, (5, 1), generator())
    masked = network.function(network.initial(1, generator()), masks=masks)
    thin, x = masked.for_many_rows(), torch.randn(5, 7, 3, generator=generator(6))
    assert thin.masks is None
    assert thin.width < 64
    torch.testing.assert_close(thin(x).mean, masked(x).mean, rtol=1e-5, atol=1e-5)
    many = network.function(
        network.initial(1, generator()), masks=Binary().draw(torch.zeros(2), network.hidden, (100, 1), generator())
    )
    assert many.for_many_rows() is many


def test_bfloat16_keeps_the_last_layer_and_the_variances_exact() -> None:
    function, x = make_function(3, 3), torch.randn(3, 50, 3, generator=generator(7))
    coarse = function.with_precision(torch.bfloat16)
    assert [w.dtype for w in coarse.weights] == [torch.bfloat16, torch.bfloat16, torch.float32]
    answer, exact = coarse(x), function(x)
    assert answer.mean.dtype == answer.var.dtype == torch.float32
    # A rounding of bfloat16 is 2^-9 at most, there are about four of them in a row, and the outputs have a size of 1.
    torch.testing.assert_close(answer.mean, exact.mean, rtol=0, atol=4 * 2**-9 * 3)
    assert not torch.equal(answer.mean, exact.mean)
    with pytest.raises(ConfigurationError, match="floating-point"):
        function.with_precision(torch.int8)


def test_gaussian_processes_refuse_bfloat16() -> None:
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).unsqueeze(1)
    one = torch.ones(1, dtype=torch.float64)
    gp = ExactGP.from_hyperparameters(x, x.sin(), one.unsqueeze(1), one, 0.01 * one)
    with pytest.raises(ConfigurationError, match="only networks"):
        gp.sample(2, generator()).with_precision(torch.bfloat16)


@pytest.mark.parametrize("members", [3, 5, 7])
@pytest.mark.parametrize("n", [1, 2, 7, 11, 13, 23])
def test_every_member_is_dealt_equally_often_and_the_rest_at_random(members: int, n: int) -> None:
    x = torch.linspace(-1, 1, 24).unsqueeze(1)
    ensemble = BootstrapEnsemble(members, (4,))
    network = Network(1, (4,), 1)
    ensemble.theta = network.initial(members, generator()).theta
    ensemble.keep(network, network.noise.start(members, 1))
    answers, of_members = ensemble.sample(n, generator())(x.unsqueeze(0)).mean, ensemble.predict(x).component_mean
    member = (answers.unsqueeze(1) - of_members).abs().amax((2, 3)).argmin(1)
    counts = member.bincount(minlength=members)
    assert int(counts.min()) >= n // members
    assert int(counts.max()) <= -(-n // members)
