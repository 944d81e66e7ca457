"""Means before variances: which steps go where, what is handed from one part to the next."""

import pytest
import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.networks import Heteroscedastic, Homoscedastic, Network, Noise, OutOfBag, Parameters, Training, train
from bayesdyn.networks.mean_first import MeanFirst, train_mean_first


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sine(rows: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 1, generator=generator())
    return x, (2 * x).sin() + 0.2 * torch.randn(rows, 1, generator=generator(1))


@pytest.mark.parametrize("noise", [Homoscedastic(), OutOfBag()])
def test_noise_without_columns_is_trained_in_one_part(noise: Noise) -> None:
    training = Training(steps=100)
    assert MeanFirst(0.5).parts(training, Network(2, (4,), 3, noise=noise)) == (training,)
    assert MeanFirst(0.0).parts(training, Network(2, (4,), 3)) == (training,)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_outside_the_unit_interval_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match="mean_first"):
        MeanFirst(share)


def test_noise_starts_at_the_variances_that_it_is_given() -> None:
    var = torch.tensor([[0.01, 0.3], [0.2, 0.04], [0.1, 0.1]])
    learned, bounded = Homoscedastic(), Heteroscedastic()
    found = learned.split(torch.zeros(3, 5, 2), learned.start_at(var.clone()))[1].exp()
    torch.testing.assert_close(found, var.unsqueeze(1))
    found = bounded.split(torch.zeros(3, 5, 4), bounded.start_at(var.clone()))[1].exp()
    # e^η' with η' = h - softplus(h - log var) is var/(1 + var·e^-h); the lower bound of e^-10 adds itself.
    wanted = var / (1 + var * torch.tensor(-0.5).exp()) + torch.tensor(-10.0).exp()
    torch.testing.assert_close(found, wanted.unsqueeze(1).expand(3, 5, 2), rtol=1e-5, atol=0)


@pytest.mark.parametrize("held_out", [True, False])
def test_the_second_part_begins_with_the_means_and_the_one_variance_of_the_first(held_out: bool) -> None:
    x, y = sine()
    noise: Noise = OutOfBag() if held_out else Homoscedastic()
    network, narrow = Network(1, (16,), 1), Network(1, (16,), 1, noise=noise)
    counts = torch.ones(3, len(x), dtype=torch.int64)
    if held_out:
        counts[:, ::3], counts[:, 1::3] = 0, 2
    start = network.initial(3, generator())
    weights, biases = network.unflatten(start.theta)
    parts = [weights[0].flatten(1), biases[0].flatten(1), weights[1][..., 0], biases[1][..., 0]]
    means = Training(steps=300, learning_rate=1e-2)
    first = Parameters(torch.cat(parts, 1), narrow.noise.start(3, 1))
    alone = train(narrow, first, x, y, counts, training=means, generator=generator())
    reported: list[tuple[int, int]] = []
    trained = train_mean_first(
        network,
        start,
        x,
        y,
        counts,
        parts=(means, Training(steps=1, learning_rate=1e-9)),
        generator=generator(),
        progress=lambda step, total, _: reported.append((step, total)),
    )
    found, wanted = (n.function(t.parameters)(x.unsqueeze(0)) for n, t in ((network, trained), (narrow, alone)))
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-5)
    bounded = wanted.var / (1 + wanted.var * torch.tensor(-0.5).exp()) + torch.tensor(-10.0).exp()
    torch.testing.assert_close(found.var, bounded, rtol=1e-4, atol=0)
    steps = [step for step, _ in reported]
    assert steps == sorted(steps)
    assert {total for _, total in reported} == {301}
    assert trained.steps == alone.steps + 1
    assert list(trained.curves["step"]) == sorted(trained.curves["step"])
    assert len({len(curve) for curve in trained.curves.values()}) == 1
