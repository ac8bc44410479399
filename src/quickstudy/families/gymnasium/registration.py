"""Gymnasium names of the environments: `gymnasium.make("quickstudy/Grasp-v0", split="sizes", index=3)`.

The names are those of the families' records. Importing quickstudy registers them, and so does
`gymnasium.make("quickstudy:quickstudy/Grasp-v0")`; no family is built before one of its environments is made.
"""

import gymnasium

from quickstudy import families


def environments() -> dict[str, str]:
    """Names of environments, and of the families whose tasks they are."""
    found = {record.environment: name for name, record in families.records().items()}
    return {f"quickstudy/{environment}": name for environment, name in found.items() if environment}


def register() -> None:
    """Makes the names known to Gymnasium; a second call changes nothing."""
    for name, family in environments().items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{__name__}:make", kwargs={"family": family})


def make(family: str, split: str = "train", index: int = 0, render_mode: str | None = None) -> gymnasium.Env:
    """The environment of one task.

    Args:
        family: its name.
        split, index: which task, see `quickstudy.TaskFamily.tasks`.
        render_mode: None or 'rgb_array'.

    Raises:
        QuickstudyError: no such family, split or task, or one that draws no pictures.
    """
    found = families.get(family)
    (task,) = found.tasks(split, 1, first=index)
    return found.make(task, **({} if render_mode is None else {"render_mode": render_mode}))
