"""Evidence is refused where it is malformed, comes back as written, and documents say what the files say."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quickstudy.errors import QuickstudyError
from quickstudy.results import evidence as results
from quickstudy.results.evidence import Cell, Row

ROOT = Path(__file__).parents[2]

FEW_SHOT = Cell(
    cell="grasping-sizes",
    metric="success",
    unit="fraction",
    protocol="Size and grasp point are hidden; success is held after one second.",
    command="quickstudy compare grasping --splits sizes",
    seconds=812.4,
    commit="0123456789ab",
    versions={"torch": "2.13.0", "python": "3.11.2"},
    machine="2 cores, CPU",
    rows=[
        Row("maml", 0, 0.21, (0.18, 0.25), 3, 100, 5, ms=0.1),
        Row("maml", 1, 0.934, (0.91, 0.955), 3, 100, 5, ms=41.26),
        Row("replay", 1, 0.02, (0.01, 0.031), 3, 100, 5, note="open loop | as recorded"),
    ],
)
SPEED = replace(
    FEW_SHOT,
    cell="speed-outer-step",
    metric="time",
    unit="ms",
    rows=[
        Row("learn2learn", workload="W1", threads=2, ms=156.0, ratio=1.0),
        Row("quickstudy", workload="W1", threads=2, ms=0.0912, ratio=1710.0, memory_mb=120),
    ],
)
SINUSOID = replace(
    FEW_SHOT,
    cell="sinusoid",
    metric="squared error",
    unit="",
    rows=[Row("maml", 5, 0.67, (0.6, 0.7), steps=1), Row("maml", 5, 0.35123, steps=10)],
)


@pytest.mark.parametrize("cell", [FEW_SHOT, SPEED, SINUSOID], ids=lambda cell: cell.cell)
def test_cells_come_back(tmp_path: Path, cell: Cell) -> None:
    path = tmp_path / "results" / "a.json"
    cell.write(path)
    assert Cell.read(path) == cell
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert sum('"method"' in line for line in path.read_text().splitlines()) == len(cell.rows), "one row a line"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": ""}, "method must be a text"),
        ({"value": float("nan")}, "Row 'maml': value must be a finite number; got nan"),
        ({"value": "0.9"}, "value must be a finite number; got '0.9'"),
        ({"ms": -1.0}, "ms must be a finite number; got -1.0"),
        ({"shots": 0.5}, "shots must be a whole number of at least 0; got 0.5"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1; got 0"),
        ({"ci95": (0.9,)}, "ci95 must be two finite numbers"),
        ({"ci95": (0.9, 0.8)}, "a lower and then an upper bound"),
    ],
)
def test_bad_rows(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(QuickstudyError, match=sentence):
        Row(**{"method": "maml", **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cell": "../x"}, r"words and digits joined by hyphens; got '\.\./x'"),
        ({"seconds": float("inf")}, "seconds must be a finite number"),
        ({"rows": []}, "has no row"),
        ({"rows": [Row("maml", 1, 0.1), Row("maml", 1, 0.2)]}, "two rows for 'maml', shots 1"),
        ({"rows": [Row("maml", 1, 93.0)]}, r"93\.0 is no fraction"),
        ({"metric": 3}, "metric must be a text; got 3"),
    ],
)
def test_bad_cells(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(QuickstudyError, match=sentence):
        replace(FEW_SHOT, **changes)


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(QuickstudyError, match="There is no results file"):
        Cell.read(path)
    FEW_SHOT.write(path)
    good = json.loads(path.read_text())
    cases = [
        (path.read_text()[:-20], "not a readable JSON file"),
        ([1], r"a cell must be a JSON object; got \[1\]"),
        ({**good, "machin": ""}, r"Unknown field of a cell 'machin'\. Did you mean 'machine'\?"),
        ({k: v for k, v in good.items() if k not in ("metric", "rows")}, "a cell lacks metric, rows"),
        ({**good, "rows": 3}, "rows must be a list"),
        ({**good, "rows": [{"shots": 1}]}, "a row lacks method"),
        ({**good, "rows": [{"method": "a", "shot": 1}]}, r"Unknown field of a row 'shot'\. Did you mean 'shots'\?"),
        ({**good, "rows": [{"method": "a", "value": 2}]}, "2 is no fraction"),
    ]
    for content, sentence in cases:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(QuickstudyError, match=sentence) as caught:
            Cell.read(path)
        assert str(path) in str(caught.value)


# ---- tables


def test_markdown_by_hand() -> None:
    assert results.to_markdown(FEW_SHOT) == (
        "| method | success, % after 0 shots | success, % after 1 shot | ms to adapt | note |\n"
        "| :-- | --: | --: | --: | :-- |\n"
        "| maml | 21.0 [18.0, 25.0] | 93.4 [91.0, 95.5] | 41.3 |  |\n"
        "| replay | – | 2.0 [1.0, 3.1] | – | open loop \\| as recorded |\n"
        "\n"
        "Size and grasp point are hidden; success is held after one second.\n"
        "100 tasks × 5 episodes × 3 training seeds; measured in 14 min on 2 cores, CPU, torch 2.13.0, "
        "commit 0123456789ab. Again: `quickstudy compare grasping --splits sizes`\n"
    )


def test_speeds_and_steps_have_their_columns() -> None:
    speed, sinusoid = results.table(SPEED), results.table(SINUSOID)
    assert speed.headers == ["workload", "method", "threads", "ms", "ratio", "MB"]
    assert speed.rows == [
        ["W1", "learn2learn", "2", "156", "1.00", "–"],
        ["W1", "quickstudy", "2", "0.0912", "1,710", "120"],
    ]
    assert sinusoid.headers == [
        "method",
        "squared error after 5 shots, 1 step",
        "squared error after 5 shots, 10 steps",
    ]
    assert sinusoid.rows == [["maml", "0.670 [0.600, 0.700]", "0.351"]]


def test_terminal_table_shows_every_figure() -> None:
    text = io.StringIO()
    results.print_table(FEW_SHOT, Console(file=text, width=140))
    for part in ("grasping-sizes", "93.4 [91.0, 95.5]", "open loop", "14 min"):
        assert part in text.getvalue()


# ---- documents

DOCUMENT = (
    "# Title\n\n<!-- results: grasping-sizes -->\nold\n<!-- /results -->\n\nend, and `<!-- results: x -->` in words\n"
)


def test_filling_is_idempotent(tmp_path: Path) -> None:
    FEW_SHOT.write(tmp_path / "grasping-sizes.json")
    SPEED.write(tmp_path / "speed-outer-step.json")
    twice = DOCUMENT + "<!-- results: speed-outer-step -->\n<!-- /results -->\n"
    filled = results.fill(twice, tmp_path, "README.md")
    assert "old" not in filled
    assert filled.startswith("# Title\n\n<!-- results: grasping-sizes -->\n| method |")
    assert filled.count("<!-- /results -->") == 2
    assert "1,710" in filled
    assert "end, and `<!-- results: x -->` in words\n" in filled
    assert results.fill(filled, tmp_path, "README.md") == filled


def test_a_page_shows_the_methods_that_it_is_about(tmp_path: Path) -> None:
    FEW_SHOT.write(tmp_path / "grasping-sizes.json")
    block = "<!-- results: grasping-sizes replay -->\n<!-- /results -->\n"
    filled = results.fill(block, tmp_path, "a.md")
    assert "| replay |" in filled
    assert "maml" not in filled
    assert results.fill(filled, tmp_path, "a.md") == filled
    with pytest.raises(QuickstudyError, match=r"Unknown method in 'grasping-sizes' 'mamll'\. Did you mean 'maml'\?"):
        results.fill(block.replace("replay", "mamll"), tmp_path, "a.md")


def test_bad_documents(tmp_path: Path) -> None:
    FEW_SHOT.write(tmp_path / "grasping-sizes.json")
    with pytest.raises(
        QuickstudyError, match=r"'a\.md': Unknown cell 'grasping-size'\. Did you mean 'grasping-sizes'\?"
    ):
        results.fill("<!-- results: grasping-size -->\n<!-- /results -->", tmp_path, "a.md")
    block = "<!-- results: grasping-sizes -->\n"
    for text in (block, block + DOCUMENT):
        with pytest.raises(QuickstudyError, match="the block 'results: grasping-sizes' has no end"):
            results.fill(text, tmp_path, "a.md")


def test_filling_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FEW_SHOT.write(tmp_path / "cells" / "grasping-sizes.json")
    document = tmp_path / "README.md"
    document.write_text(DOCUMENT)

    def run(check: bool) -> tuple[int, str]:
        return results.main((document,), check, tmp_path / "cells"), capsys.readouterr().out

    assert run(check=True) == (1, f"{document} disagrees with {tmp_path / 'cells'}; run 'make results'.\n")
    assert document.read_text() == DOCUMENT
    assert run(check=False) == (0, f"{document} filled.\n")
    assert run(check=True) == (0, "")


def test_the_command() -> None:
    command = [sys.executable, "-m", "quickstudy.results.evidence", "--check", "none.md"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (2, "There is no document 'none.md'.\n", "")


DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_our_documents_say_what_was_measured(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert results.fill(text, ROOT / results.FOLDER, path.name) == text, "run 'make results'"


@pytest.mark.parametrize("path", sorted((ROOT / results.FOLDER).glob("*.json")), ids=lambda path: path.stem)
def test_our_cells_are_valid(path: Path) -> None:
    assert Cell.read(path).cell == path.stem
