"""A 3D replay of an episode: recorded once, to turn and to play in any browser, without a server and without a GPU."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import trimesh
import viser

from quickstudy.simulation import rendering

_GROUPS = (0, 1, 2)
"""Groups of geoms that MuJoCo shows by default; what only collides is in the others."""

_FEW = 6000
"""Triangles above which a mesh is thinned out: a robot's parts are modelled far finer than a replay shows."""


def record(film: Callable[[], object], fps: int = 20) -> bytes | None:
    """What `film` draws of a MuJoCo world, as a scene that viser's viewer plays.

    Args:
        film: called once; whatever it draws by `quickstudy.simulation.rendering.frame` is recorded.

    Returns:
        None where it draws nothing of MuJoCo.
    """
    scene = _Scene(fps)
    try:
        with rendering.watched_by(scene.add):
            film()
        return scene.recorded()
    finally:
        scene.close()


def viewer() -> str:
    """The page of viser's viewer in one file; a scene is put before the end of its head."""
    return (Path(viser.__file__).parent / "client/build/index.html").read_text(encoding="utf-8")


class _Scene:
    """A MuJoCo world in viser: a frame for each body, a mesh for each shape, moved from picture to picture."""

    def __init__(self, fps: int) -> None:
        with redirect_stdout(io.StringIO()):  # it says where it listens, which is of no use here
            self._server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
        self._serialiser = self._server.get_scene_serializer()
        self._pause = 1.0 / fps
        self._bodies: dict[int, Any] = {}
        self._last: dict[int, np.ndarray] = {}
        self._drawn = False

    def add(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """The world as it is becomes the next picture."""
        if not self._drawn:
            self._build(model, data)
            self._drawn = True
        for body, handle in self._bodies.items():
            pose = np.concatenate([data.xpos[body], data.xquat[body]])
            if body not in self._last or np.abs(pose - self._last[body]).max() > 1e-5:
                handle.position, handle.wxyz = pose[:3], pose[3:]
                self._last[body] = pose
        self._serialiser.insert_sleep(self._pause)

    def recorded(self) -> bytes | None:
        return self._serialiser.serialize() if self._drawn else None

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._server.stop()

    def _build(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        server, (eye, centre) = self._server, _camera(model, data)
        server.initial_camera.position, server.initial_camera.look_at = np.array(eye), np.array(centre)
        server.initial_camera.up = (0.0, 0.0, 1.0)
        for body in range(model.nbody):
            first, count = int(model.body_geomadr[body]), int(model.body_geomnum[body])
            shown = [
                g for g in range(first, first + count) if model.geom_group[g] in _GROUPS and _colour(model, g)[3] > 0
            ]
            if not shown:
                continue
            self._bodies[body] = server.scene.add_frame(f"/{body}", show_axes=False)
            for geom in shown:
                mesh, colour = _mesh(model, geom), _colour(model, geom)
                if mesh is None:
                    continue
                server.scene.add_mesh_simple(
                    f"/{body}/{geom}",
                    np.asarray(mesh.vertices, np.float32),
                    np.asarray(mesh.faces, np.uint32),
                    color=np.asarray(colour[:3], np.float64),
                    opacity=None if colour[3] >= 1 else float(colour[3]),
                    wxyz=model.geom_quat[geom],
                    position=model.geom_pos[geom],
                )


def _camera(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Where to look from and at, first: as the model's 'film' camera does, or from one side."""
    centre = np.array(model.stat.center)
    names = [model.camera(i).name for i in range(model.ncam)]
    if "film" not in names:
        eye = centre + model.stat.extent * np.array([0.9, -0.9, 0.8])
        return tuple(map(float, eye)), tuple(map(float, centre))
    place = names.index("film")
    eye, ahead = data.cam_xpos[place], -data.cam_xmat[place].reshape(3, 3)[:, 2]
    return tuple(map(float, eye)), tuple(map(float, eye + ahead * max(0.5, float(np.linalg.norm(eye - centre)) * 0.7)))


def _colour(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Red, green, blue and opacity of a shape; of a texture its mean colour."""
    material = int(model.geom_matid[geom])
    if material < 0:
        return np.array(model.geom_rgba[geom])
    colour = np.array(model.mat_rgba[material])
    texture = int(model.mat_texid[material].max())
    if texture >= 0:
        size = int(model.tex_height[texture]) * int(model.tex_width[texture])
        channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
        pixels = model.tex_data[start : start + size * channels].reshape(size, channels)
        if channels >= 3:
            colour[:3] *= pixels[:, :3].mean(0) / 255
    return colour


def _mesh(model: mujoco.MjModel, geom: int) -> Any:
    kinds, size = mujoco.mjtGeom, model.geom_size[geom]
    kind = int(model.geom_type[geom])
    if kind == kinds.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        v, f = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
        vertices = model.mesh_vert[v : v + int(model.mesh_vertnum[mesh])]
        faces = model.mesh_face[f : f + int(model.mesh_facenum[mesh])]
        return trimesh.Trimesh(*_thinned(vertices, faces), process=False)
    if kind == kinds.mjGEOM_BOX:
        return trimesh.creation.box(2 * size)
    if kind == kinds.mjGEOM_PLANE:
        return trimesh.creation.box([2 * (size[0] or 2.0), 2 * (size[1] or 2.0), 1e-3])
    if kind == kinds.mjGEOM_SPHERE:
        return trimesh.creation.icosphere(3, size[0])
    if kind == kinds.mjGEOM_ELLIPSOID:
        return trimesh.creation.icosphere(3, 1.0).apply_scale(size)
    if kind == kinds.mjGEOM_CYLINDER:
        return trimesh.creation.cylinder(size[0], 2 * size[1])
    if kind == kinds.mjGEOM_CAPSULE:
        return trimesh.creation.capsule(2 * size[1], size[0])
    return None


def _thinned(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mesh of at most about `_FEW` triangles: vertices that share a cell of a grid become one."""
    cells = 64
    while len(faces) > _FEW and cells > 8:
        low, high = vertices.min(0), vertices.max(0)
        grid = np.round((vertices - low) / (high - low).max() * cells).astype(int)
        _, first, place = np.unique(grid, axis=0, return_index=True, return_inverse=True)
        kept = place.reshape(-1)[faces]
        kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 0] != kept[:, 2])]
        if len(kept) <= _FEW:
            return vertices[first], kept
        cells //= 2
    return vertices, faces
