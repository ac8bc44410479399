"""The batched Meta-World beside the package, step for step: observations, rewards and successes of every ported task.

    python -m benchmarks.metaworld_agreement [TASK ...]

Three starts of each task, 150 steps with random actions and 150 with the expert's, and the same for the adapter that
the other tasks go through. Exits with an error where they disagree. Of all tasks it also writes
benchmarks/results/metaworld-agreement.json.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.agreement import OBSERVATION_LIMIT, REWARD_LIMIT, Agreement, compare
from quickstudy.families.metaworld.catalogue import TASKS
from quickstudy.families.metaworld.worlds import PORTS
from quickstudy.io.progress import progress
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table


def main(tasks: Sequence[str]) -> None:
    started, found = time.perf_counter(), list[Agreement]()
    with progress("comparing with metaworld", len(tasks)) as advance:
        for name in sorted(tasks, key=lambda name: name not in PORTS):
            found.append(compare(name))
            advance()
    cell = Cell.measured_here(
        cell="metaworld-agreement",
        metric="largest difference of an observation",
        unit="",
        protocol=(
            f"Each of {len(tasks)} tasks in metaworld's own environment and in ours, three starts with 150 random "
            "actions and three with 150 of the expert's: the same starts and actions. Observations must agree to "
            f"{OBSERVATION_LIMIT:g}, v2 rewards to {REWARD_LIMIT:g}, successes exactly."
        ),
        command="python -m benchmarks.metaworld_agreement",
        seconds=time.perf_counter() - started,
        rows=[_row(one) for one in found],
        higher_is_better=False,
    )
    if len(tasks) == len(TASKS):
        cell.write(Path("benchmarks/results/metaworld-agreement.json"))
    print_table(cell)
    wrong = [one.task for one in found if not one.holds]
    if wrong:
        sys.exit(f"These tasks do not agree with metaworld: {', '.join(wrong)}.")


def _row(one: Agreement) -> Row:
    kind = "batched" if one.task in PORTS else "adapter"
    note = f"rewards to {one.reward:.1e}, successes unequal {one.success} of {one.steps} ({one.successes} successes)"
    return Row(kind, workload=one.task, value=one.observation, note=note)


if __name__ == "__main__":
    main(sys.argv[1:] or list(TASKS))
