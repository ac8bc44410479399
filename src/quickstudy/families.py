"""The task families by name. Each is built when it is asked for: some load a robot."""

from collections.abc import Callable

from quickstudy.errors import unknown
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
