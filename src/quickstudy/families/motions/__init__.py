"""Real recorded motions, predicted from one to three demonstrations."""

from quickstudy.families.base import FamilyRecord
from quickstudy.task import TaskFamily


def _motions() -> TaskFamily:
    from quickstudy.families.motions.family import Motions

    return Motions()


FAMILIES = (
    FamilyRecord(
        "motions",
        "predict a whole recorded motion from demonstrations of it and a new start",
        _motions,
        needs="a file of motions, named by $QUICKSTUDY_MOTIONS",
    ),
)
