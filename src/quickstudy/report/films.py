"""Films and 3D replays of a trained learner: before and after adaptation, and of how it failed.

They are taken once, into `videos/` of a run or a comparison, and `videos.json` lists them for the report.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils._pytree import tree_map

from quickstudy.data import DemonstrationSet
from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import SkillPolicy, skills_after
from quickstudy.io import checkpoint, files
from quickstudy.io.progress import console, progress
from quickstudy.learner import MetaLearner
from quickstudy.report.charts import Evaluations, failures
from quickstudy.results import runs
from quickstudy.results.evidence import BASELINES
from quickstudy.simulation import rendering, replay
from quickstudy.task import Policy, Task, TaskFamily

INDEX = "videos.json"


def take(folder: Path, run: Path, evaluated: Mapping[str, Evaluations], seed: int = 0) -> None:
    """Films the first held-out task of each split before and after one demonstration, and one failure of each kind.

    The same episode is filmed both times: the same start, the same noise. Existing films are kept; a family without
    films, or a machine that cannot draw, gets what it can.

    Args:
        folder: of the run or the comparison that the films are for.
        run: the run folder of the learner that acts.
        evaluated: by split; of the learner's own method there, failures are taken from.
    """
    index = folder / INDEX
    if index.exists():
        return
    settings, family, learner = runs.load(run)
    groups: list[dict[str, Any]] = []
    try:
        with progress("filming", len(family.test_splits)) as advance:
            for split in family.test_splits:
                groups.append(_before_and_after(folder, family, learner, settings.method, split, seed))
                groups += _failures(
                    folder, family, learner, split, evaluated.get(split, {}).get(settings.method, []), seed
                )
                advance()
    except QuickstudyError as error:  # no films of this family, or none on this machine
        console.print(f"No films: {error}", soft_wrap=True)
        return
    files.write(index, json.dumps(groups, indent=1))


def run_to_film(folder: Path, ranked: list[str]) -> Path | None:
    """The run of a comparison to film: of the best method that learns to learn; or the folder, if it is a run."""
    if checkpoint.exists(folder / "checkpoints/best"):
        return folder
    there = [folder / f"{method}-seed0" for method in sorted(ranked, key=BASELINES.__contains__)]
    return next((run for run in there if checkpoint.exists(run / "checkpoints/best")), None)


def _before_and_after(
    folder: Path, family: TaskFamily, learner: MetaLearner, method: str, split: str, seed: int
) -> dict[str, Any]:
    task = family.tasks(split, 1)[0]
    videos, replays = [], []
    for shots, when in ((0, "before"), (1, "after")):
        said = f"{method}, {when} {'any' if shots == 0 else 'one'} demonstration"
        stem = folder / "videos" / f"{split}-{when}"
        film, scene = _shoot(family, learner, task, shots, seed, stem, replayed=True)
        videos.append({"file": str(film.relative_to(folder)), "caption": said})
        if scene is not None:
            replays.append({"file": str(scene.relative_to(folder)), "caption": said})
    return {"title": f"Unseen {split}: {family.caption(task)}", "videos": videos, "replays": replays}


def _failures(
    folder: Path, family: TaskFamily, learner: MetaLearner, split: str, evaluations: Any, seed: int
) -> list[dict[str, Any]]:
    """A film of a first episode of each kind of failure; only those are what a film shows again."""
    if not evaluations:
        return []
    evaluation = evaluations[0]
    groups = []
    for number, (kind, where) in enumerate(failures(evaluation).items()):
        task_index = next((task for task, episode in where if episode == 0), None)
        if task_index is None or not evaluation.shots[-1]:
            continue
        task = family.tasks(split, 1, task_index)[0]
        film, _ = _shoot(
            family, learner, task, evaluation.shots[-1], seed, folder / "videos" / f"{split}-failure-{number}"
        )
        video = {"file": str(film.relative_to(folder)), "caption": f"{split}: {family.caption(task)}"}
        groups.append({"title": f"Failed: {kind}", "videos": [video], "failure": True})
    return groups


def _shoot(
    family: TaskFamily,
    learner: MetaLearner,
    task: Task,
    shots: int,
    seed: int,
    stem: Path,
    replayed: bool = False,
) -> tuple[Path, Path | None]:
    """Films an episode after so many demonstrations, and records it in 3D."""
    support = DemonstrationSet.record(family, [task], max(1, shots), seed).batch
    skills = skills_after(learner, support, shots)

    def policy() -> Policy:
        return SkillPolicy(learner, tree_map(lambda t: t.clone(), skills))

    film, scene = stem.with_suffix(".mp4"), stem.with_suffix(".viser")
    rendering.write_video(film, family.film(task, policy(), seed), fps=20)
    recorded = replay.record(family, task, policy(), seed) if replayed else None
    if recorded is None:
        return film, None
    files.write(scene, recorded)
    return film, scene
