"""The command `match`: ranks a run's training tasks by similarity to a demonstration, and adapts from the best one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quickstudy import outside
from quickstudy.data import Batch, DemonstrationSet, Scaling
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import run_tasks
from quickstudy.experiment import Experiment
from quickstudy.io import checkpoint
from quickstudy.learner import Parameters
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.methods.demonstrations.task_similarity import (
    STEPS,
    Calibration,
    TaskSiamese,
    adapt_from,
    adapt_many,
    as_support,
    calibrate,
    log_odds,
    rank,
    train_matcher,
)
from quickstudy.results import runs
from quickstudy.results.adaptation import about_learner, all_demonstrations, imitation_error, save_skill
from quickstudy.settings import ReadingConfig
from quickstudy.task import Task, TaskFamily


class TaskMatch(NamedTuple):
    """What `match_run` found.

    Attributes:
        ranking: the known tasks with their probabilities and captions, the most similar first.
        skill: where the skill is that was learned from the most similar task's; None where no run could make one.
        before, after: imitation error on the demonstrations of the known task's skill and of the one learned from it.
        without: the same of a skill that was learned without a known task.
        calibration: which log-odds say that the most similar task is the task itself; None where too little is
            recorded to tell.
    """

    ranking: list[tuple[Task, float, str]]
    skill: Path | None
    calibration: Calibration | None = None
    before: float = math.nan
    after: float = math.nan
    without: float = math.nan

    @property
    def start(self) -> str:
        """The most similar known task."""
        return self.ranking[0][0].name

    @property
    def is_known(self) -> bool | None:
        """Whether the most similar known task is the task itself; None where nobody can tell."""
        if self.calibration is None:
            return None
        threshold = 1 / (1 + math.exp(-self.calibration.threshold))
        return self.ranking[0][1] > threshold

    @property
    def verdict(self) -> str:
        """The same in a sentence."""
        if self.calibration is None:
            return (
                "Whether it is a known task cannot be told: that takes validation tasks and three demonstrations each."
            )
        c = self.calibration
        sure = (
            f"by this rule {100 * c.taken:.0f} % of {c.unknown} validation tasks would be taken for a known one, and "
            f"{100 * c.missed:.0f} % of {c.known} known ones for none"
        )
        if self.is_known:
            return f"It is a known task, {self.start} ({sure})."
        limits = ", as far as can be told" if c.missed > 0.5 else ""
        return f"It is none of the known tasks{limits}; {self.start} is the most similar ({sure})."


def match_run(
    run: Path,
    demos: Sequence[Path],
    skills_run: Path | None = None,
    output: Path | None = None,
    reading: ReadingConfig | None = None,
) -> TaskMatch:
    """Ranks a run's training tasks by similarity to demonstrations in files, all of one task, and adapts from the best.

    The twins are trained at the first call and kept in the folder `matcher` of the run.

    Args:
        skills_run: the run of 'transfer' (or 'scratch') whose network the skills are; `run` itself where not given.
        output: where the skill goes, `matched-skill.safetensors` in the run by default.
        reading: how the demonstrations are read; as the data of the training by default.

    Raises:
        QuickstudyError: not such runs or files, or demonstrations that are not of the run's family.
    """
    experiment, learner = runs.load(run)
    demonstrations = all_demonstrations(demos, experiment, reading)
    seen, scaling = (None, None) if experiment.by_trial else (learner.seen, learner.scaling)
    family, data = experiment.family, experiment.settings.data
    if family.labelled:
        raise QuickstudyError(f"Tasks of '{family.name}' are sets of classes; matching is for families of skills.")
    if "demonstrations" not in family.learned_from:
        raise QuickstudyError(f"Tasks of '{family.name}' have no demonstrations, and matching needs some of each.")
    other = experiment
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
    if seen is not None:
        outside.check(seen, demonstrations, family)
    tasks = family.tasks("train", data.tasks)
    matcher, known, calibration = _kept_matcher(run, experiment, tasks, scaling)
    ranked = rank(matcher, tasks, known, as_support(demonstrations, scaling))
    ranking = [(task, probability, family.caption(task)) for task, probability in ranked]
    if not isinstance(learner, Transfer):
        return TaskMatch(ranking, None, calibration)
    own = learner.scaling
    of_best = _one_task(DemonstrationSet.record(family, [ranked[0][0]], data.demonstrations, 0, own).batch)
    support = _one_task(as_support(demonstrations, own))
    start = adapt_from(learner, learner.begin(), of_best)
    skill, unmatched = (adapt_from(learner, some, support) for some in (start, learner.begin()))
    before, after, without = (
        imitation_error(learner, some, demonstrations, family) for some in (start, skill, unmatched)
    )
    if not np.isfinite([before, after, without]).all():
        raise QuickstudyError("No skill came of the demonstration: its imitation error is not finite.")
    path = output or run / "matched-skill.safetensors"
    save_skill(skill, path, about_learner(skills_run or run, other, learner))
    return TaskMatch(ranking, path, calibration, before, after, without)


def _kept_matcher(
    run: Path, experiment: Experiment, tasks: Sequence[Task], scaling: Scaling | None
) -> tuple[TaskSiamese, Tensor, Calibration | None]:
    """The twins of a run, the embeddings [task, demonstration, E] of its training tasks, and from where one is known.

    They are made at the first call.
    """
    where, family = Path(run) / "matcher", experiment.family
    matcher = TaskSiamese(family.observation_size, family.action_size)
    if not checkpoint.exists(where) or "calibration" not in checkpoint.load(where).config:
        known = DemonstrationSet.record(family, tasks, experiment.settings.data.demonstrations, 0, scaling)
        trained, embedded, calibration = calibrated_matcher(known, _unknown(experiment, scaling))
        state: dict[str, Any] = {**trained.state_dict(), "known": embedded}
        said = None if calibration is None else calibration._asdict()
        checkpoint.save(where, state, {"family": family.name, "calibration": said})
    kept = checkpoint.load(where)
    tensors, said = dict(kept.tensors), kept.config["calibration"]
    embeddings = tensors.pop("known", torch.zeros(0))
    if embeddings.shape[:1] != (len(tasks),):
        raise QuickstudyError(f"'{where}' does not hold the {len(tasks)} training tasks of its run; remove it.")
    checkpoint.load_into(matcher, tensors, str(where))
    return matcher.eval(), embeddings, None if said is None else Calibration(**said)


def _unknown(experiment: Experiment, scaling: Scaling | None) -> Batch | None:
    """A demonstration of each validation task, [task, 1, step, ...]."""
    family = experiment.family
    count = min(experiment.settings.data.validation_tasks, family.sizes.get("validation", 0))
    if count == 0:
        return None
    return DemonstrationSet.record(family, family.tasks("validation", count), 1, 0, scaling).batch


@torch.no_grad()
def calibrated_matcher(
    known: DemonstrationSet, unknown: Batch | None, steps: int = STEPS
) -> tuple[TaskSiamese, Tensor, Calibration | None]:
    """Twins trained on known tasks, these tasks' embeddings, and from where on a task is a known one.

    One demonstration of each known task is kept from the training where there are three, to see what a new
    demonstration of a known task looks like.

    Args:
        unknown: demonstrations of tasks that are none of the known ones, [task, shot, step, ...].
    """
    shots = known.batch.x.shape[1]
    if unknown is None or shots < 3:
        with torch.enable_grad():
            matcher = train_matcher(known, steps)
        return matcher, matcher.embed(known.batch), None
    shown, new = (
        Batch(known.batch.x[:, some], known.batch.y[:, some], known.batch.mask[:, some], known.batch.hidden)
        for some in (slice(shots - 1), slice(shots - 1, None))
    )
    with torch.enable_grad():
        matcher = train_matcher(DemonstrationSet(known.tasks, shown), steps)
    embedded = matcher.embed(shown)
    best = [log_odds(matcher, embedded, some).amax(1) for some in (new, unknown)]
    return matcher, embedded, calibrate(*best)


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
