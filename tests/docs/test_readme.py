"""The README's own code works, it is short, and both languages say the same."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from documents import READMES, fences, prose, python_of

from quickstudy import DemonstrationSet, TrainConfig, evaluate, meta_train

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in READMES}
LONGEST = 150


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the README's method and the guide's family define."""
    found: dict[str, Any] = {}
    for page, wanted in (("README.md", "class RidgeHead"), ("docs/guides/own-environment.md", "class Thermostat")):
        (block,) = (block for block in python_of(page) if wanted in block)
        exec(compile(block, page, "exec"), found)
    return found


def test_the_method_of_the_readme_learns_the_family_of_the_guide(names):
    family = names["Thermostat"]()
    source = DemonstrationSet.record(family, family.tasks("train", 60), 4, seed=0)
    torch.manual_seed(0)
    learner = names["RidgeHead"](family.observation_size, family.action_size)
    learner.standardise(source.batch)
    meta_train(learner, source, TrainConfig(steps=400, meta_batch=8, rate=3e-3, batching="vmap"))
    success = evaluate(learner, family, "test", shots=[0, 1], tasks=60, episodes=3).metrics["success"].mean((1, 2))
    assert success[1] > 0.8
    assert success[1] > success[0] + 0.3


def test_sixty_seconds_of_python_learn_to_reach_unseen_goals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in python_of("README.md") if "Experiment" in block)
    found: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), found)
    without, one = found["result"].metrics["success"].mean((1, 2))
    assert one > 0.9
    assert without < 0.2
    assert list((tmp_path / "runs/points").iterdir())


def test_the_method_is_as_short_as_promised():
    (block,) = (block for block in python_of("README.md") if "class RidgeHead" in block)
    lines = [line for line in block[block.index("class ") :].splitlines() if line.strip()]
    assert 10 < len(lines) <= 16


@pytest.mark.parametrize("name", TEXTS)
def test_a_readme_is_one_that_is_read(name):
    assert len(TEXTS[name].splitlines()) <= LONGEST


@pytest.mark.parametrize("language", ["sh", "python"])
def test_both_languages_have_the_same_code(language):
    codes = [[re.sub(r" *#.*", "", block) for block in fences(text, language)] for text in TEXTS.values()]
    assert codes[0]
    assert codes[0] == codes[1]


def test_both_languages_have_the_same_figures():
    figures = [
        [re.findall(r"[\d.,]*\d|–", row) for row in text.splitlines() if row.startswith("| ") and "`" not in row]
        for text in TEXTS.values()
    ]
    assert np.size(sum(figures[0], [])) > 50
    assert figures[0] == figures[1]


def test_both_languages_name_the_same_methods_and_families():
    tables = [
        [re.findall(r"`([^`]+)`", row) for row in text.splitlines() if row.startswith("|") and "`" in row]
        for text in TEXTS.values()
    ]
    assert len(sum(tables[0], [])) > 40
    assert tables[0] == tables[1]


def test_both_languages_lead_to_the_same_places():
    links = [re.findall(r"\]\(([^)]+)\)", prose(text)) for text in TEXTS.values()]
    mirrored = ["README.md" if link == "README.zh-CN.md" else link for link in links[0]]
    assert len(mirrored) > 20
    assert mirrored == links[1]
