"""The line-up: one body and one noise head for all networks, a linear part for lagged data, eight names by default."""

import pytest

from bayesdyn import presets
from bayesdyn.errors import UnknownNameError
from bayesdyn.evaluation.lineup import ACTIVATION, EXACT_ROWS, HIDDEN, NOISE, line_up
from bayesdyn.kernels import RBF, RBFLinear
from bayesdyn.posteriors import ExactGP, SparseGP
from bayesdyn.posteriors.network_posterior import NetworkPosterior

ALL = [name for name in presets.posteriors if name != "nuts"]


def test_every_posterior_of_the_command_line_can_be_lined_up():
    assert set(line_up(list(presets.posteriors), rows=100)) == set(presets.posteriors)
    for name, make in line_up(list(presets.posteriors), rows=100).items():
        assert type(make()) is type(presets.posteriors[name]())


def test_all_networks_have_one_body_and_one_noise_head():
    networks = [made for made in (make() for make in line_up(ALL, rows=100).values()) if isinstance(made, NetworkPosterior)]
    assert len(networks) == 8
    assert {(made.hidden, made.activation, repr(made.noise)) for made in networks} == {(HIDDEN, ACTIVATION, repr(NOISE))}


def test_eight_are_compared_and_many_rows_make_the_process_sparse():
    few, many = line_up(rows=EXACT_ROWS), line_up(rows=EXACT_ROWS + 1)
    assert len(few) == len(many) == 8
    assert isinstance(few["gp"](), ExactGP)
    assert isinstance(many["sparse-gp"](), SparseGP)
    assert list(few)[1:] == list(many)[1:]


def test_lags_want_a_linear_part():
    for name in ("gp", "sparse-gp"):
        assert line_up([name], rows=10, lagged=True)[name]().kernel == RBFLinear()
        assert line_up([name], rows=10)[name]().kernel == RBF()


def test_another_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'laplace'"):
        line_up(["laplaz"], rows=10)
