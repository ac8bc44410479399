"""Environments of the navigation family from files of maps: what is read, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation import maps, tasks
from quickstudy.families.navigation.family import MAPS, Navigation
from quickstudy.families.navigation.layouts import HALF
from quickstudy.families.navigation.maps import OccupancyMap

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


def test_arrays_have_an_origin_and_say_what_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    free = np.ones((3, 4), bool)
    np.savez(tmp_path / "a.npz", free=free, origin=[1.0, 2.0, np.pi / 2], costs=np.full((3, 4), 150))
    (chart,) = maps.read(tmp_path / "a.npz", 0.5)
    assert (chart.origin, chart.yaw) == ((1.0, 2.0), np.pi / 2)
    assert "costs are no maps and not used" in capsys.readouterr().out
    np.savez(tmp_path / "b.npz", free=free, origin=np.zeros(4))
    with pytest.raises(QuickstudyError, match=r"origin must be x, y and perhaps yaw; got shape \(4,\)"):
        maps.read(tmp_path / "b.npz", 0.5)
    np.savez(tmp_path / "c.npz", free=np.ones((3, 3, 4), bool), names=np.array(["a", "b"]))
    with pytest.raises(QuickstudyError, match="names has shape \\(2,\\), but 'free' holds 3 maps"):
        maps.read(tmp_path / "c.npz", 0.5)
    np.savez(tmp_path / "d.npz", free=np.ones((2, 3, 4), bool), names=np.array(["a", "a"]))
    with pytest.raises(QuickstudyError, match="has two maps named 'a'"):
        maps.read(tmp_path / "d.npz", 0.5)


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


@pytest.mark.parametrize("key", list(ABOUT))
def test_a_yaml_without_a_key(tmp_path: Path, key: str):
    with pytest.raises(QuickstudyError, match=f"m.yaml' lacks '{key}'"):
        maps.read(map_server(tmp_path, **{key: None}), 0.05)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resolution": "fine"}, "says resolution 'fine': input should be a valid number"),
        ({"resolution": 0}, "positive number of metres a cell; got 0"),
        ({"resolution": -0.05}, "positive number of metres a cell; got -0.05"),
        ({"resolution": ".nan"}, "says resolution nan: input should be a finite number"),
        ({"origin": "here"}, "says origin 'here': input should be a valid list"),
        ({"origin": "[a, b, c]"}, "says origin.0 'a': input should be a valid number"),
        ({"free_thresh": 1.5}, "says free_thresh 1.5: input should be less than or equal to 1"),
        ({"free_thresh": 0.9}, "free_thresh must not be above occupied_thresh; got 0.9 and 0.65"),
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
        ({"mode": "rawest"}, "says mode 'rawest': input should be 'trinary', 'scale' or 'raw'"),
        ({"mode": None}, "says mode None"),
        ({"mode": "raw", "negate": 1}, "negate means one thing to ROS 1 and another to ROS 2"),
        ({"negate": "perhaps"}, "says negate 'perhaps': input should be a valid boolean"),
        ({"negate": 2}, "says negate 2: input should be a valid boolean"),
        ({"resolution": True}, "says resolution True: value error, input should be a number"),
        ({"resolution": None}, "says resolution None"),
        ({"resolution": [0.05, 0.05]}, "says resolution"),
        ({"occupied_thresh": 65}, "says occupied_thresh 65: input should be less than or equal to 1"),
        ({"free_thresh": -0.1}, "says free_thresh -0.1: input should be greater than or equal to 0"),
        ({"origin": [0, 0, float("nan")]}, "says origin.2 nan: input should be a finite number"),
        ({"origin": [0, 0, 90]}, "metres and radians within one turn; got .*90"),
        ({"origin": [0, 0, 0, 0]}, "list should have at most 3 items"),
        ({"origin": [0]}, "list should have at least 2 items"),
        ({"origin": {"x": 0, "y": 0}}, "says origin"),
        ({"image": "../hall.pgm"}, "lies outside of the folder"),
        ({"image": "maps/../../hall.pgm"}, "lies outside of the folder"),
        ({"image": "/etc/hostname"}, "lies outside of the folder"),
        ({"image": ["hall.pgm"]}, r"says image \['hall.pgm'\]: input should be a valid string"),
        ({"image": ""}, "says image '': string should have at least 1 character"),
    ],
)
def test_what_a_yaml_means_is_honoured_or_refused(tmp_path: Path, changes: dict[str, object], said: str):
    with pytest.raises(QuickstudyError, match=said):
        maps.read(_hall(tmp_path, **changes), 0.05)


@pytest.mark.parametrize(("written", "metres"), [("5e-2", 0.05), ("1E-1", 0.1), ("'0.05'", 0.05), ("1", 1.0)])
def test_a_resolution_is_a_number_however_it_is_written(tmp_path: Path, written: str, metres: float):
    assert maps.read(map_server(tmp_path, resolution=written), 9.0)[0].resolution == metres


def test_negate_may_be_a_truth_value(tmp_path: Path):
    free = [maps.read(map_server(tmp_path, negate=said), 9.0)[0].free for said in (1, "true")]
    assert np.array_equal(*free)


def test_a_folder_of_images_beside_their_yaml(tmp_path: Path):
    (tmp_path / "images").mkdir()
    path = _hall(tmp_path, image="images/hall.pgm", origin=[1, 2])
    (tmp_path / "hall.pgm").rename(tmp_path / "images/hall.pgm")
    (chart,) = maps.read(path, 9.0)
    assert (chart.origin, chart.yaw, int(chart.free.sum())) == ((1.0, 2.0), 0.0, 40 * 140)


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
    # A colour counts by the mean of its channels, as in map_server: yellow is no free space.
    yellow = np.full((1, 2, 3), 254, "u1")
    yellow[0, 1] = (255, 255, 0)
    path = _hall(tmp_path, image="colours.png")
    Image.fromarray(yellow).save(tmp_path / "colours.png")
    assert maps.read(path, 0.05)[0].free.tolist() == [[True, False]]
    path = _hall(tmp_path, image="fractions.tif")
    Image.fromarray(np.where(wall, 0.0, 0.9).astype("f4")).save(tmp_path / "fractions.tif")
    assert (maps.read(path, 0.05)[0].free == ~wall).all()
    Image.fromarray(np.where(wall, 0.0, 254.0).astype("f4")).save(tmp_path / "fractions.tif")
    with pytest.raises(QuickstudyError, match=r"brightness from 0 to 254; pictures of its type keep to 0\.\.1\."):
        maps.read(path, 0.05)
    pages = [Image.fromarray(grey), Image.fromarray(grey)]
    pages[0].save(tmp_path / "fractions.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(QuickstudyError, match="has 2 pages"):
        maps.read(path, 0.05)
    clear = Image.fromarray(grey).convert("P")
    clear.info["transparency"] = 0
    clear.save(tmp_path / "clear.png", transparency=0)
    with pytest.raises(QuickstudyError, match="transparent parts"):
        maps.read(tmp_path / "clear.png", 0.05)
    path = _hall(tmp_path, image="layer.png")
    Image.fromarray(layer, "RGBA").save(tmp_path / "layer.png")
    with pytest.raises(QuickstudyError, match="transparent"):
        maps.read(path, 0.05)
