"""Demonstrations of a family's experts, as a data set that others read too."""

from collections.abc import Iterator
from pathlib import Path

from quickstudy import datasets
from quickstudy.datasets import About, Episode
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import progress
from quickstudy.task import TaskFamily

_TASKS_AT_ONCE = 20


def record(
    family: TaskFamily,
    split: str,
    tasks: int,
    demonstrations: int,
    path: Path,
    format: str | None = None,
    rate: float | None = None,
    seed: int = 0,
) -> None:
    """Asks the experts for `demonstrations` of the first `tasks` tasks of a split, and writes them while they come.

    A task's label is its name, and its caption where the family has one.

    Args:
        path: a folder or file that is not there yet.
        format: one of `quickstudy.datasets.FORMATS`; by default what the ending of `path` says.
        rate: steps a second; the family's own by default.

    Raises:
        QuickstudyError: numbers that are not such, an unknown split, a place that is taken, an expert that fails, or no
            rate where the format needs one.
    """
    if demonstrations < 1:
        raise QuickstudyError(f"Each task needs at least one demonstration; got demos={demonstrations}.")
    if rate is not None and not rate > 0:
        raise QuickstudyError(f"The rate must be a positive number of steps a second; got {rate}.")
    chosen = family.tasks(split, tasks)
    stated = rate or family.rate
    if stated is None and datasets.chosen_format(path, format) == "lerobot":
        raise QuickstudyError(
            f"A LeRobot data set states its steps a second, and '{family.name}' does not say them: give --rate."
        )

    def episodes() -> Iterator[Episode]:
        with progress(f"{tasks} tasks x {demonstrations} demonstrations", tasks) as advance:
            for first in range(0, tasks, _TASKS_AT_ONCE):
                some = chosen[first : first + _TASKS_AT_ONCE]
                for task, shown in zip(some, family.demonstrate(some, demonstrations, seed), strict=True):
                    label = f"{task.name}: {family.caption(task)}"
                    yield from (Episode(label, one.observations, one.actions) for one in shown)
                advance(len(some))

    about = About(
        stated, family.observation_channels, family.action_channels,
        observation_units=family.observation_units, action_units=family.action_units,
    )  # fmt: skip
    datasets.save(path, episodes(), about, format)
