"""Documents say what the files of results say, and whatever is wrong with either is said."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.results.evidence import Cell, Row

ROOT = Path(__file__).parents[2]
if not (ROOT / "tools/fill_tables.py").exists():
    pytest.skip("a source distribution has neither the tool nor the documents", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))
import fill_tables  # noqa: E402

FEW_SHOT = Cell(
    cell="grasping-sizes",
    metric="success",
    unit="fraction",
    protocol="Size is hidden.",
    command="quickstudy compare grasping",
    seconds=812.4,
    commit="0123456789ab",
    versions={},
    machine="2 cores, CPU",
    rows=[Row("maml", 1, 0.934, (0.91, 0.955)), Row("replay", 1, 0.02)],
)
SPEED = replace(
    FEW_SHOT, cell="speed-outer-step", metric="time", unit="ms", rows=[Row("quickstudy", workload="W1", ratio=1710.0)]
)
DOCUMENT = (
    "# Title\n\n<!-- results: grasping-sizes -->\nold\n<!-- /results -->\n\nend, and `<!-- results: x -->` in words\n"
)


def test_filling_is_idempotent(tmp_path: Path) -> None:
    FEW_SHOT.write(tmp_path / "grasping-sizes.json")
    SPEED.write(tmp_path / "speed-outer-step.json")
    twice = DOCUMENT + "<!-- results: speed-outer-step -->\n<!-- /results -->\n"
    filled = fill_tables.fill(twice, tmp_path, "README.md")
    assert "old" not in filled
    assert filled.startswith("# Title\n\n<!-- results: grasping-sizes -->\n| method |")
    assert filled.count("<!-- /results -->") == 2
    assert "1,710" in filled
    assert "end, and `<!-- results: x -->` in words\n" in filled
    assert fill_tables.fill(filled, tmp_path, "README.md") == filled


def test_an_example_in_a_fence_of_code_stays_as_it_is(tmp_path: Path) -> None:
    FEW_SHOT.write(tmp_path / "grasping-sizes.json")
    example = "```html\n<!-- results: no-such-cell -->\n<!-- /results -->\n```\n"
    filled = fill_tables.fill(example + DOCUMENT + example, tmp_path, "a.md")
    assert filled.startswith(example + "# Title\n\n<!-- results: grasping-sizes -->\n| method |")
    assert filled.endswith(example)


def test_a_page_shows_the_methods_that_it_is_about(tmp_path: Path) -> None:
    FEW_SHOT.write(tmp_path / "grasping-sizes.json")
    block = "<!-- results: grasping-sizes replay -->\n<!-- /results -->\n"
    filled = fill_tables.fill(block, tmp_path, "a.md")
    assert "| replay |" in filled
    assert "maml" not in filled
    assert fill_tables.fill(filled, tmp_path, "a.md") == filled
    with pytest.raises(QuickstudyError, match=r"Unknown method in 'grasping-sizes' 'mamll'\. Did you mean 'maml'\?"):
        fill_tables.fill(block.replace("replay", "mamll"), tmp_path, "a.md")


def test_bad_documents(tmp_path: Path) -> None:
    FEW_SHOT.write(tmp_path / "grasping-sizes.json")
    with pytest.raises(
        QuickstudyError, match=r"'a\.md': Unknown cell 'grasping-size'\. Did you mean 'grasping-sizes'\?"
    ):
        fill_tables.fill("<!-- results: grasping-size -->\n<!-- /results -->", tmp_path, "a.md")
    block = "<!-- results: grasping-sizes -->\n"
    for text in (block, block + DOCUMENT):
        with pytest.raises(QuickstudyError, match="the block 'results: grasping-sizes' has no end"):
            fill_tables.fill(text, tmp_path, "a.md")


def test_filling_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FEW_SHOT.write(tmp_path / "cells" / "grasping-sizes.json")
    document = tmp_path / "README.md"
    document.write_text(DOCUMENT)

    def run(check: bool) -> tuple[int, str]:
        return fill_tables.main((document,), check, tmp_path / "cells"), capsys.readouterr().out

    assert run(check=True) == (1, f"{document} disagrees with {tmp_path / 'cells'}; run 'make results'.\n")
    assert document.read_text() == DOCUMENT
    assert run(check=False) == (0, f"{document} filled.\n")
    assert run(check=True) == (0, "")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fill_tables.py", "--check", "none.md"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(fill_tables.__file__, run_name="__main__")
    assert (left.value.code, *capsys.readouterr()) == (2, "There is no document 'none.md'.\n", "")


@pytest.mark.parametrize("path", fill_tables.documents(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_our_documents_say_what_was_measured(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert fill_tables.fill(text, fill_tables.RESULTS, path.name) == text, "run 'make results'"


@pytest.mark.parametrize("path", sorted((fill_tables.RESULTS).glob("*.json")), ids=lambda path: path.stem)
def test_our_cells_are_valid(path: Path) -> None:
    cell = Cell.read(path)
    assert cell.cell == path.stem
    assert "--lanes" not in cell.command
    assert "rl-train" not in cell.command
    if cell.cell.startswith("rl-"):
        assert cell.experiences == ["trials"]
