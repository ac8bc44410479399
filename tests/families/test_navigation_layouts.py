"""Environments of the navigation family: geometry, plans, and what a lidar sees in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quickstudy.families.navigation import layouts
from quickstudy.families.navigation.layouts import CELL, CELLS, HALF, Wall, cell, fill, place, walls
from quickstudy.families.navigation.planner import Expert, clearance, plan
from quickstudy.families.navigation.scene import LIDAR_RANGE, RAYS, Body, build, place_code, pose, ranges, scan

EMPTY = np.zeros((CELLS, CELLS), dtype=bool)
EMPTY[[0, -1]] = EMPTY[:, [0, -1]] = True
"""One room, 9.8 x 9.8 m within walls of a cell."""


def middle(row: int, column: int) -> np.ndarray:
    """Metres (x, y) of the middle of a cell."""
    return place(np.array([row + 0.5, column + 0.5]))


# ---- cells and walls


@given(st.tuples(*[st.floats(-HALF, HALF)] * 2))
def test_a_place_is_where_its_cell_is(where: tuple[float, float]):
    assert np.allclose(place(cell(np.array(where))), where, atol=1e-12)


def test_row_0_is_at_the_top_and_column_0_at_the_left():
    assert np.allclose(middle(0, 0), [-4.95, 4.95])
    assert np.allclose(middle(99, 0), [-4.95, -4.95])


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(bool, (8, 8)), st.integers(0, 92), st.integers(0, 92))
def test_walls_are_the_occupied_cells_without_overlap(part: np.ndarray, row: int, column: int):
    grid = np.zeros((CELLS, CELLS), dtype=bool)
    grid[row : row + 8, column : column + 8] = part
    blocks = walls(grid)
    assert np.array_equal(fill(blocks), grid)
    assert sum(block.rows * block.columns for block in blocks) == grid.sum()


def test_one_block_is_one_wall():
    assert walls(fill([(3, 4, 20, 30)])) == [Wall(3, 4, 20, 30)]


@pytest.mark.parametrize("style", layouts.STYLES)
def test_environments_are_enclosed_and_of_their_generator(style: str):
    drawn = [layouts.STYLES[style](np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    for grid in drawn:
        assert grid.shape == (CELLS, CELLS)
        assert grid[[0, -1]].all()
        assert grid[:, [0, -1]].all()
        assert 0.2 < 1 - grid.mean() < 1.0


def test_all_cells_of_a_maze_hang_together():
    from scipy.ndimage import label

    for seed in range(10):
        assert label(~layouts.maze(np.random.default_rng(seed)))[1] == 1


# ---- the planner


def test_clearance_is_the_distance_to_the_face_of_a_wall():
    room = clearance(EMPTY)
    assert room[50, 50] == pytest.approx(4.85)  # the middle of row 50 is 48.5 rows from row 99
    assert room[1, 50] == pytest.approx(0.05)
    assert room[0, 0] < 0


@pytest.mark.parametrize(("down", "right"), [(0, 40), (30, 0), (25, 25), (-20, 20), (15, 30), (-30, 15)])
def test_paths_along_the_sixteen_directions_are_straight(down: int, right: int):
    way = plan(walls(EMPTY), middle(50, 30))
    assert way.distance[50 + down, 30 + right] == pytest.approx(np.hypot(down, right) * CELL)


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 94), st.integers(5, 94))
def test_other_paths_are_at_most_three_per_cent_longer(row: int, column: int):
    way, straight = plan(walls(EMPTY), middle(50, 50)), np.hypot(row - 50, column - 50) * CELL
    assert straight - 1e-9 <= way.distance[row, column] <= 1.0275 * straight + 1e-9


def test_a_path_goes_around_a_wall_and_through_no_corner():
    """The wall reaches from the top to row 60; from 2 m left of it to 2 m right of it the way is around its end."""
    grid = EMPTY.copy()
    grid[:61, 50] = True
    way = plan(walls(grid), middle(30, 70))
    # A body of 0.18 m may come within a cell's half of touching: two rows below the wall's end, so row 62.
    around = 2 * np.hypot(20, 32) * CELL
    assert around < way.distance[30, 30] < 1.03 * around + 0.2
    route = way.waypoints(middle(30, 30), 40)
    assert np.all(clearance(grid)[tuple(np.floor(cell(route)).astype(int).T)] > 0.18)


def test_where_no_way_leads_the_distance_is_infinite():
    grid = EMPTY.copy()
    grid[:, 50] = True
    way = plan(walls(grid), middle(50, 70))
    assert np.isinf(way.distance[50, 30])
    assert np.isfinite(way.distance[20, 80])


def test_headings_lead_to_the_goal_and_have_unit_length():
    way = plan(walls(EMPTY), middle(50, 70))
    assert np.allclose(way.heading[50, 30], [1, 0], atol=1e-6)
    assert np.allclose(way.heading[50, 85], [-1, 0], atol=1e-6)
    assert np.allclose(np.linalg.norm(way.heading[way.distance > 1], axis=-1), 1.0, atol=1e-5)
    assert np.allclose(way.heading[0, 50], [0, -1], atol=0.1)  # out of the wall first


def test_waypoints_are_equally_far_apart_and_end_at_the_goal():
    points = plan(walls(EMPTY), middle(50, 70)).waypoints(middle(50, 20), 5)
    assert np.allclose(points, [middle(50, column) for column in (30, 40, 50, 60, 70)], atol=1e-9)


def observation(x: float, y: float, yaw: float, seen: float = LIDAR_RANGE) -> np.ndarray:
    """[task, episode, obs] of one robot that sees `seen` metres all around."""
    at = np.array([x, y]) / HALF
    ahead = [np.cos(yaw), np.sin(yaw)]
    return np.concatenate([at, ahead, np.full(RAYS, seen / LIDAR_RANGE), place_code(at * HALF)])[None, None]


def test_observations_say_pose_and_ranges():
    seen = observation(1.0, -2.0, 0.5, 3.0)
    where, yaw = pose(seen)
    assert np.allclose(where, [[[1.0, -2.0]]])
    assert np.allclose(yaw, 0.5)
    assert np.allclose(ranges(seen), 3.0)
    # sines of x, then of y, at 1, 2 and 4 waves; then cosines: x is a tenth of the way, y a fifth back
    angles = 2 * np.pi * np.array([0.1, 0.2, 0.4, -0.2, -0.4, -0.8])
    assert np.allclose(place_code(np.array([1.0, -2.0])), [*np.sin(angles), *np.cos(angles)])


@pytest.mark.parametrize(
    ("body", "action"),
    [
        (Body(), (1.0, 0.0)),
        # Twice the left wheel's command is too much, so both are a third less: left 0.933 x 0.5 = right 0.467 m/s.
        (Body(left=0.5), (1.0, -2 / 3)),
        (Body(right=0.5), (1.0, 2 / 3)),
        (Body(grip=0.1), (1.0, 0.0)),
    ],
)
def test_the_expert_drives_straight_on_with_any_motors(body: Body, action: tuple[float, float]):
    goal = middle(50, 90)
    expert = Expert([plan(walls(EMPTY), goal)], [goal], [body])
    assert np.allclose(expert(observation(-3.0, goal[1], 0.0)), [[action]], atol=1e-5)


def test_the_expert_turns_on_the_spot_where_the_way_is_behind_it():
    goal = middle(50, 90)
    forward, turn = Expert([plan(walls(EMPTY), goal)], [goal], [Body()])(observation(-3.0, goal[1], 2.0))[0, 0]
    assert forward == pytest.approx(0.0, abs=1e-6)
    assert turn == pytest.approx(-0.8)  # 2 rad/s of 2.5


# ---- the lidar


def test_ranges_are_distances_to_walls():
    model = build([*walls(EMPTY), (45, 70, 10, 3)])  # a block from x = 2.0 on
    data = mujoco_data(model)
    seen = scan(model, data, np.array([0.0, 0.0]), 0.0)
    assert seen[0] == pytest.approx(2.0)
    assert seen[[8, 16, 24]] == pytest.approx(4.9)
    assert seen[12] == pytest.approx(LIDAR_RANGE)  # the corner is 6.9 m away
    assert seen[1] == pytest.approx(2.0 / np.cos(2 * np.pi / RAYS))
    turned = scan(model, data, np.array([0.5, 0.0]), np.pi / 2)
    assert turned[24] == pytest.approx(1.5)  # to the right of a robot that looks up
    assert turned[8] == pytest.approx(LIDAR_RANGE)  # 5.4 m
    assert turned[0] == pytest.approx(4.9)


def mujoco_data(model):
    import mujoco

    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data
