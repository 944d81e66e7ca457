"""Rows held out: as many as asked for, of whole groups where there are enough, never of most groups."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesdyn.networks import Network, Training, train
from bayesdyn.networks.held_out import FEWEST_GROUPS, choose_held_out
from bayesdyn.networks.training import score_rows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(1, 9), min_size=FEWEST_GROUPS, max_size=12), st.integers(0, 40), st.integers(0, 2**31))
def test_groups_are_held_out_whole_and_at_most_half_of_them(sizes: list[int], count: int, seed: int) -> None:
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    held = choose_held_out(len(groups), count, groups, generator(seed))
    shares = torch.stack([held[groups == g].float().mean() for g in range(len(sizes))])
    assert bool(((shares == 0) | (shares == 1)).all())
    chosen = int(shares.sum())
    assert chosen <= len(sizes) // 2
    # As many rows as asked for, unless half of the groups are too few; and no group more than that takes.
    assert int(held.sum()) >= count or chosen == len(sizes) // 2
    assert chosen == 0 or int(held.sum()) - max(sizes) < count
    assert count > 0 or chosen == 0


def test_rows_are_held_out_one_by_one_without_groups_or_of_few() -> None:
    few = torch.arange(FEWEST_GROUPS - 1).repeat_interleave(10)
    for groups in (None, few):
        held = [choose_held_out(40, 7, groups, generator(seed)) for seed in range(200)]
        assert all(int(h.sum()) == 7 for h in held)
        # Each row is held out in 7/40 of the draws: a binomial count, whose largest of 40 stays within 4.5 standard deviations.
        often = torch.stack(held).float().sum(0)
        assert bool(((often - 200 * 7 / 40).abs() < 4.5 * (200 * 7 / 40 * 33 / 40) ** 0.5).all())


def test_rows_left_out_are_neither_trained_on_nor_scored() -> None:
    x = torch.randn(60, 2, generator=generator())
    y = x[:, :1].sin()
    counts = torch.ones(2, 60, dtype=torch.int64)
    counts[:, 40:50], counts[:, 50:] = 0, -1
    network = Network(2, (8,), 1)
    start = network.initial(2, generator(1))
    settings = Training(steps=60)
    # What the rows that are left out say cannot matter.
    kept = [
        train(network, start, x, v, counts, training=settings, generator=generator(2)) for v in (y, torch.cat([y[:50], y[50:] + 9]))
    ]
    torch.testing.assert_close(kept[0].parameters.theta, kept[1].parameters.theta, rtol=0, atol=0)
    torch.testing.assert_close(kept[0].held_out_nll, kept[1].held_out_nll, rtol=0, atol=0)
    nll, mean = score_rows(network, kept[0].parameters, x, y, counts)
    columns = network.columns(kept[0].parameters.theta, x.unsqueeze(0))
    every = network.nll(columns, kept[0].parameters.noise, y.unsqueeze(0))
    torch.testing.assert_close(nll, every[:, :40].mean(1))
    torch.testing.assert_close(mean, columns[..., :1])
