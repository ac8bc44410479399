"""The command `match`: ranks a run's training tasks by similarity to a demonstration, and adapts from the best one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quickstudy.data import Batch, DemonstrationSet
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import run_tasks
from quickstudy.experiment import Experiment
from quickstudy.io import checkpoint
from quickstudy.learner import Parameters
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.methods.demonstrations.task_similarity import (
    TaskSiamese,
    adapt_from,
    adapt_many,
    as_support,
    rank,
    train_matcher,
)
from quickstudy.results import runs
from quickstudy.task import Task, TaskFamily


class TaskMatch(NamedTuple):
    """What `match_run` found.

    Attributes:
        ranking: the known tasks with their probabilities and captions, the most similar first.
        skill: where the skill is that was learned from the most similar task's; None where no run could make one.
        before, after: imitation error on the demonstrations of the known task's skill and of the one learned from it.
        without: the same of a skill that was learned without a known task.
    """

    ranking: list[tuple[Task, float, str]]
    skill: Path | None
    before: float = math.nan
    after: float = math.nan
    without: float = math.nan

    @property
    def start(self) -> str:
        """The most similar known task."""
        return self.ranking[0][0].name


def match_run(
    run: Path, demos: Sequence[Path], skills_run: Path | None = None, output: Path | None = None
) -> TaskMatch:
    """Ranks a run's training tasks by similarity to demonstrations in files, all of one task, and adapts from the best.

    The twins are trained at the first call and kept in the folder `matcher` of the run.

    Args:
        skills_run: the run of 'transfer' (or 'scratch') whose network the skills are; `run` itself where not given.
        output: where the skill goes, `matched-skill.safetensors` in the run by default.

    Raises:
        QuickstudyError: not such runs or files, or demonstrations that are not of the run's family.
    """
    demonstrations = [Demonstration.load(path) for path in demos]
    experiment, learner = runs.load(run)
    family, data = experiment.family, experiment.settings.data
    if family.labelled:
        raise QuickstudyError(f"Tasks of '{family.name}' are sets of classes; matching is for families of skills.")
    if "demonstrations" not in family.learned_from:
        raise QuickstudyError(f"Tasks of '{family.name}' have no demonstrations, and matching needs some of each.")
    if skills_run is not None:
        other, learner = runs.load(skills_run)
        if other.settings.family != experiment.settings.family:
            raise QuickstudyError(
                f"'{skills_run}' is a run of '{other.settings.family}', '{run}' one of '{experiment.settings.family}'."
            )
        if not isinstance(learner, Transfer):
            raise QuickstudyError(
                f"'{skills_run}' is a run of '{other.method.name}'; a skill starts from one of 'transfer'."
            )
    _check(demonstrations, family.observation_size, family.action_size)
    tasks = family.tasks("train", data.tasks)
    matcher, known = _kept_matcher(run, experiment, tasks)
    ranked = rank(matcher, tasks, known, demonstrations)
    ranking = [(task, probability, family.caption(task)) for task, probability in ranked]
    if not isinstance(learner, Transfer):
        return TaskMatch(ranking, None)
    of_best = _one_task(DemonstrationSet.record(family, [ranked[0][0]], data.demonstrations, seed=0).batch)
    support = _one_task(as_support(demonstrations))
    start = adapt_from(learner, learner.begin(), of_best)
    skill, unmatched = (adapt_from(learner, some, support) for some in (start, learner.begin()))
    with torch.no_grad():
        before, after, without = (float(learner.base.loss(some, support)) for some in (start, skill, unmatched))
    path = output or run / "matched-skill.safetensors"
    runs.save_skill(skill, path)
    return TaskMatch(ranking, path, before, after, without)


def _kept_matcher(run: Path, experiment: Experiment, tasks: Sequence[Task]) -> tuple[TaskSiamese, Tensor]:
    """The twins of a run and the embeddings [task, demonstration, E] of its training tasks; made at the first call."""
    where, family = Path(run) / "matcher", experiment.family
    matcher = TaskSiamese(family.observation_size, family.action_size)
    if not checkpoint.exists(where):
        known = DemonstrationSet.record(family, tasks, experiment.settings.data.demonstrations, seed=0)
        trained = train_matcher(known)
        with torch.no_grad():
            state: dict[str, Any] = {**trained.state_dict(), "known": trained.embed(known.batch)}
        checkpoint.save(where, state, {"family": family.name})
    tensors = dict(checkpoint.load(where).tensors)
    embeddings = tensors.pop("known", torch.zeros(0))
    if embeddings.shape[:1] != (len(tasks),):
        raise QuickstudyError(f"'{where}' does not hold the {len(tasks)} training tasks of its run; remove it.")
    checkpoint.load_into(matcher, tensors, str(where))
    return matcher.eval(), embeddings


def _check(demonstrations: Sequence[Demonstration], observation_size: int, action_size: int) -> None:
    """Raises QuickstudyError where there is no demonstration, or one of other widths than the known ones."""
    if not demonstrations:
        raise QuickstudyError("Matching needs at least one demonstration; got none.")
    for demonstration in demonstrations:
        widths = demonstration.observations.shape[1], demonstration.actions.shape[1]
        if widths != (observation_size, action_size):
            raise QuickstudyError(
                f"The demonstration's observations and actions are {widths[0]} and {widths[1]} wide; those of the "
                f"known tasks are {observation_size} and {action_size}."
            )


def _one_task(batch: Batch) -> Batch:
    """[1, shot, ...] to [shot, ...]."""
    return Batch(*(tensor[0] for tensor in batch))


def compare_starts(
    learner: Transfer,
    family: TaskFamily,
    tasks: Sequence[Task],
    support: Batch,
    starts: dict[str, Parameters],
    configs: dict[tuple[str, int], FineTuneConfig],
    episodes: int,
    seed: int = 0,
) -> dict[tuple[str, int], np.ndarray]:
    """The family's metric [task] on held-out tasks after fine-tuning on their `support` from each of the starts.

    Args:
        starts: what `starting_skills` returned for `support`.
        configs: how to fine-tune, by start and number of steps.
    """
    figures = {}
    for (start, steps), config in configs.items():
        skills = adapt_many(learner, starts[start], support, replace(config, steps=steps))
        figures[start, steps] = run_tasks(family, tasks, episodes, learner, skills, seed)[family.metric].mean(-1)
    return figures
