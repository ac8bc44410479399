"""The cases about environments, maps, meshes, statistics and run folders; see `test_cases`."""

import json
import os
import re
import shutil
from pathlib import Path

import gymnasium
import h5py
import mujoco
import numpy as np
import pytest
import torch
import trimesh
from examples import own_robot
from PIL import Image

from commands import DEMONSTRATIONS, quickstudy
from quickstudy import adapt, datasets, families
from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import meshes
from quickstudy.families.gymnasium.parameters import Space
from quickstudy.families.navigation import maps
from quickstudy.families.navigation.family import Navigation
from quickstudy.io import checkpoint
from quickstudy.results import runs
from quickstudy.results.statistics import bootstrap, iqm

Box = gymnasium.spaces.Box


class Marked(gymnasium.Env):
    """Keeps each action that it is given."""

    def __init__(self, mark: float, space: Box, given: list[np.ndarray]) -> None:
        self.mark, self.action_space, self.given = mark, space, given
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.normal(size=2).astype("f4"), {}

    def step(self, action):
        self.t += 1
        self.given.append(np.array(action))
        return np.zeros(2, "f4"), 0.0, False, self.t >= 5, {"success": True}


@pytest.mark.parametrize(
    "space",
    [
        Box(0.0, np.inf, (1,), np.float32), Box(-np.inf, 0.0, (1,), np.float32), Box(0, 10, (1,), np.int64),
        Box(0, 255, (1,), np.uint8), Box(0.5, 0.5, (1,), np.float32), Box(-np.inf, np.inf, (1,), np.float32),
        Box(0.0, 1e-3, (1,), np.float32), Box(-2.0, 2.0, (1,), np.float64),
    ],
    ids=str,
)  # fmt: skip
def test_gym_half_bounded(space):
    given: list[np.ndarray] = []
    family = families.from_gymnasium(
        lambda mark: Marked(mark, space, given),
        {"mark": (0.0, 1.0)},
        expert=lambda env, x: np.clip(np.zeros(1), space.low, space.high),
        horizon=5,
    )
    for value in (-3.0, 0.3, 3.0):
        family.run(family.tasks("test", 1), 1, lambda s, v=value: np.full((*np.shape(s)[:2], 1), v, "f4"), 0)
    demonstration = family.demonstrate(family.tasks("train", 1), 1, 0)[0][0]
    assert np.isfinite(demonstration.actions).all()
    assert len(given) == 20
    assert all(space.contains(action) for action in given)


def test_gym_list_of_points():
    for goals in ([(0.1, 0.9), (0.3, 0.7)], [(0.9, 0.1), (0.3, 0.7)]):
        with pytest.raises(QuickstudyError, match="may be points or ranges"):
            Space({"goal": goals}, None)
    points = Space({"goal": [[0.1, 0.9], [0.3, 0.7]], "mass": (1.0, 2.0)}, None)
    drawn = [list(points.sample("train", np.random.default_rng(i))["goal"]) for i in range(3)]
    assert all(goal in ([0.1, 0.9], [0.3, 0.7]) for goal in drawn)


def _map(folder: Path, image: str, yaw: float = 0.0) -> Path:
    said = f"image: '{image}'\nresolution: 0.05\norigin: [0, 0, {yaw}]\nnegate: 0\n"
    (folder / "map.yaml").write_text(f"{said}occupied_thresh: 0.65\nfree_thresh: 0.196\n")
    return folder / "map.yaml"


def test_map_origin_yaw(tmp_path):
    grid = np.zeros((60, 160), "u1")
    grid[10:50, 10:150] = 254
    Image.fromarray(grid).save(tmp_path / "hall.pgm")
    ways = {0.0: ((1.0, 1.5), (6.0, 1.5)), 1.5707963: ((-1.5, 1.0), (-1.5, 6.0))}
    for yaw in ways:
        for right, (start, goal) in ways.items():
            if right == yaw:
                Navigation().on_map(_map(tmp_path, "hall.pgm", yaw), start=start, goal=goal)
            else:
                with pytest.raises(QuickstudyError, match="is not on map"):
                    Navigation().on_map(_map(tmp_path, "hall.pgm", yaw), start=start, goal=goal)


def test_map_transparent(tmp_path):
    wall = np.zeros((4, 4), bool)
    wall[0] = True
    layer = np.zeros((4, 4, 4), "u1")
    layer[wall] = (0, 0, 0, 255)
    Image.fromarray(layer).save(tmp_path / "layer.png")
    with pytest.raises(QuickstudyError, match="transparent"):
        maps.read(_map(tmp_path, "layer.png"), 0.05)
    grey = np.where(wall, 0, 254).astype("u1")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(~wall).save(tmp_path / "bit.png")
    Image.fromarray(np.where(wall, 0, 65000).astype("u2")).save(tmp_path / "sixteen.png")
    (tmp_path / "hundred.pgm").write_bytes(b"P5\n# SLAM\n4 4\n100\n" + np.where(wall, 0, 100).astype("u1").tobytes())
    lines = b"\r\n".join(b" ".join(str(v).encode() for v in row) for row in grey)
    (tmp_path / "ascii.pgm").write_bytes(b"P2\r\n4 4\r\n255\r\n" + lines)
    for name in ("palette.png", "bit.png", "sixteen.png", "hundred.pgm", "ascii.pgm"):
        assert (maps.read(_map(tmp_path, name), 0.05)[0].free == ~wall).all(), name


