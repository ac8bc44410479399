"""Scanned household objects grasped from a few demonstrations, none of which training has seen: success by object.

    export QUICKSTUDY_SCANS=...             # a folder of .obj and .stl files in metres, or a file of meshes (below)
    python -m benchmarks.scans              # resumes where it was stopped

Learners are meta-trained on the primitive shapes of 'grasping' alone. Each object gets the grasp that geometry proposes
and the expert proves; what cannot be grasped is listed with the reason and is no task. Writes
benchmarks/results/grasping-scans.json, and beside it a contact sheet and the list of what was left out.

A file of meshes is an .npz with `names` [n], `vertices` [vertex, 3] in metres, `faces` [face, 3] (indices within the
object), and `vertex_start`, `face_start` [n + 1], the rows where each object begins.
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from quickstudy import datasets, files, rendering
from quickstudy.compare import Protocol, bootstrap, compare, parameters
from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import Evaluation
from quickstudy.methods import Settings, defaults
from quickstudy.progress import console
from quickstudy.results import Cell, Row, print_table
from quickstudy.skills.grasping import OBJECTS, Grasping

VARIABLE = "QUICKSTUDY_SCANS"
ALL = "all objects"


@dataclass(frozen=True)
class Scans:
    """What to run."""

    methods: tuple[str, ...] = ("meta-sgd", "transfer", "no-adaptation", "nearest", "oracle")
    seeds: int = 3
    shots: tuple[int, ...] = (0, 1, 3)
    episodes: int = 20
    """Episodes of each object and seed; every one counts."""
    steps: int | None = None
    """Outer steps of every training; the family's default where not given."""
    output_dir: Path = Path("runs/scans")
    results: Path = Path("benchmarks/results/grasping-scans.json")


def unpacked(source: Path, folder: Path) -> Path:
    """The folder itself, or one with an .obj file for each mesh of an .npz file."""
    if source.is_dir():
        return source
    arrays = datasets.load_arrays(source, "names", "vertices", "faces", "vertex_start", "face_start")
    for name, corners, triangles in zip(
        arrays["names"],
        np.split(arrays["vertices"], arrays["vertex_start"][1:-1]),
        np.split(arrays["faces"].astype(int), arrays["face_start"][1:-1]),
        strict=True,
    ):
        lines = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in corners]
        lines += [f"f {a} {b} {c}" for a, b, c in triangles + 1]
        files.write(folder / f"{name}.obj", "\n".join(lines) + "\n")
    return folder


def objects_of(what: Scans) -> Path:
    if not os.environ.get(VARIABLE):
        raise QuickstudyError(f"Set {VARIABLE} to a folder of .obj and .stl files, or to an .npz file of meshes.")
    return unpacked(Path(os.environ[VARIABLE]), what.output_dir / "objects")
