"""Is a data set enough to learn from? What its channels, timing, episodes and tasks are like, what learning gives."""

from collections.abc import Callable
from pathlib import Path

from quickstudy.datasets import lerobot as lerobot_format
from quickstudy.doctor import cameras, channels, episodes, joints, lerobot, replay, tasks
from quickstudy.doctor.findings import Finding, Recordings, read
from quickstudy.errors import QuickstudyError
from quickstudy.settings import ReadingConfig

__all__ = ["Finding", "Recordings", "examine", "of_files", "read", "unreadable"]


def examine(
    path: Path, reading: ReadingConfig | None = None, family: str | None = None
) -> tuple[Recordings, list[Finding]]:
    """Goes through a data set once; what learning gives is measured apart, see `quickstudy.doctor.learning`.

    Args:
        reading: what of the recordings is read, and how.
        family: a simulated family that the labels are tasks of, to play the recorded actions back in.

    Raises:
        QuickstudyError: nothing there, or nothing that is read; or a family that cannot replay.
    """
    found = read(Path(path), reading or ReadingConfig())
    looks: tuple[Callable[[Recordings], object], ...] = (
        episodes.timing, channels.channels, joints.joints, episodes.episodes, tasks.tasks, replay.explained,
    )  # fmt: skip
    findings: list[Finding] = [one for look in looks for one in look(found)]  # type: ignore[attr-defined]
    if family is not None:
        findings += replay.replayed(found, family)
    return found, findings


def of_files(path: Path) -> list[Finding]:
    """What is found without reading the numbers: of a LeRobotDataset's metadata, tables and videos."""
    return [*lerobot.files(path), *cameras.cameras(path)] if lerobot_format.is_one(path) else []


def unreadable(path: Path, error: QuickstudyError) -> Finding:
    """That a data set cannot be read, as a finding."""
    return Finding("reading", "readable", "bad", str(error), f"Mend that, then look again at '{path}'.")
