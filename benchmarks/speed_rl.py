"""Steps per second of meta-training by trial on ML1 push, beside Meta-World's own environments.

    python -m benchmarks.speed_rl
    python -m benchmarks.speed_rl --method promp --tasks 20 --episodes_per_task 2 --turns 5

The whole loop is timed: collect, adapt, collect, update, with one learner, the same first parameters, tasks and noise
on every side. The peers are what `metaworld.make_ml_envs_train` makes, with its wrappers, in Gymnasium's vector
environments: in one process ('sync') and in one for each environment ('async'), of which there are tasks x episodes_per_task. They
are made once and not timed for it, ours are made anew for every outer step as in training. Sides take turns; medians
count. Writes benchmarks/results/speed-rl.json.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from quickstudy.methods.trials.catalogue import UNTRAINED, build, defaults

from benchmarks.speed_metaworld import peer
from quickstudy.errors import QuickstudyError
from quickstudy.families.metaworld.fixed_start import ml1
from quickstudy.families.metaworld.worlds import ACTION
from quickstudy.io.progress import console
from quickstudy.methods.trials.profile import Profile, outer_step
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task

OURS = "quickstudy"


@dataclass(frozen=True)
class SpeedRL:
    """What to time."""

    method: str = "maml-trpo"
    """One of those of rl-train."""
    tasks: int = 20
    """Of a meta-batch."""
    episodes_per_task: int = 10
    """Episodes of each task between two updates; each has an environment of its own, on all sides."""
    horizon: int = 500
    """Steps of an episode."""
    turns: int = 3
    """Outer steps of each side that count; one more goes before."""
    results: Path = Path("benchmarks/results/speed-rl.json")

    def __post_init__(self) -> None:
        for name in ("tasks", "episodes_per_task", "horizon", "turns"):
            if getattr(self, name) < 1:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")
        if self.method in UNTRAINED:
            raise QuickstudyError(f"Method '{self.method}' learns nothing from the training tasks: nothing to time.")


class VectorWorlds(VectorEnv):
    """Meta-World's own environments, each with one task, in a vector environment of Gymnasium.

    They begin the next episode by themselves when they truncate one; it is what `reset` then gives.
    """

    action_size = ACTION

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int, horizon: int, kind: str) -> None:
        self.tasks, self.episodes_per_task, self.horizon = list(tasks), episodes_per_task, horizon
        each = [task.parameters for task in tasks for _ in range(episodes_per_task)]
        self._envs = peer([p["task"] for p in each], [np.array(p["vector"]) for p in each], kind, horizon)
        self._begun: np.ndarray | None = None

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        begun, self._begun = self._begun, None
        return self._grid(self._envs.reset()[0] if begun is None else begun)

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        clipped = np.clip(actions, -1.0, 1.0).reshape(-1, ACTION).astype(np.float32)
        seen, rewards, _, truncated, told = self._envs.step(clipped)
        if truncated.any():
            self._begun, seen, told = seen.copy(), np.stack(list(told["final_obs"])), told["final_info"]
        no = np.zeros_like(alive)
        return StepResult(self._grid(seen), self._grid(rewards), no, self._grid(told["success"]).astype(bool), no)

    def close(self) -> None:
        self._envs.close()

    def _grid(self, values: Any) -> np.ndarray:
        return np.array(values).reshape(len(self.tasks), self.episodes_per_task, *np.shape(values)[1:])


def sides(what: SpeedRL) -> dict[str, Callable[[], VectorEnv]]:
    """For each side what gives its worlds; those of the peers are there for good."""
    family = ml1("push", horizon=what.horizon)
    tasks = family.tasks("train", what.tasks)
    sync, many = (VectorWorlds(tasks, what.episodes_per_task, what.horizon, kind) for kind in ("Sync", "Async"))
    return {
        "metaworld, sync": lambda: sync,
        "metaworld, async": lambda: many,
        OURS: partial(family.worlds, tasks, what.episodes_per_task),
    }


def measure(what: SpeedRL) -> dict[str, list[Profile]]:
    """The profiles of each side, turn by turn."""
    family, settings, made = ml1("push"), defaults("ml1-push", what.method), sides(what)
    found: dict[str, list[Profile]] = {side: [] for side in made}
    for turn in range(what.turns + 1):
        for side, make in made.items():
            learner = build(settings, family)
            profile, worlds = outer_step(learner, make, torch.Generator().manual_seed(turn))
            if side == OURS:
                worlds.close()
            if turn:  # the first one warms up
                found[side].append(profile)
                console.print(f"{side}: {profile.steps_per_second:,.0f} steps/s in turn {turn}.")
    for side in made.keys() - {OURS}:
        made[side]().close()
    return found


def rows(what: SpeedRL, found: dict[str, list[Profile]]) -> list[Row]:
    """One row a side; the ratio is to the peer that makes more steps a second."""
    speeds = {side: float(np.median([p.steps_per_second for p in profiles])) for side, profiles in found.items()}
    better = max(speed for side, speed in speeds.items() if side != OURS)
    made = []
    for side, profiles in found.items():
        total = sum(p.seconds for p in profiles)
        shares = [
            f"{part} {100 * sum(getattr(p, part) for p in profiles) / total:.0f} %"
            for part in ("simulation", "policy", "update")
        ]
        made.append(
            Row(
                side,
                workload=f"ml1-push, {what.method}",
                ms=round(1e3 * float(np.median([p.seconds for p in profiles]))),
                ratio=float(f"{speeds[side] / better:.3g}"),
                steps_per_second=round(speeds[side]),
                note=", ".join(shares),
            )
        )
    return made


def main(what: SpeedRL) -> None:
    started = time.perf_counter()
    table = rows(what, measure(what))
    cell = Cell.measured_here(
        cell="speed-rl",
        metric="milliseconds of an outer step",
        unit="",
        protocol=(
            f"{what.method} on ML1 push of Meta-World v3 with v2 rewards, goal hidden: {what.tasks} tasks x "
            f"{what.episodes_per_task} episodes of {what.horizon} steps a round, adaptation, and the outer update; the same "
            f"policy, tasks, noise and update on all sides. Median of {what.turns} turns; ratio: environment steps a "
            "second of the whole loop relative to the faster of metaworld's own environments in Gymnasium's "
            "synchronous and asynchronous vector environments."
        ),
        command=(
            f"python -m benchmarks.speed_rl --method {what.method} --tasks {what.tasks} --episodes_per_task {what.episodes_per_task} "
            f"--horizon {what.horizon} --turns {what.turns}"
        ),
        seconds=time.perf_counter() - started,
        rows=table,
    )
    cell.write(what.results)
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(SpeedRL))
