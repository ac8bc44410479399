"""A folder tells what was run, how far it is and whether anybody is at work on it, and is enough to go on with it."""

import json
import os
import socket
from pathlib import Path

import pytest

from commands import DEMONSTRATIONS, TRIALS, quickstudy
from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint, curves
from quickstudy.results import runs
from quickstudy.results.evidence import Cell


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Trainings of both ways, and a comparison."""
    root = tmp_path_factory.mktemp("runs")
    quickstudy("train", *DEMONSTRATIONS, "--output-dir", root / "maml")
    quickstudy("train", *TRIALS, "--output-dir", root / "rl2")
    quickstudy("train", "point-navigation", "--method", "nearest", "--output-dir", root / "nearest")
    quickstudy("compare", "point-navigation", "--methods", "nearest", "--seeds", 2, "--tasks", 2, "--episodes", 1,
               "--shots", 1, "--output-dir", root / "compare")  # fmt: skip
    return root


def test_runs_are_listed_with_what_they_are(root: Path) -> None:
    found = {run.folder.name: run for run in runs.listed(root)}
    assert found.keys() == {"maml", "rl2", "nearest", "compare"}, "the runs of a comparison are not listed apart"
    assert runs.listed(root)[0].folder.name == "compare", "the last changed first"
    assert (found["maml"].kind, found["maml"].family, found["maml"].state) == (
        "training",
        "point-navigation",
        "finished",
    )
    assert found["maml"].progress == (20, 20)
    assert found["maml"].headline.startswith("validation success ")
    assert (found["rl2"].kind, found["rl2"].family, found["rl2"].state) == ("training", "navigation2d", "finished")
    assert found["rl2"].progress == (4, 4)
    assert found["rl2"].headline.startswith("validation return-1 -")
    assert found["nearest"].progress == (1, 1)
    assert (found["compare"].kind, found["compare"].method) == ("comparison", "nearest")
    assert (found["compare"].state, found["compare"].progress) == ("finished", (2, 2))
    assert found["compare"].headline == "nearest: success 100.0 % after 1 shot"


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


@pytest.mark.parametrize("words", [DEMONSTRATIONS, TRIALS], ids=["demonstrations", "trials"])
def test_a_training_is_listed_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    seen: list[runs.Run] = []
    monkeypatch.setattr(curves.TensorBoard, "log", lambda *_: seen.extend(runs.listed(tmp_path)))
    quickstudy("train", *words, "--output-dir", tmp_path / "a")
    assert {(run.method, run.state) for run in seen if run.progress[0] < run.progress[1]} == {(words[2], "running")}
    assert [run.state for run in runs.listed(tmp_path)] == ["finished"]


def test_a_comparison_of_both_ways_that_ran_out_of_time_goes_on(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "my comparison"
    quickstudy("compare", "navigation2d", "--methods", "replay", "scratch-ppo", "--seeds", 1, "--tasks", 2,
               "--trial-episodes", 2, "--shots", 0, 1, "--budget", "0.000001s", "--output-dir", folder)  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert f"quickstudy resume '{folder}' goes on where this one stopped" in said
    (run,) = runs.listed(tmp_path)
    assert (run.family, run.method, run.state, run.progress) == (
        "navigation2d",
        "replay scratch-ppo",
        "stopped",
        (0, 2),
    )
    quickstudy("resume", folder)
    (run,) = runs.listed(tmp_path)
    assert (run.state, run.progress) == ("finished", (2, 2))
    rows = Cell.read(folder / "results/navigation2d-test.json").rows
    assert {(row.method, row.learns_from, row.shots) for row in rows} == {
        ("replay", "demonstrations", 1), ("scratch-ppo", "trials", 0), ("scratch-ppo", "trials", 2),
    }  # fmt: skip


def test_the_command_filters(root: Path, capsys) -> None:
    def shown(*words: str) -> str:
        capsys.readouterr()
        quickstudy("runs", root, *words)
        return capsys.readouterr().out

    assert "20/20" in shown()
    assert "20/20" not in shown("--method", "nearest")
    assert "20/20" in shown("--method", "maml", "--state", "finished", "--family", "point-navigation")
    assert "No such run" in shown("--state", "running")
    assert "No such run" in shown("--family", "grasping")


def test_a_folder_alone_repeats_and_goes_on(root: Path, tmp_path: Path) -> None:
    quickstudy("resume", root / "maml", "--anew", tmp_path / "again")
    once, again = (checkpoint.load(folder / "checkpoints/last") for folder in (root / "maml", tmp_path / "again"))
    assert all((once.tensors[name] == again.tensors[name]).all() for name in once.tensors)
    before = (root / "maml" / runs.NOTE).read_text()
    quickstudy("resume", root / "maml")
    assert checkpoint.load(root / "maml/checkpoints/last").config["step"] == 20
    assert json.loads((root / "maml" / runs.NOTE).read_text())["command"] == json.loads(before)["command"]
    quickstudy("resume", root / "compare", "--anew", tmp_path / "compared")
    cells = [
        Cell.read(folder / "results/point-navigation-test.json") for folder in (root / "compare", tmp_path / "compared")
    ]
    assert cells[0].rows[0].value == cells[1].rows[0].value


def test_folders_that_say_nothing(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match=r"it has no run\.json"):
        runs.read_note(tmp_path)
    (tmp_path / runs.NOTE).write_text('{"kind": "comparison", "command": "quickstudy demo"}')
    with pytest.raises(SystemExit):
        quickstudy("resume", tmp_path)
    for content, sentence in (("{", "is not valid JSON"), ("[1]", r"must hold a JSON object; got \[1\]")):
        (tmp_path / runs.NOTE).write_text(content)
        with pytest.raises(QuickstudyError, match=sentence):
            runs.read_note(tmp_path)
