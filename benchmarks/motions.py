"""Real motions predicted from one to three demonstrations: every held-out task of each fold, by learners and baselines.

    export QUICKSTUDY_MOTIONS=...             # the collection of recordings, see docs/motions.md
    python -m benchmarks.motions              # 3 seeds of each method on 4 folds; resumes where it was stopped
    python -m benchmarks.motions --methods matching --seeds 1 --folds 2

Writes benchmarks/results/motions.json. Baselines see what the learners see: the demonstrations that are shown, and the
start pose and the end of the one to be predicted. `promp` and `dmp` are those of movement_primitives (DFKI); the
settings of ProMPs are chosen on validation tasks, as transfer's are. `dmp-evened` is a DMP of demonstrations whose
pace is normalised as learners get them, by what was chosen across tasks.

Two of six folds are left out: on the tasks that they hold out the methods' settings were chosen.
"""

import itertools
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from quickstudy.evaluation import evaluate
from quickstudy.experiment import TRAINING_SECONDS, Experiment, clock, seconds_so_far
from quickstudy.families.motions.family import Motions
from quickstudy.families.motions.trajectories import (
    Curves,
    at_phases,
    errors,
    phases,
    start_offset,
    time_normalised,
)
from quickstudy.io import files
from quickstudy.io.progress import console
from quickstudy.method import Role
from quickstudy.methods.demonstrations.baselines import Transfer
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures
from quickstudy.results.tables import print_table
from quickstudy.results.tuning import Tuning, tune

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Poses that were shown [demonstration, step, 6] and start poses [query, 6] to poses [query, step, 6]."""

METHODS = ("matching", "matching-convex", "hypernet", "meta-sgd", "transfer", "no-adaptation")
FIGURES = {
    "position RMSE, cm": ("poses", "position"),
    "position DTW, cm": ("poses", "position_dtw"),
    "orientation RMSE, degrees": ("poses", "orientation"),
    "orientation DTW, degrees": ("poses", "orientation_dtw"),
    "letters, shapes, hammer: RMSE, % of the unit": ("positions", "rmse"),
}
"""Tables: the split that each is measured on, and its metric."""
SHOTS = (1, 2, 3)


@dataclass(frozen=True)
class Measurement:
    """What to run."""

    methods: tuple[str, ...] = METHODS
    folds: tuple[int, ...] = (2, 3, 4, 5)
    """Which sixths of the motions are held out; settings were chosen on sixths 0 and 1."""
    seeds: int = 3
    tasks: int = 120
    """Orders of the demonstrations of each fold's motions; twelve shift the difference of two methods by 2 %."""
    episodes: int = 3
    """Held-out demonstrations of each order."""
    output_dir: Path = Path("runs/motions")


# ---- baselines


