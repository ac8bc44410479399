"""The README's own code works, and its tables agree with the committed results."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quickstudy import DemonstrationSet, TrainConfig, evaluate, meta_train

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), found)
    return found


def test_the_method_and_the_family_of_the_readme_learn(names):
    family = names["Thermostat"]()
    source = DemonstrationSet.record(family, family.tasks("train", 60), 4, seed=0)
    torch.manual_seed(0)
    learner = names["RidgeHead"](family.observation_size, family.action_size)
    learner.standardise(source.batch)
    meta_train(learner, source, TrainConfig(steps=400, meta_batch=8, rate=3e-3, batching="vmap"))
    success = evaluate(learner, family, "test", shots=[0, 1], tasks=60, episodes=3).metrics["success"].mean((1, 2))
    assert success[1] > 0.8
    assert success[1] > success[0] + 0.3


def test_each_is_as_short_as_promised(names):
    lengths = [block[block.index("\nclass ") :].strip().count("\n") + 1 for block in BLOCKS]
    assert len(lengths) == 2
    assert max(lengths) <= 32
    assert np.all(np.array(lengths) > 10)
