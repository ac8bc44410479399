"""Grasping: an arm picks up an object that it has never seen, after one demonstration, or within a few tries.

`quickstudy.families.grasping.arm` says what a robot of one's own needs.
"""

from quickstudy.families.base import FamilyRecord, imported

FAMILIES = (
    FamilyRecord(
        "grasping",
        "an arm lifts an object whose shape, size and grasp point are hidden",
        imported(f"{__name__}.family:Grasping"),
        environment="Grasp-v0",
        takes_objects=True,
    ),
    FamilyRecord(
        "grasping-panda",
        "the same with a Franka Panda and a Robotiq gripper",
        imported(f"{__name__}.panda:GraspingPanda"),
        needs="the package gym-hil",
        takes_objects=True,
    ),
    FamilyRecord(
        "grasping-tries",
        "the same objects in up to five tries, one decision each, by reward",
        imported(f"{__name__}.tries:GraspingTries"),
    ),
)
