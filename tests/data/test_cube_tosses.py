"""Tosses of a cube come back toss by toss, and their energy is that of a homogeneous cube."""

import numpy as np
import pytest
import torch

from bayesdyn.data import load_tosses
from bayesdyn.data.cube_tosses import kinetic_energy
from bayesdyn.errors import FileError


def test_tosses_are_cut_by_their_lengths(tmp_path):
    states = np.arange(13.0 * 9).reshape(9, 13)
    np.savez(tmp_path / "cube.npz", states=states, lengths=np.array([4.0, 5.0]), dt=1 / 148)
    first, second = load_tosses(tmp_path / "cube.npz")
    np.testing.assert_array_equal(first.states.numpy(), states[:4])
    np.testing.assert_array_equal(second.states.numpy(), states[4:])
    assert first.actions.shape == (3, 0)


def test_a_file_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", states=np.zeros((3, 13)))
    with pytest.raises(FileError, match=r"lacks \['lengths'\]"):
        load_tosses(tmp_path / "other.npz")
    np.savez(tmp_path / "short.npz", states=np.zeros((3, 13)), lengths=np.array([2]))
    with pytest.raises(FileError, match="sum to N"):
        load_tosses(tmp_path / "short.npz")


def test_energy_is_that_of_eight_corners_worth_of_mass():
    # A homogeneous cube of edge 2: ∫ ½|v + ω × r|² over its volume, by the midpoint rule, whose error falls with the cell squared.
    generator = torch.Generator().manual_seed(0)
    velocity, spin = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    ticks = torch.linspace(-1, 1, 101, dtype=torch.float64)
    middle = 0.5 * (ticks[1:] + ticks[:-1])
    points = torch.cartesian_prod(middle, middle, middle)
    wanted = 0.5 * (velocity + torch.linalg.cross(spin.expand_as(points), points)).square().sum(-1).mean()
    state = torch.cat([torch.zeros(7, dtype=torch.float64), velocity, spin])
    assert float(kinetic_energy(state)) == pytest.approx(float(wanted), rel=1e-4)  # 100 cells: (1/100)² of the rotational part
