"""`check_planner`: proves that a planner keeps the contract of the `Planner` seam."""

from collections.abc import Callable

import torch

from bayesdyn.errors import ConfigurationError
from bayesdyn.planners import ActionSpace, Box, Choices, Planner
from bayesdyn.testing import planner_checks
from bayesdyn.testing.conformance import check_contract
from bayesdyn.testing.planner_case import BoxCase, ChoicesCase, PlannerCase

PLANNER_CONTRACT: tuple[Callable[[PlannerCase], None], ...] = (
    planner_checks.plans_keep_shapes_and_dtype,
    planner_checks.actions_stay_in_the_space,
    planner_checks.plans_approach_the_best,
    planner_checks.best_is_what_was_seen,
    planner_checks.plans_come_from_the_generator,
    planner_checks.planners_keep_no_state,
    planner_checks.environments_are_separate,
    planner_checks.constant_scores_are_no_trouble,
    planner_checks.non_finite_candidates_are_dropped,
    planner_checks.failed_plans_repeat_the_last,
    planner_checks.one_finite_candidate_is_enough,
    planner_checks.shifting_keeps_the_rest_of_the_plan,
    planner_checks.plans_keep_to_their_budget,
    planner_checks.a_large_budget_changes_nothing,
    planner_checks.mistakes_are_named,
    planner_checks.scale_of_rewards_does_not_matter,
)

CASES: dict[type[ActionSpace], type[PlannerCase]] = {Box: BoxCase, Choices: ChoicesCase}


def check_planner(
    make_planner: Callable[[], Planner],
    *,
    space: type[ActionSpace] = Box,
    dtype: torch.dtype | None = None,
    better_than: float = 0.95,
    scale_invariant: bool = True,
) -> None:
    """Raise `ConformanceError`, naming the item and what came, unless the planners of `make_planner` keep the contract.

    Each call of `make_planner` returns a new planner of the same settings, for the kind of `space`: `Box`, continuous actions, or
    `Choices`, discrete ones. The items are in `PLANNER_CONTRACT`, one function each; they score sequences by closed forms, so a
    check takes seconds. Dtype: that of the spaces, and so of all sequences (None: float32, then float64).

    What an author states about the planner:
    `better_than`: the share of uniformly drawn sequences that a plan, the third from one state, has to beat on a quadratic;
    `scale_invariant=False`: ten times the reward may give another plan (a fixed temperature).

    >>> from bayesdyn.planners import ICEM
    >>> check_planner(lambda: ICEM(horizon=4, candidates=60), dtype=torch.float64)
    """
    if dtype not in (None, torch.float32, torch.float64):
        raise ConfigurationError(f"check_planner checks torch.float32, torch.float64 or both (None); got {dtype}")
    if space not in CASES:
        raise ConfigurationError(f"check_planner checks planners of Box or of Choices; got space={space}")
    if not 0 < better_than < 1:
        raise ConfigurationError(f"better_than is a share between 0 and 1; got {better_than}")
    name = getattr(make_planner, "__name__", type(make_planner).__name__)
    left_out = () if scale_invariant else (planner_checks.scale_of_rewards_does_not_matter,)
    contract = [item for item in PLANNER_CONTRACT if item not in left_out]
    for one in (torch.float32, torch.float64) if dtype is None else (dtype,):
        check_contract(f"{name} in {one}", contract, CASES[space](make_planner, one, better_than))
