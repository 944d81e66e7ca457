"""A network seen as linear in its parameters: its Jacobian, and `LinearisedFunction`, draws that carry a tangent."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ShapeError
from bayesdyn.functions import Function
from bayesdyn.networks.activations import find_activation
from bayesdyn.networks.function import affine
from bayesdyn.networks.network import Network, Parameters
from bayesdyn.networks.noise import Noise


def jacobian(
    network: Network, theta: Float[Tensor, "1 P"], x: Float[Tensor, "R D"], *, columns: int, first_layer: int = 0
) -> Float[Tensor, "R columns p"]:
    r"""Return ∂(first `columns` of the last layer)/∂(weights and biases from `first_layer` on), in the order of θ, for each row.

    With a = hW + b and G the derivative of the columns with respect to a layer's a:

        ∂/∂W = h ⊗ G,    ∂/∂b = G,    G of the layer below = (G Wᵀ) ∘ act'(a below)

    >>> network = Network(2, (), 1)
    >>> jacobian(network, torch.zeros(1, network.size), torch.tensor([[3.0, 4.0]]), columns=1)
    tensor([[[3., 0., 4., 0., 1., 0.]]])
    """
    weights, biases = network.unflatten(theta)
    activation = find_activation(network.activation)
    before, inputs = [], [x]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        before.append(torch.addmm(bias[0], inputs[-1], weight[0]))
        inputs.append(activation.apply(before[-1]))
    gain = torch.eye(columns, network.widths[-1], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    parts: list[Tensor] = []
    for layer in reversed(range(first_layer, len(weights))):
        parts = [(inputs[layer][:, None, :, None] * gain.unsqueeze(2)).flatten(2), gain, *parts]
        if layer > first_layer:
            gain = (gain @ weights[layer][0].mT) * activation.slope(before[layer - 1]).unsqueeze(1)
    return torch.cat(parts, -1)


class LinearisedFunction(Function):
    r"""n draws f(x) + J(x)δ of a network that is linearised at θ; the noise model stays at θ.

    A tangent is carried along: a = hW + b,  ȧ = hδW + δb + ḣW,  ḣ' = act'(a) ∘ ȧ.

    Weights [1, in, out], biases [1, 1, out] and noise parameters [1, rows, E] are shared; the deviations δW [n, in, out] and
    δb [n, 1, out] are the draws. The last layer's deviations have E columns only, those of the mean.

    Raises `ShapeError` when the number of deviations differs between layers.
    """

    def __init__(
        self,
        weights: Sequence[Float[Tensor, "1 _ _"]],
        biases: Sequence[Float[Tensor, "1 1 _"]],
        weight_deviations: Sequence[Float[Tensor, "_ _ _"]],
        bias_deviations: Sequence[Float[Tensor, "_ 1 _"]],
        noise: Noise,
        noise_parameters: Float[Tensor, "1 rows E"],
        *,
        activation: str,
    ) -> None:
        leads = {deviation.shape[0] for deviation in (*weight_deviations, *bias_deviations)}
        if len(leads) != 1:
            raise ShapeError(f"the deviations of all layers lead with one number of draws; got {sorted(leads)}")
        self.weights, self.biases = tuple(weights), tuple(biases)
        self.weight_deviations, self.bias_deviations = tuple(weight_deviations), tuple(bias_deviations)
        self.noise, self.noise_parameters = noise, noise_parameters
        self.activation = find_activation(activation)
        self.n, self.inputs, self.outputs = leads.pop(), self.weights[0].shape[1], noise_parameters.shape[-1]

    @classmethod
    def around(cls, network: Network, parameters: Parameters, deviations: Float[Tensor, "n P"]) -> "LinearisedFunction":
        """Return the draws θ + δ of the network linearised at θ, for n rows δ."""
        weights, biases = network.unflatten(parameters.theta)
        weight_deviations, bias_deviations = network.unflatten(deviations)
        for layer in (weight_deviations, bias_deviations):
            layer[-1] = layer[-1][..., : network.outputs]
        return cls(
            weights,
            biases,
            weight_deviations,
            bias_deviations,
            network.noise,
            parameters.noise,
            activation=network.activation,
        )

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x, [n or 1, ..., D] -> [n, ..., E], in the dtype of x."""
        self.check_inputs(x)
        lead, batch = x.shape[0], x.shape[1:-1]
        h = x.to(self.noise_parameters.dtype).reshape(lead, math.prod(batch), self.inputs)
        tangent = affine(h, self.weight_deviations[0], self.bias_deviations[0])
        for layer in range(len(self.weights) - 1):
            a = affine(h, self.weights[layer], self.biases[layer])
            through = self.activation.slope(a) * tangent
            h = self.activation.apply(a)
            tangent = affine(h, self.weight_deviations[layer + 1], self.bias_deviations[layer + 1])
            tangent = tangent + through @ self.weights[layer + 1][..., : tangent.shape[-1]]
        mean, log_var = self.noise.split(affine(h, self.weights[-1], self.biases[-1]), self.noise_parameters)
        mean, var = (values.to(x.dtype) for values in torch.broadcast_tensors(mean + tangent, log_var.exp()))
        return Gaussian(mean.reshape(self.n, *batch, self.outputs), var.reshape(self.n, *batch, self.outputs))

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "LinearisedFunction":
        """Return the same draws with their tensors cast or moved."""

        def move(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.to(device=device, dtype=dtype) for tensor in tensors]

        return LinearisedFunction(
            move(self.weights),
            move(self.biases),
            move(self.weight_deviations),
            move(self.bias_deviations),
            self.noise,
            self.noise_parameters.to(device=device, dtype=dtype),
            activation=self.activation.name,
        )
