"""Gymnasium names of the environments: `gymnasium.make("quickstudy/Grasp-v0", split="sizes", index=3)`.

Importing quickstudy registers them; nothing is built before it is made. Without an import of its own, Gymnasium finds
them as `quickstudy:quickstudy/Grasp-v0`.
"""

from typing import Any

import gymnasium

from quickstudy.errors import QuickstudyError

ENVIRONMENTS = {
    "quickstudy/Grasp-v0": "grasping",
    "quickstudy/Navigation-v0": "navigation",
    "quickstudy/NavigationDynamics-v0": "navigation-dynamics",
    "quickstudy/ML10-v0": "ml10",
    "quickstudy/ML45-v0": "ml45",
    "quickstudy/PickPlace-v0": "ml1-pick-place",
    "quickstudy/PointNavigation-v0": "point-navigation",
    "quickstudy/Push-v0": "ml1-push",
    "quickstudy/Reach-v0": "ml1-reach",
    "quickstudy/ToolUse-v0": "tools",
}
"""Names of environments, and the families whose tasks they are."""


def register() -> None:
    """Makes the names known to Gymnasium; a second call changes nothing."""
    for name, family in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name, entry_point="quickstudy.families.gymnasium.registration:make", kwargs={"family": family}
            )


def make(family: str, split: str = "train", index: int = 0, render_mode: str | None = None) -> gymnasium.Env:
    """The environment of one task.

    Args:
        family: its name.
        split, index: which task, see `quickstudy.TaskFamily.tasks`.
        render_mode: as Gymnasium has it, where the family's environments can be seen.

    Raises:
        QuickstudyError: no such family, split or task, or one that cannot be seen.
    """
    from quickstudy.families import own as families

    found = families.get(family)
    (task,) = found.tasks(split, 1, first=index)
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        return found.make(task, **options)
    except TypeError as error:
        if not options:
            raise
        raise QuickstudyError(f"Environments of '{found.name}' have no render_mode; got '{render_mode}'.") from error
