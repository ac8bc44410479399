"""A user's own data that is quickly learned: in each task the action is a linear function of x and y."""

from pathlib import Path

import numpy as np

from quickstudy.demonstration import Demonstration

QUICK = [
    "--training.steps", 20, "--training.validate-every", 20, "--training.batching", "vmap", "--network.hidden", 16,
    "--network.context", 0,
]  # fmt: skip
CHANGES = {
    "training": {"steps": 20, "validate_every": 20, "batching": "vmap"},
    "network": {"hidden": (16,), "context": 0},
}
"""Settings that make a training of a second."""


def demonstration(task: int, seed: int, steps: int = 20, z: float = 0.5) -> Demonstration:
    """Channels x, y, z, of which z stands still but for 1e-4 of sensor noise, and the action u."""
    rng = np.random.default_rng([task, seed])
    goal = np.random.default_rng(100 + task).uniform(-1, 1, 2)
    x = rng.normal(size=(steps, 2))
    return Demonstration(np.column_stack([x, z + 1e-4 * rng.normal(size=steps)]), x @ goal[:, None])


def recordings(tasks: int = 12, each: int = 5) -> tuple[list[Demonstration], list[str]]:
    """Demonstrations and the task of each."""
    pairs = [(demonstration(task, i), f"t{task}") for task in range(tasks) for i in range(each)]
    return [one for one, _ in pairs], [label for _, label in pairs]


def write_csv(
    path: Path,
    pairs: list[tuple[str, Demonstration]],
    names: tuple[str, ...] = ("observation.x", "observation.y", "observation.z", "action.u"),
    order: tuple[int, ...] = (0, 1, 2, 3),
    rate: float | None = None,
) -> Path:
    """A table of episodes with the columns in this order."""
    stamp = [] if rate is None else ["timestamp"]
    lines = [",".join(["episode", "task", *stamp, *(names[i] for i in order)])]
    for episode, (task, one) in enumerate(pairs):
        for step, row in enumerate(np.column_stack([one.observations, one.actions])):
            at = [] if rate is None else [f"{step / rate:.6f}"]
            lines.append(",".join([str(episode), task, *at, *(repr(float(row[i])) for i in order)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def training_csv(path: Path, tasks: int = 12, **options: object) -> Path:
    """`recordings` as a table."""
    demonstrations, labels = recordings(tasks)
    return write_csv(path, list(zip(labels, demonstrations, strict=True)), **options)  # type: ignore[arg-type]
