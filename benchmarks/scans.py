"""Scanned household objects grasped from a few demonstrations, none of which training has seen: success by object.

    export QUICKSTUDY_SCANS=...             # a folder of .obj and .stl files in metres, or a file of meshes (below)
    python -m benchmarks.scans              # resumes where it was stopped; takes the trainings of `compare grasping`

Learners are meta-trained on the primitive shapes of 'grasping' alone. Each object gets the grasp that geometry proposes
and the expert proves; what cannot be grasped is listed with the reason and is no task. Writes
benchmarks/results/grasping-scans.json, and a contact sheet to docs/images/grasping-scans.png.

A file of meshes is an .npz with `names` [n], `vertices` [vertex, 3] in metres, `faces` [face, 3] (indices within the
object), and `vertex_start`, `face_start` [n + 1], the rows where each object begins.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from quickstudy import datasets
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment, clock, seconds_so_far
from quickstudy.families.grasping.family import OBJECTS, Grasping
from quickstudy.io import files
from quickstudy.io.progress import console
from quickstudy.results.compare import Protocol, compare
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy.simulation import rendering

VARIABLE = "QUICKSTUDY_SCANS"


@dataclass(frozen=True)
class Scans:
    """What to run."""

    methods: tuple[str, ...] = ("meta-sgd", "maml", "transfer", "no-adaptation", "nearest", "oracle")
    """The first is the one whose success the contact sheet tells."""
    seeds: int = 3
    shots: tuple[int, ...] = (0, 1, 3)
    episodes: int = 10
    """Episodes of each object and seed; every one counts."""
    steps: int | None = None
    """Outer steps of every training; the family's default where not given."""
    output_dir: Path = Path("runs/compare-grasping")
    """With the trainings of 'quickstudy compare grasping', which are these methods' trainings too."""
    results: Path = Path("benchmarks/results/grasping-scans.json")
    sheet: Path = Path("docs/images/grasping-scans.png")


def objects_of(what: Scans) -> Path:
    """The folder that the environment variable names, or one with an .obj file for each mesh of the file it names."""
    if not os.environ.get(VARIABLE):
        raise QuickstudyError(f"Set {VARIABLE} to a folder of .obj and .stl files, or to an .npz file of meshes.")
    source, folder = Path(os.environ[VARIABLE]), what.output_dir / "scans"
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


def of_the_expert(family: Grasping, episodes: int) -> list[Row]:
    """How often the expert, which knows the grasp, succeeds: over all objects and with each."""
    tasks = family.tasks(OBJECTS, family.sizes[OBJECTS])
    success = family.run_expert(tasks, episodes, seed=0)["success"].mean(1)
    return [
        Row("expert", value=round(float(success.mean()), 4), tasks=len(tasks), episodes=episodes),
        *(
            Row("expert", value=round(float(v), 4), episodes=episodes, workload=family.caption(task))
            for task, v in zip(tasks, success, strict=True)
        ),
    ]


def draw(family: Grasping, method: str, rows: list[Row], path: Path) -> None:
    """A contact sheet: each object with its success after one demonstration."""
    one = {row.workload: row.value for row in rows if row.method == method and row.shots == 1}
    tasks = family.tasks(OBJECTS, family.sizes[OBJECTS])
    captions = [f"{task.parameters['object']}: {100 * (one[family.caption(task)] or 0.0):.0f} %" for task in tasks]
    frames = [family.snapshot(task, 200, 150) for task in tasks]
    rendering.write_png(path, rendering.contact_sheet(frames, captions, columns=6))


def main(what: Scans) -> None:
    command = shlex.join(["python", "-m", "benchmarks.scans", *sys.argv[1:]])
    seconds = what.output_dir / "scans-seconds.json"
    with clock(seconds):
        family = Grasping(objects=objects_of(what))
        changes = {} if what.steps is None else {"training": {"steps": what.steps}}
        protocol = Protocol(what.seeds, (OBJECTS,), what.shots, family.sizes[OBJECTS], what.episodes)
        (compared,) = compare(
            family,
            what.methods,
            protocol,
            what.output_dir,
            experiment_for=lambda method, seed: Experiment.of(family, method, seed, changes),
            command=command,
            by_task=True,
        )
        rows = [*compared.rows, *of_the_expert(family, what.episodes)]
        rows += [Row("left-out", workload=name, note=reason) for name, reason in family.left_out.items()]
        # The order of objects, with what holds for all of them first.
        rows = [row for row in rows if not row.workload] + sorted(
            (row for row in rows if row.workload), key=lambda row: row.workload
        )
        draw(family, what.methods[0], rows, what.sheet)
    cell = Cell.measured_here(
        cell="grasping-scans",
        metric=family.metric,
        unit="fraction",
        protocol=(
            "Scanned household objects, all of them held out: training saw primitive shapes alone. Each is a task with "
            f"the grasp that geometry proposed and the expert proved, {family.protocol}; rows without an object are "
            "over all that can be grasped; what cannot is named with the reason and counts for nothing."
        ),
        command=command,
        seconds=seconds_so_far(seconds),
        rows=rows,
        reference=compared.reference,
    )
    cell.write(what.results)
    print_table(cell)
    console.print(f"The contact sheet: {what.sheet}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Scans))
