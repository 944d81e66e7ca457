"""Pictures: things are where the state says, trails add up, an animation is written whole or not at all."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from bayesdyn.envs import UnicyclePlant, draw_cartpole, draw_chain, draw_unicycle, save_animation, tip_position, unicycle_outline
from bayesdyn.envs.drawing import VIEW_METRES
from bayesdyn.envs.scene import INK, PAPER, SKY, VERMILLION, Scene
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


def test_chain_is_drawn_where_its_joints_are():
    joints = [[0.0, 0.0], [0.3, 0.4], [-0.2, 0.4]]
    image = draw_chain(joints, view=2.7)
    column, row = pixel(joints[-1])
    rows, columns = close_to(image, rgb(VERMILLION)).nonzero()
    assert abs(rows.mean() - row) < 1.5
    assert abs(columns.mean() - column) < 1.5
    column, row = pixel((0.05, 0.4))
    assert close_to(image, rgb(INK))[row, column]


def test_whole_chain_is_in_view_wherever_its_rods_point():
    for angle in np.linspace(0.0, 2 * math.pi, 9):
        tip = 0.6 * np.array([math.sin(angle), math.cos(angle)])
        for cart in (True, False):
            image = draw_chain([[0.0, 0.0], tip, 2 * tip], cart=cart, target=False)
            assert close_to(image, rgb(VERMILLION)).sum() > 50


@pytest.mark.parametrize(("torques", "joint"), [([2.0], 0), ([0.0, -1.0], 1)])
def test_bow_turns_around_the_joint_with_the_torque_and_grows_with_it(torques, joint):
    joints = np.array([[0.0, 0.0], [0.0, -0.5], [0.0, -1.0]])

    def orange(values):
        return close_to(draw_chain(joints, torques=values, largest=2.0, view=2.7), ORANGE)

    rows, columns = orange(torques).nonzero()
    column, row = pixel(joints[joint])
    # The bow's radius is 0.13 m, 23 pixels, and its head as wide again.
    assert np.hypot(rows - row, columns - column).max() < 48
    assert orange(np.array(torques) / 2).sum() < len(rows)
    assert not orange([0.0, 0.0]).any()
    # Bows start to the lower right: up from there against the clock, down with it.
    quarter = orange(np.array(torques) / 6).nonzero()
    assert (quarter[0].mean() < row + 16) == (sum(torques) > 0)


def test_wrong_chains_are_refused():
    with pytest.raises(ShapeError, match="joints wants shape"):
        draw_chain([0.0, 0.0])
    with pytest.raises(DataError, match="torques"):
        draw_chain([[0.0, 0.0], [0.0, 1.0]], torques=[math.nan])


def outline(**angles):
    state = np.zeros(12)
    names = ("x", "y", "theta", "phi", "wheel", "frame", "turntable")
    for name, value in angles.items():
        state[5 + names.index(name)] = value
    return unicycle_outline(UnicyclePlant(), state)


def test_unicycle_parts_are_where_the_angles_say():
    np.testing.assert_allclose(outline().axle, [0.0, 0.0, 0.225], atol=1e-15)
    np.testing.assert_allclose(outline(frame=math.pi / 2).top, [0.81, 0.0, 0.225], atol=1e-15)
    np.testing.assert_allclose(outline(theta=math.pi / 2).top, [0.0, 1.035, 0.0], atol=1e-15)
    # Heading along y from (0.3, 0): the origin is to the left.
    np.testing.assert_allclose(outline(x=0.3, phi=math.pi / 2).target, [0.0, 0.3, 1.035], atol=1e-15)
    # A wheel that rolls forward brings its top ahead.
    assert outline(wheel=0.5).spoke[0, 0] > 0.1
    for part in (outline(theta=0.3, frame=0.4, wheel=1.0).rim, outline(theta=0.3, wheel=1.0).spoke):
        np.testing.assert_allclose(np.linalg.norm(part - outline(theta=0.3).axle, axis=1), 0.225, atol=1e-12)


def test_unicycle_leans_to_its_side_in_the_rear_view_and_forward_in_the_side_view():
    def tops(**angles):
        columns = close_to(draw_unicycle(outline(**angles)), rgb(VERMILLION)).nonzero()[1]
        return columns[columns < 240].mean() - 120, columns[columns >= 240].mean() - 360

    ahead, right = tops(frame=0.4)
    assert ahead > 20
    assert abs(right) < 2
    ahead, right = tops(theta=0.4)
    assert right < -20
    assert abs(ahead) < 2


def test_unicycle_picture_shows_torques_time_and_caption():
    upright, largest = outline(), np.array([10.0, 50.0])
    plain = np.asarray(draw_unicycle(upright))
    for torques, half in (([5.0, 0.0], slice(240, 480)), ([0.0, 25.0], slice(0, 240))):
        changed = (np.asarray(draw_unicycle(upright, np.array(torques), largest)) != plain).any(-1)
        assert changed[:, half].sum() > 100
        assert changed.sum() == changed[:, half].sum()
    assert (np.asarray(draw_unicycle(upright, time=0.3)) != plain)[:40, :240].any()
    assert (np.asarray(draw_unicycle(upright, caption="trial 1")) != plain)[:40, 240:].any()
