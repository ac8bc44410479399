"""Demonstrations, recorded by several processes; each task's are the same wherever they are recorded."""

from collections.abc import Sequence

import ray

from quickstudy.cluster.pool import Pool
from quickstudy.demonstration import Demonstration
from quickstudy.io.progress import progress
from quickstudy.task import Task, TaskFamily

_PARTS_EACH = 4
"""Parts for each process, so that one that is slow is not waited for long."""

_MOST_TASKS = 50
"""Of one part, which is recorded at once."""


def recorded_by(
    pool: Pool, size: int, family: TaskFamily, tasks: Sequence[Task], count: int, seed: int
) -> list[list[Demonstration]]:
    """What `quickstudy.data.recorded` gives, by a pool of `Hand` with `size` processes."""
    at_once = min(_MOST_TASKS, max(1, len(tasks) // (_PARTS_EACH * size)))
    parts = [tasks[first : first + at_once] for first in range(0, len(tasks), at_once)]
    of, function = ray.put(family), ray.put(_demonstrate)
    titles = [f"the demonstrations of {part[0].name} to {part[-1].name}" for part in parts]
    found: list[list[list[Demonstration]]] = [[] for _ in parts]
    with progress(f"{len(tasks)} tasks x {count} demonstrations", len(tasks)) as advance:
        for place, (made, _) in pool.map("do", [(function, of, part, count, seed) for part in parts], titles):
            found[place] = made
            advance(len(parts[place]))
    return [demonstrations for part in found for demonstrations in part]


def _demonstrate(family: TaskFamily, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
    return family.demonstrate(tasks, count, seed)
