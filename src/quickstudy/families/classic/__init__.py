"""The two classic families for checking the mathematics: sinusoid regression and 2D point navigation.

Both are from Finn, Abbeel, Levine 2017 (sections 5.1 and 5.3); here the second is taught by demonstration.
"""

from quickstudy.families.base import FamilyRecord
from quickstudy.families.classic.point_navigation import PointNavigation
from quickstudy.families.classic.sinusoid import Sinusoid

__all__ = ["FAMILIES", "PointNavigation", "Sinusoid"]

FAMILIES = (
    FamilyRecord(
        "point-navigation",
        "reach a hidden goal in a square, from demonstrations (after Finn et al. 2017)",
        PointNavigation,
        environment="PointNavigation-v0",
    ),
    FamilyRecord("sinusoid", "regression of a sinusoid from some of its points (Finn et al. 2017)", Sinusoid),
)
