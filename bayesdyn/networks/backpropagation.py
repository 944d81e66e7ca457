"""`Backpropagation`: the gradient of many networks' losses, written out and computed in memory that is allocated once."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.networks.activations import find_activation
from bayesdyn.networks.network import Network, Parameters


class Backpropagation:
    r"""The gradient of Σ_k [ mean_r nll_k(r) + (1/2N) Σ precision·θ_k² + noise penalty_k ] on batches of R rows per network.

        a_l = h_{l-1} W_l + b_l,  h_l = act(a_l);    δ_l = (δ_{l+1} W_{l+1}ᵀ) ∘ act'(a_l),  ∂/∂W_l = h_{l-1}ᵀ δ_l,  ∂/∂b_l = Σ_r δ_l

    Autograd sees the last layer's columns only, for the noise model. Through the layers it would spend a good part of the products'
    time on fresh memory for every value and gradient. `parameters` are leaves, to be changed in place between calls.

    >>> network, generator = Network(2, (8,), 1), torch.Generator().manual_seed(0)
    >>> parameters = Parameters(*(t.requires_grad_() for t in network.initial(3, generator)))
    >>> gradient = Backpropagation(network, parameters, network.prior_precision(), data_rows=10)
    >>> gradient(torch.zeros(3, 4, 2), torch.zeros(3, 4, 1)).shape, parameters.theta.grad.shape
    (torch.Size([3]), torch.Size([3, 42]))
    """

    def __init__(self, network: Network, parameters: Parameters, precision: Float[Tensor, " P"], data_rows: int) -> None:
        self._network, self._parameters = network, parameters
        self._activation = find_activation(network.activation)
        self._theta, self._shrinkage = parameters.theta.detach(), precision / data_rows
        self._gradient = torch.zeros_like(self._theta)
        self._weights, self._biases = network.unflatten(self._theta)
        self._weight_gradients, self._bias_gradients = network.unflatten(self._gradient)
        parameters.theta.grad = self._gradient
        self._rows, self._memory = 0, self._allocate(0)

    def _allocate(self, rows: int) -> tuple[list[Tensor], list[Tensor]]:
        members = self._theta.shape[0]
        return (
            [self._theta.new_empty(members, rows, width) for width in self._network.hidden],
            [self._theta.new_empty(members, rows, width) for width in self._network.hidden],
        )

    def __call__(self, x: Float[Tensor, "K R D"], y: Float[Tensor, "K R E"]) -> Float[Tensor, " K"]:
        """Put the gradient into `grad` of the parameters and return each network's nll, averaged over its rows."""
        values, slopes, columns = self._forward(x)
        noise = self._parameters.noise
        noise.grad = None
        nll = self._network.nll(columns.requires_grad_(), noise, y).mean(1)
        (nll + self._network.noise.penalty(noise)).sum().backward()
        assert columns.grad is not None
        self._backward(values, slopes, columns.grad)
        return nll.detach()

    @torch.no_grad()
    def _forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        if x.shape[1] != self._rows:
            self._rows, self._memory = x.shape[1], self._allocate(x.shape[1])
        values, slopes = [x], []
        for weight, bias, before, spare in zip(self._weights, self._biases, *self._memory, strict=False):
            torch.baddbmm(bias, values[-1], weight, out=before)
            value, slope = self._activation.with_slope(before, spare)
            values.append(value)
            slopes.append(slope)
        return values, slopes, torch.baddbmm(self._biases[-1], values[-1], self._weights[-1])

    @torch.no_grad()
    def _backward(self, values: list[Tensor], slopes: list[Tensor], delta: Tensor) -> None:
        for layer in reversed(range(len(values))):
            torch.bmm(values[layer].mT, delta, out=self._weight_gradients[layer])
            torch.sum(delta, 1, keepdim=True, out=self._bias_gradients[layer])
            if layer > 0:
                # This layer's values have served; their memory takes the gradient.
                delta = torch.bmm(delta, self._weights[layer].mT, out=values[layer]).mul_(slopes[layer - 1])
        self._gradient.addcmul_(self._theta, self._shrinkage)
