"""Learning by trial from the command line: train, go on, evaluate, and a sentence for every mistake."""

from pathlib import Path

import pytest

from quickstudy.cli import main
from quickstudy.io import checkpoint
from quickstudy.results.evidence import Cell

QUICK = [
    "--training.meta-batch", "2", "--training.episodes_per_task", "3", "--training.validation-tasks", "2", "--policy.hidden", "8",
]  # fmt: skip


def train(folder: Path, steps: int, *more: str) -> None:
    main(["rl-train", "navigation2d", "--output-dir", str(folder), "--training.steps", str(steps), *QUICK, *more])


def mistake(capsys, *arguments: str) -> str:
    """The one line that a command with a mistake prints; its status must be 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_train_then_evaluate(tmp_path, capsys) -> None:
    folder = tmp_path / "run"
    train(folder, 1)
    assert checkpoint.exists(folder / "checkpoints/best")
    main(["rl-evaluate", str(folder), "--tasks", "2", "--episodes_per_task", "3", "--rounds", "2"])
    cell = Cell.read(folder / "results" / "rl-navigation2d.json")
    assert [(row.method, row.shots, row.steps) for row in cell.rows] == [("maml-trpo", 3 * k, k) for k in range(3)]
    assert "holds a run already; add --resume" in mistake(
        capsys, "rl-train", "navigation2d", "--output-dir", str(folder), *QUICK
    )
    assert "other settings of training" in mistake(
        capsys, "rl-train", "navigation2d", "--output-dir", str(folder), "--resume", *QUICK
    )


def test_a_profile_tells_shares_steps_per_second_and_the_protocol(tmp_path, capsys) -> None:
    main(["rl-profile", "navigation2d", "--method", "promp", "--outer-steps", "1", *QUICK])
    said = capsys.readouterr().out
    assert all(part in said for part in ("promp on navigation2d", "simulation", "policy", "update", "steps per second"))
    assert "the goal is hidden" in " ".join(said.split())
    assert "no step to profile" in mistake(capsys, "rl-profile", "navigation2d", "--method", "scratch", *QUICK)
    assert "at least one outer step; got 0" in mistake(capsys, "rl-profile", "navigation2d", "--outer-steps", "0")


def test_names_are_checked(tmp_path, capsys) -> None:
    said = mistake(capsys, "rl-train", "navigation2d", "--method", "malm-trpo", "--output-dir", str(tmp_path / "a"))
    assert "Did you mean 'maml-trpo'" in said.replace("\n", " ")
    assert "navigation2d" in mistake(capsys, "rl-train", "navigation3d", "--output-dir", str(tmp_path / "a"))
    assert "is not a run folder" in mistake(capsys, "rl-evaluate", str(tmp_path))
    assert not (tmp_path / "a").exists()
