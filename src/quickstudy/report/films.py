"""Films and 3D replays of a trained learner: before and after adaptation, and of how it failed.

They are taken once, into `videos/` of a run or a comparison, and `videos.json` lists them for the report.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from quickstudy.data import DemonstrationSet
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation, SkillPolicy, skills_after
from quickstudy.families.base import SimulatedFamily
from quickstudy.io import checkpoint, files
from quickstudy.io.progress import console, progress
from quickstudy.learner import MetaLearner
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.report.charts import Evaluations, amount, failures
from quickstudy.results.evidence import Cell
from quickstudy.simulation import rendering, replay
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task, TaskFamily

INDEX = "videos.json"
FPS = 20


def take(
    folder: Path,
    method: str,
    family: TaskFamily,
    learner: MetaLearner | TrialLearner,
    evaluated: Mapping[str, Evaluations],
    seed: int = 0,
) -> None:
    """Films the first task of each test split before and after adaptation, and one failure of each kind.

    A learner from demonstrations is filmed in the same episode both times, with the same start and the same noise,
    before and after one demonstration. A learner by trial is filmed in its first episode and in the one after its last
    adaptation; its failures are not filmed, because its episodes cannot be repeated one by one. Existing films are
    kept; a family without films, or a machine that cannot draw, gets what it can.

    Args:
        folder: of the run or the comparison that the films are for.
        method: of the learner.
        evaluated: by split; the failures are taken from the learner's own method there.
    """
    index = folder / INDEX
    if index.exists():
        return
    groups: list[dict[str, Any]] = []
    try:
        with progress("filming", len(family.test_splits)) as advance:
            for split in family.test_splits:
                evaluations = evaluated.get(split, {}).get(method, [])
                groups.append(_before_and_after(folder, method, family, learner, split, evaluations, seed))
                if evaluations and not isinstance(learner, TrialLearner):
                    groups += _failures(folder, family, learner, split, evaluations[0], seed)
                advance()
    except QuickstudyError as error:  # no films of this family, or none on this machine
        console.print(f"No films: {error}", markup=False, soft_wrap=True)
        return
    files.write_json(index, groups, indent=1)


def run_to_film(folder: Path, cells: Sequence[Cell]) -> Path | None:
    """The run of a comparison to film: of the best method that is no baseline; or the folder, if it is a run."""
    if checkpoint.exists(folder / "checkpoints/best"):
        return folder
    ranked = sorted({row.method: row.baseline for cell in cells for row in cell.rows}.items(), key=lambda item: item[1])
    runs = [folder / f"{method}-seed0" for method, _ in ranked]
    return next((run for run in runs if checkpoint.exists(run / "checkpoints/best")), None)


def film_after(learner: MetaLearner, family: TaskFamily, task: Task, shots: int, seed: int) -> np.ndarray:
    """An episode after so many demonstrations of the task, uint8 [frame, height, width, 3]."""
    support = DemonstrationSet.record(family, [task], max(1, shots), seed, learner.scaling).batch
    skills = tree_map(lambda t: t.clone(), skills_after(learner, support, shots))
    return family.film(task, SkillPolicy(learner, skills), seed)


def film_trials(learner: TrialLearner, family: SimulatedFamily, task: Task, rounds: int, seed: int) -> np.ndarray:
    """The first of its own episodes after `rounds` adaptations to the task, uint8 [frame, height, width, 3]."""
    together = family.episodes_per_task if learner.shares_experience else 1
    with family.vector_env([task], together, visual=True) as env:
        camera = _Camera(env, family.film_every, rounds)
        learner.trial(camera, rounds, torch.Generator().manual_seed(seed))
    return np.stack(camera.frames)


class _Camera(VectorEnv):
    """Environments of which the first is filmed during one of its episodes.

    Attributes:
        frames: the pictures, [frame][height, width, 3].
    """

    def __init__(self, env: VectorEnv, every: int, episode: int) -> None:
        self.env, self._every, self._to_film = env, every, episode
        self.tasks, self.episodes_per_task = env.tasks, env.episodes_per_task
        self.horizon, self.action_size = env.horizon, env.action_size
        self.frames: list[np.ndarray] = []
        self._episode, self._step = -1, 0

    def reset(
        self, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None, disturbance: float = 0.0
    ) -> np.ndarray:
        observations = self.env.reset(generators, chosen, disturbance)
        self._episode, self._step = self._episode + 1, 0
        self._look()
        return observations

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        result = self.env.step(actions, active)
        self._step += 1
        if active[0, 0] and (result.over[0, 0] or self._step % self._every == 0):
            self._look()
        return result

    def expert_action(self) -> np.ndarray:
        return self.env.expert_action()

    def measures(self) -> dict[str, np.ndarray]:
        return self.env.measures()

    def _look(self) -> None:
        if self._episode == self._to_film:
            self.frames.append(self.env.render(0))


def _before_and_after(
    folder: Path,
    method: str,
    family: TaskFamily,
    learner: MetaLearner | TrialLearner,
    split: str,
    evaluations: Sequence[Evaluation],
    seed: int,
) -> dict[str, Any]:
    task = family.tasks(split, 1)[0]
    film: Callable[..., np.ndarray] = film_after
    shown = [("before", 0, "before any demonstration"), ("after", 1, "after one demonstration")]
    if isinstance(learner, TrialLearner):
        film, rounds = film_trials, _rounds(evaluations)
        episodes = rounds * (family.episodes_per_task if learner.shares_experience else 1)
        shown = [("before", 0, "its first episode"), ("after", rounds, f"after {amount('trials', episodes)}")]
    videos, replays = [], []
    for when, experience, words in shown:
        stem, caption = folder / "videos" / f"{split}-{when}", f"{method}, {words}"
        draw = partial(film, learner, family, task, experience, seed)
        videos.append(_video(folder, stem, draw(), caption))
        scene = replay.record(draw, FPS)
        if scene is not None:
            path = stem.with_suffix(".viser")
            files.write(path, scene)
            replays.append({"file": str(path.relative_to(folder)), "caption": caption})
    return {"title": f"{split}: {family.caption(task)}", "videos": videos, "replays": replays}


def _rounds(evaluations: Sequence[Evaluation]) -> int:
    """How often a learner by trial was let adapt, at most; once where it was not evaluated."""
    if not evaluations:
        return 1
    one = evaluations[0]
    return max(1, (one.steps or one.shots)[-1])


def _failures(
    folder: Path, family: TaskFamily, learner: MetaLearner, split: str, evaluation: Evaluation, seed: int
) -> list[dict[str, Any]]:
    """A film of a first episode of each kind of failure; only those are what a film shows again."""
    groups = []
    for number, (kind, where) in enumerate(failures(evaluation).items()):
        index = next((task for task, episode in where if episode == 0), None)
        if index is None or not evaluation.shots[-1]:
            continue
        task = family.tasks(split, 1, index)[0]
        film = film_after(learner, family, task, evaluation.shots[-1], seed)
        stem = folder / "videos" / f"{split}-failure-{number}"
        video = _video(folder, stem, film, f"{split}: {family.caption(task)}")
        groups.append({"title": f"Failed: {kind}", "videos": [video], "failure": True})
    return groups


def write_side_by_side(path: Path, films: Sequence[np.ndarray]) -> None:
    """One video of several, [frame, height, width, 3] each, of one size; the shorter ones rest at their end."""
    longest = max(map(len, films))
    held = [np.concatenate([film, np.repeat(film[-1:], longest - len(film), axis=0)]) for film in films]
    rendering.write_video(path, np.concatenate(held, axis=2), FPS)


def _video(folder: Path, stem: Path, film: np.ndarray, caption: str) -> dict[str, str]:
    path = stem.with_suffix(".mp4")
    rendering.write_video(path, film, FPS)
    return {"file": str(path.relative_to(folder)), "caption": caption}
