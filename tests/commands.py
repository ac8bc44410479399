"""The command line as tests call it, and trainings that take a second."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quickstudy.cli import main
from quickstudy.io import curves

DEMONSTRATIONS = [
    "point-navigation", "--method", "maml", "--training.steps", "20", "--training.validate-every", "10",
    "--training.batching", "vmap", "--data.tasks", "20", "--data.validation-tasks", "5",
]  # fmt: skip
"""A family, a method that learns from demonstrations, and settings that make it quick."""

TRIALS = [
    "navigation2d", "--method", "rl2", "--training.steps", "4", "--training.validate-every", "2",
    "--training.meta-batch", "2", "--training.episodes-per-task", "2", "--training.validation-tasks", "2",
    "--width", "8", "--minibatches", "2",
]  # fmt: skip
"""The same for a method that learns by trial."""


def quickstudy(*words: object) -> None:
    """Runs a command."""
    main([str(word) for word in words])


def mistake(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command with a mistake prints; its status must be 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        quickstudy(*words)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    lines = [line for line in printed.err.splitlines() if line.strip()]
    assert len(lines) == 1
    return lines[0]


def interrupted(*words: object) -> None:
    """Runs a command that trains, and presses Ctrl-C when it first logs a step; its status must be 130."""
    with pressing_ctrl_c(), pytest.raises(SystemExit) as stopped:
        quickstudy(*words)
    assert stopped.value.code == 130


@contextmanager
def pressing_ctrl_c() -> Iterator[None]:
    """Ctrl-C is pressed once, when a training first logs something."""
    pressed: list[bool] = []

    def log(*_: object) -> None:
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves.TensorBoard, "log", log)
        yield


def names_in(folder: Path) -> set[str]:
    """The files of a folder, but for those whose names have the time or the machine in them."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {"tensorboard" if name.startswith("tensorboard/") else name for name in found}
