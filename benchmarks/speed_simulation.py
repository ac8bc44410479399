"""Grasping steps per second on one core: the whole loop beside bare `mj_step` of the same states and controls.

    python -m benchmarks.speed_simulation

The whole loop builds and resets every world, steps it, computes observations and successes, asks an adapted network of
the default size for every action, and takes the expert's action, so that objects really are touched and lifted. Bare
`mj_step` repeats the very steps of such a run, world by world, and does nothing else. The two take turns; medians
count. Writes benchmarks/results/speed-simulation.json.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mujoco
import numpy as np
import torch
from torch.utils._pytree import tree_map

from quickstudy import methods
from quickstudy.evaluation import SkillPolicy
from quickstudy.families.base import EPISODE, generators
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.vector_env import SUBSTEPS, GraspingVectorEnv
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table
from quickstudy.simulation.worlds import STATE
from quickstudy.task import Task

TASKS, REPEATS = 50, 5

Step = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""World, state before the step, control, and position and quaternion of what the hand is pulled to."""


def play(
    family: Grasping, tasks: Sequence[Task], look: Callable[[np.ndarray], object], record: list[Step] | None = None
) -> int:
    """One episode of each task with the expert's actions, shown to `look` first; returns its control steps."""
    with family.vector_env(tasks, 1) as env:
        assert isinstance(env, GraspingVectorEnv)
        observations = env.reset(generators(tasks, 1, EPISODE, 0))
        active, steps = np.ones(env.shape, bool), 0
        while active.any():
            look(observations)
            now = np.flatnonzero(active)
            datas = [env.worlds.data[world] for world in now] if record is not None else []
            states = [_state(env.worlds.models[world], data) for world, data in zip(now, datas, strict=False)]
            result = env.step(np.nan_to_num(env.expert_action()), active)
            for world, state, data in zip(now, states, datas, strict=False):
                assert record is not None
                record.append((world, state, data.ctrl.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()))
            steps += len(now)
            active, observations = active & ~result.over, result.observations
    return steps


def _state(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    return state


def whole_loop(family: Grasping, tasks: Sequence[Task]) -> float:
    """Control steps per CPU second: simulation, observations, an adapted network's action and the expert's."""
    method = methods.get(family.default_method)
    learner = method.build(method.defaults(family.name, family), family)
    skills = tree_map(lambda t: t.detach().expand(len(tasks), *t.shape), learner.begin())
    network = SkillPolicy(learner, skills)
    started = time.process_time()
    steps = play(family, tasks, network)
    return steps / (time.process_time() - started)


def bare_steps(family: Grasping, tasks: Sequence[Task]) -> Callable[[], float]:
    """Records the states and controls of a run; what it returns steps through them, in control steps per CPU second."""
    recorded: list[Step] = []
    play(family, tasks, lambda observations: None, recorded)
    with family.vector_env(tasks, 1) as env:
        assert isinstance(env, GraspingVectorEnv)
        models = env.worlds.models
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
