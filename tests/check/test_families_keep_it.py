"""Every family of quickstudy keeps its contract, and so does one of every kind of data that a user may bring."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quickstudy import check, families
from quickstudy.check.families import Amount
from quickstudy.errors import QuickstudyError
from quickstudy.families.recorded import RecordedDemonstrations

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
digests = pytest.importorskip("digests", reason="a source distribution without the tools")

FEW = Amount(tasks=2, episodes=1, pairs=6, drawn=5, compared=20)
MORE = {
    "grasping-tries": Amount(),  # a grasp in the middle succeeds sometimes
    "ml1-push": Amount(2, 1, 30, 5, 20),  # most of a demonstration comes before it goes to the goal
    "sinusoid": Amount(2, 1, 30, 5, 20),
}


def _failed(points: list[check.Point]) -> list[check.Point]:
    return [point for point in points if point.passed is False]


@pytest.mark.parametrize("name", families.records())
def test_every_family_keeps_its_contract(name: str) -> None:
    try:
        family = families.get(name)
    except QuickstudyError as reason:
        pytest.skip(str(reason))
    points = check.check(family, MORE.get(name, FEW))
    assert _failed(points) == []
    skipped = [point.name for point in points if point.passed is None and "demonstrations" in point.name]
    assert bool(skipped) == ("demonstrations" not in family.learned_from or family.labelled)


@pytest.mark.parametrize("kind", digests.OWN)
def test_own_data_keeps_it(kind: str, tmp_path: Path) -> None:
    file, write = digests.OWN[kind]
    write(tmp_path / file)
    points = check.check(families.get(str(tmp_path / file)))
    assert _failed(points) == []
    assert sum(point.passed is True for point in points) >= 9


def test_an_environment_of_ones_own_keeps_it() -> None:
    assert _failed(check.check(digests.family_of("cart"), FEW)) == []


def _walks(tasks: int, each: int, turn: Callable[[np.ndarray], np.ndarray]) -> tuple[list, list]:
    rng = np.random.default_rng(0)
    made = [(task, rng.normal(size=(9, 3))) for task in range(tasks) for _ in range(each)]
    return [(turn(x), np.tanh(x[:, :1] * (task - 1))) for task, x in made], [task for task, _ in made]


def _at_rest_first(x: np.ndarray) -> np.ndarray:
    x[0] = 0.0
    return x


@pytest.mark.parametrize(
    ("tasks", "each", "turn"), [(3, 3, lambda x: x), (5, 3, _at_rest_first)], ids=["least", "one start"]
)
def test_the_least_that_can_be_learned_from_keeps_it(tasks: int, each: int, turn: Callable) -> None:
    """Three tasks of three demonstrations: one may be shown. Robots of users start where they are parked."""
    demonstrations, labels = _walks(tasks, each, turn)
    family = families.from_demonstrations(demonstrations, labels)
    assert _failed(check.check(family)) == []


def test_what_is_shown_and_judged_is_found_out() -> None:
    class Leaking(RecordedDemonstrations):
        def demonstrate(self, tasks, count, seed):
            return [self._of[task.parameters["label"]][-count:] for task in tasks]

    demonstrations, labels = _walks(4, 5, lambda x: x)
    whole = families.from_demonstrations(demonstrations, labels)
    family = Leaking("leaking", {s: {k: whole._of[k] for k in of} for s, of in whole._labels.items()}, 2)
    assert "is one that it is judged by" in _failed(check.check(family))[0].said
