"""Pages about policy search: what was predicted beside what came, in every scenario's own pictures."""

import html
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from bayesdyn import presets
from bayesdyn.data import Episode
from bayesdyn.envs import DoublePendulum, UnicyclePlant, draw_cartpole
from bayesdyn.errors import DataError
from bayesdyn.gaussian_processes.training import GPTraining
from bayesdyn.loop import Run, Trial
from bayesdyn.posteriors import ExactGP
from bayesdyn.report import write_report
from bayesdyn.report.animation import UnicycleFrames, _first_unicycle, save_trial_animation
from bayesdyn.report.canvas import Palette
from bayesdyn.report.running import run_appendix
from bayesdyn.report.scenarios import scenario
from bayesdyn.report.searching import predicted_total, search_sections, searched
from bayesdyn.testing.conformance import shape_checks_off


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """A run that hardly searches, rehearsed, and the page about it."""
    folder = tmp_path_factory.mktemp("searching")
    task = presets.pilco("pendulum", basis=5, searches=1, evaluations=2)
    task = replace(task, posterior=lambda: ExactGP(training=GPTraining.pilco(max_steps=5)), restarts=0)
    with shape_checks_off():
        run = task.learn(trials=2, run=folder / "run")
        presets.rehearse(task, run)
        return run, write_report(folder / "page.html", {"pilco": run}).read_text(encoding="utf-8")


def played(name, steps=6):
    """A trial of a scenario's environment in which actions grow, with what an agent might have imagined."""
    env = presets.pilco(name).make_env()
    observation, _ = env.reset(seed=0)
    states, actions, infos = [observation], [], []
    for t in range(steps):
        action = env.action_space.high * t / steps
        observation, _, over, _, info = env.step(action)
        states.append(observation), actions.append(action), infos.append(info)
        if over:
            break
    env.close()
    named = {key: torch.as_tensor([info[key].tolist() for info in infos]) for key in ("state", "plant_state") if key in infos[0]}
    rows = torch.tensor([state.tolist() for state in states])
    fan = rows[None, :, None].repeat(len(actions), 1, 3, 1) + 0.1
    episode = Episode.from_arrays(rows.numpy(), torch.tensor([a.tolist() for a in actions]).numpy(), [0.0] * len(actions))
    return Trial(1, True, episode, named, fan, torch.arange(len(actions)))


@pytest.mark.parametrize("name", presets.scenarios)
def test_every_scenario_has_words_and_moves(name, tmp_path):
    known = presets.scenarios[name]
    place = scenario(known.env_id)
    env = presets.pilco(name).make_env()
    assert place.step_seconds == env.unwrapped.plant.dt
    assert (place.info, place.solved) == (known.distance, known.solved_below)
    assert not place.name.startswith("bayesdyn/")
    assert place.unit == "m"
    trial = played(name)
    pictures = place.frames(trial, place.step_seconds)
    assert len(pictures) == len(trial.episode) + 1
    save_trial_animation(pictures, tmp_path / "trial.gif", place.step_seconds)
    with Image.open(tmp_path / "trial.gif") as moving:
        assert moving.n_frames > 3
    env.close()


