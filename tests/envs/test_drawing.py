"""Pictures: things are where the state says, trails add up, an animation is written whole or not at all."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from bayesdyn.envs import draw_cartpole, save_animation, tip_position
from bayesdyn.envs.drawing import VIEW_METRES
from bayesdyn.envs.scene import PAPER, SKY, VERMILLION, Scene
from bayesdyn.errors import ConfigurationError, DataError, FileError, ShapeError

ORANGE = (230, 159, 0)


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)


def close_to(image, colour, within=40.0):
    return np.linalg.norm(np.asarray(image, float) - np.asarray(colour), axis=-1) < within


def pixel(point, size=(480, 320)):
    """Column and row of a place in metres, for a camera over the origin."""
    scale = size[0] / VIEW_METRES
    return round(size[0] / 2 + scale * point[0]), round(size[1] / 2 - scale * point[1])


@pytest.mark.parametrize("state", [[0.0, 0.0, 0.0, 0.0], [0.4, 0.0, 0.0, 2.0], [-0.7, 1.0, 1.0, 4.0]])
def test_tip_is_drawn_where_it_is(state):
    image = draw_cartpole(state)
    column, row = pixel(tip_position(torch.tensor(state)).tolist())
    assert close_to(image, rgb(VERMILLION))[row, column]
    rows, columns = close_to(image, rgb(VERMILLION)).nonzero()
    assert abs(rows.mean() - row) < 1.5
    assert abs(columns.mean() - column) < 1.5


def test_arrow_points_with_the_force_and_grows_with_it():
    def extent(force):
        columns = close_to(draw_cartpole(np.zeros(4), force=force), ORANGE).nonzero()[1]
        return columns - 240

    assert extent(5.0).min() > 0
    assert extent(-5.0).max() < 0
    assert extent(10.0).max() > extent(5.0).max() + 20
    assert extent(0.0).size == 0


def test_camera_follows_a_cart_that_leaves():
    for x in (-7.3, 0.0, 30.0):
        assert close_to(draw_cartpole([x, 0.0, 0.0, 1.0]), rgb(VERMILLION)).any()


def test_larger_picture_is_the_same_picture():
    state = [0.1, 0.0, 0.0, 2.5]
    small = draw_cartpole(state, force=4.0, time=1.0)
    large = draw_cartpole(state, force=4.0, time=1.0, size=(960, 640)).resize((480, 320), Image.Resampling.BOX)
    # Only edges may differ, by the filter that shrinks them.
    assert np.abs(np.asarray(small, float) - np.asarray(large, float)).mean() < 1.0


def test_target_time_and_caption_are_optional():
    plain = np.asarray(draw_cartpole(np.zeros(4), target=False))
    assert (np.asarray(draw_cartpole(np.zeros(4))) != plain)[:160].any()
    assert (np.asarray(draw_cartpole(np.zeros(4), target=False, time=0.3)) != plain)[:40, :240].any()
    assert (np.asarray(draw_cartpole(np.zeros(4), target=False, caption="trial 1")) != plain)[:40, 240:].any()


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_opacity_of_k_crossing_trails_is_one_minus_the_product(copies):
    scene = Scene((200, 100), 2.0, (0.0, 0.0))
    path = np.array([[-0.5, 0.0], [0.5, 0.0]])[:, None].repeat(copies, 1)
    scene.trails(path, 8.0, SKY, 0.3, fade=(1.0, 1.0))
    shown = np.asarray(scene.image(), float)[50, 100]
    covered = 1 - 0.7**copies
    # One grey level for the mask and one for the colour.
    np.testing.assert_allclose(shown, covered * rgb(SKY) + (1 - covered) * rgb(PAPER), atol=2)


def test_trails_bend_with_the_tip_instead_of_cutting_its_circle():
    angles = np.arange(5.0)
    circle = 0.8 * np.stack((np.cos(angles), np.sin(angles)), -1)
    scene = Scene((400, 400), 2.0, (0.0, 0.0))
    # The curve lies within 3 % of the circle, the chord 12 % off it: a stroke of 24/480 of the width tells them apart.
    scene.trails(circle[:, None], 24.0, SKY, 1.0, fade=(1.0, 1.0))
    drawn = close_to(scene.image(), rgb(SKY))

    def at(radius, angle):
        return drawn[round(200 - 200 * radius * math.sin(angle)), round(200 + 200 * radius * math.cos(angle))]

    assert all(at(0.8, angle) for angle in angles)
    assert all(at(0.8, angle) for angle in angles[:-1] + 0.5)
    assert not any(at(0.8 * math.cos(0.5), angle) for angle in angles[:-1] + 0.5)


def test_fan_and_trail_are_drawn_over_the_scene():
    plain = np.asarray(draw_cartpole(np.zeros(4)))
    fan = torch.tensor([[[0.9, 0.3]], [[1.0, 0.4]], [[1.1, 0.3]]])
    changed = (np.asarray(draw_cartpole(np.zeros(4), fan=fan)) != plain).any(-1)
    column, row = pixel((1.0, 0.4))
    assert changed[row, column]
    assert not changed[:, :300].any()
    trail = (np.asarray(draw_cartpole(np.zeros(4), trail=fan[:, 0])) != plain).any(-1)
    assert trail[row, column]


def test_fan_may_be_short_empty_or_far_away():
    plain = np.asarray(draw_cartpole(np.zeros(4)))
    for fan in (np.zeros((0, 3, 2)), np.zeros((4, 0, 2)), np.full((3, 2, 2), 1e12)):
        np.testing.assert_array_equal(np.asarray(draw_cartpole(np.zeros(4), fan=fan)), plain)
    assert (np.asarray(draw_cartpole(np.zeros(4), fan=np.full((1, 1, 2), 0.4))) != plain).any()


def test_wrong_arrays_are_refused():
    with pytest.raises(ShapeError, match="state wants shape"):
        draw_cartpole([0.0, 0.0])
    with pytest.raises(DataError, match="state"):
        draw_cartpole([0.0, 0.0, 0.0, math.nan])
    with pytest.raises(ShapeError, match="fan wants shape"):
        draw_cartpole(np.zeros(4), fan=np.zeros((3, 2)))
    with pytest.raises(DataError, match="diverged"):
        draw_cartpole(np.zeros(4), fan=np.full((3, 2, 2), np.inf))
    with pytest.raises(ConfigurationError, match="positive pixels"):
        draw_cartpole(np.zeros(4), size=(0, 10))


def frames(n, size=(120, 80)):
    return [draw_cartpole([0.1 * i, 0.0, 0.0, 0.5 * i], size=size) for i in range(n)]


def test_animation_loops_with_all_frames_in_their_colours(tmp_path):
    pictures = frames(5)
    save_animation([pictures[0], *(np.asarray(p) for p in pictures[1:])], tmp_path / "swing.gif", fps=20)
    with Image.open(tmp_path / "swing.gif") as animation:
        assert animation.n_frames == 5
        assert animation.info["loop"] == 0
        for i, picture in enumerate(pictures):
            animation.seek(i)
            assert animation.info["duration"] == 50
            difference = np.asarray(animation.convert("RGB"), float) - np.asarray(picture, float)
            assert np.abs(difference).mean() < 2
    assert [p.name for p in tmp_path.iterdir()] == ["swing.gif"]


def test_failed_animation_leaves_the_old_one_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "swing.gif"
    save_animation(frames(2), path)
    old = path.read_bytes()

    def full(self, file, *args, **kwargs):
        file.write_bytes(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(FileError, match="no space left"):
        save_animation(frames(3), path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["swing.gif"]


def test_meaningless_animations_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="at least one frame"):
        save_animation([], tmp_path / "a.gif")
    with pytest.raises(ConfigurationError, match="fps"):
        save_animation(frames(1), tmp_path / "a.gif", fps=0.0)
    with pytest.raises(ShapeError, match="one size"):
        save_animation(frames(1) + frames(1, (60, 40)), tmp_path / "a.gif")
    with pytest.raises(FileError, match="exists"):
        save_animation(frames(1), tmp_path / "missing" / "a.gif")
