"""The written-out gradient of many networks: autograd as oracle, for every activation and noise model."""

import pytest
import torch

from bayesdyn.networks import ACTIVATIONS, Heteroscedastic, Homoscedastic, Network, Noise, OutOfBag, Parameters
from bayesdyn.networks.backpropagation import Backpropagation


def double(network: Network, members: int) -> Parameters:
    start = network.initial(members, torch.Generator().manual_seed(0))
    return Parameters(*(t.double().requires_grad_() for t in start))


@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic(), OutOfBag()])
@pytest.mark.parametrize("hidden", [(), (5,), (7, 4, 6)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_is_that_of_autograd_whatever_the_number_of_rows(activation: str, hidden: tuple[int, ...], noise: Noise) -> None:
    network, random = Network(3, hidden, 2, activation, noise), torch.Generator().manual_seed(1)
    parameters, precision = double(network, 4), network.prior_precision().double()
    gradient = Backpropagation(network, parameters, precision, data_rows=50)
    for rows in (6, 6, 9):
        x, y = (torch.randn(4, rows, size, generator=random, dtype=torch.float64) for size in (3, 2))
        oracle = Parameters(*(t.detach().clone().requires_grad_() for t in parameters))
        nll = network.nll(network.columns(oracle.theta, x), oracle.noise, y).mean(1)
        (nll + network.penalty(oracle, 50, precision)).sum().backward()
        torch.testing.assert_close(gradient(x, y), nll.detach())
        torch.testing.assert_close(parameters.theta.grad, oracle.theta.grad)
        torch.testing.assert_close(parameters.noise.grad, oracle.noise.grad)
        with torch.no_grad():
            for values in parameters:
                values -= 0.1 * torch.randn(values.shape, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda a: a.name)
def test_values_and_slopes_in_place_are_those_of_the_function(activation: object) -> None:
    h = torch.linspace(-8, 8, 50, dtype=torch.float64)
    value, slope = activation.with_slope(h.clone(), torch.empty_like(h))
    torch.testing.assert_close(value, activation.apply(h))
    torch.testing.assert_close(slope, activation.slope(h))