def _box(size: float, at: float = 0.0) -> trimesh.Trimesh:
    made = trimesh.creation.box((size,) * 3)
    made.apply_translation((at, 0, 0))
    return made


def _inverted(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    mesh.invert()
    return mesh


def _twice(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces]), process=False)


MESHES = {
    "solid": (lambda: _box(0.06), 216.0),
    "inside out": (lambda: _inverted(_box(0.06)), 216.0),
    "hollow": (lambda: trimesh.util.concatenate([_box(0.06), _inverted(_box(0.04))]), 152.0),
    "every triangle twice": (lambda: _twice(_box(0.06)), 216.0),
    "overlapping": (lambda: trimesh.util.concatenate([_box(0.04), _box(0.04, 0.02)]), 96.0),
    "apart": (lambda: trimesh.util.concatenate([_box(0.02), _box(0.02, 0.04)]), 16.0),
}


@pytest.mark.parametrize("kind", ["stl", "stl_ascii", "obj"])
@pytest.mark.parametrize("name", MESHES)
def test_mesh_volumes(tmp_path, name, kind):
    make, volume = MESHES[name]
    content = make().export(file_type=kind)
    path = tmp_path / f"{name}.{kind[:3]}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert 1e6 * meshes._read(path, "m").volume == pytest.approx(volume, abs=0.05)


def test_mesh_many_bodies(tmp_path):
    one, other = (_box(0.02, at).export(file_type="stl_ascii") for at in (0.0, 0.05))
    text = one.replace("solid ", "solid left") + "\n" + other
    (tmp_path / "zwei Körper.STL").write_bytes(text.replace("\n", "\r\n").encode())
    corners = [(x, y, z) for x in (-0.03, 0.03) for y in (-0.03, 0.03) for z in (-0.03, 0.03)]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    lines = ["mtllib missing.mtl", "o cube", *(f"v {x} {y} {z}" for x, y, z in corners)]
    lines += [f"vt 0.{i} 0.{j}" for i in range(6) for j in range(4)] + ["vn 1 0 0", "usemtl none"]
    for number, quad in enumerate(quads):
        lines.append("f " + " ".join(f"{i + 1}/{4 * number + k + 1}/1" for k, i in enumerate(quad)))
    (tmp_path / "blender cube.obj").write_text("\n".join(lines) + "\n")
    for name, volume in (("zwei Körper.STL", 16.0), ("blender cube.obj", 216.0)):
        assert 1e6 * meshes._read(tmp_path / name, "m").volume == pytest.approx(volume, abs=0.05)


def test_robot_with_includes(tmp_path, monkeypatch):
    folder = tmp_path / "mein roboter"
    (folder / "assets/visual").mkdir(parents=True)
    palm = trimesh.creation.box((0.04, 0.12, 0.03)).export(file_type="stl")
    (folder / "assets/visual/palm.stl").write_bytes(palm)
    palms = '<geom name="palm" size="0.02 0.06 0.015" pos="0 0 0.07" mass="0.3"/>'
    assert palms in own_robot.MJCF
    text = own_robot.MJCF.replace(palms, '<geom name="palm" type="mesh" mesh="palm" pos="0 0 0.07" mass="0.3"/>')
    assets = '<compiler meshdir="assets" autolimits="true"/><asset><mesh name="palm" file="visual/palm.stl"/></asset>'
    (folder / "gantry.xml").write_text(text.replace("<mujoco>", f"<mujoco>{assets}"))
    (folder / "robot.xml").write_text('<mujoco model="outer"><include file="gantry.xml"/></mujoco>')

    class Mine(own_robot.Gantry):
        def spec(self, visual):
            spec = mujoco.MjSpec.from_file(str(folder / "robot.xml"))
            own_robot.carry_by_mocap(spec)
            if visual:
                own_robot.furnish(spec)
            return spec

    class Family(own_robot.Grasping):
        name, arm = "grasping-mine", Mine()

    monkeypatch.chdir("/")
    family = Family()
    assert family.run_expert(family.tasks("shapes", 8), 1, seed=0)["success"].mean() == 1.0


@pytest.mark.parametrize(("tasks", "low"), [(3, 0.292), (10, 0.692), (50, 0.929), (100, 0.964)])
def test_interval_of_all_successes(tasks, low):
    assert bootstrap(np.ones((1, tasks))) == pytest.approx((low, 1.0), abs=5e-4)
    assert bootstrap(np.zeros((1, tasks))) == pytest.approx((0.0, 1 - low), abs=5e-4)


