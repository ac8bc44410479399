"""Objects of one's own: what is read, what is refused and with which sentence, and that a grasp of it is a task."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest

from quickstudy import datasets, families
from quickstudy.cli import main
from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import meshes
from quickstudy.families.grasping import objects as grasping_objects
from quickstudy.families.grasping.arm import Arm
from quickstudy.families.grasping.family import OBJECTS, Grasping
from quickstudy.families.grasping.grasps import ROOM, candidates, resting_poses
from quickstudy.families.grasping.objects import graspable, read_objects
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.families.grasping.scene import build
from quickstudy.families.grasping.vector_env import HIDDEN_SCALE, GraspingVectorEnv, expert
from quickstudy.results.evidence import Cell
from quickstudy.simulation import rendering
from quickstudy.task import Task

trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
coacd = pytest.importorskip("coacd", reason="coacd is not installed")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        where = tmp_path_factory.mktemp("cache")
        patch.setenv("QUICKSTUDY_CACHE", str(where))
        yield where


def box(*extents: float):
    return trimesh.creation.box(extents)


def hammer():
    """A handle along x with a head across its end, which rests flat; metres."""
    handle = box(0.14, 0.022, 0.022)
    head = box(0.03, 0.09, 0.022)
    head.apply_translation([0.084, 0.0, 0.0])
    return trimesh.util.concatenate([handle, head])


def save(folder: Path, name: str, mesh, scale: float = 1.0) -> Path:
    folder.mkdir(exist_ok=True)
    mesh = mesh.copy()
    mesh.apply_scale(scale)
    mesh.export(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("things")
    save(where, "brick.stl", box(0.12, 0.05, 0.04))
    save(where, "hammer.obj", hammer())
    save(where, "wall.stl", box(0.4, 0.4, 0.4))
    return where


@pytest.fixture(scope="module")
def family(folder: Path) -> Grasping:
    return Grasping(threads=1, objects=folder)


# ---- reading


def test_a_box_has_the_volume_centre_and_inertia_of_a_box(tmp_path: Path):
    mesh = box(0.02, 0.04, 0.06)
    mesh.apply_translation([0.1, 0.2, 0.3])
    solid = meshes.load(save(tmp_path, "box.stl", mesh))
    assert solid.volume == pytest.approx(0.02 * 0.04 * 0.06, rel=1e-5)
    assert solid.centre == pytest.approx([0.1, 0.2, 0.3], abs=1e-6)
    sides = np.array([0.02, 0.04, 0.06]) ** 2
    assert np.diag(solid.inertia) == pytest.approx((sides.sum() - sides) / 12, rel=1e-4)
    assert len(solid.parts) == 1
    assert np.ptp(solid.corners, axis=0) == pytest.approx([0.02, 0.04, 0.06], rel=0.02)


@pytest.mark.parametrize(("unit", "scale"), [("cm", 100.0), ("mm", 1000.0), ("in", 1 / 0.0254)])
def test_units(tmp_path: Path, unit: str, scale: float):
    solid = meshes.load(save(tmp_path, "box.obj", box(0.02, 0.04, 0.06), scale), unit)
    assert solid.volume == pytest.approx(4.8e-5, rel=1e-4)


def test_triangles_that_face_inwards_are_turned(tmp_path: Path):
    mesh = box(0.02, 0.04, 0.06)
    mesh.invert()
    assert meshes.load(save(tmp_path, "inside_out.stl", mesh)).volume == pytest.approx(4.8e-5, rel=1e-4)


def test_a_surface_that_touches_itself_along_an_edge_is_closed(tmp_path: Path):
    other = box(0.03, 0.03, 0.03)
    other.apply_translation([0.03, 0.03, 0.0])
    solid = meshes.load(save(tmp_path, "two.stl", trimesh.util.concatenate([box(0.03, 0.03, 0.03), other])))
    assert solid.volume == pytest.approx(2 * 0.03**3, rel=1e-4)


def test_the_parts_of_a_file_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path, "cached.stl", box(0.031, 0.041, 0.051))
    first = meshes.load(path)
    monkeypatch.setattr(coacd, "run_coacd", None)
    renamed = path.rename(tmp_path / "renamed.stl")
    again = meshes.load(renamed)
    assert again.key == first.key
    assert all(np.array_equal(a, b) for a, b in zip(again.parts, first.parts, strict=True))
    assert (datasets.cache() / "objects" / f"{first.key}.npz").exists()
    with pytest.raises(QuickstudyError, match="TypeError"):
        meshes.load(save(tmp_path, "larger.stl", box(0.032, 0.042, 0.052)))  # another size, another object


def test_parts_that_left_the_cache_are_told():
    with pytest.raises(QuickstudyError, match=r"not at '.*' any more: load its file again"):
        meshes.cached("0" * 24)


# ---- grasps


def test_a_box_is_held_across_its_narrow_side_over_its_middle(folder: Path):
    solid = meshes.load(folder / "brick.stl")
    best = candidates(solid, SAWYER, 8, "box")[0]
    assert best.width == pytest.approx(0.05, abs=1e-3)
    middle = best.turn @ solid.centre + best.shift
    assert np.linalg.norm(middle[:2]) < 0.008
    assert (solid.corners @ best.turn.T + best.shift)[:, 2].min() == pytest.approx(0.0, abs=1e-9)
    assert abs(best.turn[2, 2]) == pytest.approx(1.0)  # as its file has it: flat


def test_grasps_fit_and_differ(folder: Path):
    solid = meshes.load(folder / "hammer.obj")
    found = candidates(solid, SAWYER, 6, "hammer")
    assert len(found) == 6
    assert all(SAWYER.narrowest < grasp.width < SAWYER.widest - 2 * ROOM for grasp in found)
    assert all(one.score >= other.score for one, other in itertools.pairwise(found))
    for one, other in itertools.combinations(found, 2):
        places = [grasp.turn.T @ (np.array([0.0, 0.0, grasp.height]) - grasp.shift) for grasp in (one, other)]
        elsewhere = np.linalg.norm(places[0] - places[1]) > 0.012
        across = abs(one.turn[1] @ other.turn[1]) < np.cos(0.35)
        assert elsewhere or across or one.turn[2] @ other.turn[2] < np.cos(0.35)


def test_a_solid_rests_as_its_file_says_where_it_can_and_else_where_it_falls(folder: Path, tmp_path: Path):
    stands = meshes.load(folder / "brick.stl")
    assert np.array_equal(resting_poses(stands)[0], np.eye(3))
    tilted = box(0.10, 0.04, 0.03)
    tilted.apply_transform(trimesh.transformations.rotation_matrix(0.5, [1, 0, 0]))
    falls = meshes.load(save(tmp_path, "tilted.stl", tilted))
    for pose in resting_poses(falls):
        heights = falls.corners @ pose[2]
        assert any(np.ptp(heights) == pytest.approx(side, abs=2e-3) for side in (0.10, 0.04, 0.03))
        assert (heights < heights.min() + 1e-3).sum() >= 3


# ---- tasks


def test_each_object_that_can_be_grasped_is_a_task(family: Grasping):
    assert family.sizes[OBJECTS] == 2
    assert OBJECTS in family.test_splits
    assert OBJECTS not in Grasping.sizes
    tasks = family.tasks(OBJECTS, 2)
    assert [task.parameters["object"] for task in tasks] == ["brick", "hammer"]
    assert family.caption(tasks[0]).startswith("brick, 5.0 cm")
    hidden = np.stack([family.hidden(task) for task in tasks])
    assert np.abs(hidden).max() < 2.5
    assert list(family.left_out) == ["wall.stl"]
    assert family.sample(OBJECTS, np.random.default_rng(0)) in [task.parameters for task in tasks]


def test_an_object_lies_where_its_tag_says_and_weighs_what_it_should(family: Grasping):
    for task in family.tasks(OBJECTS, 2):
        model = build(task)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        p = task.parameters
        assert model.body("object").subtreemass[0] == pytest.approx(p["mass"])
        solid = meshes.cached(p["solid"])
        corners = np.concatenate(
            [
                model.mesh_vert[model.mesh_vertadr[m] : model.mesh_vertadr[m] + model.mesh_vertnum[m]]
                @ data.geom_xmat[g].reshape(3, 3).T
                + data.geom_xpos[g]
                for g in np.flatnonzero(model.geom_dataid >= 0)
                for m in [model.geom_dataid[g]]
            ]
        )
        assert corners[:, 2].min() == pytest.approx(0.0, abs=1e-4)
        reach = np.linalg.norm(corners - data.body("object").xipos, axis=1).max()
        assert reach == pytest.approx(np.linalg.norm(solid.corners - solid.centre, axis=1).max(), rel=1e-3)
        # The centre of mass is that of the volume, wherever the parts overlap.
        turn = np.empty(9)
        mujoco.mju_quat2Mat(turn, np.array(p["quat"]))
        assert data.body("object").xipos == pytest.approx(turn.reshape(3, 3) @ solid.centre + p["shift"], abs=1e-6)


def test_the_expert_lifts_them_and_doing_nothing_does_not(family: Grasping):
    tasks = family.tasks(OBJECTS, 2)
    assert family.run_expert(tasks, 3, seed=0)["success"].mean() >= 0.8
    nothing = family.run(tasks, 1, lambda seen: np.zeros((*seen.shape[:2], 5)), seed=0)
    assert not nothing["lifted"].any()
    for task, (demonstration,) in zip(tasks, family.demonstrate(tasks, 1, seed=0), strict=True):
        assert np.array_equal(demonstration.actions, expert(demonstration.observations, family.hidden(task)))


def test_the_visual_scene_has_the_same_dynamics(family: Grasping):
    task = family.task(OBJECTS, 1)
    light, visual = (GraspingVectorEnv([task], 1, threads=1, visual=look) for look in (False, True))
    seen = [env.reset([task.generator(0, 0, 0)]) for env in (light, visual)]
    for _ in range(30):
        assert np.array_equal(*seen)
        seen = [env.step(env.expert_action(), np.ones((1, 1), bool)).observations for env in (light, visual)]


@pytest.mark.skipif(not rendering.available(), reason="nothing here can draw")
def test_a_picture_shows_the_surface(family: Grasping):
    assert family.snapshot(family.task(OBJECTS, 1), width=64, height=48).std() > 10


def test_a_proven_grasp_is_kept_for_this_gripper(folder: Path, family: Grasping, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grasping_objects, "_try", None)
    assert graspable(folder / "brick.stl", "m", SAWYER, 1) == family.task(OBJECTS, 0).parameters

    class Other(type(SAWYER)):
        pass

    with pytest.raises(TypeError):
        graspable(folder / "brick.stl", "m", Other(), 1)


def test_what_the_expert_cannot_lift_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grasping_objects, "_try", lambda tasks, arm, threads: np.full(len(tasks), 0.5))
    save(tmp_path / "eels", "eel.stl", box(0.11, 0.051, 0.041))
    with pytest.raises(QuickstudyError, match=r"'eel.stl' cannot be grasped reliably .* succeeded in 4 of 8 tries"):
        read_objects(tmp_path / "eels", "m", SAWYER, 1)


# ---- the command line


def test_a_run_is_evaluated_object_by_object(folder: Path, family: Grasping, tmp_path: Path):
    run, few = tmp_path / "run", ["--data.tasks", "4", "--data.demonstrations", "3", "--training.meta-batch", "2"]
    main(["train", "grasping", "--method", "nearest", "--output-dir", str(run), *few])
    main(["evaluate", str(run), "--objects", str(folder), "--shots", "1", "--episodes", "1"])
    cell = Cell.read(run / "results/grasping-objects.json")
    assert [row.workload for row in cell.rows] == ["", *(family.caption(task) for task in family.tasks(OBJECTS, 2))]
    assert (cell.rows[0].tasks, cell.rows[1].episodes) == (2, 1)
    assert cell.rows[0].value == pytest.approx(np.mean([row.value for row in cell.rows[1:]]))


def test_objects_are_for_grasping(folder: Path):
    assert families.get("grasping", folder).sizes[OBJECTS] == 2
    with pytest.raises(QuickstudyError, match="for grasping and grasping-panda; 'sinusoid' has no use for mesh files"):
        families.get("sinusoid", folder)


# ---- bad input


def refused(folder: Path, unit: str = "m", arm: Arm = SAWYER) -> str:
    with pytest.raises(QuickstudyError) as error:
        read_objects(folder, unit, arm, 1)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_mesh_that_is_not_closed(tmp_path: Path):
    open_box = box(0.05, 0.05, 0.05)
    open_box.update_faces(np.arange(12) > 0)
    save(tmp_path, "open.stl", open_box)
    assert "open.stl' is not closed: 3 of its edges belong to one triangle alone" in refused(tmp_path)


def test_a_mesh_without_volume(tmp_path: Path):
    corners, faces = (
        [[0, 0, 0], [0.05, 0, 0], [0.05, 0.05, 0], [0, 0.05, 0]],
        [[0, 1, 2], [0, 2, 3], [0, 2, 1], [0, 3, 2]],
    )
    sheet = trimesh.Trimesh(corners, faces, process=False)
    save(tmp_path, "sheet.obj", sheet)
    assert "sheet.obj' is not closed: 4 of its edges" in refused(tmp_path)


def test_a_mesh_that_is_larger_than_the_gripper_opens(tmp_path: Path):
    save(tmp_path, "crate.stl", box(0.2, 0.15, 0.1))
    said = refused(tmp_path)
    assert "None of the 1 objects" in said
    assert (
        "'crate.stl' is larger than the gripper opens: 100 mm where it is narrowest, and the fingers open 105" in said
    )


def test_a_mesh_in_another_unit(tmp_path: Path):
    save(tmp_path, "millimetres.stl", box(120.0, 50.0, 40.0))
    assert "millimetres.stl' is 120 m long when its unit is m; is its unit mm?" in refused(tmp_path)
    save(tmp_path / "metres", "metres.stl", box(0.12, 0.05, 0.04))
    said = refused(tmp_path / "metres", "mm")
    assert "metres.stl' is 0.00012 m long when its unit is mm; is its unit m?" in said
    save(tmp_path / "dust", "dust.stl", box(1e-4, 1e-4, 1e-4))
    assert "dust.stl' is 0.0001 m long when its unit is m; scale it" in refused(tmp_path / "dust")


def test_a_mesh_that_is_too_tall_or_offers_no_two_sides(tmp_path: Path):
    save(tmp_path / "tall", "pole.stl", trimesh.creation.cylinder(0.12, 0.02))
    assert "no two sides that the fingers could close on" in refused(tmp_path / "tall")
    save(tmp_path / "cubes", "cube.stl", box(0.09, 0.3, 0.3))
    assert "'cube.stl' has no two sides" in refused(tmp_path / "cubes")


def test_an_unreadable_file(tmp_path: Path):
    (tmp_path / "noise.obj").write_bytes(b"this is no mesh")
    assert "noise.obj' is not a readable .obj file" in refused(tmp_path)
    (tmp_path / "noise.stl").write_bytes(bytes(range(100)))
    with pytest.raises(QuickstudyError, match=r"noise.stl' is not a readable .stl file"):
        meshes.load(tmp_path / "noise.stl")
    with pytest.raises(QuickstudyError, match=r"nowhere.stl' cannot be read: No such file"):
        meshes.load(tmp_path / "nowhere.stl")
    with pytest.raises(QuickstudyError, match=r"is not a mesh file: .obj and .stl are read"):
        meshes.load(tmp_path / "picture.png")


def test_folders_and_units(tmp_path: Path, folder: Path):
    assert refused(tmp_path).endswith("holds no .obj or .stl file.")
    assert "There is no folder" in refused(tmp_path / "nowhere")
    assert "Unknown unit of length 'meter'. Did you mean 'm'?" in refused(folder, "meter") or "Known: cm" in refused(
        folder, "meter"
    )
    with pytest.raises(QuickstudyError, match="'objects' of 'grasping', which holds 2"):
        Grasping(threads=1, objects=folder).tasks(OBJECTS, 3)
    with pytest.raises(QuickstudyError, match="Unknown split of 'grasping' 'objects'"):
        Grasping().tasks(OBJECTS, 1)


def test_without_the_packages_one_sentence_says_what_to_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(meshes.importlib, "import_module", missing)
    assert "the package trimesh, which is not installed: run \"pip install 'quickstudy[objects]'\"" in refused(folder)


def test_a_task_whose_object_left_the_cache_is_told(family: Grasping):
    task = family.task(OBJECTS, 0)
    lost = Task(task.family, OBJECTS, 0, {**task.parameters, "solid": "f" * 24})
    with pytest.raises(QuickstudyError, match="load its file again"):
        build(lost)
    assert family.hidden(task) * HIDDEN_SCALE == pytest.approx(
        [task.parameters[name] for name in ("grasp_x", "grasp_y", "grasp_height", "grasp_yaw", "grip_width")], rel=1e-5
    )
