"""Surfaces of mesh files with volumes computed by hand, in cubic centimetres: what bodies fill together counts once."""

from pathlib import Path

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import meshes

trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
pytest.importorskip("coacd", reason="coacd is not installed")
pytest.importorskip("manifold3d", reason="manifold3d is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))


def _box(size, at=(0.0, 0.0, 0.0), inverted: bool = False) -> trimesh.Trimesh:
    made = trimesh.creation.box((size,) * 3 if np.ndim(size) == 0 else size)
    made.apply_translation(at)
    if inverted:
        made.invert()
    return made


def _all(*parts: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.util.concatenate(parts)


def _soup(mesh: trimesh.Trimesh, noise: float = 0.0) -> trimesh.Trimesh:
    """Every triangle with corners of its own."""
    corners = mesh.triangles.reshape(-1, 3)
    corners = corners + noise * np.random.default_rng(0).normal(size=corners.shape)
    return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)


def _faces(mesh: trimesh.Trimesh, *more) -> trimesh.Trimesh:
    """With some triangles on top."""
    return trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, *more]), process=False)


def _tossed(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Half of its triangles face the other way."""
    faces, turned = mesh.faces.copy(), np.random.default_rng(0).random(len(mesh.faces)) < 0.5
    faces[turned] = faces[turned][:, ::-1]
    return trimesh.Trimesh(mesh.vertices, faces, process=False)


def _write(folder: Path, mesh: trimesh.Trimesh, kind: str) -> Path:
    path = folder / f"thing.{kind.removesuffix('_ascii')}"
    content = mesh.export(file_type=kind)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        (_box(0.06), 216.0),
        (_box(0.06, inverted=True), 216.0),
        (_all(_box(0.06), _box(0.04, inverted=True)), 152.0),
        (_all(_box(0.06, inverted=True), _box(0.04)), 152.0),
        (_all(_box(0.06), _box(0.04)), 216.0),
        (_faces(_box(0.06), _box(0.06).faces), 216.0),
        (_faces(_box(0.06), _box(0.06).faces[:, ::-1]), 216.0),
        (_all(_box(0.04), _box(0.04, (0.02, 0, 0))), 96.0),
        (_all(_box(0.04), _box(0.04, (0.02, 0, 0)), _box(0.04, (0.03, 0, 0))), 112.0),
        (_all(_box(0.02), _box(0.02, (0.04, 0, 0))), 16.0),
        (_all(_box(0.02), _box(0.02, (0.04, 0, 0), True)), 16.0),
        (_all(_box(0.03), _box(0.03)), 27.0),
        (_all(_box(0.04), _box(0.04, (0.04, 0, 0))), 128.0),
    ],
    ids=["cube", "inside out", "hollow", "hollow inside out", "cube in a cube", "twice", "twice and turned", "overlap",
         "three overlap", "apart", "one of two inside out", "the same cube twice", "touching"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["stl", "obj"])
def test_what_bodies_fill_together_counts_once(tmp_path: Path, mesh: trimesh.Trimesh, volume: float, kind: str):
    mesh.export(tmp_path / f"thing.{kind}")
    read = meshes._read(tmp_path / f"thing.{kind}", "m")
    assert 1e6 * float(read.volume) == pytest.approx(volume, rel=1e-3)
    solid = meshes.load(tmp_path / f"thing.{kind}")
    assert 1e6 * solid.volume == pytest.approx(volume, rel=1e-3)
    assert np.linalg.eigvalsh(solid.inertia).min() > 0


CUBE = _box(0.04)
SQUARE = [_box(0.04, (x, y, 0)) for x in (0, 0.04) for y in (0, 0.04)]
ROW = [_box(0.04, (x, 0, 0)) for x in (0, 0.02, 0.04)]


@pytest.mark.parametrize("kind", ["stl", "stl_ascii", "obj"])
@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        pytest.param(mesh, volume, id=name)
        for name, mesh, volume in [
            ("a row of three", _all(*ROW), 128.0),
            ("a row of three, inside out", _all(*(_box(0.04, (x, 0, 0), True) for x in (0, 0.02, 0.04))), 128.0),
            ("twice, with other triangles", _all(CUBE, CUBE.subdivide()), 64.0),
            ("twice, a hair apart", _all(CUBE, _box(0.04, (1e-5, 0, 0))), 64.016),
            ("thrice", _all(CUBE, CUBE, CUBE), 64.0),
            ("some triangles twice", _faces(CUBE, CUBE.faces[:5]), 64.0),
            ("triangles without area", _faces(CUBE, [[0, 0, 1], [1, 2, 2]]), 64.0),
            ("touching, with other triangles", _all(CUBE.subdivide(), _box(0.04, (0.04, 0, 0))), 128.0),
            ("touching along an edge", _all(CUBE, _box(0.04, (0.04, 0.04, 0))), 128.0),
            ("touching in a corner", _all(CUBE, _box(0.04, (0.04, 0.04, 0.04))), 128.0),
            ("a square of four", _all(*SQUARE), 256.0),
            ("a square of four and one amid them", _all(*SQUARE, _box(0.04, (0.02, 0.02, 0))), 256.0),
            ("one in a corner of the other", _all(CUBE, _box((0.04, 0.02, 0.02), (0, 0.01, 0.01))), 64.0),
            ("one half out, with an edge in common", _all(CUBE, _box((0.04, 0.02, 0.06), (0, 0.01, 0.01))), 80.0),
            ("a handle", _all(_box((0.04, 0.04, 0.06)), _box((0.04, 0.01, 0.01), (0.03, 0, 0))), 99.0),
            ("both inwards, one in the other", _all(_box(0.06, inverted=True), _box(0.04, inverted=True)), 216.0),
            ("hollow with a solid in it", _all(_box(0.06), _box(0.04, inverted=True), _box(0.02)), 160.0),
            ("hollow twice", _all(*[_box(0.06), _box(0.04, inverted=True)] * 2), 152.0),
            ("triangles turned at random", _tossed(CUBE), 64.0),
            ("two bodies turned at random", _tossed(_all(CUBE, _box(0.04, (0.02, 0, 0)))), 96.0),
            ("corners not shared", _soup(_all(CUBE, CUBE)), 64.0),
            ("corners not quite alike", _soup(CUBE, 1e-10), 64.0),
        ]
    ],
)
def test_neighbours_of_these(tmp_path: Path, mesh: trimesh.Trimesh, volume: float, kind: str):
    assert 1e6 * float(meshes._read(_write(tmp_path, mesh, kind), "m").volume) == pytest.approx(volume, rel=2e-4)


def test_mass_and_inertia_are_those_of_the_union(tmp_path: Path):
    two = meshes._read(_write(tmp_path, _all(CUBE, _box(0.04, (0.02, 0, 0))), "stl"), "m")
    one = _box((0.06, 0.04, 0.04), (0.01, 0, 0))
    two.density = one.density = 1.0
    np.testing.assert_allclose(two.center_mass, one.center_mass, atol=1e-7)
    np.testing.assert_allclose(two.moment_inertia, one.moment_inertia, rtol=1e-4, atol=1e-12)


def _coil() -> trimesh.Trimesh:
    """A disc whose rim goes around twice, crosses itself, and is one surface."""
    count = 80
    angle = np.linspace(0, 4 * np.pi, count, endpoint=False) + 0.03
    radius = 0.03 + 0.005 * np.cos(angle / 2)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], 1)
    corners = np.concatenate([ring, ring + [0, 0, 0.04], [[0, 0, 0], [0, 0, 0.04]]])
    one = np.arange(count)
    other, low, high = (one + 1) % count, np.full(count, 2 * count), np.full(count, 2 * count + 1)
    rows = [(one, other, other + count), (one, other + count, one + count), (other, one, low)]
    faces = np.concatenate([np.stack(row, 1) for row in [*rows, (one + count, other + count, high)]])
    return trimesh.Trimesh(corners, faces, process=False)


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        (_coil(), "passes through itself: about .*% of its inside would not count once; unite its parts"),
        (_tossed(_all(*ROW)), "2 bodies that overlap, .* cannot be told"),
        (trimesh.Trimesh(CUBE.vertices, CUBE.faces[:-1], process=False), "not closed: 3 of its edges"),
        (_all(CUBE, trimesh.Trimesh(np.eye(3) / 9, [[0, 1, 2]], process=False)), "not closed"),
    ],
    ids=["coil", "turned at random", "open", "a loose triangle"],
)
def test_what_cannot_be_told_is_refused(tmp_path: Path, mesh: trimesh.Trimesh, said: str):
    with pytest.raises(QuickstudyError, match=said):
        meshes._read(_write(tmp_path, mesh, "stl"), "m")


def test_an_ascii_file_of_two_solids_and_a_cube_of_quads_with_seams(tmp_path: Path):
    text = CUBE.export(file_type="stl_ascii").replace("solid ", "solid left")
    text += "\n" + _box(0.04, (0.05, 0, 0)).export(file_type="stl_ascii")
    path = tmp_path / "zwei Körper.STL"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert 1e6 * float(meshes._read(path, "m").volume) == pytest.approx(128.0, rel=1e-4)
    corners = [(x, y, z) for x in (-0.03, 0.03) for y in (-0.03, 0.03) for z in (-0.03, 0.03)]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    lines = ["mtllib missing.mtl", "o cube", *(f"v {x} {y} {z}" for x, y, z in corners)]
    lines += [f"vt 0.{i} 0.{j}" for i in range(6) for j in range(4)] + ["vn 1 0 0", "usemtl none"]
    lines += ["f " + " ".join(f"{i + 1}/{4 * n + k + 1}/1" for k, i in enumerate(q)) for n, q in enumerate(quads)]
    (tmp_path / "blender cube.obj").write_text("\n".join(lines) + "\n")
    assert 1e6 * float(meshes._read(tmp_path / "blender cube.obj", "m").volume) == pytest.approx(216.0, rel=1e-4)
