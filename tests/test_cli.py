"""The command line as a user meets it: the whole path once, and a sentence for every mistake."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from quickstudy.cli import main
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families import own as families
from quickstudy.families.classic import PointNavigation
from quickstudy.io import checkpoint
from quickstudy.results.evidence import Cell

QUICK = [
    "--training.steps", "20", "--training.validate-every", "10", "--data.tasks", "20", "--data.validation-tasks", "5",
    "--training.batching", "vmap",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "maml"
    main(["train", "point-navigation", "--method", "maml", "--output-dir", str(folder), *QUICK])
    return folder


def mistake(capsys, *arguments: object) -> str:
    """The one line that a command with a mistake prints; its status must be 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    lines = [line for line in printed.err.splitlines() if line.strip()]
    assert len(lines) == 1
    return lines[0]


def test_train_evaluate_adapt(run, capsys, tmp_path):
    assert checkpoint.exists(run / "checkpoints/best")
    assert any((run / "tensorboard").iterdir())
    main(["evaluate", str(run), "--tasks", "6", "--episodes", "2", "--shots", "0", "1", "2"])
    assert "Next: quickstudy report" in " ".join(capsys.readouterr().out.split())
    cell = Cell.read(run / "results/point-navigation-test.json")
    assert [(row.method, row.shots, row.tasks, row.episodes) for row in cell.rows] == [
        ("maml", shots, 6, 2) for shots in (0, 1, 2)
    ]
    example = next((run / "examples").iterdir())
    main(["adapt", str(run), "--demo", str(example), "--output", str(tmp_path / "skill.safetensors")])
    assert "Adapted in" in capsys.readouterr().out
    skill = load_file(tmp_path / "skill.safetensors")
    assert sum(array.size for array in skill.values()) > 4000
    assert all(np.isfinite(array).all() for array in skill.values())


def test_a_run_is_not_overwritten_and_a_finished_one_resumes_to_the_same(run, capsys):
    before = {path: path.read_bytes() for path in (run / "checkpoints/best").iterdir()}
    train = ["train", "point-navigation", "--method", "maml", "--output-dir", run, *QUICK]
    assert "holds a run already" in mistake(capsys, *train)
    main([str(word) for word in [*train, "--resume"]])
    assert {path: path.read_bytes() for path in (run / "checkpoints/best").iterdir()} == before


def test_names_that_do_not_exist_get_the_nearest(capsys):
    assert mistake(capsys, "train", "graspin").startswith("Error: Unknown family 'graspin'. Did you mean 'grasping'?")
    said = mistake(capsys, "train", "point-navigation", "--method", "mmal")
    assert "Unknown method 'mmal'. Did you mean 'maml'? Known: anil, fomaml, hypernet, hypernet-roles, maml" in said
    assert "Unknown family 'x'. Known: grasping" in mistake(capsys, "families", "x")


def test_an_unknown_method_is_told_before_anything_is_trained(capsys, tmp_path):
    said = mistake(capsys, "compare", "point-navigation", "--methods", "maml", "foml", "--output-dir", tmp_path / "x")
    assert "Unknown method 'foml'. Did you mean 'fomaml'?" in said
    assert "which holds 10000" in mistake(
        capsys, "compare", "point-navigation", "--tasks", "20000", "--output-dir", tmp_path / "x"
    )
    said = mistake(capsys, "compare", "point-navigation", "--methods", "warp", "--output-dir", tmp_path / "x")
    assert "Method 'warp' needs a family that says where hand, object and goal are observed" in said
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_no_run(capsys, tmp_path):
    assert "is not a run folder: it has no checkpoints/best" in mistake(capsys, "evaluate", tmp_path)
    assert "is not a run folder" in mistake(capsys, "adapt", tmp_path, "--demo", "x.npz")
    assert "no results" in mistake(capsys, "report", tmp_path)


def test_a_checkpoint_of_another_method(run, capsys):
    said = mistake(capsys, "train", "point-navigation", "--method", "anil", "--output-dir", run, "--resume", *QUICK)
    assert "holds a checkpoint of 'maml' on 'point-navigation', not of 'anil'" in said


def test_a_damaged_checkpoint(run, capsys, tmp_path):
    copy = tmp_path / "copy"
    (copy / "checkpoints/best").mkdir(parents=True)
    for path in (run / "checkpoints/best").iterdir():
        (copy / "checkpoints/best" / path.name).write_bytes(path.read_bytes()[:-200])
    assert str(copy) in mistake(capsys, "evaluate", copy)


