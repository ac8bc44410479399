"""Meta-World's steps and resets per second, beside the package's own environments in Gymnasium's vector environments.

    python -m benchmarks.speed_metaworld

Twenty worlds, 200 control steps; push-v3, and the ten training tasks of ML10, two worlds each. Actions are random, as
those of a policy that has yet to learn, and then the experts' with noise, which touch and lift: contacts are what takes
physics longest. All sides have the same starts and get the same actions, turn by turn; medians count. The peers are
what `metaworld.make_ml_envs_train` makes, with its wrappers, in one process ('sync') and in twenty ('async'). Busy
cores slow each other, so what a step costs a core is to be compared alike: 'sync' beside one thread of ours. Writes
benchmarks/results/speed-metaworld.json.
"""

import os
import pickle
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import metaworld
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

from quickstudy.families.metaworld import official
from quickstudy.families.metaworld.catalogue import ML10, TASKS
from quickstudy.families.metaworld.worlds import ACTION, MetaWorlds
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table

WORLDS, STEPS, REPEATS, NOISE, SAME = 20, 200, 7, 0.1, gymnasium.vector.AutoresetMode.SAME_STEP
PUSH, MIXTURE = ["push-v3"] * WORLDS, [name for name in ML10["train"] for _ in range(WORLDS // 10)]


def peer(names: Sequence[str], vectors: Sequence[np.ndarray], kind: str, horizon: int | None = None) -> Any:
    """The package's environments as it makes them itself, each with one task; episodes have 500 steps, or `horizon`."""
    makers = []
    for name, vector in zip(names, vectors, strict=True):
        of = ALL_V3_ENVIRONMENTS[name]
        data = pickle.dumps({"rand_vec": vector, "env_cls": of, "partially_observable": True})
        tasks = [Task(env_name=name, data=data)]
        makers.append(partial(metaworld._init_each_env, env_cls=of, tasks=tasks, max_episode_steps=horizon))
    return getattr(gymnasium.vector, f"{kind}VectorEnv")(makers, autoreset_mode=SAME)


def recorded(names: Sequence[str], vectors: Sequence[np.ndarray]) -> np.ndarray:
    """The experts' actions with noise, [step, world, 4]."""
    rng, experts = np.random.default_rng(1), {name: official.expert(name) for name in names}
    worlds = MetaWorlds(names, threads=1)
    seen, actions = worlds.reset(vectors), np.zeros((STEPS, len(names), ACTION), np.float32)
    for step in range(STEPS):
        for world, name in enumerate(names):
            actions[step, world] = experts[name](seen[world : world + 1])[0]
        actions[step] = np.clip(actions[step] + NOISE * rng.normal(size=actions[step].shape), -1.0, 1.0)
        seen = worlds.step(actions[step])
    return actions


def seconds(work: Callable[[], Any], processes: Sequence[int] = ()) -> tuple[float, float]:
    """Wall and CPU seconds, those of other processes included."""
    cpu, wall = time.process_time() + sum(map(_cpu_of, processes)), time.perf_counter()
    work()
    wall = time.perf_counter() - wall
    return wall, time.process_time() + sum(map(_cpu_of, processes)) - cpu


def _cpu_of(process: int) -> float:
    return float(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def random(names: Sequence[str], vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Actions that are evenly distributed, [step, world, 4]."""
    return np.random.default_rng(1).uniform(-1.0, 1.0, (STEPS, len(names), ACTION)).astype("f4")


WORKLOADS = {
    "push-v3, random actions": (PUSH, random),
    "push-v3, experts' actions": (PUSH, recorded),
    "ML10, random actions": (MIXTURE, random),
    "ML10, experts' actions": (MIXTURE, recorded),
}


def measure(names: Sequence[str], make: Callable[..., np.ndarray]) -> dict[str, np.ndarray]:
    """For each side [turn, (wall of a step, CPU of a step, wall of a reset)], in seconds a world."""
    rng = np.random.default_rng(0)
    vectors = [TASKS[name].vector(rng) for name in names]
    actions = make(names, vectors)
    sides: dict[str, Any] = {
        "metaworld, sync": peer(names, vectors, "Sync"),
        "metaworld, async": peer(names, vectors, "Async"),
        "quickstudy": MetaWorlds(names),
        "quickstudy, one thread": MetaWorlds(names, threads=1),
    }
    children = {"metaworld, async": [process.pid for process in sides["metaworld, async"].processes]}
    found: dict[str, list[tuple[float, float, float]]] = {side: [] for side in sides}
    for turn in range(REPEATS + 1):
        for side, worlds in sides.items():
            reset, _ = seconds(partial(worlds.reset, vectors) if isinstance(worlds, MetaWorlds) else worlds.reset)
            wall, cpu = seconds(
                lambda worlds=worlds: [worlds.step(action) for action in actions], children.get(side, ())
            )
            if turn:  # the first one warms up
                found[side].append((wall / STEPS / len(names), cpu / STEPS / len(names), reset / len(names)))
    for worlds in sides.values():
        worlds.close()
    return {side: np.array(turns) for side, turns in found.items()}


def rows(workload: str, found: dict[str, np.ndarray]) -> list[Row]:
    """Steps beside the peer that is faster by the clock, and by CPU time beside the one that takes less; resets."""
    faster = np.minimum(*(np.median(found[f"metaworld, {kind}"], 0) for kind in ("sync", "async")))
    made = []
    for side, turns in found.items():
        wall, cpu, reset = np.median(turns, 0)
        ratio, per_core, resets = faster / (wall, cpu, reset)
        note = f"{cpu * 1e6:.0f} us of CPU a step: {per_core:.2f} x a core"
        made.append(
            Row(side, workload=workload, ms=_ms(wall), ratio=_three(ratio), steps_per_second=round(1 / wall), note=note)
        )
        made.append(Row(side, workload=f"{workload}, reset", ms=_ms(reset), ratio=_three(resets)))
    return sorted(made, key=lambda row: row.workload)


def _ms(value: float) -> float:
    return float(f"{value * 1e3:.4g}")


def _three(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    started = time.perf_counter()
    table = [row for workload, what in WORKLOADS.items() for row in rows(workload, measure(*what))]
    cell = Cell.measured_here(
        cell="speed-metaworld",
        metric="milliseconds of a world's control step, or of its reset",
        unit="",
        protocol=(
            f"{WORLDS} worlds on {os.cpu_count()} cores, {STEPS} control steps of random actions, or of the experts' "
            f"with noise, the same on all sides; ML10: its ten training tasks, two worlds each. Median of {REPEATS} "
            "turns; ratio: speed relative to the faster of metaworld's own synchronous and asynchronous vector "
            "environments."
        ),
        command="python -m benchmarks.speed_metaworld",
        seconds=time.perf_counter() - started,
        rows=table,
        higher_is_better=False,
    )
    cell.write(Path("benchmarks/results/speed-metaworld.json"))
    print_table(cell)


if __name__ == "__main__":
    main()
