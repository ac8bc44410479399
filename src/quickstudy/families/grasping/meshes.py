"""Objects of one's own: mesh files read, checked and cut into convex parts, which are kept in the user's cache.

A file must hold one closed surface. What is simulated is the convex parts (by CoACD), with the mass, the centre of mass
and the inertia of the surface's own volume; what a picture shows is the surface.
"""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy import datasets
from quickstudy.errors import QuickstudyError, one_line, sound, unknown
from quickstudy.io import files

UNITS: Mapping[str, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}
SUFFIXES = (".obj", ".stl")
SMALLEST, LARGEST = 0.005, 2.0
"""Metres: what is shorter or longer than this is outside graspable size: its file has another unit."""

_VERSION = 3  # of what is computed below: part of the name in the cache
_PARTS = {
    "threshold": 0.08, "max_convex_hull": 12, "preprocess_resolution": 30, "mcts_iterations": 30, "mcts_nodes": 10,
    "decimate": True, "max_ch_vertex": 40, "seed": 0,
}  # fmt: skip
"""CoACD's settings: seconds for a plain object, half a minute for a cup; more parts would slow down the simulation."""


@dataclass(frozen=True)
class Solid:
    """A rigid body of constant density, metres, in the frame of its file.

    Attributes:
        key: names its content: the same file in the same unit has the same key.
        vertices, faces: its surface, [vertex, 3] and [face, 3].
        parts: corners [corner, 3] of each convex part.
        volume: cubic metres.
        centre: [3], of mass.
        inertia: [3, 3] about the centre, for a mass of one kilogramme.
    """

    key: str
    vertices: np.ndarray
    faces: np.ndarray
    parts: tuple[np.ndarray, ...]
    volume: float
    centre: np.ndarray
    inertia: np.ndarray

    @property
    def corners(self) -> np.ndarray:
        """The corners of all parts, [corner, 3]."""
        return np.concatenate(self.parts)


