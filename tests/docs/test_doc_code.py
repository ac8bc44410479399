"""Python of the docs that is short enough to run does what the page says."""

from typing import Any

from documents import python_of


def run(page: str, words: str) -> dict[str, Any]:
    """The names that a page's block defines; the block is the one that holds some words."""
    (block,) = (block for block in python_of(page) if words in block)
    found: dict[str, Any] = {}
    exec(compile(block, page, "exec"), found)
    return found


def test_a_task_is_a_gymnasium_environment():
    found = run("docs/families/gymnasium.md", "gymnasium.make")
    assert found["env"].observation_space.contains(found["observation"])
    assert not found["terminated"]
    assert "success" in found["info"]
