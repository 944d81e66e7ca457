"""Items of the posterior contract that concern draws: a draw is one function, frozen, and one of n independent ones."""

import torch
from torch import Tensor

from bayesdyn.functions import Function
from bayesdyn.testing.conformance import (
    generator,
    global_randomness_untouched,
    require,
    require_close,
    require_same,
    shape_checks_off,
)
from bayesdyn.testing.posterior_case import PosteriorCase

_OTHER = {torch.float32: torch.float64, torch.float64: torch.float32}
STANDARD_ERRORS = 5.0  # a few hundred comparisons at 6e-7 each: a sound posterior fails once in thousands of seeds


def draws_keep_shapes_and_dtype(case: PosteriorCase) -> None:
    """`sample(n)` maps x [n or 1, ..., D] to mean and var [n, ..., E] in the dtype of x, and `to` casts a copy."""
    (inputs, outputs), components = case.sizes, case.predictive.components
    for n in sorted({1, 2, components, components + 1}):
        function = case.fitted.sample(n, generator(n))
        told = (function.n, function.inputs, function.outputs)
        require(told == (n, inputs, outputs), f"(n, inputs, outputs) = {told}", f"{(n, inputs, outputs)}")
        for leading in {1, n}:
            for batch in ((), (5,), (2, 3)):
                x = torch.randn(leading, *batch, inputs, generator=generator(), dtype=torch.float64).to(case.dtype)
                _require_answer(function, x, [n, *batch, outputs], case.dtype)
    other = _OTHER[case.dtype]
    cast = function.to(dtype=other)
    _require_answer(cast, x.to(other), [n, *batch, outputs], other)
    _require_answer(function, x, [n, *batch, outputs], case.dtype)


def _require_answer(function: Function, x: Tensor, shape: list[int], dtype: torch.dtype) -> None:
    answer = function(x)
    for name, value in (("mean", answer.mean), ("var", answer.var)):
        require(list(value.shape) == shape, f"{name} {list(value.shape)} from {function.n} draws at x {list(x.shape)}", f"{shape}")
        require(value.dtype == dtype, f"{name} in {value.dtype} from x in {x.dtype}", f"{dtype}")


def draws_are_frozen(case: PosteriorCase) -> None:
    """A draw answers the same, bit for bit, after train(), eval(), other draws, other inputs, other randomness and another fit."""
    x, posterior = case.probes.unsqueeze(0), case.fitted
    function = posterior.sample(3, generator(3))
    first = function(x)
    mean, var = first.mean.detach().clone(), first.var.detach().clone()
    torch.rand(5)
    events = {
        "being called again": lambda: function(x),
        "being called at other inputs": lambda: function(x + 1.0),
        "being cast": lambda: function.to(dtype=_OTHER[case.dtype]),
        "train()": posterior.train,
        "eval()": posterior.eval,
        "another sample": lambda: posterior.sample(4, generator(4)),
        "a prediction": lambda: posterior.predict(case.probes),
    }
    for event, happen in events.items():
        happen()
        again = function(x)
        require_same(mean, again.mean, f"means of one draw before and after {event}")
        require_same(var, again.var, f"variances of one draw before and after {event}")
    past = case.refitted
    require_same(past.answer.mean, past.draws(x).mean, "means of one draw before and after another fit")
    require_same(past.answer.var, past.draws(x).var, "variances of one draw before and after another fit")


def draws_ignore_the_mode(case: PosteriorCase) -> None:
    """`sample` and `predict` say the same under train() and eval()."""
    posterior, x = case.fitted, case.probes
    said = []
    for mode in (posterior.train, posterior.eval):
        mode()
        told = posterior.predict(x)
        said.append((posterior.sample(3, generator(3))(x.unsqueeze(0)).mean, told.mean, told.variance))
    for what, trained, evaluated in zip(("draws", "predicted means", "predicted variances"), *said, strict=True):
        require_same(trained, evaluated, f"{what} under train() and eval()")