@pytest.mark.parametrize("name", [name for name in presets.scenarios if name != "unicycle"])
def test_frames_know_where_the_environments_tip_is_and_how_far_actions_go(name):
    """The chain drawn by the report is that of the environment: at its target the environment measures no distance."""
    frames, env = scenario(presets.scenarios[name].env_id).frames, presets.pilco(name).make_env()
    state = torch.randn(5, len(env.unwrapped.start_mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = [env.unwrapped.measure(row)["tip_distance"] for row in state.numpy()]
    assert frames.chain.distance(state).tolist() == pytest.approx(measured, abs=1e-12)
    assert frames.limit == env.action_space.high.max()
    env.close()


def test_lengths_of_a_double_pendulum_come_from_the_runs_options():
    frames = scenario("bayesdyn/DoublePendulum-v0", {"lengths": [1.0, 1.0]}).frames
    state = torch.tensor([0.0, 0.0, 2.0, 3.0], dtype=torch.float64)
    wanted = DoublePendulum(lengths=(1.0, 1.0)).measure(state.numpy())["tip_distance"]
    assert float(frames.chain.distance(state)) == pytest.approx(wanted)


def test_the_cart_poles_pictures_are_those_of_the_environment():
    trial = played("cart-pole")
    last = scenario(presets.scenarios["cart-pole"].env_id).frames(trial, 0.1)[-1]
    tips = scenario(presets.scenarios["cart-pole"].env_id).frames.chain.tip(
        torch.cat([trial.episode.states[:1].double(), trial.infos["state"].double()])
    )
    wanted = draw_cartpole(trial.infos["state"][-1], trail=tips, time=0.6, caption="trial 1")
    assert last.tobytes() == wanted.tobytes()


def test_the_unicycles_first_state_is_the_one_that_was_observed():
    """Its observation is what was seen, with the wheel and the turntable, which nobody sees, at 0."""
    state = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    observed = UnicyclePlant().observe(state)
    found = _first_unicycle(observed)
    torch.testing.assert_close(UnicyclePlant().observe(found), observed)
    torch.testing.assert_close(found[[5, 6]], state[[5, 6]])
    assert found[[9, 11]].tolist() == [0.0, 0.0]


def test_a_trial_without_true_states_cannot_be_drawn():
    trial = played("unicycle")
    with pytest.raises(DataError, match="'plant_state'"):
        UnicycleFrames()(Trial(1, True, trial.episode), 0.15)


def test_the_page_has_the_figures_of_policy_search_and_none_of_planning(pendulum):
    _, page = pendulum
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "What pilco promised, and what it cost" in text
    assert "Where pilco thought the last trial would go" in text
    assert "Was the model exploited?" in text
    assert "between trials a policy was improved on the model alone" in text
    assert "Did plans keep their promise?" not in text
    assert "plans per second" not in text
    assert "planner" not in text
    titles = re.findall(r"<figcaption><strong>(.*?)</strong>", page)
    assert {"Trial 1, step by step", "Trial 2, step by step", "theta dot", "theta"} <= set(titles)
    assert re.search(r"cost of that trial, predicted and real\s*[\d.]+ and [\d.]+", text)
    assert re.search(r"solved by its policy from other starts\s*\d+ of 10", text)
    assert page.count("data:image/gif;base64,") == 1


def test_every_colour_and_id_of_its_figures_is_the_pages_own(pendulum):
    _, page = pendulum
    figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert re.findall(r"(?:fill|stroke): *#[0-9a-f]{6}", figures) == []
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_the_share_within_the_bars_is_counted(pendulum):
    run, page = pendulum[0], html.unescape(pendulum[1])
    trial = run.trials[-1]
    real = torch.cat((trial.episode.states[:1], trial.infos["state"]))
    inside = (real - trial.predictions["state_mean"]).abs() <= 2 * trial.predictions["state_std"]
    for share in inside.double().mean(0).tolist():
        assert f"{100 * share:.0f} % of the trial's steps lie within the bars." in page


def test_predicted_cost_counts_the_steps_that_there_were(pendulum):
    run, _ = pendulum
    trial = run.trials[-1]
    whole = predicted_total(trial)
    assert whole == pytest.approx(trial.metrics["predicted_cost"])
    short = Trial(2, True, Episode(trial.episode.states[:11], trial.episode.actions[:10]), predictions=trial.predictions)
    assert predicted_total(short) == pytest.approx(float(trial.predictions["cost_mean"][1:11].sum()))


def test_what_was_not_rehearsed_is_drawn_as_it_was_predicted(pendulum):
    run, _ = pendulum
    only = Run(None, run.config, run.trials)
    costs, states = search_sections({"pilco": only}, scenario(run.config["environment"]), Palette(["pilco"]))
    assert [picture.title for picture in costs.pictures] == ["Trial 1, step by step", "Trial 2, step by step"]
    assert [picture.title for picture in states.pictures] == ["coordinate 0", "coordinate 1"]


def test_the_page_repeats_that_a_policy_stays_at_its_limits(pendulum, tmp_path):
    run, page = pendulum
    said = "the actions of trial 2 were at their limits in 95 % of its steps"
    assert said not in page
    (tmp_path / "rehearsals").mkdir()
    replace(presets.rehearsals(run)[2], saturated=0.95).save(tmp_path / "rehearsals" / "002.safetensors")
    facts = run_appendix("pilco", Run(tmp_path, run.config, run.trials))[1]
    assert said in {row[0].text: row[1].text for row in facts.rows}["warnings"]


def test_a_run_of_plans_is_none_of_policies(pendulum):
    run, _ = pendulum
    plans = Run(None, run.config, run.trials[:1])
    assert searched(run)
    assert not searched(plans)
    assert search_sections({"plans": plans}, scenario(run.config["environment"]), Palette(["plans"])) == []
