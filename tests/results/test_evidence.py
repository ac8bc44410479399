"""Evidence is refused where it is malformed, and comes back as written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quickstudy import methods
from quickstudy.errors import QuickstudyError
from quickstudy.method import Method
from quickstudy.results import evidence
from quickstudy.results.evidence import Cell, Row

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
    higher_is_better=False,
)
BY_TRIAL = replace(
    FEW_SHOT,
    cell="navigation",
    rows=[Row("rl2", 2, 0.6, role="meta-learner", learns_from="trials"), Row("maml", 2, 0.5)],
)


@pytest.mark.parametrize("cell", [FEW_SHOT, SPEED, SINUSOID, BY_TRIAL], ids=lambda cell: cell.cell)
def test_cells_come_back(tmp_path: Path, cell: Cell) -> None:
    path = tmp_path / "results" / "a.json"
    cell.write(path)
    assert Cell.read(path) == cell
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert sum('"method"' in line for line in path.read_text().splitlines()) == len(cell.rows), "one row a line"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": ""}, "method must be a text that is not empty; got ''"),
        ({"value": float("nan")}, "Row 'maml': value must be a finite number; got nan"),
        ({"value": "0.9"}, "value must be a finite number; got '0.9'"),
        ({"ms": -1.0}, "ms must be a finite number of at least 0; got -1.0"),
        ({"shots": 0.5}, "shots must be a whole number of at least 0; got 0.5"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1; got 0"),
        ({"ci95": (0.9,)}, "ci95 must be two finite numbers"),
        ({"ci95": (0.9, 0.8)}, "a lower and then an upper bound"),
        ({"secondary_metrics": {"spl": "0.7"}}, "secondary_metrics must be finite numbers by name"),
        ({"role": "rival"}, "role must be 'meta-learner' or 'baseline' or 'floor' or 'oracle'; got 'rival'"),
        ({"learns_from": None}, "learns_from must be 'demonstrations' or 'trials'; got None"),
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
        ({"metric": 3}, "metric must be a text without control characters; got 3"),
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
        (path.read_text()[:-20], "is not valid JSON"),
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


def test_only_what_differs_from_the_usual_is_written(tmp_path: Path) -> None:
    BY_TRIAL.write(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert not {"against", "reference", "higher_is_better"} & content.keys()
    assert [row.get("learns_from") for row in content["rows"]] == ["trials", None]
    assert [row.get("role") for row in content["rows"]] == ["meta-learner", None]


def test_a_file_without_roles_takes_them_from_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> Any:
        raise NotImplementedError

    known = {name: Method(name, "", build, role=role) for name, role in (("maml", "meta-learner"), ("copy", "floor"))}
    monkeypatch.setattr(methods, "records", lambda: known)
    evidence._role.cache_clear()
    rows = [Row("maml"), Row("copy"), Row("of another package"), Row("maml", role="baseline")]
    assert [row.known_role for row in rows] == ["meta-learner", "floor", None, "baseline"]
    assert [row.baseline for row in rows] == [False, True, False, True]
    cell = replace(FEW_SHOT, rows=[replace(row, shots=i) for i, row in enumerate(rows)])
    assert cell.baselines == {"copy", "maml"}
    evidence._role.cache_clear()
