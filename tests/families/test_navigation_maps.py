"""Environments of the navigation family: geometry, plans, what a lidar sees in them, and the files they come from."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation import layouts, maps, tasks
from quickstudy.families.navigation.family import MAPS, Navigation
from quickstudy.families.navigation.layouts import CELL, CELLS, HALF, Wall, cell, fill, place, walls
from quickstudy.families.navigation.maps import OccupancyMap
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


# ---- maps


GREYS = np.array([[254, 254, 0, 205], [254, 100, 0, 254], [254, 254, 254, 254]], dtype=np.uint8)
ABOUT = {"image": "m.pgm", "resolution": 0.1, "origin": "[-1.0, 2.0, 0.0]", "negate": 0,
         "occupied_thresh": 0.65, "free_thresh": 0.196}  # fmt: skip


def map_server(folder: Path, **changes: object) -> Path:
    Image.fromarray(GREYS).save(folder / "m.pgm")
    about = {key: value for key, value in {**ABOUT, **changes}.items() if value is not None}
    path = folder / "m.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in about.items()))
    return path


def test_a_map_of_map_server(tmp_path: Path):
    (found,) = maps.read(map_server(tmp_path), 99.0)
    # 205 is 0.196 occupied: unknown; 100 is 0.61: unknown too
    assert found.free.tolist() == [[True, True, False, False], [True, False, False, True], [True] * 4]
    assert (found.resolution, found.origin) == (0.1, (-1.0, 2.0))
    assert np.allclose(found.size, [0.4, 0.3])


def test_negate_swaps_black_and_white(tmp_path: Path):
    (found,) = maps.read(map_server(tmp_path, negate=1), 99.0)
    assert found.free.tolist() == [[False, False, True, False], [False, False, True, False], [False] * 4]


def test_a_folder_reads_an_image_once_through_its_yaml(tmp_path: Path):
    map_server(tmp_path)
    (tmp_path / "README.txt").write_text("not a map")
    (found,) = maps.read(tmp_path, 99.0)
    assert found.resolution == 0.1


def test_a_map_of_moving_ai(tmp_path: Path):
    path = tmp_path / "town.map"
    path.write_text("type octile\nheight 2\nwidth 5\nmap\n..@TS\nGGWO.\n")
    (found,) = maps.read(path, 0.2)
    assert found.free.tolist() == [[True, True, False, False, True], [True, True, False, False, True]]
    assert (found.name, found.resolution) == ("town", 0.2)


def test_a_plain_image_is_free_where_it_is_light(tmp_path: Path):
    Image.fromarray(np.array([[255, 0], [128, 127]], dtype=np.uint8)).save(tmp_path / "plan.png")
    (found,) = maps.read(tmp_path / "plan.png", 0.05)
    assert found.free.tolist() == [[True, False], [True, False]]
    wide = np.array([[65535, 0], [40000, 300]], dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert maps.read(tmp_path / "wide.png", 0.05)[0].free.tolist() == [[True, False], [True, False]]


def test_maps_of_arrays(tmp_path: Path):
    np.savez(
        tmp_path / "some.npz",
        grid=np.array([[0, 100, 255], [0, 0, 100], [0, 50, 0]], dtype=np.uint8),
        free=np.array([[[True, False]], [[True, True]]]),
        names=np.array(["a", "b"]),
        points=np.array([[1, 2], [3, 4], [5, 6]]),
        resolution=0.25,
    )
    found = {chart.name: chart for chart in maps.read(tmp_path / "some.npz", 99.0)}
    assert set(found) == {"grid", "a", "b"}
    assert found["grid"].free.tolist() == [[True, False, False], [True, True, False], [True, False, True]]
    assert found["a"].free.tolist() == [[True, False]]
    assert {chart.resolution for chart in found.values()} == {0.25}


def test_a_window_is_occupied_where_any_of_the_map_is():
    """Two cells of the map make one of the window, and what lies beyond the map is occupied."""
    free = np.ones((400, 400), dtype=bool)
    free[199, 200] = False  # from x = 10.0 and y = 10.0 on, metres of the map: right above its middle
    window = OccupancyMap("m", free, 0.05).window(np.array([10.0, 10.0]))
    assert np.argwhere(window[1:-1, 1:-1]).tolist() == [[48, 49]]
    beyond = OccupancyMap("m", free, 0.05).window(np.array([0.0, 10.0]))
    assert beyond[:, :50].all()
    assert not beyond[1:-1, 51:-1].any()


def test_a_coarse_map_keeps_its_size_and_its_origin():
    free = np.ones((60, 60), dtype=bool)
    free[30, 30] = False  # 0.2 m a cell: x from 6.0, y from 5.8 to 6.0
    window = OccupancyMap("m", free, 0.2, (100.0, -50.0)).window(np.array([106.0, -44.0]))
    assert np.argwhere(window[1:-1, 1:-1]).tolist() == [[49, 49], [49, 50], [50, 49], [50, 50]]


def test_windows_lie_within_the_map_where_they_can():
    rng = np.random.default_rng(0)
    chart = OccupancyMap("m", np.ones((300, 100), dtype=bool), 0.1, (5.0, 0.0))
    centres = np.stack([chart.draw_centre(rng) for _ in range(50)])
    assert np.allclose(centres[:, 0], 10.0)  # as wide as a window
    assert centres[:, 1].min() >= HALF
    assert centres[:, 1].max() <= 30 - HALF
    assert np.ptp(centres[:, 1]) > 5


# ---- what is refused, in one sentence


@pytest.mark.parametrize("key", maps._YAML_KEYS)
def test_a_yaml_without_a_key(tmp_path: Path, key: str):
    with pytest.raises(QuickstudyError, match=f"m.yaml' lacks the key '{key}'"):
        maps.read(map_server(tmp_path, **{key: None}), 0.05)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resolution": "fine"}, "resolution must be a number; got 'fine'"),
        ({"resolution": 0}, "positive number of metres a cell; got 0"),
        ({"resolution": -0.05}, "positive number of metres a cell; got -0.05"),
        ({"resolution": ".nan"}, "resolution must be a number; got nan"),
        ({"origin": "here"}, r"origin must be \[x, y, yaw\]; got 'here'"),
        ({"origin": "[a, b, c]"}, "origin must be a number; got 'a'"),
        ({"free_thresh": 1.5}, "0 <= free_thresh <= occupied_thresh <= 1; got free_thresh 1.5"),
        ({"free_thresh": 0.9}, "got free_thresh 0.9 and occupied_thresh 0.65"),
        ({"image": "other.pgm"}, "There is no image '.*other.pgm'"),
        ({"free_thresh": 0.0}, "has no free space: all of its 12 cells are occupied"),
    ],
)
def test_a_yaml_with_a_wrong_value(tmp_path: Path, changes: dict[str, object], said: str):
    with pytest.raises(QuickstudyError, match=said):
        maps.read(map_server(tmp_path, **changes), 0.05)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "- 1\n- 2\n", "is no map_server file: it must hold the keys image"),
        ("a.yaml", "image: [", "cannot be read as YAML"),
        ("a.png", "not an image", "is not a readable image"),
        ("a.map", "type octile\nheight x\nwidth 2\nmap\n..\n", "is not a MovingAI map"),
        ("a.map", "type octile\nheight 3\nwidth 2\nmap\n..\n", "is not a MovingAI map"),
        ("a.map", "", "is not a MovingAI map"),
        ("a.npz", "not an archive", "a.npz' is not a readable"),
        ("a.dwg", "a drawing", "is of no known form of map; a map is a file that ends in .yaml"),
    ],
)
def test_files_that_are_no_maps(tmp_path: Path, name: str, content: str, said: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(QuickstudyError, match=said):
        maps.read(tmp_path / name, 0.05)


def test_files_that_are_not_there_and_empty_folders(tmp_path: Path):
    with pytest.raises(QuickstudyError, match="There is no map file or folder"):
        maps.read(tmp_path / "none.map", 0.05)
    with pytest.raises(QuickstudyError, match="has no map; a map is a file that ends in"):
        maps.read(tmp_path, 0.05)


def test_arrays_without_a_map(tmp_path: Path):
    np.savez(tmp_path / "a.npz", heights=np.zeros((4, 4)))
    with pytest.raises(QuickstudyError, match="holds no map: it needs a whole-numbered array"):
        maps.read(tmp_path / "a.npz", 0.05)
    np.savez(tmp_path / "b.npz", free=np.ones((4, 4), dtype=bool), resolution=np.array([1.0, 2.0]))
    with pytest.raises(QuickstudyError, match="resolution must be one number"):
        maps.read(tmp_path / "b.npz", 0.05)


@pytest.mark.parametrize("resolution", [0.0, -1.0, np.nan, np.inf])
def test_a_resolution_out_of_range(resolution: float):
    with pytest.raises(QuickstudyError, match="needs a positive number of metres a cell"):
        OccupancyMap("m", np.ones((2, 2), dtype=bool), resolution)


def test_a_map_without_free_space_or_without_room_for_the_robot(tmp_path: Path):
    with pytest.raises(QuickstudyError, match="Map 'm' has no free space: all of its 6 cells are occupied"):
        OccupancyMap("m", np.zeros((2, 3), dtype=bool), 0.05)
    stripes = np.ones((200, 200), dtype=bool)
    stripes[::4] = False  # gaps of 0.15 m
    with pytest.raises(QuickstudyError, match=r"has no task in it: a robot 0\.36 m wide finds no two places 4 m apart"):
        tasks.draw_on(OccupancyMap("stripes", stripes, 0.05), np.random.default_rng(0))


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """20 x 10 m, cut in two by a wall at x = 9, as a picture with 0.1 m a pixel."""
    picture = np.full((100, 200), 255, dtype=np.uint8)
    picture[:, 90] = 0
    Image.fromarray(picture).save(tmp_path / "flat.png")
    return tmp_path / "flat.png"


@pytest.mark.parametrize(
    ("start", "goal", "said"),
    [
        ((6, 5), (11, 5), r"No way leads from start \(6, 5\) to goal \(11, 5\) .* different components"),
        ((6, 5), (9.05, 5), r"The goal \(9.05, 5\) on map 'flat' has no room for the robot: -0.05 m to the nearest"),
        ((21, 5), (12, 5), r"The start \(21, 5\) is not on map 'flat', which reaches from \(0, 0\) to \(20, 10\) m"),
        ((10, 5), (19.5, 9.5), "has no room"),
        ((9.5, 1), (19.8, 9), "must lie in one square of 10 m"),
        ((6, np.nan), (7, 5), "must be two numbers"),
        ((6, 5, 1), (7, 5, 1), "must be two numbers"),
    ],
)
def test_tasks_that_a_map_does_not_have(flat: Path, start, goal, said: str):
    with pytest.raises(QuickstudyError, match=said):
        Navigation(threads=1).on_map(flat, start, goal, resolution=0.1)


def test_a_task_on_a_map_of_ones_own(flat: Path):
    family = Navigation(threads=1)
    task = family.on_map(flat, start=(1, 5), goal=(7, 5), resolution=0.1)
    assert task.parameters["goal"] == [3.0, 0.0]
    assert task.parameters["home"] == [-3.0, 0.0]
    assert family.caption(task) == "flat, 6.0 m"
    assert np.all(tasks.starts(task.parameters)[:, 0] < 0.1)  # at least 3 m from the goal
    assert family.run_expert([task], 2, 0)["success"].all()


def test_tasks_of_ones_own_maps_make_a_split(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in MAPS.values():
        monkeypatch.delenv(variable, raising=False)
    assert "plans" not in Navigation(threads=1).sizes
    with pytest.raises(QuickstudyError, match="Split 'plans' of 'navigation' needs maps: set QUICKSTUDY_PLANS"):
        Navigation(threads=1).tasks("plans", 1)
    with pytest.raises(QuickstudyError, match="There is no map file or folder"):
        Navigation(tmp_path / "none.yaml")
    monkeypatch.setenv("QUICKSTUDY_CITIES", f"{flat}{os.pathsep}{flat}")
    family = Navigation(plans=flat, threads=1)
    assert family.test_splits == ["procedural", "plans", "cities"]
    assert len(family.maps["cities"]) == 2
    assert family.maps["plans"][0].resolution == 0.05
    assert family.tasks("plans", 3)[2].parameters["map"] == "flat"
    two = tmp_path / "two.npz"
    np.savez(two, free=np.ones((2, 9, 9), dtype=bool))
    with pytest.raises(QuickstudyError, match="must hold one map; it holds 2"):
        family.on_map(two, (0, 0), (1, 1))


@pytest.mark.skipif("QUICKSTUDY_PLANS" not in os.environ, reason="needs maps of real buildings in QUICKSTUDY_PLANS")
def test_the_expert_solves_real_plans():
    family = Navigation(threads=2)
    some = family.tasks("plans", 20)
    assert family.run_expert(some, 2, 0)["success"].mean() >= 0.98


def _hall(folder: Path, **changes: object) -> Path:
    """A corridor along x of the picture, free from 0.5 to 7.5 m along it and 0.5 to 2.5 m across."""
    grid = np.zeros((60, 160), "u1")
    grid[10:50, 10:150] = 254
    Image.fromarray(grid).save(folder / "hall.pgm")
    about = {"image": "hall.pgm", "resolution": 0.05, "origin": [0, 0, 0], "negate": 0, "occupied_thresh": 0.65,
             "free_thresh": 0.196} | changes  # fmt: skip
    (folder / "hall.yaml").write_text(yaml.safe_dump(about))
    return folder / "hall.yaml"


@pytest.mark.parametrize(
    ("yaw", "start", "goal"),
    [
        (0.0, (1.0, 1.5), (6.0, 1.5)),
        (np.pi / 2, (-1.5, 1.0), (-1.5, 6.0)),
        (np.pi, (-1.0, -1.5), (-6.0, -1.5)),
        (-np.pi / 2, (1.5, -1.0), (1.5, -6.0)),
        (np.pi / 4, (0.1, 1.8), (3.5, 5.2)),
    ],
)
def test_a_map_is_turned_by_the_yaw_of_its_origin(tmp_path: Path, yaw: float, start, goal):
    family = Navigation()
    family.on_map(_hall(tmp_path, origin=[0, 0, yaw]), start=start, goal=goal)
    with pytest.raises(QuickstudyError, match=r"is not on map|has no room"):
        family.on_map(_hall(tmp_path, origin=[0, 0, yaw + 1.5]), start=start, goal=goal)
    (chart,) = maps.read(_hall(tmp_path, origin=[2.0, 1.0, yaw]), 0.05)
    centre = chart.draw_centre(np.random.default_rng(0))
    assert (chart.local(centre) >= 0).all()
    assert (chart.local(centre) <= chart.size).all()


def test_the_modes_of_map_server(tmp_path: Path):
    grid = np.array([[0, 10, 19, 20, 100, 101, 205, 254, 255]], "u1")
    Image.fromarray(grid).save(tmp_path / "hall.pgm")
    wanted = {
        "trinary": [False] * 6 + [False, True, True],
        "scale": [False] * 6 + [False, True, True],
        "raw": [True, True, True, False, False, False, False, False, False],
    }
    for mode, free in wanted.items():
        path = _hall(tmp_path, mode=mode)
        Image.fromarray(grid).save(tmp_path / "hall.pgm")
        (chart,) = maps.read(path, 0.05)
        assert chart.free[0].tolist() == free, mode


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "rawest"}, "mode must be trinary, scale, raw; got 'rawest'"),
        ({"mode": None}, "mode must be"),
        ({"negate": "yes"}, "negate must be 0 or 1; got 'yes'"),
        ({"negate": 2}, "negate must be 0 or 1; got 2"),
        ({"origin": [0, 0, float("nan")]}, "origin must be a number; got nan"),
        ({"origin": [0, 0, "90"]}, "origin must be a number; got '90'"),
        ({"origin": [0, 0, 0, 0]}, r"origin must be \[x, y, yaw\]"),
        ({"image": "../hall.pgm"}, "lies outside of the folder"),
        ({"image": "/etc/hostname"}, "lies outside of the folder"),
        ({"image": ["hall.pgm"]}, "image must be the name of a file"),
    ],
)
def test_what_a_yaml_means_is_honoured_or_refused(tmp_path: Path, changes: dict[str, object], said: str):
    with pytest.raises(QuickstudyError, match=said):
        maps.read(_hall(tmp_path, **changes), 0.05)


def test_keys_that_mean_nothing_here_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    maps.read(_hall(tmp_path, colour="blue"), 0.05)
    assert "the keys colour are not used" in capsys.readouterr().out


def test_transparent_parts_are_refused_and_other_forms_are_alike(tmp_path: Path):
    wall = np.zeros((4, 4), bool)
    wall[0] = True
    grey = np.where(wall, 0, 254).astype("u1")
    layer = np.zeros((4, 4, 4), "u1")
    layer[wall] = (0, 0, 0, 255)
    solid = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    for name, image in {
        "palette.png": Image.fromarray(grey).convert("P"),
        "bit.png": Image.fromarray(~wall),
        "sixteen.png": Image.fromarray(np.where(wall, 0, 65000).astype("u2")),
        "opaque.png": Image.fromarray(solid, "RGBA"),
    }.items():
        path = _hall(tmp_path, image=name)
        image.save(tmp_path / name)
        (chart,) = maps.read(path, 0.05)
        assert (chart.free == ~wall).all(), name
    path = _hall(tmp_path, image="layer.png")
    Image.fromarray(layer, "RGBA").save(tmp_path / "layer.png")
    with pytest.raises(QuickstudyError, match="transparent"):
        maps.read(path, 0.05)
