"""The README's own code works, it is short, and both languages say the same."""

import re
from typing import Any

import pytest
from documents import READMES, fences, prose, python_of

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in READMES}
LONGEST = 150
GUIDES = "docs/guides/own-"


def block_with(page: str, words: str) -> str:
    """The Python block of a page that holds some words."""
    (found,) = (block for block in python_of(page) if words in block)
    return found


def test_the_method_of_the_readme_learns_the_family_of_the_guide_by_its_loop(capsys):
    method, family = block_with("README.md", "class RidgeHead"), block_with(GUIDES + "environment.md", "Thermostat(")
    loop = block_with(GUIDES + "method.md", "meta_train(learner").replace("rate=3e-3", "rate=3e-3, batching='vmap'")
    exec(compile(f"{method}\n{family}\n{loop}", "README.md", "exec"), {})
    without, one = map(float, capsys.readouterr().out.strip().splitlines()[-1].strip("[]").split())
    assert one > 0.8
    assert one > without + 0.3


def test_sixty_seconds_of_python_learn_to_reach_unseen_goals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = block_with("README.md", "Experiment")
    found: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), found)
    result = found["experiment"].evaluate(found["robot"].learner, shots=[0, 1], tasks=50, episodes=3)
    without, one = result.metrics["success"].mean((1, 2))
    assert found["action"].shape == (2,)
    assert one > 0.9
    assert without < 0.2
    assert list((tmp_path / "runs/points").iterdir())


def test_the_method_is_as_short_as_promised():
    block = block_with("README.md", "class RidgeHead")
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
    assert sum(map(len, figures[0])) > 50
    assert figures[0] == figures[1]


def test_both_languages_name_the_same_methods_and_families():
    tables = [
        [re.findall(r"`([^`]+)`", row) for row in text.splitlines() if row.startswith("|") and "`" in row]
        for text in TEXTS.values()
    ]
    assert sum(map(len, tables[0])) > 40
    assert tables[0] == tables[1]


def test_both_languages_lead_to_the_same_places():
    links = [re.findall(r"\]\(([^)]+)\)", prose(text)) for text in TEXTS.values()]
    mirrored = ["README.md" if link == "README.zh-CN.md" else link for link in links[0]]
    assert len(mirrored) > 20
    assert mirrored == links[1]
