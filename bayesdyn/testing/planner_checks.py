"""Items of the planner contract: what a plan is, what it must find, what it may depend on, and what it survives."""

from copy import deepcopy

import torch
from torch import Tensor

from bayesdyn.errors import ConfigurationError, ShapeError
from bayesdyn.planners import ActionSpace, Budget, Plan
from bayesdyn.testing.conformance import generator, global_randomness_untouched, require, require_same, shape_checks_off
from bayesdyn.testing.planner_case import PlannerCase, Slow, Spy, extremes, inside, poisoned, same_start, share_of


def plans_keep_shapes_and_dtype(case: PlannerCase) -> None:
    """A plan holds sequences [T, B, A] and scores [B], asked for with candidates [T, B, c, A], all in the dtype of the space."""
    horizon, spy = case.make().horizon, Spy(case.quadratic(case.unit, [[0.5, 0.5]] * 3))
    plan = case.plan(spy, case.unit, batch=3)
    for asked in spy.asked:
        require((asked.shape[:2], asked.shape[3]) == ((horizon, 3), 2), f"candidates {list(asked.shape)}", f"[{horizon}, 3, c, 2]")
        require(asked.dtype == case.dtype, f"candidates in {asked.dtype}", f"{case.dtype}")
    for name, shape in (("actions", (horizon, 3, 2)), ("mean", (horizon, 3, 2)), ("best", (horizon, 3, 2)), ("score", (3,))):
        value = getattr(plan, name)
        require(value.shape == shape, f"{name} {list(value.shape)}", f"{list(shape)}")
        require(value.dtype == case.dtype, f"{name} in {value.dtype}", f"{case.dtype}")
    require(plan.best_score.shape == (3,), f"best_score {list(plan.best_score.shape)}", "[3]")
    require(plan.failed.dtype == torch.bool and plan.failed.shape == (3,), f"failed {plan.failed}", "3 truth values")
    require(plan.warm_start.mean.shape == (horizon, 3, 2), f"a warm start {list(plan.warm_start.mean.shape)}", f"[{horizon}, 3, 2]")
    asked_for = sum(asked.shape[1] * asked.shape[2] for asked in spy.asked)
    require(plan.candidates == asked_for, f"{plan.candidates} candidates in the plan", f"the {asked_for} that were scored")


def actions_stay_in_the_space(case: PlannerCase) -> None:
    """Every candidate and every planned action belongs to the space, be it asymmetric, degenerate or different per dimension."""
    for space in case.odd:
        low, high = extremes(space)
        for target in (low - 1, high + 1):
            spy = Spy(lambda actions, target=target: -(actions - target).square().sum((0, 3)))
            plan = case.plan(spy, space, batch=2, plans=2)
            for name, sequences in (("planned actions", plan.actions), ("a mean", plan.mean), ("a best sequence", plan.best)):
                _require_inside(sequences.unsqueeze(2), space, name)
            for asked in spy.asked:
                _require_inside(asked, space, "candidates")


def _require_inside(sequences: Tensor, space: ActionSpace, name: str) -> None:
    off = (space.clip(sequences) - sequences).abs().max()
    low, high = (end.tolist() for end in extremes(space))
    require(inside(sequences, space), f"{name} {off:.3g} off the action space", f"all of them in it, {low} to {high}")


def plans_approach_the_best(case: PlannerCase) -> None:
    """On quadratics with the best sequence inside the space and at its ends, a plan beats nearly all uniform sequences."""
    space = case.lopsided
    for where, share in (("inside the space", [[0.7, 0.3]]), ("at its ends", [[1.5, -0.6]])):
        evaluate = case.quadratic(space, share)
        plan = case.plan(evaluate, space, plans=3)
        beaten = case.share_beaten(evaluate, space, plan.actions).min()
        came = f"a plan better than {100 * beaten:.1f} % of uniform sequences, with the best one {where}"
        require(beaten >= case.better_than, came, f"at least {100 * case.better_than:g} %")


