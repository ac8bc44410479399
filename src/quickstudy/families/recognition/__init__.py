"""Few-shot recognition: N-way K-shot families made of any labelled arrays, and Omniglot, the field's own test."""

from functools import partial

from quickstudy.families.base import FamilyRecord
from quickstudy.families.recognition.family import Recognition
from quickstudy.families.recognition.omniglot import Omniglot

__all__ = ["FAMILIES", "Omniglot", "Recognition"]

_NEEDS = "quickstudy data omniglot"

FAMILIES = (
    *(
        FamilyRecord(
            f"omniglot-{ways}way",
            f"recognise {ways} handwritten characters after one example of each (Vinyals et al. 2016)",
            partial(Omniglot, ways, jitter=True),
            needs=_NEEDS,
        )
        for ways in (5, 20, 60)
    ),
    FamilyRecord(
        "omniglot-within-alphabet-20way",
        "the same with 20 characters of one alphabet (Lake et al. 2015)",
        partial(Omniglot, 20, "within-alphabet", jitter=True),
        needs=_NEEDS,
    ),
)
