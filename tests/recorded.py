"""Made-up recordings for the tests of data sets."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quickstudy import datasets
from quickstudy.datasets import Episode
from quickstudy.errors import QuickstudyError

_NUMBERS = st.floats(-1e6, 1e6, width=32)


def walks(tasks: int = 5, each: int = 4, images: bool = False) -> Iterator[Episode]:
    """Walks towards a goal of each task, of different lengths, with rewards and success."""
    rng = np.random.default_rng(0)
    for task in range(tasks):
        for i in range(each):
            x = rng.uniform(-1.0, 1.0, (6 + i, 2)).astype("f4")
            shown = {"front": np.full((6 + i, 32, 48, 3), 10 * task, np.uint8)} if images else {}
            goal = np.arange(6 + i) == 5 + i
            yield Episode(f"goal {task}", x, (task / 10 - x).astype("f4"), x[:, 0], goal, shown)


@st.composite
def recordings(draw: st.DrawFn) -> list[Episode]:
    """Episodes that are alike, of any numbers, labels and lengths."""
    obs, act = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rewarded, judged = draw(st.booleans()), draw(st.booleans())
    labels = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
    made = []
    for length in draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)):
        made.append(
            Episode(
                draw(labels),
                draw(hnp.arrays(np.float32, (length, obs), elements=_NUMBERS)),
                draw(hnp.arrays(np.float32, (length, act), elements=_NUMBERS)),
                draw(hnp.arrays(np.float32, length, elements=_NUMBERS)) if rewarded else None,
                draw(hnp.arrays(bool, length)) if judged else None,
            )
        )
    return made


def same(a: Episode, b: Episode) -> None:
    """Asserts that two episodes hold the same."""
    assert a.task == b.task
    for name in ("observations", "actions", "rewards", "success"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(np.asarray(one, "f4"), np.asarray(other, "f4"), err_msg=name)


def refused(path: Path) -> str:
    """The one line that reading a data set ends in, which must name it."""
    with pytest.raises(QuickstudyError) as error:
        list(datasets.load(path).demonstrations())
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)
