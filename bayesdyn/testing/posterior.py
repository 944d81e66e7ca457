"""`check_posterior`: proves that a posterior keeps the contract of the `Posterior` seam."""

from collections.abc import Callable

import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.posteriors.base import Posterior
from bayesdyn.testing import function_checks, posterior_checks
from bayesdyn.testing.conformance import check_contract
from bayesdyn.testing.posterior_case import PosteriorCase, ToyData, toy_data

CONTRACT: tuple[Callable[[PosteriorCase], None], ...] = (
    posterior_checks.fit_learns_and_reports,
    posterior_checks.predict_keeps_shapes_and_dtype,
    function_checks.draws_keep_shapes_and_dtype,
    function_checks.draws_are_frozen,
    function_checks.draws_come_from_the_generator,
    function_checks.draws_differ,
    function_checks.draws_ignore_the_mode,
    function_checks.draws_and_points_are_separate,
    function_checks.draws_are_continuous,
    function_checks.draws_are_differentiable,
    function_checks.variance_is_sane_everywhere,
    posterior_checks.predict_splits_the_variance,
    posterior_checks.predict_agrees_with_draws,
    function_checks.single_draws_are_fair,
    posterior_checks.epistemic_grows_off_the_data,
    posterior_checks.epistemic_shrinks_with_data,
    posterior_checks.fit_starts_from_scratch,
    posterior_checks.state_dict_holds_everything,
    posterior_checks.mistakes_are_named,
    posterior_checks.row_order_does_not_matter,
    function_checks.draws_compile_to_one_graph,
)


def check_posterior(
    make_posterior: Callable[[], Posterior],
    *,
    dtype: torch.dtype | None = None,
    data: ToyData = toy_data,
    rows: int = 60,
    epistemic: bool = True,
    grows_off_data: bool = True,
    exact_predict: bool = False,
    exact_fit: bool = False,
    feature_error: float = 0.0,
    compiles: bool = True,
) -> None:
    """Raise `ConformanceError`, naming the item and what came, unless the posteriors of `make_posterior` keep the contract.

    Each call of `make_posterior` returns a new, unfitted posterior with settings cheap enough for a test: per dtype there are four
    fits, on `rows` or 4·`rows` rows. The items are in `CONTRACT`, one function each. Dtype: data and inputs are passed in `dtype`
    (None: float32, then float64) and all answers must have it, whatever the posterior works in inside. Statistical items compare
    within 5 standard errors, with fixed seeds.

    What an author states about the posterior:
    `data(N, generator)` returns x [N, D] and y [N, E], whitened, for a posterior that cannot learn the smooth toy function;
    `epistemic=False`: all draws are one function (maximum likelihood);
    `grows_off_data=False`: epistemic variance need not grow away from the data (physics parameters);
    `exact_predict=True`: `predict` is no Monte Carlo mixture, so that only the draws' own error is allowed (ensembles);
    `exact_fit=True`: fitting has a closed form, so that the order of the rows cannot matter;
    `feature_error`: relative error of the draws' std that all draws share (random features that stay the same from call to call);
    `compiles=False`: draws need not compile to one graph.

    >>> from bayesdyn.posteriors.base import Posterior
    >>> check_posterior(Posterior)
    Traceback (most recent call last):
    ...
    bayesdyn.testing.conformance.ConformanceError: Posterior in torch.float32 breaks 'fit_learns_and_reports': ...
    """
    if dtype not in (None, torch.float32, torch.float64):
        raise ConfigurationError(f"check_posterior checks torch.float32, torch.float64 or both (None); got {dtype}")
    name = getattr(make_posterior, "__name__", type(make_posterior).__name__)
    applies: dict[Callable[[PosteriorCase], None], bool] = {
        function_checks.draws_differ: epistemic,
        function_checks.draws_are_continuous: epistemic,
        posterior_checks.epistemic_grows_off_the_data: epistemic and grows_off_data,
        posterior_checks.epistemic_shrinks_with_data: epistemic,
        posterior_checks.row_order_does_not_matter: exact_fit,
        function_checks.draws_compile_to_one_graph: compiles,
    }
    contract = [item for item in CONTRACT if applies.get(item, True)]
    for one in (torch.float32, torch.float64) if dtype is None else (dtype,):
        case = PosteriorCase(make_posterior, one, data, rows, feature_error, exact_predict)
        check_contract(f"{name} in {one}", contract, case)