def test_demonstrations_that_do_not_fit(run, capsys, tmp_path):
    Demonstration(np.zeros((5, 3)), np.zeros((5, 2))).save(tmp_path / "wide.npz")
    Demonstration(np.zeros((5, 2)), np.zeros((5, 4))).save(tmp_path / "acts.npz")
    np.savez(tmp_path / "nan.npz", observations=np.array([[0.0, np.nan]]), actions=np.zeros((1, 2)))
    np.savez(tmp_path / "none.npz", observations=np.zeros((0, 2)), actions=np.zeros((0, 2)))
    cases = {
        "wide": "observations are 3 wide; this learner takes 2",
        "acts": "actions are 4 wide; this learner gives 2",
        "nan": "step 0, column 1 is nan",
        "none": "at least one step; got none",
        "missing": "no demonstration file",
    }
    for name, sentence in cases.items():
        assert sentence in mistake(capsys, "adapt", run, "--demo", tmp_path / f"{name}.npz")
    assert not (run / "skill.safetensors").exists()


def test_zero_demonstrations(run):
    from quickstudy.evaluation import adapt
    from quickstudy.results.runs import load

    with pytest.raises(QuickstudyError, match="at least one demonstration; got none"):
        adapt(load(run)[2], [])


def test_more_tasks_than_exist(run, capsys):
    said = mistake(capsys, "evaluate", run, "--tasks", 20_000)
    assert "Asked for tasks 0 to 20000 of split 'test' of 'point-navigation', which holds 10000" in said
    assert "Unknown split of 'point-navigation' 'tset'. Did you mean 'test'?" in mistake(
        capsys, "evaluate", run, "--split", "tset"
    )


def test_an_empty_split(run, capsys, monkeypatch):
    monkeypatch.setattr(PointNavigation, "sizes", {**PointNavigation.sizes, "test": 0})
    assert "Split 'test' of 'point-navigation' is empty" in mistake(capsys, "evaluate", run)


def test_more_demonstrations_than_are_recorded(capsys, tmp_path):
    said = mistake(capsys, "train", "point-navigation", "--training.shots", "9", "--output-dir", tmp_path / "x", *QUICK)
    assert "9 support and 2 query demonstrations a task; each has 6" in said
    assert not (tmp_path / "x").exists()


def test_a_full_disk_loses_nothing(capsys, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = mistake(capsys, "train", "point-navigation", "--output-dir", tmp_path / "x", *QUICK)
    assert "disk is full" in said
    assert not checkpoint.exists(tmp_path / "x/checkpoints/last")


def test_compare_ranks_methods_and_goes_on(capsys, tmp_path):
    quick = ["--seeds", "2", "--tasks", "8", "--episodes", "2", "--steps", "30", "--output-dir", str(tmp_path)]
    quick += ["--shots", "0", "1"]
    main(["compare", "point-navigation", "--methods", "maml", "nearest", *quick])
    cell = Cell.read(tmp_path / "results/point-navigation-test.json")
    assert sorted((row.method, row.shots, row.seeds) for row in cell.rows) == [
        ("maml", 0, 2), ("maml", 1, 2), ("nearest", 1, 2),
    ]  # fmt: skip
    last = {row.method: row.value for row in cell.rows}
    assert last[cell.rows[0].method] == max(last.values())
    trained = (tmp_path / "maml-seed0/checkpoints/best/model.safetensors").stat().st_mtime_ns
    main(["compare", "point-navigation", "--methods", "maml", "nearest", "replay", *quick])
    assert len(Cell.read(tmp_path / "results/point-navigation-test.json").rows) == 4
    assert (tmp_path / "maml-seed0/checkpoints/best/model.safetensors").stat().st_mtime_ns == trained
    quick[quick.index("30")] = "40"
    assert "results of maml with other settings" in mistake(
        capsys, "compare", "point-navigation", "--methods", "maml", *quick
    )


def test_families_are_listed_and_drawn(capsys, tmp_path):
    main(["families"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in families.FAMILIES)
    main(["families", "point-navigation", "--tasks", "5", "--output", str(tmp_path / "new/sheet.png")])
    assert (tmp_path / "new/sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "command",
    ["demo", "families", "check", "record", "data", "train", "evaluate", "adapt", "match", "compare", "resume", "runs"]
    + ["report", "rl-train", "rl-evaluate", "rl-profile", "push", "pull"],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "usage: quickstudy" in capsys.readouterr().out


def test_no_command_shows_the_commands(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 0
    assert "compare" in capsys.readouterr().out


def test_ctrl_c_keeps_a_checkpoint_that_resumes(tmp_path):
    command = [
        sys.executable, "-c", "from quickstudy.cli import main; main()", "train", "point-navigation", "--output-dir",
        str(tmp_path / "run"), "--training.steps", "100000", "--training.validate-every", "50", "--data.tasks", "20",
        "--data.validation-tasks", "2", "--training.batching", "vmap",
    ]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300  # a busy machine imports slowly
    while not checkpoint.exists(tmp_path / "run/checkpoints/last") and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    printed, complaints = running.communicate(timeout=60)
    assert running.returncode == 130, complaints
    assert "goes on from there" in " ".join(printed.split())
    assert "Traceback" not in complaints
    config = json.loads((tmp_path / "run/checkpoints/last/config.json").read_text())
    assert 50 <= config["step"] < 100_000
