"""The examples that need scikit-learn do what they say, on a part of their tasks."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "steps", "chance"), [("digits_prototypical", 150, 0.2), ("text_few_shot", 50, 0.25)])
def test_unseen_classes_are_recognised_better_than_by_their_nearest_neighbours(name, steps, chance):
    accuracy = example(name).main(steps=steps, tasks=100)
    one, five = accuracy["prototypical"]
    assert one > 2 * chance
    assert one > accuracy["nearest neighbour"][0] + 0.03
    assert five > accuracy["nearest neighbour"][1] + 0.08


@pytest.mark.parametrize("name", ["digits_prototypical", "text_few_shot"])
def test_each_is_as_short_as_a_page(name):
    code = [line for line in (EXAMPLES / f"{name}.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 60