def draws_come_from_the_generator(case: PosteriorCase) -> None:
    """One generator state gives one sample; sampling, with a generator or without, calling and predicting move no global state."""
    x = case.probes.unsqueeze(0)
    with global_randomness_untouched("a sample"):
        functions = [case.fitted.sample(3, generator(5)) for _ in range(2)]
        case.fitted.sample(3)
    with global_randomness_untouched("a call of a draw"):
        one, two = (f(x) for f in functions)
    require_same(one.mean, two.mean, "means of two samples from one generator state")
    require_same(one.var, two.var, "variances of two samples from one generator state")
    with global_randomness_untouched("a prediction"):
        one_said, two_said = (case.fitted.predict(case.probes).mean for _ in range(2))
    require_same(one_said, two_said, "means of two predictions")


def draws_differ(case: PosteriorCase) -> None:
    """The draws of one sample differ, and so do single draws from other generator states and from no generator."""
    x = case.probes.unsqueeze(0)
    spread = case.fitted.sample(16, generator(6))(x).mean.std(0)
    require(bool((spread > 0).any()), "16 equal draws in one sample", "draws that differ where the posterior is unsure")
    seeded = torch.stack([case.fitted.sample(1, generator(seed))(x).mean[0] for seed in range(16)])
    require(bool((seeded != seeded[0]).any()), "the same draw from 16 generator states", "different ones")
    unseeded = torch.stack([case.fitted.sample(1)(x).mean[0] for _ in range(16)])
    require(bool((unseeded != unseeded[0]).any()), "the same draw from 16 calls without a generator", "different ones")


def single_draws_are_fair(case: PosteriorCase) -> None:
    """`sample(1)`, called 128 times, averages to the mean of one large sample: no draw or member is preferred."""
    x, calls, stream = case.probes[:8].unsqueeze(0), 128, generator(7)
    single = torch.cat([case.fitted.sample(1, stream)(x).mean for _ in range(calls)]).double()
    large = case.fitted.sample(4096, generator(8))(x).mean.double()
    error = large.std(0) * (1 / calls + 1 / len(large)) ** 0.5 + torch.finfo(case.dtype).eps ** 0.5
    off = ((single.mean(0) - large.mean(0)).abs() / error).max()
    require(off < STANDARD_ERRORS, f"a mean of single draws {off:.1f} standard errors off", f"less than {STANDARD_ERRORS:.0f}")


def draws_and_points_are_separate(case: PosteriorCase) -> None:
    """Draw i answers for its own x alone: [1, ...] equals its expansion to n, points may be permuted or split."""
    n, shared = 4, case.probes[:6].unsqueeze(0)
    function = case.fitted.sample(n, generator(9))
    x = shared.repeat(n, 1, 1)
    base = function(x)
    require_close(function(shared).mean, base.mean, "means at x [1, ...] and its expansion to n")
    require_close(function(shared).var, base.var, "variances at x [1, ...] and its expansion to n")
    moved = x.clone()
    moved[2] = case.probes[6:12]
    changed, others = function(moved), [0, 1, 3]
    require_close(changed.mean[others], base.mean[others], "means of draws whose x stayed, when another draw's x moved,")
    require(bool((changed.mean[2] != base.mean[2]).any()), "a draw that ignores its own x [n, ...]", "an answer at that x")
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for what, value in (("means", lambda v: function(v).mean), ("variances", lambda v: function(v).var)):
        whole = value(x)
        require_close(value(x[:, order]), whole[:, order], f"{what} at permuted points")
        require_close(torch.cat([value(x[:, :2]), value(x[:, 2:])], 1), whole, f"{what} at points given in one call and in two")


