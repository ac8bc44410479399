"""A MuJoCo world in viser: a frame for each body, a mesh for each shape, moved with the world."""

import zlib
from typing import Any

import mujoco
import numpy as np
import trimesh

_GROUPS = (0, 1, 2)
"""Groups of geoms that MuJoCo shows by default; what only collides is in the others."""

TRIANGLES = 6000
"""Above which a mesh is thinned out: a robot's parts are modelled far finer than a replay shows."""


class WorldView:
    """What viser shows of one MuJoCo world.

    Args:
        scene: of a viser server, or of one of its clients.
        prefix: before the names of all that is drawn.
        hidden: bodies that are not drawn, by name.
        triangles: above which a mesh is thinned out.
    """

    def __init__(self, scene: Any, prefix: str = "", hidden: tuple[str, ...] = (), triangles: int = TRIANGLES) -> None:
        self._scene, self._prefix, self._hidden, self._triangles = scene, prefix, hidden, triangles
        self._bodies: dict[int, Any] = {}
        self._drawn: dict[int, int] = {}
        self._last: dict[int, np.ndarray] = {}

    def build(self, model: mujoco.MjModel) -> None:
        """Draws a model; of the one that was drawn before, bodies that look alike stay as they are."""
        for body in range(model.nbody):
            shown = [] if model.body(body).name in self._hidden else _shown(model, body)
            look = _look(model, shown)
            if self._drawn.get(body) == look:
                continue
            self._remove(body)
            self._drawn[body] = look
            if shown:
                self._draw(model, body, shown)
        for body in [body for body in self._drawn if body >= model.nbody]:
            self._remove(body)

    def move(self, places: np.ndarray, turns: np.ndarray) -> None:
        """Puts the bodies where they are, places [body, 3] and quaternions [body, 4]; those at rest send nothing."""
        for body, handle in self._bodies.items():
            pose = np.concatenate([places[body], turns[body]])
            if body not in self._last or np.abs(pose - self._last[body]).max() > 1e-5:
                handle.position, handle.wxyz = pose[:3], pose[3:]
                self._last[body] = pose

    def _remove(self, body: int) -> None:
        if body in self._bodies:
            self._bodies.pop(body).remove()
        self._drawn.pop(body, None), self._last.pop(body, None)

    def _draw(self, model: mujoco.MjModel, body: int, shown: list[int]) -> None:
        self._bodies[body] = self._scene.add_frame(f"{self._prefix}/{body}", show_axes=False)
        for geom in shown:
            mesh, colour = _mesh(model, geom, self._triangles), _colour(model, geom)
            if mesh is None:
                continue
            self._scene.add_mesh_simple(
                f"{self._prefix}/{body}/{geom}",
                np.asarray(mesh.vertices, np.float32),
                np.asarray(mesh.faces, np.uint32),
                color=np.asarray(colour[:3], np.float64),
                opacity=None if colour[3] >= 1 else float(colour[3]),
                wxyz=model.geom_quat[geom],
                position=model.geom_pos[geom],
            )


def _shown(model: mujoco.MjModel, body: int) -> list[int]:
    """The shapes of a body that can be seen."""
    first, count = int(model.body_geomadr[body]), int(model.body_geomnum[body])
    return [g for g in range(first, first + count) if model.geom_group[g] in _GROUPS and _colour(model, g)[3] > 0]


def _look(model: mujoco.MjModel, shown: list[int]) -> int:
    """A number that is another one for shapes that look otherwise."""
    look = len(shown)
    for g in shown:
        parts = [model.geom_type[g], model.geom_size[g], model.geom_pos[g], model.geom_quat[g], _colour(model, g)]
        if int(model.geom_type[g]) == mujoco.mjtGeom.mjGEOM_MESH:
            mesh = int(model.geom_dataid[g])
            first = int(model.mesh_vertadr[mesh])
            parts.append(model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])])
        for part in parts:
            look = zlib.crc32(np.ascontiguousarray(part).tobytes(), look)
    return look


def camera(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[tuple[float, ...], tuple[float, ...]]:
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


def _mesh(model: mujoco.MjModel, geom: int, triangles: int) -> Any:
    kinds, size = mujoco.mjtGeom, model.geom_size[geom]
    kind = int(model.geom_type[geom])
    if kind == kinds.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        v, f = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
        vertices = model.mesh_vert[v : v + int(model.mesh_vertnum[mesh])]
        faces = model.mesh_face[f : f + int(model.mesh_facenum[mesh])]
        return trimesh.Trimesh(*_thinned(vertices, faces, triangles), process=False)
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


def _thinned(vertices: np.ndarray, faces: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A mesh of at most about so many triangles: vertices that share a cell of a grid become one."""
    cells, found = 64, (vertices, faces)
    while len(found[1]) > most and cells > 8:
        low, high = vertices.min(0), vertices.max(0)
        grid = np.round((vertices - low) / (high - low).max() * cells).astype(int)
        _, first, place = np.unique(grid, axis=0, return_index=True, return_inverse=True)
        kept = place.reshape(-1)[faces]
        kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 0] != kept[:, 2])]
        found = vertices[first], kept
        cells //= 2
    return found
