"""Navigation: a wheeled robot finds its way in a building that it has never seen."""

from quickstudy.families.base import FamilyRecord, imported

FAMILIES = (
    FamilyRecord(
        "navigation",
        "a robot with a lidar crosses an unseen building to a hidden goal",
        imported(f"{__name__}.family:Navigation"),
        environment="Navigation-v0",
    ),
    FamilyRecord(
        "navigation-dynamics",
        "the same with a body that has other defects in every task",
        imported(f"{__name__}.family:NavigationDynamics"),
        environment="NavigationDynamics-v0",
    ),
)