def load(path: Path, unit: str = "m") -> Solid:
    """Reads an object's file; cuts it into parts when it is met for the first time.

    Raises:
        QuickstudyError: an unknown unit, not a readable mesh file, a size that only another unit explains, not closed,
            or without volume.
    """
    if unit not in UNITS:
        raise unknown("unit of length", unit, UNITS)
    if path.suffix.lower() not in SUFFIXES:
        raise QuickstudyError(f"'{path}' is not a mesh file: {' and '.join(SUFFIXES)} are read.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise QuickstudyError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    settings = repr((_VERSION, UNITS[unit], sorted(_PARTS.items())))
    key = hashlib.sha256(content + settings.encode() + path.suffix.lower().encode()).hexdigest()[:24]
    if not _place(key).exists():
        with sound(f"'{path}' cannot be made an object"):
            _keep(_cut(_read(path, unit), key))
    return cached(key)


def cached(key: str) -> Solid:
    """The solid of this key.

    Raises:
        QuickstudyError: it is not in the cache (any more).
    """
    if not _place(key).exists():
        raise QuickstudyError(f"An object's convex parts are not at '{_place(key)}' any more: load its file again.")
    arrays = datasets.load_arrays(_place(key), "vertices", "faces", "corners", "starts", "volume", "centre", "inertia")
    return Solid(
        key,
        arrays["vertices"],
        arrays["faces"],
        tuple(np.split(arrays["corners"], arrays["starts"][1:])),
        float(arrays["volume"]),
        arrays["centre"],
        arrays["inertia"],
    )


def tool(name: str) -> Any:
    """A package that only objects of one's own need.

    Raises:
        QuickstudyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise QuickstudyError(
            f'Objects from mesh files need the package {name}, which is not installed: run "pip install '
            "'quickstudy[objects]'\"."
        ) from error


def _place(key: str) -> Path:
    return datasets.cache() / "objects" / f"{key}.npz"


def _keep(solid: Solid) -> None:
    starts = np.cumsum([0, *(len(part) for part in solid.parts[:-1])])
    with files.partial(_place(solid.key)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, vertices=solid.vertices, faces=solid.faces, corners=solid.corners, starts=starts,
            volume=solid.volume, centre=solid.centre, inertia=solid.inertia,
        )  # fmt: skip


def _read(path: Path, unit: str) -> Any:
    """The mesh of a file, its triangles turned outwards, in metres."""
    trimesh = tool("trimesh")
    try:
        mesh = trimesh.load(path, force="mesh", process=True)
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces)
    except Exception as error:  # its parsers raise whatever they stumble over
        raise QuickstudyError(f"'{path}' is not a readable {path.suffix.lower()} file ({one_line(error)}).") from error
    if len(faces) == 0 or not np.isfinite(vertices).all():
        raise QuickstudyError(f"'{path}' is not a readable {path.suffix.lower()} file: it holds no triangles.")
    _check_size(path, float(np.ptp(vertices, axis=0).max()), unit)
    mesh = trimesh.Trimesh(vertices * UNITS[unit], faces, process=False)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.update_faces(_once(np.asarray(mesh.faces)))
    open_edges = _open_edges(np.asarray(mesh.faces))
    if open_edges:
        raise QuickstudyError(
            f"'{path}' is not closed: {open_edges} of its edges belong to one triangle alone, so it has no inside."
        )
    with np.errstate(invalid="ignore", divide="ignore"):  # of a centre of mass, where there is no volume
        mesh = _solid(mesh, path)
        volume = float(mesh.volume)
    if not volume > 1e-6 * np.prod(np.maximum(mesh.extents, 1e-6 * mesh.scale)):
        raise QuickstudyError(f"'{path}' has no volume: it encloses {1e6 * volume:.3g} cubic centimetres.")
    _check_once(path, mesh)
    return mesh


def _once(faces: np.ndarray) -> np.ndarray:
    """Which triangles [face] stay where some lie on each other: one of those that face the same way, and none of two
    that face each other, as where two bodies touch; but one of each where the whole surface is two-sided."""
    order = np.argsort(faces, axis=1)
    # A triangle's corners in rising order are turned against its own where that takes one swap or three.
    even = np.isin(order @ np.array([9, 3, 1]), [0 * 9 + 1 * 3 + 2, 1 * 9 + 2 * 3 + 0, 2 * 9 + 0 * 3 + 1])
    _, group = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    group = group.ravel()
    ahead = np.bincount(group, np.where(even, 1, -1))[group]
    wanted = np.flatnonzero((ahead != 0) & (even == (ahead > 0)) if ahead.any() else np.ones(len(faces), bool))
    _, first = np.unique(group[wanted], return_index=True)
    kept = np.zeros(len(faces), bool)
    kept[wanted[first]] = True
    return kept


def _solid(mesh: Any, path: Path) -> Any:
    """The mesh with its triangles turned outwards, and what several bodies fill together counted once.

    A body within another is a cavity where its triangles face the other way, and otherwise part of what surrounds it.
    """
    trimesh = tool("trimesh")
    trimesh.repair.fix_winding(mesh)
    if mesh.volume < 0:
        mesh.invert()
    bodies = mesh.submesh(_bodies(mesh), append=False)
    if len(bodies) == 1:
        trimesh.repair.fix_normals(mesh)
        return mesh
    outward = [float(body.volume) > 0 for body in bodies]
    around = [[j for j, other in enumerate(bodies) if j != i and _within(body, other)] for i, body in enumerate(bodies)]
    around = [
        [j for j in holders if i not in around[j] or j < i] for i, holders in enumerate(around)
    ]  # of two alike one
    parent = [max(holders, key=lambda j: len(around[j]), default=None) for holders in around]
    for body, out in zip(bodies, outward, strict=True):
        if not out:
            body.invert()

    def filled(i: int) -> Any:
        holes = [filled(j) for j, holder in enumerate(parent) if holder == i and outward[j] != outward[i]]
        return trimesh.boolean.difference([bodies[i], *holes], engine="manifold") if holes else bodies[i]

    roots = [i for i, holder in enumerate(parent) if holder is None]
    apart = not any(_near(bodies[i], bodies[j]) for i in roots for j in roots if j < i)
    if not apart or any(holder is not None for holder in parent):
        tool("manifold3d")
    try:
        solids = [filled(i) for i in roots]
        return trimesh.util.concatenate(solids) if apart else trimesh.boolean.union(solids, engine="manifold")
    except Exception as error:  # manifold3d refuses surfaces that are not closed everywhere
        raise QuickstudyError(
            f"'{path}' has {len(bodies)} bodies that overlap, and what they fill together cannot be told ({error}); "
            "unite them in your modelling program."
        ) from error


def _bodies(mesh: Any) -> list[np.ndarray]:
    """The triangles of each body, where bodies may touch in corners and edges or share them.

    Triangles hang together by an edge that they alone have. What is not closed by that goes on where more than two meet
    in an edge: from a triangle to the next one around the edge that ends the wedge which the first one begins.
    """
    graph, faces = tool("trimesh").graph, np.asarray(mesh.faces)
    patch = graph.connected_component_labels(mesh.face_adjacency, node_count=len(faces))
    owner = np.repeat(np.arange(len(faces)), 3)
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    _, edge, count = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True, return_counts=True)
    edge, links = edge.ravel(), []
    for one in np.flatnonzero(count > 2):
        at = np.flatnonzero(edge == one)
        where = np.unique(patch[owner[at]], return_inverse=True)[1]
        at = at[(np.bincount(where) % 2 == 1)[where]]  # a patch that comes and goes there is closed there
        if len(at) == 0:
            continue
        low, high = np.sort(directed[at[0]])
        axis = mesh.vertices[high] - mesh.vertices[low]
        third = faces[owner[at], (at + 2) % 3]
        links += _wedges(mesh.vertices[third] - mesh.vertices[low], axis, directed[at, 0] == low, patch[owner[at]])
    joined = graph.connected_component_labels(np.array(links).reshape(-1, 2), node_count=patch.max() + 1)[patch]
    return [np.flatnonzero(joined == one) for one in np.unique(joined)]


def _wedges(away: np.ndarray, axis: np.ndarray, ahead: np.ndarray, patch: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of patches that bound a wedge of the inside, of triangles around an edge.

    Args:
        away: [triangle, 3], from the edge to the third corner.
        ahead: whether a triangle's corners go along the axis, so that its inside is before it, counterclockwise.
    """
    axis = axis / np.linalg.norm(axis)
    right = np.cross(axis, [1.0, 0.0, 0.0] if abs(axis[0]) < 0.9 else [0.0, 1.0, 0.0])
    angle = np.round(np.arctan2(away @ np.cross(axis, right), away @ right), 6)
    order = np.lexsort((~ahead, angle))
    if ahead.sum() * 2 != len(ahead):  # turned at random: who belongs together cannot be told
        return [(int(patch[0]), int(other)) for other in patch]
    order = np.roll(order, -int(np.argmax(~ahead[order])))
    begins, ends = order[~ahead[order]], order[ahead[order]]
    return [(int(patch[a]), int(patch[b])) for a, b in zip(begins, ends, strict=True)]


def _near(one: Any, other: Any) -> bool:
    """Whether the boxes about two bodies overlap by more than rounding."""
    low, high = np.maximum(one.bounds[0], other.bounds[0]), np.minimum(one.bounds[1], other.bounds[1])
    return bool((high - low > 1e-9).all())


def _within(body: Any, other: Any) -> bool:
    """Whether all of a body lies in another."""
    if (body.bounds[0] < other.bounds[0] - 1e-9).any() or (body.bounds[1] > other.bounds[1] + 1e-9).any():
        return False
    corners = np.asarray(body.vertices)[:: max(1, len(body.vertices) // 20)]
    return bool((np.abs(_turns(corners, other)) > 0.5).all())


def _turns(points: np.ndarray, mesh: Any) -> np.ndarray:
    """How often a surface goes around each point, [point]: 0 outside of it, 1 inside, 2 where it overlaps itself."""
    turns = []
    for some in np.array_split(points, max(1, len(points) * len(mesh.faces) // 200_000)):
        a, b, c = (np.asarray(mesh.triangles)[None, :, i] - some[:, None] for i in range(3))
        la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
        # van Oosterom and Strackee 1983, "The solid angle of a plane triangle", eq. 8.
        top = (a * np.cross(b, c)).sum(-1)
        bottom = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        turns.append(np.arctan2(top, bottom).sum(-1) / (2 * np.pi))
    return np.concatenate(turns)


def _check_once(path: Path, mesh: Any) -> None:
    """Raises QuickstudyError where parts of the inside would count twice, or against the rest."""
    count = int(np.clip(2_000_000 // len(mesh.faces), 100, 1000))
    low, high = np.asarray(mesh.bounds)
    points = np.random.default_rng(0).uniform(low, high, (count, 3))
    turns = np.round(_turns(points, mesh))
    wrong = float(((turns < 0) | (turns > 1)).sum() / max(1, (turns != 0).sum()))
    if wrong > 0.01:
        raise QuickstudyError(
            f"'{path}' has a surface that passes through itself: about {wrong:.0%} of its inside would not count once; "
            "unite its parts in your modelling program."
        )


def _check_size(path: Path, longest: float, unit: str) -> None:
    """Raises QuickstudyError where an object of this length in its file's unit must have another unit."""
    if SMALLEST <= longest * UNITS[unit] <= LARGEST:
        return
    better = [name for name, scale in UNITS.items() if 0.02 <= longest * scale <= 0.5]
    advice = f"is its unit {' or '.join(better)}?" if better else "scale it to the size of a thing on a table."
    raise QuickstudyError(f"'{path}' is {longest * UNITS[unit]:.3g} m long when its unit is {unit}; {advice}")


def _open_edges(faces: np.ndarray) -> int:
    """How many edges have an odd number of triangles; a surface that touches itself along an edge is still closed."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    return int((counts % 2).sum())


def _cut(mesh: Any, key: str) -> Solid:
    coacd, trimesh = tool("coacd"), tool("trimesh")
    coacd.set_log_level("error")
    found = coacd.run_coacd(coacd.Mesh(mesh.vertices, mesh.faces), **_PARTS)
    parts = [trimesh.convex.convex_hull(corners) for corners, _ in found]
    mesh.density = 1.0 / mesh.volume
    return Solid(
        key,
        mesh.vertices.astype(np.float32),
        mesh.faces.astype(np.int32),
        tuple(np.asarray(part.vertices, np.float64) for part in parts),
        float(mesh.volume),
        np.asarray(mesh.center_mass, np.float64),
        np.asarray(mesh.moment_inertia, np.float64),
    )
