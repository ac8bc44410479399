"""A folder tells what was run, how far it is and whether anybody is at work on it, and is enough to go on with it."""

import json
import os
import socket
from pathlib import Path

import pytest

from quickstudy.cli import main
from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint
from quickstudy.results import runs
from quickstudy.results.evidence import Cell

QUICK = [
    "--training.steps", "4", "--training.validate-every", "2", "--data.tasks", "20", "--data.validation-tasks", "2",
    "--data.validation-episodes", "1", "--training.batching", "vmap",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two trainings and a comparison."""
    root = tmp_path_factory.mktemp("runs")
    for method in ("maml", "nearest"):
        main(["train", "point-navigation", "--method", method, "--output-dir", str(root / method), *QUICK])
    main([
        "compare", "point-navigation", "--methods", "nearest", "--seeds", "2", "--tasks", "2", "--episodes", "1",
        "--shots", "1", "--output-dir", str(root / "compare"),
    ])  # fmt: skip
    return root


def test_runs_are_listed_with_what_they_are(root: Path) -> None:
    found = {run.folder.name: run for run in runs.listed(root)}
    assert found.keys() == {"maml", "nearest", "compare"}, "the runs of a comparison are not listed apart"
    assert runs.listed(root)[0].folder.name == "compare", "the last changed first"
    assert (found["maml"].kind, found["maml"].family, found["maml"].state) == (
        "training",
        "point-navigation",
        "finished",
    )
    assert found["maml"].progress == (4, 4)
    assert found["maml"].headline.startswith("validation/success ")
    assert found["nearest"].progress == (1, 1)
    assert (found["compare"].kind, found["compare"].method) == ("comparison", "nearest")
    assert (found["compare"].state, found["compare"].progress) == ("finished", (2, 2))
    assert "success, % after 1 shot" in found["compare"].headline


@pytest.mark.parametrize(
    ("process", "host", "state"),
    [
        (os.getpid(), socket.gethostname(), "running"),
        (2**22 + 1, socket.gethostname(), "stopped"),
        (1, "elsewhere", "stopped"),
    ],
    ids=["here", "gone", "elsewhere"],  # equal in all workers, whatever their process ids
)
def test_a_run_is_running_while_its_process_lives_here(tmp_path: Path, process: int, host: str, state: str) -> None:
    settings = {"family": "grasping", "method": "maml", "training": {"steps": 10}}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / runs.NOTE).write_text(json.dumps({"settings": settings, "process": process, "host": host}))
    (run,) = runs.listed(tmp_path)
    assert (run.state, run.progress, run.headline, run.method) == (state, (0, 10), "", "maml")


def test_the_command_filters(root: Path, capsys) -> None:
    def shown(*words: str) -> str:
        capsys.readouterr()
        main(["runs", str(root), *words])
        return capsys.readouterr().out

    assert "4/4" in shown()
    assert "4/4" not in shown("--method", "nearest")
    assert "4/4" in shown("--method", "maml", "--state", "finished", "--family", "point-navigation")
    assert "No such run" in shown("--state", "running")
    assert "No such run" in shown("--family", "grasping")


def test_a_folder_alone_repeats_and_goes_on(root: Path, tmp_path: Path) -> None:
    main(["resume", str(root / "maml"), "--anew", str(tmp_path / "again")])
    once, again = (checkpoint.load(folder / "checkpoints/last") for folder in (root / "maml", tmp_path / "again"))
    assert all((once.tensors[name] == again.tensors[name]).all() for name in once.tensors)
    before = (root / "maml" / runs.NOTE).read_text()
    main(["resume", str(root / "maml")])
    assert checkpoint.load(root / "maml/checkpoints/last").config["step"] == 4
    assert json.loads((root / "maml" / runs.NOTE).read_text())["command"] == json.loads(before)["command"]
    main(["resume", str(root / "compare"), "--anew", str(tmp_path / "compared")])
    cells = [
        Cell.read(folder / "results/point-navigation-test.json") for folder in (root / "compare", tmp_path / "compared")
    ]
    assert cells[0].rows[0].value == cells[1].rows[0].value


def test_folders_that_say_nothing(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match=r"it has no run\.json"):
        runs.read_note(tmp_path)
    (tmp_path / runs.NOTE).write_text('{"kind": "comparison", "command": "quickstudy demo"}')
    with pytest.raises(SystemExit):
        main(["resume", str(tmp_path)])
    for content, sentence in (("{", "not a readable JSON file"), ("[1]", r"must hold a JSON object; got \[1\]")):
        (tmp_path / runs.NOTE).write_text(content)
        with pytest.raises(QuickstudyError, match=sentence):
            runs.read_note(tmp_path)
