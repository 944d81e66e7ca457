import json
from pathlib import Path

import pytest
import torch

from bayesdyn.errors import NumericalError, ShapeError
from bayesdyn.gaussian_processes import sparse_bounds
from bayesdyn.gaussian_processes.likelihood import negative_log_likelihood
from bayesdyn.gaussian_processes.sparse_bounds import collapsed_loss, fitc_loss
from bayesdyn.gaussian_processes.sparse_evaluator import gather, inducing_prior, negative_bound, negative_log_evidence
from bayesdyn.gaussian_processes.sparse_inducing import choose_points, greedy_subset
from bayesdyn.gaussian_processes.sparse_objectives import FITC, Automatic, Collapsed
from bayesdyn.gaussian_processes.sparse_svgp import Stochastic, _Training
from bayesdyn.gaussian_processes.sparse_training import SparseProblem, train_points
from bayesdyn.gaussian_processes.training import GPTraining, Hyperparameters
from bayesdyn.kernels import RBF, KernelParameters, Matern32, Matern52, RBFLinear, covariance, prior_variance
from bayesdyn.linalg import add_diagonal
from bayesdyn.posteriors.exact_gp import ExactGP
from bayesdyn.posteriors.sparse_gp import SparseGP

F64 = torch.float64
KERNELS = [RBF(), Matern32(), Matern52(), RBFLinear()]
LOSSES = [collapsed_loss, fitc_loss]
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pilco" / "fitc.json").read_text())["likelihood"]
QUICK = GPTraining(max_steps=30, restarts=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(rows: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = generator(seed)
    x = torch.randn(rows, 2, generator=random, dtype=F64)
    y = torch.stack([torch.sin(1.5 * x[:, 0]) + 0.3 * x[:, 1], torch.cos(x[:, 1] + x[:, 0])], 1)
    return x, y + 0.1 * torch.randn(rows, 2, generator=random, dtype=F64)


def parameters(kernel=RBF()) -> KernelParameters:
    linear = torch.tensor([0.3, 0.05] if kernel.linear else [0.0, 0.0], dtype=F64)
    return KernelParameters(torch.tensor([[0.7, 1.2], [2.0, 0.9]], dtype=F64), torch.tensor([1.3, 0.6], dtype=F64), linear)


def first(values: KernelParameters) -> KernelParameters:
    return KernelParameters(*(t[:1] for t in values))


def loss_of(loss, kernel, values: KernelParameters, z, x, y, noise, ridge: float = 1e-6) -> torch.Tensor:
    gram = add_diagonal(covariance(kernel, values, z, z), torch.full((1,), ridge, dtype=F64))
    return loss(kernel, x, y, z, gram[0], noise, values)


# --- the objectives


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_losses_are_their_dense_definitions(kernel):
    (x, y), z, noise = data(), torch.randn(8, 2, generator=generator(3), dtype=F64), torch.tensor(0.05, dtype=F64)
    values, eye = first(parameters(kernel)), torch.eye(40, dtype=F64)
    k_zz, k_zx = covariance(kernel, values, z, z)[0] + 1e-6 * torch.eye(8, dtype=F64), covariance(kernel, values, z, x)[0]
    low_rank = k_zx.mT @ torch.linalg.solve(k_zz, k_zx)
    gap = prior_variance(values, x)[0] - low_rank.diagonal()

    def nll(cov):
        return -torch.distributions.MultivariateNormal(torch.zeros(40, dtype=F64), cov).log_prob(y[:, 0])

    bound = nll(low_rank + noise * eye) + gap.sum() / (2 * noise)
    torch.testing.assert_close(loss_of(collapsed_loss, kernel, values, z, x, y[:, 0], noise), bound, rtol=1e-10, atol=1e-9)
    fitc = nll(low_rank + torch.diag(gap) + noise * eye)
    torch.testing.assert_close(loss_of(fitc_loss, kernel, values, z, x, y[:, 0], noise), fitc, rtol=1e-10, atol=1e-9)
    exact = negative_log_likelihood(kernel, x, y[:, :1], *values, noise.reshape(1))
    assert float(bound) > float(exact)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_gradients_agree_with_finite_differences(kernel, loss, monkeypatch):
    monkeypatch.setattr(sparse_bounds, "_CHUNK_BYTES", 5 * 5 * 8)  # 12 rows in chunks of 5
    (x, y), z = data(12), torch.randn(5, 2, generator=generator(3), dtype=F64)
    given = [t.requires_grad_() for t in (z, *first(parameters(kernel)), torch.tensor(0.05, dtype=F64))]

    def value(z, lengthscale, signal_var, linear_var, noise):
        return loss_of(loss, kernel, KernelParameters(lengthscale, signal_var, linear_var), z, x, y[:, 0], noise)

    assert torch.autograd.gradcheck(value, given, rtol=1e-4, atol=1e-6)


def test_fitc_likelihood_and_gradient_agree_with_pilco():
    x, y, log_hyp, z = (torch.tensor(GOLDEN[name], dtype=F64) for name in ("inputs", "targets", "log_hyp", "induce"))
    z.requires_grad_()
    total = torch.zeros((), dtype=F64)
    for output in range(y.shape[1]):
        own = log_hyp[:, output : output + 1]
        values = KernelParameters(own[:-2].exp().mT, (2 * own[-2]).exp(), torch.zeros(1, dtype=F64))
        total = total + loss_of(fitc_loss, RBF(), values, z, x, y[:, output], (2 * own[-1, 0]).exp())
    (gradient,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(total, torch.tensor(GOLDEN["nlml"], dtype=F64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, torch.tensor(GOLDEN["grad"], dtype=F64), rtol=1e-8, atol=1e-8)


def test_the_bound_is_tight_when_every_row_is_an_inducing_point():
    (x, y), noise = data(), torch.tensor(0.05, dtype=F64)
    exact = negative_log_likelihood(RBF(), x, y[:, :1], *first(parameters()), noise.reshape(1)).squeeze()
    # The ridge r leaves gaps of at most r per row: 40 r/(2σ²) = 4e-8.
    for loss in LOSSES:
        tight = loss_of(loss, RBF(), first(parameters()), x, x, y[:, 0], noise, ridge=1e-10)
        torch.testing.assert_close(tight, exact, rtol=0, atol=1e-6)


def test_the_sum_over_chunks_is_the_same_bound():
    (x, y), z, noise = data(), torch.randn(2, 8, 2, generator=generator(3), dtype=F64), torch.tensor([0.05, 0.02], dtype=F64)
    prior = inducing_prior(RBF(), parameters(), z, torch.full((2,), 1e-6, dtype=F64))
    for objective, loss in ((Collapsed(), collapsed_loss), (FITC(), fitc_loss)):
        evidence = gather(prior, objective.row_noise, noise, x, y)
        total = negative_log_evidence(evidence, 40) if loss is fitc_loss else negative_bound(prior, noise, x, y)
        for output in range(2):
            own = KernelParameters(*(t[output : output + 1] for t in parameters()))
            one = loss_of(loss, RBF(), own, z[output], x, y[:, output], noise[output])
            torch.testing.assert_close(total[output], one, rtol=1e-10, atol=1e-9)


def elbo(gp: SparseGP, x, y, mean, root) -> torch.Tensor:
    """Σ_n E_q log N(y_n | f_n, σ²) - KL(q(v) || N(0, I)) of the first output."""
    w = gp.whitening[0] @ covariance(gp.kernel, gp.kernel_parameters, gp.inducing_points, x)[0]
    var = prior_variance(gp.kernel_parameters, x)[0] - w.square().sum(0) + (root.mT @ w).square().sum(0)
    noise = gp.noise_var[0]
    expected = torch.distributions.Normal(mean @ w, noise.sqrt()).log_prob(y[:, 0]).sum() - 0.5 * var.sum() / noise
    kl = 0.5 * (root.square().sum() + mean @ mean - len(mean) - 2 * torch.linalg.slogdet(root)[1])
    return expected - kl


def test_q_maximises_the_elbo_which_then_equals_the_collapsed_bound():
    (x, y), z, noise = data(), torch.randn(8, 2, generator=generator(3), dtype=F64), torch.tensor([0.05, 0.02], dtype=F64)
    values = parameters()
    gp = SparseGP.from_hyperparameters(x, y, z, values.lengthscale, values.signal_var, noise)
    mean, root = gp.mean[0].clone().requires_grad_(), gp.root[0].clone().requires_grad_()
    best = elbo(gp, x, y, mean, root)
    bound = -loss_of(collapsed_loss, RBF(), first(values), z, x, y[:, 0], noise[0], ridge=float(gp.ridge[0]))
    torch.testing.assert_close(best, bound, rtol=1e-9, atol=1e-9)
    for gradient in torch.autograd.grad(best, (mean, root)):
        assert float(gradient.abs().max()) < 1e-7


# --- inducing points


def test_greedy_points_are_the_rows_of_largest_remaining_variance():
    x = data(30)[0]
    chosen = greedy_subset(Matern32(), parameters(), x, 10)
    for output in range(2):
        own = KernelParameters(*(t[output : output + 1] for t in parameters()))
        for count in range(1, 10):
            known = chosen[output, :count]
            gain = torch.linalg.solve(covariance(Matern32(), own, known, known)[0], covariance(Matern32(), own, known, x)[0])
            residual = prior_variance(own, x)[0] - (covariance(Matern32(), own, known, x)[0] * gain).sum(0)
            assert torch.equal(chosen[output, count], x[residual.argmax()])


def test_greedy_points_bound_better_than_random_ones():
    (x, y), noise = data(400), torch.tensor([0.01, 0.01], dtype=F64)
    ridge = torch.full((2,), 1e-6, dtype=F64)
    greedy = negative_bound(inducing_prior(RBF(), parameters(), choose_points(RBF(), parameters(), x, 30), ridge), noise, x, y)
    for seed in range(5):
        subset = x[torch.randperm(400, generator=generator(seed))[:30]].expand(2, -1, -1)
        random = negative_bound(inducing_prior(RBF(), parameters(), subset, ridge), noise, x, y)
        assert bool((greedy < random).all())


def test_repeated_rows_are_chosen_once_and_few_rows_all():
    x = data(6)[0].repeat(5, 1)
    chosen = choose_points(RBF(), parameters(), x, 20)
    assert chosen.shape == (2, 6, 2)
    assert torch.equal(torch.unique(chosen[0], dim=0), torch.unique(x, dim=0))


# --- training


@pytest.mark.parametrize("objective", [Collapsed(150), FITC(150)], ids=lambda o: type(o).__name__)
@pytest.mark.usefixtures("unchecked_shapes")
def test_training_improves_on_its_start_and_reports_the_bound_it_reached(objective):
    (x, y), loss = data(80), {"Collapsed": collapsed_loss, "FITC": fitc_loss}[type(objective).__name__]
    gp = SparseGP(inducing=10, objective=objective, training=QUICK)
    report = gp.fit(x, y)
    total = 0.0
    for output in range(2):
        own = KernelParameters(*(t[output : output + 1] for t in gp.kernel_parameters))
        ridge, z = float(gp.ridge[output]), gp.inducing_points[output]
        total += loss_of(loss, RBF(), own, z, x, y[:, output], gp.noise_var[output], ridge=ridge).item()
        curve = report.curves[f"loss of output {output}"]
        assert min(curve) < curve[0] - 0.01
    assert report.nll == pytest.approx(total / 80, rel=1e-8)
    assert report.nll + report.penalty == pytest.approx(sum(min(report.curves[f"loss of output {o}"]) for o in range(2)), rel=1e-8)
    assert report.steps == sum(map(len, report.curves.values()))
    assert min(report.r2_train) > 0.9
    assert report.jitter == tuple(gp.ridge.tolist())


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_bound_at_its_optimum_is_no_better_than_the_exact_optimum_and_close_with_enough_points():
    x, y = data(80)
    exact = ExactGP().fit(x, y)
    sparse = SparseGP(inducing=60, objective=Collapsed(200)).fit(x, y)
    loss, best = sparse.nll + sparse.penalty, exact.nll + exact.penalty
    # The exact search stops when it gains less than 1e-10, relatively; the ridge costs up to 1e-6/(2σ²) = 5e-5 nats per row.
    assert best - 1e-6 < loss < best + 1e-3


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_stochastic_loss_on_all_rows_is_the_collapsed_loss_with_its_gradient(kernel):
    # q(v) starts at its optimum, where the derivative through q vanishes, so the gradients to θ and Z must agree as well.
    (x, y), z = data(), torch.randn(2, 8, 2, generator=generator(3), dtype=F64)
    noise = torch.tensor([0.05, 0.02], dtype=F64)
    problem = SparseProblem(kernel, x, y, Hyperparameters(parameters(kernel), noise), z, QUICK)
    training = _Training(problem, Stochastic())
    ours, z = training.gp.read(), z.clone().requires_grad_()
    loss = torch.zeros((), dtype=F64)
    for output in range(2):
        own = KernelParameters(*(t[output : output + 1] for t in ours.kernel))
        ridge = training.strategy.jitter_val
        loss = loss + loss_of(collapsed_loss, kernel, own, z[output], x, y[:, output], ours.noise_var[output], ridge=ridge)
    loss = (loss + training._penalty().sum()) / 40
    stochastic = training._loss(torch.arange(40))
    # GPyTorch adds the ridge, some 3e-6, to every k_nn as well, over 2σ² >= 0.04.
    torch.testing.assert_close(stochastic, loss, rtol=0, atol=3e-4)
    raw = list(training.gp.parameters())
    expected = torch.autograd.grad(loss, [*raw, z])
    found = torch.autograd.grad(stochastic, [*raw, training.strategy.inducing_points])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3 * max(1.0, float(b.abs().max())))


@pytest.mark.slow
def test_stochastic_training_comes_close_to_the_collapsed_bound():
    x, y = data(300)
    start = SparseGP(inducing=10, objective=Stochastic(steps=1, rate=1e-9), training=QUICK).fit(x, y, generator=generator())
    collapsed = SparseGP(inducing=10, objective=Collapsed(200), training=QUICK).fit(x, y)
    stochastic = SparseGP(inducing=10, objective=Stochastic(steps=400, batch=100, rate=0.03), training=QUICK)
    report = stochastic.fit(x, y, generator=generator())
    first, best, reached = (r.nll + r.penalty for r in (start, collapsed, report))
    # Adam's last steps are slow: four fifths of what there was to gain, and nothing beyond the optimum of the same loss.
    assert best - 1e-3 < reached < best + 0.2 * (first - best)
    assert len(report.curves["minibatch loss"]) == 200


def test_stochastic_training_depends_on_its_generator_alone():
    (x, y), state = data(60), torch.random.get_rng_state()
    gps = [SparseGP(inducing=8, objective=Stochastic(steps=5, batch=16), training=QUICK) for _ in range(3)]
    for gp, seed in zip(gps, (0, 0, 1), strict=True):
        gp.fit(x, y, generator=generator(seed))
    assert torch.equal(gps[0].inducing_points, gps[1].inducing_points)
    assert not torch.equal(gps[0].inducing_points, gps[2].inducing_points)
    assert torch.equal(state, torch.random.get_rng_state())


def test_stochastic_parameters_stay_inside_their_bounds():
    x, y = data(60)
    training = GPTraining(lengthscale=(0.9, 1.1), noise_var=(0.3, 0.31), max_steps=5, restarts=0)
    gp = SparseGP(inducing=8, objective=Stochastic(steps=30, batch=30, rate=0.3), training=training)
    report = gp.fit(x, y, generator=generator())
    assert bool(((gp.lengthscale >= 0.9 - 1e-9) & (gp.lengthscale <= 1.1 + 1e-9)).all())
    assert bool(((gp.noise_var >= 0.3 - 1e-9) & (gp.noise_var <= 0.31 + 1e-9)).all())
    assert any("noise_var" in text for text in report.at_bound)


def test_the_automatic_objective_changes_with_the_number_of_rows():
    x, y = data(30)
    gp = SparseGP(inducing=5, objective=Automatic(20, Collapsed(5), Stochastic(steps=5)), training=QUICK)
    assert "minibatch loss" in gp.fit(x, y, generator=generator()).curves
    assert "loss of output 0" in gp.fit(x[:20], y[:20]).curves


def test_a_warm_start_goes_on_from_the_last_fit():
    x, y = data(120)
    gp = SparseGP(inducing=10, objective=Collapsed(100), training=QUICK)
    cold = gp.fit(x, y)
    gp.objective = Collapsed(1)
    warm = gp.fit(x, y, warm_start=True)
    assert warm.nll + warm.penalty <= cold.nll + cold.penalty + 1e-9
    assert warm.steps < 10
    with pytest.raises(ShapeError, match="warm start"):
        gp.fit(x[:, :1], y, warm_start=True)


def test_a_warm_start_takes_new_points_where_new_data_lie():
    x, y = data(60)
    gp = SparseGP(inducing=10, objective=Collapsed(1), training=QUICK)
    gp.fit(x, y)
    gp.fit(x + 20, y, warm_start=True)
    assert bool((gp.inducing_points > 10).all())


def test_more_points_are_taken_when_more_rows_allow_them():
    x, y = data(30)
    gp = SparseGP(inducing=20, objective=Collapsed(5), training=QUICK)
    gp.fit(x[:6], y[:6])
    assert gp.inducing_points.shape[1] == 6
    gp.fit(x, y, warm_start=True)
    assert gp.inducing_points.shape[1] == 20


def test_progress_is_reported_and_bounded():
    x, y = data(40)
    for objective in (Collapsed(5), Stochastic(steps=5)):
        seen: list[tuple[int, int]] = []
        gp = SparseGP(inducing=5, objective=objective, training=QUICK)
        gp.fit(x, y, generator=generator(), progress=lambda done, total, figures: seen.append((done, total)))
        assert all(0 < done <= total for done, total in seen)
        assert [done / total for done, total in seen] == sorted(done / total for done, total in seen)
        assert len(seen) > 5


@pytest.mark.parametrize("objective", [Collapsed(10), FITC(10), Stochastic(steps=10)], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("rows", [2, 5])
def test_a_handful_of_rows_is_enough(objective, rows):
    x, y = data(rows)
    gp = SparseGP(objective=objective, training=QUICK)
    gp.fit(x, y, generator=generator())
    prediction = gp.predict(torch.randn(10, 2, generator=generator(1), dtype=F64))
    assert bool(prediction.mean.isfinite().all())
    assert bool((prediction.epistemic_variance > 0).all())


@pytest.mark.parametrize("objective", [Collapsed(10), FITC(10), Stochastic(steps=10)], ids=lambda o: type(o).__name__)
def test_constant_inputs_duplicate_rows_and_constant_targets_fit(objective):
    x, y = data(20)
    x[:, 1] = 4.2
    x, y = torch.cat([x, x]), torch.cat([y, y])
    y[:, 1] = 0.0
    gp = SparseGP(objective=objective, training=QUICK)
    report = gp.fit(x, y, generator=generator())
    assert gp.inducing_points.shape[1] == 20
    assert report.r2_train[0] > 0.5
    assert bool(gp.predict(x).variance.isfinite().all())
    torch.testing.assert_close(gp.predict(x).mean[:, 1], torch.zeros(40, dtype=F64))
    assert bool(gp.sample(2, generator())(x.unsqueeze(0)).mean.isfinite().all())


def test_a_search_that_was_cut_short_says_so():
    x, y = data(80)
    report = SparseGP(inducing=10, objective=Collapsed(3), training=QUICK).fit(x, y)
    assert any("allow more steps" in text for text in report.warnings)


def test_a_broken_computation_names_the_likely_causes_and_leaves_the_posterior_as_it_was():
    x, y = data(20)
    gp = SparseGP(inducing=5, objective=Collapsed(3), training=QUICK)
    gp.fit(x, y)
    before = gp.predict(x).mean
    with pytest.raises(NumericalError, match="non-finite"):
        gp.fit(1e200 * x, y)
    assert torch.equal(gp.predict(x).mean, before)


def test_the_caller_may_reuse_its_data():
    x, y = data(20)
    gp = SparseGP(inducing=5, objective=Collapsed(3), training=QUICK)
    gp.fit(x, y)
    before = gp.predict(torch.zeros(1, 2, dtype=F64)).mean
    x.zero_()
    y.zero_()
    assert torch.equal(gp.predict(torch.zeros(1, 2, dtype=F64)).mean, before)


def test_points_that_start_outside_the_box_are_moved_into_it():
    x, y = data(20)
    values = Hyperparameters(parameters(), torch.tensor([0.05, 0.05], dtype=F64))
    problem = SparseProblem(RBF(), x, y, values, torch.full((2, 4, 2), 1e3, dtype=F64), QUICK)
    result = train_points(problem, collapsed_loss, 3, None)
    width = x.amax(0) - x.amin(0)
    assert bool((result.points <= x.amax(0) + width + 1e-9).all())
