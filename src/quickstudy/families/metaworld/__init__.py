"""Meta-World (v3 tasks, v2 rewards) stepped many worlds at a time, equal to the package step for step.

`worlds` runs any mixture of the 50 tasks. Those in `pushing`, `articulated` and `tool_use` are written for many worlds
at once; the rest go through the package's own environments (`official`), behind the same interface. `env` is the vector
environment that `family` (starts drawn anew) and `fixed_start` (one start and one goal a task) share.
"""

from collections.abc import Callable
from typing import Any

from quickstudy.families.base import FamilyRecord, imported


def _family(maker: str, *args: Any, **options: Any) -> Callable[[], Any]:
    return imported(f"{__name__}.family:{maker}", *args, **options)


def _ml1_fixed_start(task: str) -> Callable[[], Any]:
    return imported(f"{__name__}.fixed_start:ml1", task, horizon=200, repeat=5, recombine=True)


def find(name: str) -> Callable[[], Any] | None:
    """What makes `ml1-<task>` of any of Meta-World's 50 tasks, or that with '-scrambled' or '-fixed-start' after it."""
    if not name.startswith("ml1-"):
        return None
    task = name.removeprefix("ml1-")
    if task.endswith("-fixed-start"):
        return _ml1_fixed_start(task.removesuffix("-fixed-start"))
    return _family("ml1", task.removesuffix("-scrambled"), scramble=task.endswith("-scrambled"))


_ML1 = (
    ("reach", "reach a hidden point", "Reach-v0"),
    ("push", "push a puck to a hidden goal", "Push-v0"),
    ("pick-place", "lift a puck to a hidden goal", "PickPlace-v0"),
)
_FIXED = "the same with one start and one goal a task, by trial"

FAMILIES = (
    *(
        FamilyRecord(f"ml1-{task}", f"{what} (Meta-World ML1)", _family("ml1", task), environment)
        for task, what, environment in _ML1
    ),
    *(FamilyRecord(f"ml1-{task}-fixed-start", f"{what}: {_FIXED}", _ml1_fixed_start(task)) for task, what, _ in _ML1),
    FamilyRecord("ml10", "10 of Meta-World's tasks, 5 others at test, goals hidden", _family("ml10"), "ML10-v0"),
    FamilyRecord("ml10-fixed-start", f"ML10, {_FIXED}", imported(f"{__name__}.fixed_start:ml10")),
    FamilyRecord("ml10-imitation", "ML10 with visible goals", _family("ml10", "visible")),
    FamilyRecord("ml45", "45 of Meta-World's tasks, 5 others at test, goals hidden", _family("ml45"), "ML45-v0"),
    FamilyRecord("ml45-imitation", "ML45 with visible goals", _family("ml45", "visible")),
    FamilyRecord("tools", "hammer, stick, peg and wrench of other lengths", _family("tools"), "ToolUse-v0"),
)
