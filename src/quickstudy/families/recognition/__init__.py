"""Few-shot recognition: N-way K-shot families made of any labelled arrays, and Omniglot, the field's own test."""

from functools import partial
from typing import Literal

from quickstudy.families.base import FamilyRecord
from quickstudy.task import TaskFamily


def _omniglot(ways: int, protocol: Literal["vinyals", "within-alphabet"] = "vinyals") -> TaskFamily:
    from quickstudy.families.recognition.omniglot import Omniglot

    return Omniglot(ways, protocol, jitter=True)


FAMILIES = (
    *(
        FamilyRecord(
            f"omniglot-{ways}way",
            f"recognise {ways} handwritten characters after one example of each (Vinyals et al. 2016)",
            partial(_omniglot, ways),
            needs="quickstudy data omniglot",
        )
        for ways in (5, 20, 60)
    ),
    FamilyRecord(
        "omniglot-within-alphabet-20way",
        "the same with 20 characters of one alphabet (Lake et al. 2015)",
        partial(_omniglot, 20, "within-alphabet"),
        needs="quickstudy data omniglot",
    ),
)