def best_is_what_was_seen(case: PlannerCase) -> None:
    """`best` is the best candidate that was scored, and `best_score` its score."""
    # One environment: a search that has ended for one of several may ignore what the others still ask for.
    spy = Spy(case.quadratic(case.unit, [[0.7, 0.4]]))
    plan = case.plan(spy, case.unit)
    seen = torch.cat(spy.answered, 1).amax(1)
    require_same(plan.best_score, seen, "best scores in the plan and among the candidates")
    again = spy.evaluate(plan.best.unsqueeze(2)).squeeze(1)
    gap = (again - plan.best_score).abs().max()
    allowed = 100 * torch.finfo(case.dtype).eps * plan.best_score.abs().max().clamp_min(1)
    require(gap <= allowed, f"a best sequence whose score is {gap:.3g} off best_score", "its own score")


def plans_come_from_the_generator(case: PlannerCase) -> None:
    """One generator state gives one plan; with a generator or without, no global random state moves."""
    evaluate = case.quadratic(case.unit, [[0.7, 0.4]])
    first, second = case.plan(evaluate, case.unit, seed=3), case.plan(evaluate, case.unit, seed=3)
    require_same(first.actions, second.actions, "actions of two plans from one generator state")
    planner = case.make()
    with global_randomness_untouched("a plan without a generator"):
        planner.plan(evaluate, planner.start(case.unit))


def planners_keep_no_state(case: PlannerCase) -> None:
    """A plan depends on what it was given alone: not on earlier plans, and it leaves the warm start that it was given as it was."""
    planner, evaluate = case.make(), case.quadratic(case.unit, [[0.7, 0.4]])
    other = case.quadratic(case.unit, [[0.1, 0.95]])
    start = planner.start(case.unit)
    first = planner.plan(evaluate, start, generator(4))
    require(same_start(start, planner.start(case.unit)), "a warm start that the plan changed", "it left as it was")
    used = first.warm_start
    before = deepcopy(used)
    again = planner.plan(evaluate, planner.start(case.unit), generator(4))
    require_same(first.actions, again.actions, "actions of one plan made twice by the same planner")
    planner.plan(other, planner.shift(used), generator(5))
    require(same_start(used, before), "a warm start that shift and the next plan changed", "it left as it was")
    again = planner.plan(evaluate, planner.start(case.unit), generator(4))
    require_same(first.actions, again.actions, "actions of one plan, before and after others by the same planner,")


def environments_are_separate(case: PlannerCase) -> None:
    """The plan for one environment does not depend on the others in the batch."""
    shares = torch.rand((9, 2), generator=generator(6), dtype=case.dtype)
    together = case.plan(case.quadratic(case.unit, shares), case.unit, batch=9, plans=2)
    allowed = 1e-9 if case.dtype == torch.float64 else 1e-4
    for b in (0, 4, 8):
        alone = case.plan(case.quadratic(case.unit, shares[b : b + 1]), case.unit, plans=2)
        for name in ("actions", "mean", "best", "score", "best_score"):
            one, all_ = getattr(alone, name), getattr(together, name)
            gap = (one - (all_[b : b + 1] if one.dim() == 1 else all_[:, b : b + 1])).abs().max()
            require(gap <= allowed, f"{name} that differ by {gap:.3g} when planned alone and among 9", f"at most {allowed}")


def constant_scores_are_no_trouble(case: PlannerCase) -> None:
    """Where all candidates are worth the same, the plan is finite and not failed."""
    plan = case.plan(lambda actions: torch.full(actions.shape[1:3], 1e4, dtype=case.dtype) + 0 * actions.sum((0, 3)), case.unit)
    _require_finite(plan)
    require(not bool(plan.failed.any()), "a failed plan from constant scores", "one that is not")


def _require_finite(plan: Plan) -> None:
    for name in ("actions", "mean", "best"):
        broken = int((~getattr(plan, name).isfinite()).sum())
        require(broken == 0, f"{broken} non-finite numbers in {name}", "none")


