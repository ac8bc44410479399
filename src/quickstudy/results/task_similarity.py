"""Task similarity: which known task is a demonstration most like, and a skill that is learned from that task's on.

The verification of Koch et al. 2015 (`quickstudy.methods.demonstrations.siamese`) with whole demonstrations as examples: twins embed
two of them, and the weighted L1 distance tells the probability that both are of one task. What is known is the training
tasks; a new task is none of them, so its best match is the most similar, not the same.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.batching import over_tasks, threads_for
from quickstudy.data import Batch, DemonstrationSet, collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import run_tasks
from quickstudy.io import checkpoint
from quickstudy.io.progress import progress
from quickstudy.learner import Parameters
from quickstudy.methods.catalogue import Settings
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer, fine_tune
from quickstudy.methods.demonstrations.siamese import Similarity, verification_loss
from quickstudy.nets import MLP
from quickstudy.results import runs
from quickstudy.task import Task, TaskFamily

STEPS = 1200
"""Steps of a matcher's training."""

_META_BATCH, _RATE, _WIDTH, _EMBEDDING = 48, 2e-3, 64, 32
_TASKS_AT_ONCE = 10


class TaskSiamese(nn.Module):
    """Twins for demonstrations: a network of each step's [observation, action], the mean over steps, a network of it.

    Because of the mean it is a function of the set of steps (Zaheer et al. 2017, "Deep Sets"), however many there are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        width = observation_size + action_size
        self.step = MLP(width, _WIDTH, (_WIDTH,))
        self.whole = MLP(_WIDTH, _EMBEDDING, (_WIDTH,))
        self.similarity = Similarity(_EMBEDDING)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def standardise(self, batch: Batch) -> None:
        """Takes mean and deviation of observations and actions from the real steps of `batch`."""
        real = torch.cat([batch.x, batch.y], -1)[batch.mask.bool()]
        self.mean.copy_(real.mean(0))
        self.deviation.copy_(torch.where(real.std(0) > 1e-6, real.std(0), 1.0))

    def embed(self, batch: Batch) -> Tensor:
        """Demonstrations [..., step, ...] to embeddings [..., E] within 0..1; padding has no part in it."""
        steps = self.step((torch.cat([batch.x, batch.y], -1) - self.mean) / self.deviation)
        real = batch.mask.unsqueeze(-1)
        return self.whole((steps * real).sum(-2) / real.sum(-2).clamp(min=1.0)).sigmoid()

    def loss(self, one: Batch, other: Batch) -> Tensor:
        """Verification of all pairs of a demonstration of `one` and one of `other`, each [task, step, ...]."""
        log_odds = self.similarity(self.embed(one).unsqueeze(1), self.embed(other))
        return verification_loss(log_odds, torch.eye(len(log_odds)).to(log_odds), torch.ones_like(log_odds))


def train_matcher(source: DemonstrationSet, steps: int = STEPS, seed: int = 0) -> TaskSiamese:
    """Trains twins by verification: pairs of demonstrations of one task, and of two tasks of a meta-batch.

    Raises:
        QuickstudyError: fewer than two tasks, or than two demonstrations of each.
    """
    tasks, demonstrations = source.batch.x.shape[:2]
    if tasks < 2 or demonstrations < 2 or steps < 1:
        raise QuickstudyError(
            "Training a matcher needs at least one step, two tasks and two demonstrations of each; got "
            f"{steps}, {tasks} and {demonstrations}."
        )
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        matcher = TaskSiamese(source.batch.x.shape[-1], source.batch.y.shape[-1])
    matcher.standardise(source.batch)
    optimiser = torch.optim.Adam(matcher.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, _RATE / 100)
    recent = math.log(2)
    with progress("learning to match tasks", steps) as advance, threads_for(0):
        for _ in range(steps):
            support, query = source.sample(rng, min(_META_BATCH, tasks), 1, 1)
            loss = matcher.loss(_only_shot(support), _only_shot(query))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            recent += 0.05 * (loss.item() - recent)
            advance(1, f"loss {recent:.4f}")
    return matcher.eval()


@torch.no_grad()
def log_odds(matcher: TaskSiamese, known: Tensor, new: Batch) -> Tensor:
    """How surely new and known tasks are the same, [new task, known task].

    The mean of the log-odds over all pairs of their demonstrations.

    Args:
        known: embeddings [known task, demonstration, E].
        new: demonstrations [new task, shot, step, ...]; a padded shot has no part in it.
    """
    one, there = matcher.embed(new), new.mask.amax(-1)
    pairs = torch.stack([matcher.similarity(shots[:, None, None], known).mean(-1) for shots in one])
    return (pairs * there[..., None]).sum(1) / there.sum(1).clamp(min=1.0)[:, None]


def match(
    matcher: TaskSiamese, known: DemonstrationSet, demonstrations: Sequence[Demonstration]
) -> list[tuple[Task, float]]:
    """Every known task and the probability that the demonstrations are of it, the most similar first.

    Raises:
        QuickstudyError: no demonstration, or widths that are not those of the known ones.
    """
    _check(demonstrations, known.batch.x.shape[-1], known.batch.y.shape[-1])
    with torch.no_grad():
        return _rank(matcher, known.tasks, matcher.embed(known.batch), demonstrations)


def adapt_from(
    learner: Transfer, start: Parameters, support: Batch, config: FineTuneConfig | None = None
) -> Parameters:
    """The skill after fine-tuning on `support` from the skill `start`; where no `config` is given, with the learner's.

    From the pre-trained parameters this is `Transfer.adapt`.
    """
    return fine_tune(lambda parameters: learner.base.loss(parameters, support), start, config or learner.config)


# ---- is the most similar task's skill a good start?


def starting_skills(
    learner: Transfer,
    matcher: TaskSiamese,
    known: DemonstrationSet,
    support: Batch,
    config: FineTuneConfig,
    seed: int = 0,
) -> dict[str, Parameters]:
    """What new tasks, one for each task of `support` [task, shot, ...], can be learned from, each [task, ...].

    Args:
        config: how the skill of a known task is fine-tuned on all its demonstrations.

    Returns:
        'matched': the skill of the most similar known task; 'random': of any; 'pre-trained': of none.
    """
    with torch.no_grad():
        matched = log_odds(matcher, matcher.embed(known.batch), support).argmax(1)
    drawn = torch.randint(len(known), matched.shape, generator=torch.Generator().manual_seed(seed))
    needed, place = torch.cat([matched, drawn]).unique(return_inverse=True)
    parts = []
    with progress("skills of known tasks", len(needed)) as advance:
        for some in needed.split(_TASKS_AT_ONCE):
            demonstrations = Batch(*(tensor[some] for tensor in known.batch))
            parts.append(_adapted(learner, _pre_trained(learner, len(some)), demonstrations, config))
            advance(len(some))
    skills = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {
        "matched": {name: values[place[: len(matched)]] for name, values in skills.items()},
        "random": {name: values[place[len(matched) :]] for name, values in skills.items()},
        "pre-trained": _pre_trained(learner, len(matched)),
    }


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
    found = {}
    for (start, steps), config in configs.items():
        skills = _adapted(learner, starts[start], support, replace(config, steps=steps))
        found[start, steps] = run_tasks(family, tasks, episodes, learner, skills, seed)[family.metric].mean(-1)
    return found


# ---- the command


class Matched(NamedTuple):
    """What `match_run` found.

    Attributes:
        ranking: the known tasks with their probabilities and captions, the most similar first.
        skill: where the skill is that was learned from the most similar task's; None where no run could make one.
        before, after: imitation error of the known task's skill and of the new one on the demonstrations.
    """

    ranking: list[tuple[Task, float, str]]
    skill: Path | None
    before: float
    after: float


def match_run(run: Path, demos: Sequence[Path], skills_run: Path | None = None, output: Path | None = None) -> Matched:
    """Ranks the training tasks of a run by similarity to demonstrations in files of one task, and adapts from the best.

    The run's matcher is trained at the first call and kept in the folder `matcher` of the run.

    Args:
        skills_run: the run of 'transfer' (or 'scratch') whose network the skills are; `run` itself where not given.
        output: where the skill goes, `matched-skill.safetensors` in the run by default.

    Raises:
        QuickstudyError: not such runs or files, or demonstrations that are not of the run's family.
    """
    demonstrations = [Demonstration.load(path) for path in demos]
    settings, family, learner = runs.load(run)
    if family.labelled:
        raise QuickstudyError(f"Tasks of '{family.name}' are sets of classes; matching is for families of skills.")
    if skills_run is not None:
        other, _, learner = runs.load(skills_run)
        if other.family != settings.family:
            raise QuickstudyError(f"'{skills_run}' is a run of '{other.family}', '{run}' one of '{settings.family}'.")
        if not isinstance(learner, Transfer):
            raise QuickstudyError(
                f"'{skills_run}' is a run of '{other.method}'; a skill starts from one of 'transfer'."
            )
    _check(demonstrations, family.observation_size, family.action_size)
    tasks = family.tasks("train", settings.data.tasks)
    matcher, known = _kept_matcher(run, settings, family, tasks)
    ranked = _rank(matcher, tasks, known, demonstrations)
    ranking = [(task, probability, family.caption(task)) for task, probability in ranked]
    if not isinstance(learner, Transfer):
        return Matched(ranking, None, math.nan, math.nan)
    theirs = _one_task(DemonstrationSet.record(family, [ranked[0][0]], settings.data.demonstrations, seed=0).batch)
    support = _one_task(_collate(demonstrations))
    start = adapt_from(learner, learner.begin(), theirs)
    skill = adapt_from(learner, start, support)
    with torch.no_grad():
        before, after = (float(learner.base.loss(parameters, support)) for parameters in (start, skill))
    path = output or run / "matched-skill.safetensors"
    runs.save_skill(skill, path)
    return Matched(ranking, path, before, after)


def _kept_matcher(
    run: Path, settings: Settings, family: TaskFamily, tasks: Sequence[Task]
) -> tuple[TaskSiamese, Tensor]:
    """The run's matcher and the embeddings [task, demonstration, E] of its training tasks, made where not yet there."""
    where = Path(run) / "matcher"
    matcher = TaskSiamese(family.observation_size, family.action_size)
    if not checkpoint.exists(where):
        known = DemonstrationSet.record(family, tasks, settings.data.demonstrations, seed=0)
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


