"""Grasping: an arm picks up an object that it has never seen, after one demonstration, or within a few tries.

`quickstudy.families.grasping.arm` says what a robot of one's own needs.
"""

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from quickstudy.families.base import FamilyRecord

if TYPE_CHECKING:
    from quickstudy.families.grasping.family import Grasping as Grasping
    from quickstudy.families.grasping.panda import GraspingPanda as GraspingPanda
    from quickstudy.families.grasping.tries import GraspingTries as GraspingTries

_MODULES = {"Grasping": "family", "GraspingPanda": "panda", "GraspingTries": "tries"}
"""Where the classes are; imported when they are asked for, as MuJoCo takes a while to load."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _build(name: str, **options: Any) -> Any:
    return __getattr__(name)(**options)


FAMILIES = (
    FamilyRecord(
        "grasping",
        "an arm lifts an object whose shape, size and grasp point are hidden",
        partial(_build, "Grasping"),
        environment="Grasp-v0",
        takes_objects=True,
    ),
    FamilyRecord(
        "grasping-panda",
        "the same with a Franka Panda and a Robotiq gripper",
        partial(_build, "GraspingPanda"),
        needs="the package gym-hil",
        takes_objects=True,
    ),
    FamilyRecord(
        "grasping-tries",
        "the same objects in up to five tries, one decision each, by reward",
        partial(_build, "GraspingTries"),
    ),
)