def draws_are_continuous(case: PosteriorCase) -> None:
    """Over draws, f(x) and f(x + δ) correlate, fully as δ goes to 0: a draw is a function, not noise around the mean."""
    x = case.probes[:16].unsqueeze(0)
    step = torch.nn.functional.normalize(torch.randn(x.shape, generator=generator(10), dtype=torch.float64), dim=-1).to(case.dtype)
    function = case.fitted.sample(256, generator(11))
    here = function(x).mean
    scale = here.double().var(0).mean()
    ratio = {size: float((function(x + size * step).mean - here).double().var(0).mean() / scale) for size in (1e-1, 1e-2, 1e-3)}
    # Var(f(x + δ) - f(x)) / Var f(x) = 2(1 - correlation): 0.02 is a correlation of 0.99.
    shown = ", ".join(f"{r:.2g} at δ = {size}" for size, r in ratio.items())
    falls = ratio[1e-3] <= ratio[1e-2] <= ratio[1e-1]
    require(ratio[1e-3] < 0.02 and falls, f"Var(f(x+δ) - f(x)) / Var f(x) of {shown}", "one that falls with δ, to below 0.02")


def draws_are_differentiable(case: PosteriorCase) -> None:
    """The gradient with respect to x is finite, not zero, and equal to central differences in float64."""
    function = case.fitted.sample(2, generator(12))
    x = case.probes[:10].reshape(2, 5, -1)
    gradient = _gradient(function, x)
    broken = int((~gradient.isfinite()).sum())
    require(broken == 0, f"a gradient with {broken} non-finite values", "finite ones")
    require(bool((gradient != 0).any()), "a gradient of zero everywhere", "one that is not zero")
    exact, x = function.to(dtype=torch.float64), x.double()
    direction = torch.randn(x.shape, generator=generator(13), dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        difference = (_weighted(exact, x + step * direction) - _weighted(exact, x - step * direction)) / (2 * step)
    slope = (_gradient(exact, x) * direction).sum(-1)
    gap, allowed = (slope - difference).abs().max(), 1e-4 * slope.abs().max().clamp_min(1.0)
    require(gap <= allowed, f"a gradient {gap:.3g} away from central differences", f"at most {allowed:.3g}")


def _weighted(function: Function, x: Tensor) -> Tensor:
    """Return a random combination of means and variances, [n, c], so that one gradient tests them all."""
    answer = function(x)
    weight = torch.randn(2, answer.mean.shape[-1], generator=generator(14), dtype=torch.float64).to(x.dtype)
    return (answer.mean * weight[0] + answer.var * weight[1]).sum(-1)


def _gradient(function: Function, x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    value = _weighted(function, x).sum()
    require(value.requires_grad, "an answer that is cut off from x (detached or under no_grad)", "one that is differentiable in x")
    return torch.autograd.grad(value, x)[0]


def variance_is_sane_everywhere(case: PosteriorCase) -> None:
    """Mean and variance are finite and the variance positive, even 1000 times the data's range away."""
    far = case.probes[:16] + 1e3 * (case.x.amax(0) - case.x.amin(0)) * torch.sign(case.probes[:16])
    for where, x in (("on the data", case.probes), ("1000 ranges away", far)):
        answer, said = case.fitted.sample(8, generator(15))(x.unsqueeze(0)), case.fitted.predict(x)
        for what, value in (("a draw's mean", answer.mean), ("the predicted mean", said.mean)):
            require(bool(value.isfinite().all()), f"{what} that is not finite {where}", "a finite one")
        for what, value in (("a draw's var", answer.var), ("the predicted variance", said.variance)):
            sane = bool((value.isfinite() & (value > 0)).all())
            require(sane, f"{what} between {value.min():.3g} and {value.max():.3g} {where}", "finite and positive")


def draws_compile_to_one_graph(case: PosteriorCase) -> None:
    """A call of a draw compiles whole (`fullgraph`), and draws taken later run in the same graph."""
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    x = case.probes.unsqueeze(0)
    torch.compiler.reset()
    with shape_checks_off():
        compiled = torch.compile(lambda function, x: tuple(function(x)), fullgraph=True, backend=count)
        for seed in range(3):
            function = case.fitted.sample(4, generator(seed))
            mean, var = compiled(function, x)
            require_close(mean, function(x).mean, "means of a compiled and a plain call")
            require_close(var, function(x).var, "variances of a compiled and a plain call")
    torch.compiler.reset()
    require(len(graphs) == 1, f"{len(graphs)} graphs for three samples", "one")