def test_interval_of_all_successes_covers_the_truth():
    rng, held = np.random.default_rng(0), 0
    for i in range(200):
        low, high = bootstrap((rng.random((1, 50)) < 0.97).astype(float), replicates=200, seed=i)  # type: ignore[misc]
        held += low <= 0.97 <= high
    assert held >= 0.93 * 200
    assert float(iqm(np.arange(8.0)[None])) == 3.5
    assert float(iqm(np.arange(8.0).reshape(2, 4))) == float(iqm(np.arange(8.0).reshape(2, 4).T))


def test_seeds_and_queries():
    x = np.arange(30 * 12, dtype="f4")[:, None] * np.ones(2, "f4")
    family = families.from_arrays(x, np.repeat(np.arange(30), 12), ways=5)
    for seed in range(5):
        tasks, asked = family.tasks("test", 5), []

        def policy(seen: np.ndarray, asked: list = asked) -> np.ndarray:
            asked.append(np.array(seen))
            return np.zeros((*seen.shape[:2], 5))

        shown = family.demonstrate(tasks, 3, seed)
        family.run(tasks, 25, policy, seed)
        for i in range(5):
            examples = {float(v) for one in shown[i] for v in one.observations[:, 0].round(4)}
            assert not examples & {float(v) for v in asked[0][i][:, 0].round(4)}
    classes = {
        split: {family.titles[split][c] for task in family.tasks(split, 30) for c in task.parameters["classes"]}
        for split in family.sizes
    }
    assert not set.intersection(*classes.values())
    of = [family.demonstrate(family.tasks("train", 4), 2, seed)[3][0].observations for seed in (1, 1, 2)]
    alone = family.demonstrate(family.tasks("train", 4)[3:], 2, 1)[0][0].observations
    assert (of[0] == of[1]).all()
    assert (of[0] == alone).all()
    assert not (of[0] == of[2]).all()
    reach = families.get("ml1-reach")
    where = {
        split: {json.dumps(task.parameters, sort_keys=True, default=repr) for task in reach.tasks(split, 40)}
        for split in reach.sizes
    }
    assert all(len(some) == 40 for some in where.values())
    assert len(set.union(*where.values())) == sum(map(len, where.values()))


def test_robomimic_hdf5(tmp_path):
    path = tmp_path / "low_dim_v15.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        about = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}
        data.attrs.update({"env_args": json.dumps(about), "total": 80})
        for i in range(8):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = 10
            for key, width in (("robot0_eef_pos", 3), ("object", 10)):
                demo[f"obs/{key}"] = demo[f"next_obs/{key}"] = rng.random((10, width))
            demo["actions"], demo["states"] = rng.random((10, 7)), rng.random((10, 32))
            demo["rewards"], demo["dones"] = np.zeros(10), np.arange(10) == 9
        file["mask/train"] = np.array([f"demo_{i}" for i in range(6)], "S")
        file["mask/valid"] = np.array([f"demo_{i}" for i in range(6, 8)], "S")
    found = datasets.load(path)
    assert [(e.observations.shape[1], e.actions.shape[1]) for e in found] == [(13, 7)] * 8
    assert found.about.rate == 20
    assert {name: list(some) for name, some in found.masks.items()} == {"train": [*range(6)], "valid": [6, 7]}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        quickstudy("train", *DEMONSTRATIONS, "--output-dir", "mit Leerzeichen ü")
    return home / "mit Leerzeichen ü"


def test_checkpoint_moves(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "Übung 1")
    runs.load(moved)
    folder = moved / "checkpoints/best"
    found = checkpoint.load(folder)
    half = {name: t.half() if t.is_floating_point() else t for name, t in found.tensors.items()}
    checkpoint.save(folder, half, found.config | {"versions": {"torch": "2.99.0", "quickstudy": "99.0"}})
    _, learner = runs.load(moved)
    assert {p.dtype for p in learner.parameters()} == {torch.float32}
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(QuickstudyError, match="is damaged"):
        runs.load(moved)


def test_adapt_memory(run):
    experiment, learner = runs.load(run)
    shown = experiment.family.demonstrate(experiment.family.tasks("test", 1), 1, 0)[0]
    pages = []
    for i in range(301):
        adapt(learner, shown)
        if i in (100, 300):
            pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert (pages[1] - pages[0]) * os.sysconf("SC_PAGE_SIZE") < 5e6


def test_paths_with_blanks(run, capsys, monkeypatch):
    monkeypatch.chdir(run.parent)
    capsys.readouterr()
    quickstudy("evaluate", run.name, "--tasks", "2", "--episodes", "1")
    assert re.search(r"Next: quickstudy \w+ 'mit Leerzeichen ü'", capsys.readouterr().out)
