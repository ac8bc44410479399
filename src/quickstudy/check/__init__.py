"""The contracts: what a family and a method have to keep, so that training, evaluation and comparison can rely on it.

`quickstudy check my_module:MyFamily`, and with `--method my_module:MyMethod`, goes through them. Each point of a
contract is a function that returns what it found, raises `BrokenError` with what to do about it, or raises
`SkippedError` where it does not apply.
"""

from typing import TYPE_CHECKING

from quickstudy.check.points import BrokenError, Point, SkippedError, go_through
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily

if TYPE_CHECKING:
    from quickstudy.check.families import Amount
    from quickstudy.method import Method
    from quickstudy.task import TaskFamily

__all__ = ["BrokenError", "Point", "SkippedError", "check", "check_method", "go_through"]


def check(family: "TaskFamily", amount: "Amount | None" = None) -> list[Point]:
    """Goes through all points of the contract of a family.

    Args:
        amount: how many tasks, episodes and demonstrations are looked at; fewer are faster.
    """
    from quickstudy.check import environments, families

    simulated = isinstance(family, SimulatedFamily)
    points = families.POINTS | (environments.POINTS if simulated else environments.WITHOUT)
    title = f"checking {getattr(family, 'name', type(family).__name__)}"
    return go_through(title, points, families.Looked(family, amount or families.Amount()))


def check_method(method: "Method", family: "TaskFamily") -> list[Point]:
    """Goes through all points of the contract of a method, on tasks of a family.

    Raises:
        QuickstudyError: the method cannot learn the tasks of the family.
    """
    if reason := method.why_not(family):
        raise QuickstudyError(reason)
    if method.learns_from == "demonstrations":
        from quickstudy.check import methods

        return methods.check_method(method, family)
    from quickstudy.check.trial_methods import check_trial_method

    if not isinstance(family, SimulatedFamily):
        raise QuickstudyError(f"Learning by trial needs a simulated family; '{family.name}' is none.")
    return check_trial_method(method, family)