def non_finite_candidates_are_dropped(case: PlannerCase) -> None:
    """Candidates with NaN, +inf or -inf are dropped: on -10 - (a + 0.5)² with NaN above a = 0.3 the plan is near -0.5."""
    space, evaluate = case.line, poisoned(case.line)
    plan = case.plan(evaluate, space, plans=3)
    _require_finite(plan)
    beaten = case.share_beaten(evaluate, space, plan.actions).min()
    came = f"a first action of {plan.actions[0, 0, 0]:.3g}, better than {100 * beaten:.1f} % of the finite ones"
    require(beaten >= case.better_than, came, f"at least {100 * case.better_than:g} %")
    for value in (torch.inf, -torch.inf):
        plan = case.plan(lambda a, value=value: evaluate(a).nan_to_num(value, posinf=value, neginf=value), space)
        _require_finite(plan)
        require(
            bool(share_of(space, plan.best)[0, 0, 0] <= 0.65),
            f"a best first action of {plan.best[0, 0, 0]:.3g} worth {value}",
            "one with a score",
        )
        require(bool(plan.best_score.isfinite().all()), f"a best score of {plan.best_score.tolist()}", "a finite one")
        require(plan.dropped > 0, "0 dropped candidates in the plan", "those that were worth infinity")


def failed_plans_repeat_the_last(case: PlannerCase) -> None:
    """Where no candidate is finite, `failed` is set and the plan repeats the warm start; other environments do not notice."""
    planner, evaluate = case.make(), case.quadratic(case.unit, [[0.7, 0.4]] * 2)
    start = planner.plan(evaluate, planner.start(case.unit, 2), generator(7)).warm_start
    bad = torch.tensor([[torch.nan], [0.0]], dtype=case.dtype)
    plan = planner.plan(lambda actions: evaluate(actions) + bad, start, generator(8))
    require(plan.failed.tolist() == [True, False], f"failed = {plan.failed.tolist()} where only the first is NaN", "[True, False]")
    require_same(plan.actions[:, 0], start.mean[:, 0], "actions of a failed plan and its warm start")
    require_same(plan.warm_start.mean[:, 0], start.mean[:, 0], "the mean after a failed plan and before")
    require(not bool(plan.score[0] > -torch.inf), f"a score of {plan.score[0]:.3g} for a failed plan", "-inf")
    well = planner.plan(evaluate, start, generator(8))
    require_same(plan.actions[:, 1], well.actions[:, 1], "actions of an environment with and without a failed neighbour")


def one_finite_candidate_is_enough(case: PlannerCase) -> None:
    """If a single candidate is finite, it is the best, and the plan is finite."""
    planner = case.make()

    def lonely(actions: Tensor) -> Tensor:
        scores = case.quadratic(case.unit, [[0.5, 0.5]])(actions)
        return torch.where(torch.arange(scores.shape[1]) == 0, scores, torch.nan)

    spy = Spy(lonely)
    plan = planner.plan(spy, planner.start(case.unit), generator(9))
    _require_finite(plan)
    require(not bool(plan.failed.any()), "a failed plan", "one that is not: a candidate was finite")
    firsts = torch.cat([asked[:, 0, :1] for asked in spy.asked], 1)
    gap = (firsts - plan.best[:, :1, :].reshape(len(firsts), 1, -1)).abs().amax((0, 2)).min()
    require(bool(gap == 0), f"a best sequence {gap:.3g} away from every finite candidate", "one of them")


def scale_of_rewards_does_not_matter(case: PlannerCase) -> None:
    """Ten times the reward gives the same plan."""
    evaluate = case.quadratic(case.unit, [[0.7, 0.4]])
    plain, scaled = case.plan(evaluate, case.unit), case.plan(lambda actions: 10 * evaluate(actions), case.unit)
    gap, allowed = (plain.actions - scaled.actions).abs().max(), 1e-6 if case.dtype == torch.float64 else 1e-3
    require(gap <= allowed, f"actions that moved by {gap:.3g} when rewards were ten times as large", f"at most {allowed}")