def _rank(
    matcher: TaskSiamese, tasks: Sequence[Task], known: Tensor, demonstrations: Sequence[Demonstration]
) -> list[tuple[Task, float]]:
    probabilities = log_odds(matcher, known, _collate(demonstrations))[0].sigmoid().tolist()
    return sorted(zip(tasks, probabilities, strict=True), key=lambda pair: -pair[1])


def _collate(demonstrations: Sequence[Demonstration]) -> Batch:
    """Demonstrations of one task as a batch [1, shot, step, ...]."""
    return collate([demonstrations], np.zeros((1, 0), "f4"))


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


def _pre_trained(learner: Transfer, tasks: int) -> Parameters:
    """What fine-tuning starts from without a known task, for each of some tasks."""
    return {name: p.detach().expand(tasks, *p.shape) for name, p in learner.begin().items()}


def _adapted(learner: Transfer, starts: Parameters, support: Batch, config: FineTuneConfig) -> Parameters:
    """`adapt_from` for many tasks: starts and support are [task, ...]."""

    def adapt(start: Parameters, demonstrations: Batch) -> Parameters:
        return adapt_from(learner, start, demonstrations, config)

    return dict(over_tasks(adapt, dict(starts), support, chunk=_TASKS_AT_ONCE))


def _only_shot(batch: Batch) -> Batch:
    """[task, 1, step, ...] to [task, step, ...]."""
    return Batch(batch.x[:, 0], batch.y[:, 0], batch.mask[:, 0], batch.hidden)


def _one_task(batch: Batch) -> Batch:
    """[1, shot, ...] to [shot, ...]."""
    return Batch(*(tensor[0] for tensor in batch))
