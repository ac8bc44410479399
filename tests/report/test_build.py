"""The report of a comparison says what was measured, in words that fit what its methods learned from."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quickstudy import methods
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation
from quickstudy.io import checkpoint
from quickstudy.report import build
from quickstudy.results import runs
from quickstudy.results.evidence import Cell, Row


def row(method: str, shots: int, value: float, **of: Any) -> Row:
    return Row(method, shots, value, **{"role": "meta-learner", **of})


CELL = Cell(
    cell="grasping-sizes",
    metric="success",
    unit="fraction",
    protocol="Tasks of split 'sizes'; size is hidden; each learner adapts alone.",
    command="quickstudy compare grasping",
    seconds=60,
    commit="",
    versions={},
    machine="2 cores",
    rows=[
        row("maml", 0, 0.1, train_tasks=400, demonstrations=2400, parameters=20, ms=1.0),
        row("maml", 1, 0.9, train_tasks=400, demonstrations=2400, parameters=20, ms=41.3),
        row("transfer", 1, 0.6, role="baseline"),
        row("replay", 1, 0.2, role="floor"),
        row("oracle", 1, 1.0, role="oracle"),
    ],
)
BY_TRIAL = [
    row("pearl", 0, 0.2, learns_from="trials"),
    row("pearl", 20, 0.6, learns_from="trials", steps=1),
    row("scratch", 20, 0.3, learns_from="trials", role="baseline"),
]


@pytest.fixture(autouse=True)
def no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "records", dict)


def test_headlines() -> None:
    assert build.headline([CELL]) == (
        "grasping-sizes: maml adapts in 41 ms and reaches 90 % after one demonstration, against 10 % before and 60 % "
        "by transfer, the best baseline."
    )
    both = replace(CELL, rows=[*CELL.rows, *BY_TRIAL])
    assert build.headline([both]).split("\n")[1] == (
        "grasping-sizes: pearl adapts and reaches 60 % after 20 own episodes, against 20 % before and 30 % by scratch, "
        "the best baseline."
    )
    assert build.headline([replace(CELL, rows=CELL.rows[2:])]) == "Nothing meta-learned was measured."


def test_less_or_more_may_be_better() -> None:
    rows = [row("good", 5, 0.25), row("bad", 5, 2.0)]
    error = replace(CELL, metric="error", unit="", rows=rows, higher_is_better=False)
    assert "good adapts and reaches an error of 0.25 after 5 demonstrations." in build.headline([error])
    returns = replace(CELL, metric="return", unit="", rows=[row("good", 5, -9.0), row("bad", 5, -40.0)])
    assert "good adapts and reaches a return of -9 after" in build.headline([returns])


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match="holds no results to report"):
        build.write_report(tmp_path, "quickstudy report")


def test_the_report_of_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = replace(CELL, cell="grasping-shapes", rows=[*CELL.rows, *BY_TRIAL])
    for cell in (CELL, shapes):
        cell.write(tmp_path / f"results/{cell.cell}.json")
    history = [{"step": 5, "train/loss": 0.3, "validation/success": 0.5}]
    config = {"settings": {"method": "maml", "seed": 0}, "history": history}
    for which in ("best", "last"):
        checkpoint.save(tmp_path / f"maml-seed0/checkpoints/{which}", {}, config)
    metrics = {"success": np.array([1.0, 0.0]).reshape(1, 2, 1)}
    for split in ("sizes", "shapes"):
        found = Evaluation(split, ["a", "b"], [1], metrics, [1.0])
        found.save(tmp_path / f"maml-seed0/{split}-2x1-shots-1.json")
    (tmp_path / "settings.json").write_text(json.dumps({"maml": {"seed": 0}}))
    family = SimpleNamespace(tasks=lambda split, count, first: [first], caption=lambda task: f"box {task}")
    experiment = SimpleNamespace(method=SimpleNamespace(name="maml"), family=family)
    monkeypatch.setattr(runs, "load", lambda run: (experiment, None))
    path = build.write_report(tmp_path, "quickstudy report", video=False)
    text = path.read_text(encoding="utf-8")
    for part in (
        "<h1>Learning to learn: grasping</h1>",
        "<code>grasping</code>, tested on shapes, sizes",
        "<dt>methods that learn from demonstrations</dt><dd>maml, transfer, replay, oracle</dd>",
        "<dt>methods that learn from own episodes</dt><dd>pearl, scratch</dd>",
        "<dd>400 tasks, 2,400 demonstrations</dd>",
        "<dd>size is hidden</dd>",
        "<code>oracle</code> receives what is hidden. <code>replay</code> learns nothing in meta-training.",
        "<h3>Each method on sizes</h3>",
        "<h3>Adaptation on shapes, by demonstrations</h3>",
        "<h3>Adaptation on shapes, by own episodes</h3>",
        "<h3>Every episode, sizes</h3>",
        "<h3>Training loss</h3>",
        "<strong>maml on sizes</strong>",
        "<td>box 1</td>",
        "success, % after 20 own episodes, 1 update",
        "<code>quickstudy adapt RUN --demo FILE</code>",
        '<th scope="row">maml.seed</th>',
    ):
        assert part in text, part


def test_films_that_do_not_fit_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("a", 50), ("b", 60), ("c", 20), ("scene", 40)):
        (tmp_path / name).write_bytes(bytes(size))
    groups = [
        {"title": "1", "videos": [{"file": "a", "caption": ""}], "replays": [{"file": "scene", "caption": ""}]},
        {"title": "2", "videos": [{"file": "b", "caption": ""}]},
        {"title": "3", "videos": [{"file": "c", "caption": ""}], "replays": [{"file": "scene", "caption": ""}]},
        {"title": "4", "videos": [{"file": "c", "caption": ""}], "failure": True},
    ]
    (tmp_path / build.films.INDEX).write_text(json.dumps(groups))
    monkeypatch.setattr(build, "LARGEST_FILMS", 115)
    shown = build._videos(tmp_path, failure=False)
    assert [(group.title, len(group.replays)) for group in shown] == [("1", 1), ("3", 0)]
    assert [group.title for group in build._videos(tmp_path, failure=True)] == ["4"]
