"""The task families by name. Each is built when it is asked for: some load a robot."""

from collections.abc import Callable
from pathlib import Path

from quickstudy.errors import unknown
from quickstudy.progress import progress
from quickstudy.skills.classic import PointNavigation, Sinusoid
from quickstudy.skills.grasping import Grasping
from quickstudy.task import TaskFamily

FAMILIES: dict[str, Callable[[], TaskFamily]] = {
    "grasping": Grasping,
    "point-navigation": PointNavigation,
    "sinusoid": Sinusoid,
}


def get(name: str) -> TaskFamily:
    """The family of this name.

    Raises:
        QuickstudyError: there is none.
    """
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return FAMILIES[name]()


def draw(family: TaskFamily, split: str, count: int, path: Path) -> None:
    """Writes a contact sheet (PNG) of the first tasks of a split.

    Raises:
        QuickstudyError: an unknown split, too many tasks, or nothing here can draw.
    """
    from quickstudy import rendering

    tasks = family.tasks(split, count)
    frames = []
    with progress(f"drawing {family.name}", count) as advance:
        for task in tasks:
            frames.append(family.snapshot(task))
            advance()
    sheet = rendering.contact_sheet(frames, [family.caption(task) for task in tasks], columns=6)
    rendering.write_png(path, sheet)
