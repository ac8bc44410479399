"""Navigation: a wheeled robot finds its way in a building that it has never seen."""

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from quickstudy.families.base import FamilyRecord

if TYPE_CHECKING:
    from quickstudy.families.navigation.family import Navigation as Navigation
    from quickstudy.families.navigation.family import NavigationDynamics as NavigationDynamics


def __getattr__(name: str) -> Any:
    """The classes, imported when they are asked for, as MuJoCo takes a while to load."""
    if name in ("Navigation", "NavigationDynamics"):
        return getattr(importlib.import_module(f"{__name__}.family"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _build(name: str) -> Any:
    return __getattr__(name)()


FAMILIES = (
    FamilyRecord(
        "navigation",
        "a robot with a lidar crosses an unseen building to a hidden goal",
        partial(_build, "Navigation"),
        environment="Navigation-v0",
    ),
    FamilyRecord(
        "navigation-dynamics",
        "the same with a body that has other defects in every task",
        partial(_build, "NavigationDynamics"),
        environment="NavigationDynamics-v0",
    ),
)
