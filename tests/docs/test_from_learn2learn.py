"""The code of 'Coming from learn2learn' runs, and does what the page says."""

from typing import Any

import pytest
from documents import python_of

PAGE = "docs/from-learn2learn.md"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs the block of the page that holds some words; gives its names and what it printed last."""
    monkeypatch.chdir(tmp_path)

    def run(words: str) -> tuple[dict[str, Any], list[float]]:
        (block,) = (block for block in python_of(PAGE) if words in block)
        found: dict[str, Any] = {}
        exec(compile(block, PAGE, "exec"), found)
        printed = capsys.readouterr().out.strip().splitlines()[-1]
        return found, [float(word) for word in printed.strip("[]").split()]

    return run


def test_maml_on_sinusoids_is_better_after_five_points(run):
    _, (before, after) = run('method="maml"')
    assert after < before


def test_a_loop_of_ones_own_adapts(run):
    found, (before, after) = run("torch.func.vmap")
    assert after < before
    assert set(found["after"]) == set(found["before"])


def test_arrays_of_ones_own_are_recognised(run):
    _, (one, five) = run("from_arrays")
    assert one > 0.5
    assert five >= one