def mean(shown: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The mean of the demonstrations, as it is."""
    return np.repeat(shown.mean(0)[None], len(starts), 0)


def nearest(shown: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The demonstration whose start is nearest, as it is."""
    return shown[np.linalg.norm(shown[:, 0] - starts[:, None], axis=-1).argmin(1)]


def warp(shown: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The mean of the demonstrations, its start moved to the given one; less and less with phase."""
    return mean(shown, starts) + start_offset(starts - shown.mean(0)[0])


def warp_nearest(shown: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The demonstration whose start is nearest, moved likewise."""
    chosen = nearest(shown, starts)
    return chosen + start_offset(starts - chosen[:, 0])


def promp(weights: int, noise: float) -> Predict:
    """A probabilistic movement primitive (Paraschos et al. 2013), conditioned on the start with this variance."""
    from movement_primitives.promp import ProMP

    def predict(shown: np.ndarray, starts: np.ndarray) -> np.ndarray:
        time = phases(shown.shape[1])
        primitive = ProMP(6, weights)
        primitive.imitate([time] * len(shown), shown)
        return np.stack(
            [primitive.condition_position(start, noise * np.eye(6), t=0.0).mean_trajectory(time) for start in starts]
        )

    return predict


def dmp(shown: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A dynamical movement primitive (Ijspeert et al. 2013) of the mean demonstration, from another start."""
    from movement_primitives.dmp import DMP

    time, made = phases(shown.shape[1]), []
    primitive = DMP(6, 1.0, dt=0.01, n_weights_per_dim=20)
    primitive.imitate(time, shown.mean(0))
    for start in starts:
        primitive.configure(start_y=start, goal_y=shown.mean(0)[-1])
        made.append(at_phases(primitive.open_loop()[1], time))
    return np.stack(made)


BASELINES: dict[str, Role] = {
    **dict.fromkeys(("mean", "nearest-demonstration", "warp", "warp-nearest"), "floor"),
    **dict.fromkeys(("promp", "dmp", "dmp-evened"), "baseline"),
}
"""What the methods that are not quickstudy's own are in the comparison."""

GRID = tuple(itertools.product((10, 15), (1e-3, 1e-2, 1e-1)))
"""Weights a dimension and variance of the start that ProMPs are tried with on validation tasks."""


def judged(family: Motions, split: str, predict: Predict, shots: int, seed: int, what: Measurement) -> dict[str, dict]:
    """Errors of a baseline by motion and metric, over the same tasks and episodes that learners are judged by."""
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for task in family.tasks(split, what.tasks):
        shown, kept = family.split_demonstrations(task, seed)
        kept = kept.some(slice(what.episodes))
        poses = predict(shown.poses[:shots], kept.poses[:, 0])
        found.setdefault(task.parameters["motion"], []).append(errors(kept, poses, family.unit(task)))
    return {
        motion: {name: float(np.mean([one[name] for one in several])) for name in several[0]}
        for motion, several in found.items()
    }


def baselines(family: Motions, shots: int, seed: int, what: Measurement) -> dict[str, Predict]:
    """The baselines by name, ProMPs as they do best on validation tasks."""

    def on_validation(settings: tuple[int, float]) -> float:
        few = replace(what, tasks=6)
        return float(
            np.mean([one["rmse"] for one in judged(family, "validation", promp(*settings), shots, 0, few).values()])
        )

    best = min(GRID, key=on_validation)
    return {
        "mean": mean,
        "nearest-demonstration": nearest,
        "promp": promp(*best),
        "dmp": dmp,
        "dmp-evened": lambda shown, starts: dmp(
            time_normalised(Curves(shown[..., :3], shown[..., 3:]), family.share).poses, starts
        ),
        "warp": warp,
        "warp-nearest": warp_nearest,
    }


# ---- learners


def learned(
    family: Motions, method: str, fold: int, seed: int, what: Measurement
) -> tuple[dict[str, list[dict]], float]:
    """Errors by split, for each number of shots by motion and metric, and the seconds of the training."""
    folder = what.output_dir / f"fold{fold}-{method}-seed{seed}"
    learner = Experiment.of(family, method, seed).train(folder)
    if isinstance(learner, Transfer):
        tune(learner, family, Tuning(tasks=8), 1)
    found = {}
    for split in family.test_splits:
        tasks = family.tasks(split, what.tasks)
        result = evaluate(learner, family, split, shots=SHOTS, tasks=what.tasks, episodes=what.episodes, seed=seed)
        of = np.array([task.parameters["motion"] for task in tasks])
        found[split] = [
            {
                motion: {name: float(values[i][of == motion].mean()) for name, values in result.metrics.items()}
                for motion in np.unique(of)
            }
            for i in range(len(SHOTS))
        ]
    return found, seconds_so_far(folder / TRAINING_SECONDS)


# ---- the table


def measure(family: Motions, fold: int, seed: int, what: Measurement) -> dict[str, dict]:
    """By method, what one fold and seed gave; kept in files, so that nothing is measured twice."""
    found = {}
    path = what.output_dir / f"fold{fold}-seed{seed}-baselines-{what.tasks}x{what.episodes}.json"
    if not path.exists():
        chosen = [baselines(family, shots, seed, what) for shots in SHOTS]
        made = {
            name: {
                split: [judged(family, split, some[name], k, seed, what) for k, some in zip(SHOTS, chosen, strict=True)]
                for split in family.test_splits
            }
            for name in chosen[0]
        }
        files.write(path, json.dumps(made))
    for name, errors_of in json.loads(path.read_text()).items():
        found[name] = {"errors": errors_of, "seconds": 0.0}
    for method in what.methods:
        path = what.output_dir / f"fold{fold}-seed{seed}-{method}-{what.tasks}x{what.episodes}.json"
        if not path.exists():
            console.print(f"[bold]{method}[/], fold {fold}, seed {seed}")
            errors_of, seconds = learned(family, method, fold, seed, what)
            files.write(path, json.dumps({"errors": errors_of, "seconds": seconds}))
        found[method] = json.loads(path.read_text())
    return found


def table(found: dict[tuple[int, int], dict[str, dict]], what: Measurement, counts: dict[str, int | None]) -> list[Row]:
    """A row for each figure, method and number of shots."""
    names = list(next(iter(found.values())))
    rows = []
    for figure, (split, metric) in FIGURES.items():
        for name, (place, shots) in itertools.product(names, enumerate(SHOTS)):
            values = by_seed_and_motion(found, name, split, place, metric, what)
            if not values.size:
                continue
            values = values * (100 if "%" in figure else 1)
            seconds = [found[key][name]["seconds"] for key in found]
            rows.append(
                Row(
                    name,
                    shots,
                    episodes=what.tasks * what.episodes,
                    workload=figure,
                    **figures(values, shares=False),
                    parameters=counts.get(name),
                    training_s=round(float(np.mean(seconds)), 1) or None,
                    role=BASELINES.get(name),
                )
            )
    return rows


def by_seed_and_motion(
    found: dict[tuple[int, int], dict[str, dict]], name: str, split: str, place: int, metric: str, what: Measurement
) -> np.ndarray:
    """[seed, motion]."""
    return np.array(
        [
            [
                of[metric]
                for fold in what.folds
                for _, of in sorted(found[fold, seed][name]["errors"].get(split, [{}] * len(SHOTS))[place].items())
            ]
            for seed in range(what.seeds)
        ]
    )


def main(what: Measurement) -> None:
    found, counts, seconds = {}, {}, what.output_dir / "seconds.json"
    with clock(seconds):
        for fold in what.folds:
            family = Motions(fold=fold)
            for seed in range(what.seeds):
                found[fold, seed] = measure(family, fold, seed, what)
            counts = {method: Experiment.of(family, method).parameters() for method in what.methods}
    cell = Cell.measured_here(
        cell="motions",
        metric="error",
        unit="",
        protocol=(
            "Whole trajectories of held-out demonstrations, of tasks that training held in no form: one sixth of 23 "
            "recorded tasks is held out at a time, four sixths in all, and the settings were chosen on the other two. "
            "Given are 1 to 3 demonstrations of the task, and the start pose and "
            "the end of the one to be predicted. RoboTasks9 (Franka arm): root mean square error over phases, and mean "
            "distance along the best alignment in time (DTW). The last figure is of letters, drawn shapes and "
            "hammering, which have no orientation. Mean with a 95 % interval over training seeds and distinct tasks; "
            "lower is better."
        ),
        higher_is_better=False,
        command=shlex.join(["python", "-m", "benchmarks.motions", *sys.argv[1:]]),
        seconds=seconds_so_far(seconds),
        rows=table(found, what, counts),
    )
    cell.write(Path("benchmarks/results/motions.json"))
    print_table(cell)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Measurement))
