"""`NetworkFunction`: draws of any network posterior, evaluated by one batched matrix product per layer."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from bayesdyn.distributions import Gaussian
from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.functions import Function
from bayesdyn.networks import fused
from bayesdyn.networks.activations import Activation, find_activation
from bayesdyn.networks.noise import Noise
from bayesdyn.networks.thinning import cut_out

_CACHED_VALUES = 2**19  # 2 MB in float32, of the order of one core's cache
_FEW_DRAWS = 32  # weights of their own for more would take much memory, and a planner has few rows for each
_FEWEST_ROWS = 128  # below, products of this size lose more than the cache gains


def affine(
    h: Float[Tensor, "a R in"], weight: Float[Tensor, "L in out"], bias: Float[Tensor, "M 1 out"]
) -> Float[Tensor, "b R out"]:
    """Return hW + b for L weight sets in one matrix product; a and L are equal, or one of them is 1."""
    if weight.shape[0] == 1:
        flat = h.reshape(h.shape[0] * h.shape[1], h.shape[2])
        if bias.shape[0] == 1:
            return torch.addmm(bias[0], flat, weight[0]).unflatten(0, h.shape[:2])
        return (flat @ weight[0]).unflatten(0, h.shape[:2]) + bias
    return torch.baddbmm(bias, h.expand(weight.shape[0], -1, -1), weight)


def forward(
    h: Float[Tensor, "a R D"],
    weights: Sequence[Float[Tensor, "_ _ _"]],
    biases: Sequence[Float[Tensor, "_ 1 _"]],
    activation: Activation,
    masks: Sequence[Float[Tensor, "_ _ _"] | None] | None = None,
) -> Float[Tensor, "b R columns"]:
    """Return the last layer's columns of L networks; mask l, [L, 1 or R, width], multiplies the output of hidden layer l.

    Layer by layer in the dtype of its weights.
    """
    last = len(weights) - 1
    for layer in range(last):
        h = activation(affine(h.to(weights[layer].dtype), weights[layer], biases[layer]))
        mask = masks[layer] if masks is not None else None
        if mask is not None:
            h = h * mask
    return affine(h.to(weights[last].dtype), weights[last], biases[last])


class NetworkFunction(Function):
    r"""n networks h ← act(h W_l + b_l) ∘ m_l with a noise model at the end, one per draw.

    Weights [L, in, out], biases [L, 1, out], masks [L, 1, width] and noise parameters [L, rows, E] lead with L weight sets or with
    1 where all draws share a tensor (the body of a last-layer posterior). L divides n: draw i uses set i // (n/L), and the rows of
    a set's draws are folded into one product, so nothing is copied. Without a gradient the activations work in place, and under
    `torch.no_grad()` the compiled kernel takes over where it is installed (`networks.fused`): it differs by rounding.

    Raises `ShapeError` when the leading axes do not fit together and `ConfigurationError` when L does not divide n.

    >>> from bayesdyn.networks import Homoscedastic
    >>> f = NetworkFunction([torch.ones(2, 3, 1)], [torch.zeros(2, 1, 1)], Homoscedastic(), torch.zeros(1, 1, 1), n=4)
    >>> f(torch.ones(1, 5, 3)).mean.shape
    torch.Size([4, 5, 1])
    """

    def __init__(
        self,
        weights: Sequence[Float[Tensor, "_ _ _"]],
        biases: Sequence[Float[Tensor, "_ 1 _"]],
        noise: Noise,
        noise_parameters: Float[Tensor, "_ rows E"],
        *,
        activation: str = "silu",
        masks: Sequence[Float[Tensor, "_ 1 _"] | None] | None = None,
        n: int | None = None,
    ) -> None:
        self.weights, self.biases = tuple(weights), tuple(biases)
        self.masks = None if masks is None else tuple(masks)
        self.noise, self.noise_parameters = noise, noise_parameters
        self.activation = find_activation(activation)
        self.sets = self._count_sets()
        self.n = self.sets if n is None else n
        if self.n < 1 or self.n % self.sets != 0:
            raise ConfigurationError(f"{self.sets} weight sets serve a multiple of {self.sets} draws; got n = {self.n}")
        self.inputs, self.outputs = self.weights[0].shape[1], noise_parameters.shape[-1]
        self.width = max(weight.shape[2] for weight in self.weights)

    def _count_sets(self) -> int:
        leads = {t.shape[0] for t in (*self.weights, *self.biases, self.noise_parameters)}
        leads |= {m.shape[0] for m in self.masks or () if m is not None}
        if len(leads - {1}) > 1:
            raise ShapeError(f"the tensors of a network lead with 1 or with one number of weight sets; got {sorted(leads)}")
        return max(leads)

    def __call__(self, x: Float[Tensor, "k *batch D"]) -> Gaussian:
        """Evaluate all draws at x, [n or 1, ..., D] -> [n, ..., E], in the dtype of x."""
        self.check_inputs(x)
        lead, batch = x.shape[0], x.shape[1:-1]
        blocks = 1 if lead == 1 else self.sets
        h = x.to(self.noise_parameters.dtype).reshape(blocks, lead // blocks * math.prod(batch), self.inputs)
        mean, log_var = self.noise.split(self._columns(h), self.noise_parameters)
        mean, var = (values.to(x.dtype) for values in torch.broadcast_tensors(mean, log_var.exp()))
        if lead == self.n:
            return Gaussian(mean.reshape(self.n, *batch, self.outputs), var.reshape(self.n, *batch, self.outputs))
        return Gaussian(self._repeat(mean, batch), self._repeat(var, batch))

    def _columns(self, h: Float[Tensor, "a R D"]) -> Float[Tensor, "b R columns"]:
        """Return the last layer, by the compiled kernel where that can answer, else by torch's products."""
        kernel = fused.kernel_for(h)
        if kernel is not None and self._fusible:
            return kernel(h, self._packed, self.sets, fused.threads_for(self._packed, self.sets * h.shape[1]))
        parts = [
            forward(rows, self.weights, self.biases, self.activation, self.masks).to(self.noise_parameters.dtype)
            for rows in h.split(self._chunk(h), 1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    @cached_property
    def _fusible(self) -> bool:
        """Whether the compiled kernel knows such networks: float32 throughout, on the CPU, without masks."""
        tensors = (*self.weights, *self.biases)
        return self.masks is None and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)

    @cached_property
    def _packed(self) -> fused.Packed:
        return fused.pack(self.weights, self.biases, self.activation.name)

    def _chunk(self, h: Float[Tensor, "a R D"]) -> int:
        """Rows to evaluate at once: on a CPU, as many as keep a layer's output in the cache; an accelerator takes all."""
        rows = max(1, h.shape[1])
        if h.device.type != "cpu" or torch.compiler.is_compiling():
            return rows
        return min(rows, max(_FEWEST_ROWS, _CACHED_VALUES // (self.sets * self.width)))

    def _repeat(self, values: Tensor, batch: torch.Size) -> Tensor:
        """One answer per weight set -> one per draw."""
        sets, rows, outputs = values.shape
        values = values.unsqueeze(1).expand(sets, self.n // sets, rows, outputs)
        return values.reshape(self.n, *batch, outputs)

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "NetworkFunction":
        """Return the same draws with their tensors cast or moved."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        return self._replace([move] * len(self.weights), move)

    def for_many_rows(self) -> "NetworkFunction":
        """Return few draws of a network with a mask per hidden layer without their dropped units, other draws as they are."""
        masks = [mask for mask in self.masks or () if mask is not None]
        if self.n > _FEW_DRAWS or not masks or len(masks) != len(self.weights) - 1 or self.weights[0].shape[0] != 1:
            return self
        weights, biases = cut_out(self.weights, self.biases, masks)
        return NetworkFunction(weights, biases, self.noise, self.noise_parameters, activation=self.activation.name, n=self.n)

    def with_precision(self, precision: torch.dtype) -> "NetworkFunction":
        """Return the same draws with all layers but the last in `precision`; the last one and the noise stay as they are.

        torch.bfloat16 is fast where the processor or the accelerator has products of it, and right but slow elsewhere. Raises
        `ConfigurationError` for a dtype that is not of floating point.
        """
        if not precision.is_floating_point:
            raise ConfigurationError(f"precision wants a floating-point dtype, torch.bfloat16; got {precision}")

        def coarsen(tensor: Tensor) -> Tensor:
            return tensor.to(precision)

        def keep(tensor: Tensor) -> Tensor:
            return tensor

        return self._replace([*[coarsen] * (len(self.weights) - 1), keep], keep)

    def _replace(self, casts: Sequence[Callable[[Tensor], Tensor]], noise_cast: Callable[[Tensor], Tensor]) -> "NetworkFunction":
        """Return the same draws with each layer's tensors, and those of the noise, put through a cast of their own."""
        masks = None
        if self.masks is not None:
            masks = [None if mask is None else cast(mask) for cast, mask in zip(casts, self.masks, strict=False)]
        return NetworkFunction(
            [cast(weight) for cast, weight in zip(casts, self.weights, strict=True)],
            [cast(bias) for cast, bias in zip(casts, self.biases, strict=True)],
            self.noise,
            noise_cast(self.noise_parameters),
            activation=self.activation.name,
            masks=masks,
            n=self.n,
        )