def shifting_keeps_the_rest_of_the_plan(case: PlannerCase) -> None:
    """`shift(w, r)` moves plan and elites r steps on and fills the end with actions of the space; two shifts are one of both."""
    planner = case.make()
    space, horizon = case.lopsided, planner.horizon
    evaluate = case.quadratic(space, [[0.2, 0.25]])
    old = planner.plan(evaluate, planner.start(space), generator(10)).warm_start
    for steps in sorted({1, max(1, horizon // 2), horizon, horizon + 3}):
        new = planner.shift(old, steps)
        require(new.mean.shape == old.mean.shape, f"a mean {list(new.mean.shape)} after a shift", f"{list(old.mean.shape)}")
        rest, what = max(horizon - steps, 0), f"after {steps} of {horizon} steps"
        require(torch.equal(new.mean[:rest], old.mean[steps:]), f"another plan {what}", "the rest of the plan, unchanged")
        require(inside(new.mean.unsqueeze(2), space), "fill outside the space", "actions in it")
        if old.elites is not None and new.elites is not None:
            require(torch.equal(new.elites[:rest], old.elites[steps:]), f"other elites {what}", "the rest of the elites, unchanged")
            require(new.stale == min(steps, horizon), f"stale = {new.stale} after {steps} steps", f"{min(steps, horizon)}")
        plan = planner.plan(evaluate, new, generator(11))
        require(inside(plan.actions.unsqueeze(2), space), "a plan outside the space after a shift", "one inside")
    twice, once = planner.shift(planner.shift(old)), planner.shift(old, 2)
    require(same_start(twice, once), "another warm start from two shifts by 1 than from one by 2", "the same")


def plans_keep_to_their_budget(case: PlannerCase) -> None:
    """Given a quarter of the time that one iteration takes, a plan still comes, and its last chunk was begun in time."""
    planner, evaluate = case.make(), case.quadratic(case.unit, [[0.7, 0.4]])
    free = Spy(evaluate)
    planner.plan(free, planner.start(case.unit), generator(12))
    whole = free.asked[0].shape[2]
    slow = Slow(evaluate)
    plan = planner.plan(slow, planner.start(case.unit), generator(12), Budget(whole / 4, clock=slow.clock))
    _require_finite(plan)
    require(not bool(plan.failed.any()), "a failed plan when time was short", "the best of what was scored")
    what = f"with a budget of {whole / 4:g} candidates"
    require(slow.begun <= whole / 4, f"{slow.begun:g} candidates scored before the last chunk {what}", f"at most {whole / 4:g}")
    require(slow.now <= max(1, whole / 2), f"{slow.now:g} candidates scored {what}", f"chunks, at most {whole / 2:g} in all")
    require(plan.dropped == 0, f"{plan.dropped} dropped candidates {what}", "0: those that found no time are none")
    require(plan.candidates == slow.now, f"{plan.candidates} candidates in the plan", f"the {slow.now:g} that were scored")


def a_large_budget_changes_nothing(case: PlannerCase) -> None:
    """With time enough, a plan is the one that it is without a budget, up to the rounding of sums in chunks."""
    planner, evaluate = case.make(), case.quadratic(case.unit, [[0.7, 0.4]])
    free = planner.plan(evaluate, planner.start(case.unit), generator(13))
    slow = Slow(evaluate)
    timed = planner.plan(slow, planner.start(case.unit), generator(13), Budget(1e9, clock=slow.clock))
    require(timed.candidates == free.candidates, f"{timed.candidates} candidates in good time", f"{free.candidates}, as without")
    gap, allowed = (timed.actions - free.actions).abs().max(), 1e-9 if case.dtype == torch.float64 else 1e-4
    require(gap <= allowed, f"actions that moved by {gap:.3g} with time enough", f"at most {allowed}")


def mistakes_are_named(case: PlannerCase) -> None:
    """Scores of a wrong shape raise `ShapeError`, a shift below one step `ConfigurationError`, and the message says what came."""
    planner = case.make()
    start = planner.start(case.unit, 2)
    wrong = {
        "scores [c] for [B, c]": lambda actions: actions.sum((0, 1, 3)),
        "scores [B, c, 1]": lambda actions: actions.sum((0, 3)).unsqueeze(-1),
    }
    with shape_checks_off():
        for what, evaluate in wrong.items():
            _require_error(what, ShapeError, "[2,", lambda evaluate=evaluate: planner.plan(evaluate, start, generator()))
        for steps in (0, -2):
            _require_error(f"shift({steps})", ConfigurationError, str(steps), lambda steps=steps: planner.shift(start, steps))


def _require_error(what: str, wanted: type[Exception], mention: str, call: object) -> None:
    assert callable(call)
    try:
        call()
    except wanted as error:
        require(mention in str(error), f"'{error}' for {what}", f"a message with {mention}")
    except Exception as error:
        raise AssertionError(f"got {type(error).__name__} ({error}) for {what}; wanted {wanted.__name__}") from error
    else:
        raise AssertionError(f"got an answer for {what}; wanted {wanted.__name__}")
