"""A folder of mesh files as tasks: each object with a grasp that geometry proposed and the expert proved in simulation.

What cannot be grasped, or is no object at all, is left out and named with the reason. A proven grasp is kept in the
user's cache, by the content of the file and the gripper.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from quickstudy import datasets
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.grasping import meshes
from quickstudy.families.grasping.arm import Arm
from quickstudy.families.grasping.grasps import Grasp, candidates
from quickstudy.families.grasping.meshes import Solid
from quickstudy.families.grasping.vector_env import HIDDEN, HIDDEN_SCALE, GraspingVectorEnv, expert
from quickstudy.io import files
from quickstudy.io.progress import console, progress
from quickstudy.task import Task

TRIED, TRIES, PROVEN = 8, 8, 0.875
"""Grasps of an object that are tried in simulation, episodes of each, and the share that must succeed."""
DENSITY, MASSES = 500.0, (0.1, 0.4)
"""Kilogrammes a cubic metre, of things that are partly hollow, and the masses of the training tasks, which bound it."""
FRICTION = 0.8
_VERSION = 1  # of how a grasp is found and proven: part of the name in the cache


def read_objects(
    folder: Path, unit: str, arm: Arm, threads: int | None = None
) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """The objects of a folder that an arm can grasp.

    Args:
        folder: with .obj and .stl files, one object each.
        unit: of the files' coordinates, see `meshes.UNITS`.
        threads: that step the worlds in which grasps are tried.

    Returns:
        the parameters of one task for each object, in the order of the files' names; of the others, by the file's name,
        why it is no task.

    Raises:
        QuickstudyError: no such folder, an unknown unit, no mesh file in it, or none that can be grasped.
    """
    if unit not in meshes.UNITS:
        raise unknown("unit of length", unit, meshes.UNITS)
    if not folder.is_dir():
        raise QuickstudyError(f"There is no folder '{folder}' to take objects from.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in meshes.SUFFIXES)
    if not paths:
        raise QuickstudyError(f"The folder '{folder}' holds no {' or '.join(meshes.SUFFIXES)} file.")
    meshes.tool("trimesh"), meshes.tool("coacd")
    tasks, left_out = [], {}
    with progress(f"{len(paths)} objects of {folder.name}", len(paths)) as advance:
        for path in paths:
            try:
                tasks.append(graspable(path, unit, arm, threads))
            except QuickstudyError as error:
                left_out[path.name] = str(error)
            advance(1, path.stem)
    if not tasks:
        reasons = " ".join(left_out.values())
        raise QuickstudyError(f"None of the {len(paths)} objects in '{folder}' can be a task. {reasons}")
    if left_out:
        said = [f"Left out {len(left_out)} of the {len(paths)} objects in '{folder}':", *left_out.values()]
        console.print("\n  ".join(said), markup=False, soft_wrap=True)
    return tasks, left_out


def graspable(path: Path, unit: str, arm: Arm, threads: int | None = None) -> Mapping[str, Any]:
    """The parameters of the task to grasp the object of a file.

    Raises:
        QuickstudyError: it is no object, see `meshes.load`, or cannot be grasped from above by this gripper.
    """
    solid = meshes.load(path, unit)
    where = _place(solid, arm)
    if where.exists():
        kept = json.loads(where.read_text())
    else:
        kept = _prove(solid, arm, path.name, threads)
        files.write_json(where, kept)
    if "reason" in kept:
        raise QuickstudyError(kept["reason"].format(name=path.name))
    return {**kept["task"], "object": path.stem}


def _place(solid: Solid, arm: Arm) -> Path:
    gripper = (arm.widest, arm.narrowest, arm.tip_below_tool, arm.clearance, arm.finger)
    what = repr((_VERSION, solid.key, type(arm).__qualname__, gripper))
    return datasets.cache() / "objects" / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.json"


def _prove(solid: Solid, arm: Arm, name: str, threads: int | None) -> dict[str, Any]:
    """The best of several grasps by how often the expert succeeds, as plain data; or the reason why none is."""
    try:
        grasps = candidates(solid, arm, TRIED, "{name}")
    except QuickstudyError as error:
        return {"reason": str(error)}
    tasks = [_parameters(solid, grasp) for grasp in grasps]
    success = _try(tasks, arm, threads)
    best = int(np.argmax(success))
    if success[best] < PROVEN:
        return {
            "reason": (
                "'{name}' cannot be grasped reliably from above by this gripper: of "
                f"{len(grasps)} grasps that fit, the best succeeded in {success[best] * TRIES:.0f} of {TRIES} tries."
            )
        }
    return {"task": tasks[best]}


def _parameters(solid: Solid, grasp: Grasp) -> dict[str, Any]:
    """The task of one grasp: where the tag is, mass and friction belong to the object, as in the training tasks."""
    rng = np.random.default_rng([int(solid.key[:8], 16), 0])
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(grasp.turn).ravel())
    radius, direction = rng.uniform(0.025, 0.045), rng.uniform(-np.pi, np.pi)
    return {
        "shape": "solid",
        "solid": solid.key,
        "quat": quat.tolist(),
        "shift": grasp.shift.tolist(),
        "grip_width": grasp.width,
        "grasp_height": grasp.height,
        "mass": float(np.clip(DENSITY * solid.volume, *MASSES)),
        "friction": FRICTION,
        "grasp_x": float(radius * np.cos(direction)),
        "grasp_y": float(radius * np.sin(direction)),
        "grasp_yaw": rng.uniform(-0.8, 0.8),
    }


def _try(parameters: Sequence[Mapping[str, Any]], arm: Arm, threads: int | None) -> np.ndarray:
    """How often the expert succeeds in the tasks of these parameters, [task]."""
    tasks = [Task("grasping", "tried", k, each) for k, each in enumerate(parameters)]
    hidden = np.array([[each[name] for name in HIDDEN] / HIDDEN_SCALE for each in parameters])[:, None]
    with GraspingVectorEnv(tasks, TRIES, arm, threads) as env:
        observations = env.reset([np.random.default_rng([k % TRIES, 1]) for k in range(env.size)])
        active = np.ones(env.shape, bool)
        while active.any():
            result = env.step(expert(observations, hidden), active)
            active, observations = active & ~result.over, result.observations
        return env.success.reshape(env.shape).mean(axis=1)
