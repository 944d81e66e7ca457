"""Settings of the whole test run: one thread per process, no window, repeatable examples."""

import os
from collections.abc import Callable, Iterator

# The numerical libraries read these when they are first imported, which is below; pytest-xdist's workers inherit them.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

# Scripts that recorded golden numbers with other libraries.
collect_ignore_glob = ["golden/*"]

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Run a test without the run-time shape checks, which take two thirds of a long computation; shorter tests keep them."""
    from bayesdyn.testing.conformance import shape_checks_off

    with shape_checks_off():
        yield


@pytest.fixture
def unchecked_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the fits of networks and those of the contract without shape checks; what is asked of them afterwards keeps these."""
    from bayesdyn.posteriors.network_posterior import NetworkPosterior
    from bayesdyn.testing.conformance import shape_checks_off
    from bayesdyn.testing.posterior_case import PosteriorCase

    def unchecked(fit: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            with shape_checks_off():
                return fit(*arguments, **options)

        return wrapped

    for kind, name in ((NetworkPosterior, "_fit"), (PosteriorCase, "fit")):
        monkeypatch.setattr(kind, name, unchecked(getattr(kind, name)))
