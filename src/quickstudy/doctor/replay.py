"""Whether the recorded actions are what moved the robot, and whether playing them back does the task."""

import re
from collections.abc import Iterator
from itertools import islice

import numpy as np

from quickstudy import families
from quickstudy.doctor.findings import Finding, Recordings
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.task import Task

_MOST_STEPS = 20_000
_MOST_TASKS = 20
_LABEL = re.compile(r"([\w.:-]+)/([\w-]+)/(\d+)")
"""How `quickstudy record` labels a task."""


def explained(found: Recordings) -> Iterator[Finding]:
    """How much of the next state's change a linear model of state and action predicts beyond the state alone.

    Fitted by ridge regression on half of the episodes and judged on the other half, over all channels.
    """
    whole = [
        e for e in found.episodes if len(e) > 2 and np.isfinite(e.observations).all() and np.isfinite(e.actions).all()
    ]
    if len(whole) < 4:
        return
    halves = [_transitions(found, list(islice(whole, first, None, 2))) for first in (0, 1)]
    (x, u, change), (x_test, u_test, change_test) = halves
    deviation = np.maximum(change.std(0), 1e-12)
    alone, both = (
        float(np.square((_ridge(a, change, b) - change_test) / deviation).mean())
        for a, b in ((x, x_test), (np.concatenate([x, u], 1), np.concatenate([x_test, u_test], 1)))
    )
    gain = 1 - both / max(alone, 1e-12)
    said = f"State and action predict {100 * gain:.0f} % of the change that the state alone leaves open"
    if gain < 0.05:
        remedy = "Are these the commands that the robot got, at the same time as the states?"
        yield Finding("replay", "actions act", "note", f"{said}: actions hardly move the state.", remedy)
    else:
        yield Finding("replay", "actions act", "good", f"{said}.")


def _transitions(found: Recordings, episodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    pairs = [found.continuous(episode) for episode in episodes]
    x, u = (np.concatenate([pair[i][:-1] for pair in pairs])[:_MOST_STEPS] for i in (0, 1))
    change = np.concatenate([np.diff(pair[0], axis=0) for pair in pairs])[:_MOST_STEPS]
    moving = change.std(0) > 1e-12
    return x, u, change[:, moving] if moving.any() else change


def _ridge(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    mean, deviation = x.mean(0), np.maximum(x.std(0), 1e-9)
    z, z_test = ((part - mean) / deviation for part in (x, x_test))
    solved = np.linalg.solve(z.T @ z + 1e-3 * len(z) * np.eye(z.shape[1]), z.T @ (y - y.mean(0)))
    return z_test @ solved + y.mean(0)


def replayed(found: Recordings, name: str) -> Iterator[Finding]:
    """Plays each task's first recording back in the simulated family that its label names, from starts drawn anew.

    Raises:
        QuickstudyError: the family is not simulated, or no label is one of its tasks.
    """
    family = families.get(name)
    if not isinstance(family, SimulatedFamily):
        raise QuickstudyError(f"Actions are replayed in a simulated family; '{family.name}' is none.")
    known: list[tuple[Task, np.ndarray]] = []
    for label, episodes in found.tasks.items():
        match = _LABEL.match(label)
        if match and match[1] == family.name and match[2] in family.sizes:
            known.append((family.task(match[2], int(match[3])), episodes[0].actions))
    if not known:
        raise QuickstudyError(
            f"No label of '{found.path}' is a task of '{family.name}', such as '{family.name}/train/0'."
        )
    known = known[:_MOST_TASKS]
    step = 0

    def policy(observations: np.ndarray) -> np.ndarray:
        nonlocal step
        actions = np.array([recorded[min(step, len(recorded) - 1)] for _, recorded in known])
        step += 1
        return np.broadcast_to(actions[:, None], (*observations.shape[:2], actions.shape[-1]))

    result = family.run([task for task, _ in known], 2, policy, seed=0)
    value = float(result[family.metric].mean())
    said = f"Played back from new starts, recordings of {len(known)} tasks give {family.metric} {value:.2f}"
    if family.metric == "success" and value >= 0.9:
        yield Finding("replay", "played back", "note", f"{said}: nothing needs to be learned here.", "Vary the starts.")
    else:
        yield Finding("replay", "played back", "good", f"{said}: a robot must react to what it sees.")
