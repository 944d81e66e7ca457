"""The shared network function: layouts, noise models, gradients, casting."""

import math

import jaxtyping
import pytest
import torch
from torch.nn import functional

from bayesdyn.errors import ConfigurationError, ShapeError, UnknownNameError
from bayesdyn.networks import (
    ACTIVATIONS,
    Concatenated,
    Heteroscedastic,
    Homoscedastic,
    Network,
    NetworkFunction,
    OutOfBag,
    Parameters,
)

D, E = 3, 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_network(sets: int, hidden: tuple[int, ...] = (7, 5), noise=None, activation: str = "silu") -> tuple[Network, Parameters]:
    network = Network(D, hidden, E, activation, noise or Heteroscedastic())
    theta = torch.randn(sets, network.size, generator=generator(), dtype=torch.float64)
    return network, Parameters(theta, network.noise.start(sets, E).double())


def one_by_one(network: Network, parameters: Parameters, member: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A single network with torch's own linear layers: [R, D] -> mean and variance [R, E]."""
    weights, biases = network.unflatten(parameters.theta)
    activation = {"silu": functional.silu, "tanh": torch.tanh, "relu": torch.relu}[network.activation]
    h = x
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = functional.linear(h, weight[member].T, bias[member, 0])
        h = activation(h) if layer < len(weights) - 1 else h
    mean, log_var = network.noise.split(h.unsqueeze(0), parameters.noise[member : member + 1])
    return mean[0], log_var.exp().expand_as(mean)[0]


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(("sets", "n"), [(1, 1), (1, 4), (4, 4), (2, 6)])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_every_draw_is_the_network_of_its_block(activation: str, sets: int, n: int, batch: tuple[int, ...]) -> None:
    network, parameters = draw_network(sets, activation=activation)
    function = network.function(parameters, n)
    x = torch.randn(n, *batch, D, generator=generator(1), dtype=torch.float64)
    answer, shared = function(x), function(x[:1])
    assert answer.mean.shape == answer.var.shape == (n, *batch, E)
    for draw in range(n):
        mean, var = one_by_one(network, parameters, draw // (n // sets), x[draw].reshape(-1, D))
        torch.testing.assert_close(answer.mean[draw].reshape(-1, E), mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(answer.var[draw].reshape(-1, E), var, rtol=1e-12, atol=1e-12)
        mean, var = one_by_one(network, parameters, draw // (n // sets), x[0].reshape(-1, D))
        torch.testing.assert_close(shared.mean[draw].reshape(-1, E), mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(shared.var[draw].reshape(-1, E), var, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", [Heteroscedastic(), Homoscedastic(), OutOfBag()])
def test_every_noise_model_gives_one_variance_per_output_and_row(noise) -> None:
    network, parameters = draw_network(2, noise=noise)
    answer = network.function(parameters, 4)(torch.randn(4, 6, D, dtype=torch.float64, generator=generator()))
    assert answer.mean.shape == answer.var.shape == (4, 6, E)
    assert bool((answer.var > 0).all())


def test_many_rows_are_answered_like_few() -> None:
    network, parameters = draw_network(2, hidden=(400,))
    x = torch.randn(4, 500, D, generator=generator(1), dtype=torch.float64)
    for n in (2, 4):
        function = network.function(parameters, n)
        for rows in (x[:n], x[:1]):
            whole, few = function(rows), [function(part) for part in rows.split(50, 1)]
            torch.testing.assert_close(whole.mean, torch.cat([part.mean for part in few], 1), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(whole.var, torch.cat([part.var for part in few], 1), rtol=1e-12, atol=1e-12)


def test_no_rows_give_no_answers() -> None:
    network, parameters = draw_network(2)
    assert network.function(parameters, 4)(torch.zeros(4, 0, D, dtype=torch.float64)).mean.shape == (4, 0, E)
    assert network.function(parameters, 4)(torch.zeros(1, 0, D, dtype=torch.float64)).mean.shape == (4, 0, E)


def test_shared_body_and_drawn_last_layer_equal_repeated_weights() -> None:
    network, parameters = draw_network(1)
    weights, biases = network.unflatten(parameters.theta)
    last = weights[-1] + torch.randn(3, *weights[-1].shape[1:], generator=generator(2), dtype=torch.float64)
    drawn = NetworkFunction([*weights[:-1], last], biases, network.noise, parameters.noise)
    whole = NetworkFunction(
        [w.expand(3, -1, -1).contiguous() for w in weights[:-1]] + [last],
        [b.expand(3, -1, -1).contiguous() for b in biases],
        network.noise,
        parameters.noise.expand(3, -1, -1),
    )
    for x in (torch.randn(1, 4, D, dtype=torch.float64), torch.randn(3, 4, D, dtype=torch.float64)):
        torch.testing.assert_close(drawn(x).mean, whole(x).mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(drawn(x).var, whole(x).var, rtol=1e-12, atol=1e-12)


def test_masks_switch_the_same_units_off_for_every_row_of_a_draw() -> None:
    network, parameters = draw_network(1, hidden=(6,))
    weights, biases = network.unflatten(parameters.theta)
    mask = torch.tensor([[[1.0, 0, 1, 1, 0, 1]], [[0.0, 1, 1, 0, 1, 1]]], dtype=torch.float64)
    masked = NetworkFunction(weights, biases, network.noise, parameters.noise, masks=[mask])
    folded = NetworkFunction(
        [weights[0].expand(2, -1, -1), weights[1] * mask.transpose(1, 2)], biases, network.noise, parameters.noise
    )
    x = torch.randn(2, 9, D, generator=generator(3), dtype=torch.float64)
    assert masked.n == 2
    torch.testing.assert_close(masked(x).mean, folded(x).mean, rtol=1e-12, atol=1e-12)


def test_answers_do_not_depend_on_whether_a_gradient_is_wanted_and_x_is_left_alone() -> None:
    network, parameters = draw_network(2)
    function = network.function(parameters, 4)
    x = torch.randn(4, 5, D, generator=generator(4), dtype=torch.float64)
    before = x.clone()
    plain = function(x)
    with_gradient = function(x.clone().requires_grad_())
    assert torch.equal(plain.mean, with_gradient.mean)
    assert torch.equal(plain.var, with_gradient.var)
    assert torch.equal(x, before)


@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_gradient_with_respect_to_x_equals_finite_differences(activation: str) -> None:
    network, parameters = draw_network(2, activation=activation)
    function = network.function(parameters, 4)
    x = torch.randn(4, 2, D, generator=generator(5), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda inputs: tuple(function(inputs)), (x,))


def test_function_transforms_agree_with_autograd() -> None:
    network, parameters = draw_network(2)
    function = network.function(parameters)
    x = torch.randn(2, 1, D, generator=generator(6), dtype=torch.float64)
    tangent = torch.randn(2, 1, D, generator=generator(7), dtype=torch.float64)
    _, forward_mode = torch.func.jvp(lambda inputs: function(inputs).mean, (x,), (tangent,))
    jacobian = torch.autograd.functional.jacobian(lambda inputs: function(inputs).mean, x)
    torch.testing.assert_close(forward_mode, torch.einsum("ncendb,ndb->nce", jacobian, tangent), rtol=1e-10, atol=1e-10)
    each = torch.func.vmap(lambda row: function(row.unsqueeze(1)).mean, in_dims=1)(x.expand(2, 3, D))
    torch.testing.assert_close(each[1], function(x).mean, rtol=1e-12, atol=1e-12)


@pytest.fixture
def shape_checks_off():
    """A compiler cannot trace through the shape checks, which production does not have."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("shape_checks_off")
def test_one_graph_serves_three_resamples() -> None:
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    network, parameters = draw_network(2)
    torch._dynamo.reset()
    compiled = torch.compile(lambda function, x: tuple(function(x)), backend=count, fullgraph=True)
    for seed in range(3):
        theta = torch.randn(parameters.theta.shape, generator=generator(seed), dtype=torch.float64)
        function = network.function(Parameters(theta, parameters.noise), 4)
        x = torch.randn(4, 5, D, generator=generator(seed), dtype=torch.float64)
        torch.testing.assert_close(compiled(function, x)[0], function(x).mean, rtol=1e-12, atol=1e-12)
    assert len(graphs) == 1


def test_casting_returns_new_draws_and_leaves_the_old_ones() -> None:
    network, parameters = draw_network(2)
    function = network.function(parameters, 4)
    single = function.to(dtype=torch.float32)
    x = torch.randn(4, 5, D, generator=generator(8), dtype=torch.float64)
    assert single(x.float()).mean.dtype == single(x.float()).var.dtype == torch.float32
    assert function(x).mean.dtype == torch.float64
    assert single.n == 4
    torch.testing.assert_close(single(x.float()).mean.double(), function(x).mean, rtol=1e-3, atol=1e-3)


def test_blocks_share_the_stored_weights() -> None:
    network, parameters = draw_network(2)
    function = network.function(parameters, 6)
    storage = parameters.theta.untyped_storage().data_ptr()
    assert all(w.untyped_storage().data_ptr() == storage for w in (*function.weights, *function.biases))


def test_leading_axes_that_do_not_fit_are_refused() -> None:
    network, parameters = draw_network(2)
    weights, biases = network.unflatten(parameters.theta)
    with pytest.raises(ConfigurationError, match="multiple of 2"):
        network.function(parameters, 5)
    with pytest.raises(ShapeError, match=r"\[2, 3\]"):
        NetworkFunction(weights, biases, network.noise, torch.zeros(3, 3, E, dtype=torch.float64))
    with pytest.raises(ShapeError, match="or 1"):
        network.function(parameters, 4)(torch.zeros(3, 5, D, dtype=torch.float64))


def test_unknown_activations_and_empty_layers_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="silu, tanh, relu"):
        Network(D, (4,), E, "swish2")
    with pytest.raises(ConfigurationError, match="width"):
        Network(D, (4, 0), E)


def test_log_variance_stays_within_its_learned_bounds() -> None:
    noise = Heteroscedastic()
    raw = torch.linspace(-1e6, 1e6, 2001).reshape(1, -1, 1)
    _, log_var = noise.split(torch.cat([raw, raw], -1), noise.start(1, 1))
    # softplus(η_max - η_min) exceeds η_max - η_min by log(1 + e^-10.5) = 2.8e-5.
    assert float(log_var.max()) <= 0.5 + 3e-5
    assert float(log_var.min()) >= -10.0
    assert float(log_var.exp().max()) <= 1.65
    # In the middle, a column of -2 around the centre -2 that training starts from, the bounds hardly bend it.
    _, middle = noise.split(torch.tensor([[[0.0, -2.0]]]), noise.start(1, 1))
    assert float(middle) == pytest.approx(-4.0 - math.log1p(math.exp(-4.5)) + math.log1p(math.exp(-6.0)), abs=1e-4)


def test_prior_precision_is_the_fan_in_of_each_weight_and_one_for_biases() -> None:
    network = Network(D, (4,), E)
    weights, biases = network.unflatten(network.prior_precision().unsqueeze(0))
    assert [float(w.min()) for w in weights] == [float(w.max()) for w in weights] == [3.0, 4.0]
    assert all(bool((b == 1).all()) for b in biases)


def test_networks_start_as_draws_from_the_prior() -> None:
    network = Network(10, (200, 200), 3)
    weights, biases = network.unflatten(network.initial(5, generator()).theta)
    for weight in weights:
        # The variance of m standard normals has standard error √(2/m).
        scaled = weight.square().mean() * weight.shape[1]
        assert abs(float(scaled) - 1) < 5 * math.sqrt(2 / weight.numel())
    assert all(bool((b == 0).all()) for b in biases)


def test_concatenated_draws_are_the_draws_of_the_parts() -> None:
    network, parameters = draw_network(2)
    parts = [network.function(parameters, 4), network.function(parameters.select(torch.tensor([1])))]
    function = Concatenated(parts)
    x = torch.randn(5, 3, D, generator=generator(9), dtype=torch.float64)
    assert function.n == 5
    assert torch.equal(function(x).mean[:4], parts[0](x[:4]).mean)
    assert torch.equal(function(x).var[4:], parts[1](x[4:]).var)
    assert torch.equal(function(x[:1]).mean, torch.cat([part(x[:1]).mean for part in parts]))
    assert function.to(dtype=torch.float32)(x.float()).mean.dtype == torch.float32
    with pytest.raises(ShapeError, match="5 or 1"):
        function(x[:4])
    with pytest.raises(ConfigurationError, match="at least one"):
        Concatenated([])


def test_functions_of_different_sizes_cannot_be_concatenated() -> None:
    network, parameters = draw_network(1)
    other = Network(D + 1, (3,), E)
    with pytest.raises(ShapeError, match="differ"):
        Concatenated([network.function(parameters), other.function(other.initial(1, generator()))])
