"""Steps per second of meta-training by trial on ML1 push, beside Meta-World's own environments.

    python -m benchmarks.speed_rl
    python -m benchmarks.speed_rl --method promp --tasks 20 --episodes-per-task 2 --turns 5

The whole loop is timed: collect, adapt, collect, update, with one learner, the same first parameters, tasks and noise
on every side. The peers are what `metaworld.make_ml_envs_train` makes, with its wrappers, in Gymnasium's vector
environments: in one process ('sync') and in one for each environment ('async'), of which there are tasks x episodes.
They are made once and not timed for it, ours are made anew for every outer step as in training. Sides take turns;
medians count. Writes benchmarks/results/speed-rl.json.
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

from benchmarks.speed_metaworld import peer
from quickstudy import methods
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.families.metaworld.fixed_start import ml1
from quickstudy.families.metaworld.worlds import ACTION
from quickstudy.io.progress import console
from quickstudy.profile import Profile, profile_step
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy.settings import Config, PositiveInt
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task

OURS = "quickstudy"


@dataclass(frozen=True)
class SpeedRL(Config):
    """What to time."""

    method: str = "maml-trpo"
    """One that learns by trial."""
    tasks: PositiveInt = 20
    """Of a meta-batch."""
    episodes_per_task: PositiveInt = 10
    """Episodes of each task between two updates; each has an environment of its own, on all sides."""
    horizon: PositiveInt = 500
    """Steps of an episode."""
    turns: PositiveInt = 3
    """Outer steps of each side that count; one more goes before."""
    results: Path = Path("benchmarks/results/speed-rl.json")

    def __post_init__(self) -> None:
        super().__post_init__()
        if methods.get(self.method).uses == "nothing":
            raise QuickstudyError(f"Method '{self.method}' learns nothing from the training tasks: nothing to time.")


class PackageEnv(VectorEnv):
    """Meta-World's own environments, each with one task, in a vector environment of Gymnasium.

    They begin the next episode by themselves when they truncate one; it is what `reset` then gives.
    """

    action_size = ACTION

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int, horizon: int, kind: str) -> None:
        self.tasks, self.episodes_per_task, self.horizon = list(tasks), episodes_per_task, horizon
        each = [task.parameters for task in tasks for _ in range(episodes_per_task)]
        self._envs = peer([p["task"] for p in each], [np.array(p["vector"]) for p in each], kind, horizon)
        self._begun: np.ndarray | None = None

    def reset(
        self,
        generators: Sequence[np.random.Generator],
        chosen: np.ndarray | None = None,
        disturbance: float = 0.0,
    ) -> np.ndarray:
        begun, self._begun = self._begun, None
        return self._grid(self._envs.reset()[0] if begun is None else begun)

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        clipped = np.clip(actions, -1.0, 1.0).reshape(-1, ACTION).astype(np.float32)
        observations, rewards, _, truncated, info = self._envs.step(clipped)
        if truncated.any():
            self._begun, observations = observations.copy(), np.stack(list(info["final_obs"]))
            info = info["final_info"]
        success, never = self._grid(info["success"]).astype(bool), np.zeros_like(active)
        grids = (self._grid(values) for values in (observations, rewards))
        return StepResult(*grids, never, self._grid(truncated).astype(bool), success, never)

    def close(self) -> None:
        self._envs.close()

    def _grid(self, values: Any) -> np.ndarray:
        return np.array(values).reshape(*self.shape, *np.shape(values)[1:])


def sides(what: SpeedRL) -> dict[str, Callable[[], VectorEnv]]:
    """For each side what gives its environments; those of the peers are made once."""
    family = ml1("push", horizon=what.horizon)
    tasks = family.tasks("train", what.tasks)
    sync, many = (PackageEnv(tasks, what.episodes_per_task, what.horizon, kind) for kind in ("Sync", "Async"))
    return {
        "metaworld, sync": lambda: sync,
        "metaworld, async": lambda: many,
        OURS: partial(family.vector_env, tasks, what.episodes_per_task),
    }


def measure(what: SpeedRL) -> dict[str, list[Profile]]:
    """The profiles of each side, turn by turn."""
    experiment, made = Experiment.of("ml1-push-fixed-start", what.method), sides(what)
    profiles: dict[str, list[Profile]] = {side: [] for side in made}
    for turn in range(what.turns + 1):
        for side, make in made.items():
            profile, env = profile_step(experiment.build(), make, torch.Generator().manual_seed(turn))
            if side == OURS:
                env.close()
            if turn:  # the first one warms up
                profiles[side].append(profile)
                console.print(f"{side}: {profile.steps_per_second:,.0f} steps/s in turn {turn}.")
    for side in made.keys() - {OURS}:
        made[side]().close()
    return profiles


def rows(what: SpeedRL, profiles: dict[str, list[Profile]]) -> list[Row]:
    """One row for each side; the ratio is to the peer that makes more steps a second."""
    speeds = {side: float(np.median([p.steps_per_second for p in turns])) for side, turns in profiles.items()}
    better = max(speed for side, speed in speeds.items() if side != OURS)
    made = []
    for side, turns in profiles.items():
        total = sum(p.total for p in turns)
        shares = [f"{part} {100 * sum(p.seconds[part] for p in turns) / total:.0f} %" for part in turns[0].seconds]
        made.append(
            Row(
                side,
                workload=f"ml1-push, {what.method}",
                ms=round(1e3 * float(np.median([p.total for p in turns]))),
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
            f"{what.episodes_per_task} episodes of {what.horizon} steps a round, adaptation, and the outer update; the "
            f"same policy, tasks, noise and update on all sides. Median of {what.turns} turns; ratio: environment "
            "steps a second of the whole loop relative to the faster of metaworld's own environments in Gymnasium's "
            "synchronous and asynchronous vector environments."
        ),
        command=(
            f"python -m benchmarks.speed_rl --method {what.method} --tasks {what.tasks} "
            f"--episodes-per-task {what.episodes_per_task} --horizon {what.horizon} --turns {what.turns}"
        ),
        seconds=time.perf_counter() - started,
        rows=table,
    )
    cell.write(what.results)
    print_table(cell)


if __name__ == "__main__":
    main(tyro.cli(SpeedRL))
