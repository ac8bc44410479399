"""Grasping steps per second on one core: the whole loop beside bare `mj_step` of the same states and controls.

    python -m benchmarks.speed_simulation

The whole loop builds and resets every world, steps it, computes observations and successes, asks an adapted network of
the default size for every action, and takes the expert's action, so that objects really are touched and lifted. Bare
`mj_step` repeats the very steps of such a run, world by world, and does nothing else. The two take turns; medians
count. Writes benchmarks/results/speed-simulation.json.
"""

import time
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import torch
from quickstudy.families.grasping.episode import SUBSTEPS, Episodes
from quickstudy.methods.catalogue import build as build_learner
from quickstudy.methods.catalogue import defaults
from torch.utils._pytree import tree_map

from quickstudy.evaluation import SkillPolicy
from quickstudy.families.grasping.family import Grasping, build
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy.simulation.worlds import STATE
from quickstudy.task import Policy, Task

TASKS, EPISODES, REPEATS = 50, 1, 5


def whole_loop(family: Grasping, tasks: list[Task]) -> float:
    """Control steps per CPU second of `Grasping.run`."""
    learner = build_learner(defaults("grasping"), family)
    skills = tree_map(lambda t: t.detach().expand(len(tasks), *t.shape), learner.begin())
    network = SkillPolicy(learner, skills)
    policy = both(network, family.expert_policy(tasks))
    started = time.process_time()
    steps = family.run(tasks, EPISODES, policy, seed=0)["steps"].sum()
    return float(steps / (time.process_time() - started))


def both(network: Policy, expert: Policy) -> Policy:
    """Pays for the network's action and takes the expert's."""

    def policy(observations: np.ndarray) -> np.ndarray:
        network(observations)
        return expert(observations)

    return policy


def bare_steps(family: Grasping, tasks: list[Task]) -> Callable[[], float]:
    """Records the states and controls of a run; what it returns steps through them, in control steps per CPU second."""
    models = [build(task) for task in tasks]
    episodes = Episodes(models, threads=1)
    expert = family.expert_policy(tasks)
    observations = episodes.reset([task.generator(0, 0, 0) for task in tasks])
    recorded: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    while episodes.active.any():
        now = np.flatnonzero(episodes.active)
        states = episodes.worlds.snapshot(now)
        observations = episodes.step(expert(observations[:, None])[:, 0])
        for world, state in zip(now, states, strict=True):
            data = episodes.worlds.data[world]
            recorded.append((world, state, data.ctrl.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()))
    data_of = [mujoco.MjData(model) for model in models]

    def run() -> float:
        seconds = 0.0
        for world, state, ctrl, place, turn in recorded:
            model, data = models[world], data_of[world]
            mujoco.mj_setState(model, data, state, STATE)
            data.ctrl[:], data.mocap_pos[:], data.mocap_quat[:] = ctrl, place, turn
            started = time.process_time()
            mujoco.mj_step(model, data, SUBSTEPS)
            seconds += time.process_time() - started
        return len(recorded) / seconds

    return run


def main() -> None:
    started = time.perf_counter()
    torch.set_num_threads(1)
    family = Grasping(threads=1)
    tasks = family.tasks("train", TASKS)
    bare = bare_steps(family, tasks)
    figures = np.array([(whole_loop(family, tasks), bare()) for _ in range(REPEATS)])
    medians, ratio = np.median(figures, 0), float(np.median(figures[:, 0] / figures[:, 1]))
    cell = Cell.measured_here(
        cell="speed-simulation",
        metric="control steps per second and core",
        unit="",
        protocol=(
            f"Grasping with the Sawyer, {SUBSTEPS} physics steps of 2.5 ms a control step, {TASKS} worlds on one "
            f"thread, CPU time, median of {REPEATS} turns; the ratio is to bare mj_step of the same states and control."
        ),
        command="python -m benchmarks.speed_simulation",
        seconds=time.perf_counter() - started,
        rows=[
            Row("whole-loop", workload="grasping", steps_per_second=round(float(medians[0])), ratio=round(ratio, 3)),
            Row("bare mj_step", workload="grasping", steps_per_second=round(float(medians[1])), ratio=1.0),
        ],
    )
    cell.write(Path("benchmarks/results/speed-simulation.json"))
    print_table(cell)


if __name__ == "__main__":
    main()
