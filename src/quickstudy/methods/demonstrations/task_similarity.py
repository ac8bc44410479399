"""Task similarity: which known task a demonstration is most like, and a skill that is learned from that task's.

The verification of Koch et al. 2015 (`quickstudy.methods.demonstrations.siamese`) with whole demonstrations as
examples: twins embed two of them, and the weighted L1 distance gives the probability that both are of one task. The
known tasks are those of training; a new task is none of them, so its best match is the most similar, not the same.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from quickstudy.batching import over_tasks, threads_for
from quickstudy.data import Batch, DemonstrationSet, Scaling, collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import progress
from quickstudy.learner import Parameters
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer, fine_tune
from quickstudy.methods.demonstrations.siamese import Similarity, verification_loss
from quickstudy.nets import MLP
from quickstudy.task import Task

STEPS = 1200
"""Training steps of the twins."""

_SURE = 0.95
"""Share of unknown tasks that are not to be taken for known ones."""

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
        """Demonstrations [..., step, ...] to embeddings [..., E] within 0..1; padding does not count."""
        steps = self.step((torch.cat([batch.x, batch.y], -1) - self.mean) / self.deviation)
        real = batch.mask.unsqueeze(-1)
        return self.whole((steps * real).sum(-2) / real.sum(-2).clamp(min=1.0)).sigmoid()

    def loss(self, one: Batch, other: Batch) -> Tensor:
        """Verification of all pairs of a demonstration of `one` and one of `other`, each [task, step, ...]."""
        # Koch et al. 2015, section 3.2: pairs of one task are the same, all others are not
        log_odds = self.similarity(self.embed(one).unsqueeze(1), self.embed(other))
        return verification_loss(log_odds, torch.eye(len(log_odds)).to(log_odds), torch.ones_like(log_odds))


def train_matcher(source: DemonstrationSet, steps: int = STEPS, seed: int = 0) -> TaskSiamese:
    """Trains twins by verification of pairs of demonstrations: of one task, or of two tasks of a meta-batch.

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
    """The log-odds that new and known tasks are the same, [new task, known task].

    The mean over all pairs of their demonstrations.

    Args:
        known: embeddings [known task, demonstration, E].
        new: demonstrations [new task, shot, step, ...]; a padded shot does not count.
    """
    embedded, real = matcher.embed(new), new.mask.amax(-1)
    pairs = torch.stack([matcher.similarity(shots[:, None, None], known).mean(-1) for shots in embedded])
    return (pairs * real[..., None]).sum(1) / real.sum(1).clamp(min=1.0)[:, None]


class Calibration(NamedTuple):
    """From which log-odds on the most similar known task is the task itself.

    Attributes:
        threshold: 19 of 20 unknown tasks are below; where known ones are well above that, it lies half way.
        taken, missed: the share of unknown tasks that are above all the same, and of known ones that are below.
        known, unknown: how many tasks of either kind say so.
    """

    threshold: float
    taken: float
    missed: float
    known: int
    unknown: int


def calibrate(known: Tensor, unknown: Tensor) -> Calibration:
    """The threshold between the log-odds of known tasks' new demonstrations and those of unknown tasks.

    Args:
        known, unknown: of each task, on the most similar known task, [task].
    """
    high, low = float(unknown.quantile(_SURE, interpolation="higher")), float(known.quantile(1 - _SURE))
    threshold = (high + low) / 2 if low > high else high
    taken, missed = (unknown > threshold).float().mean(), (known <= threshold).float().mean()
    return Calibration(threshold, float(taken), float(missed), len(known), len(unknown))


@torch.no_grad()
def rank(matcher: TaskSiamese, tasks: Sequence[Task], known: Tensor, support: Batch) -> list[tuple[Task, float]]:
    """Every known task and the probability that the demonstrations are of it, the most similar first.

    Args:
        known: embeddings of the tasks' demonstrations, [task, demonstration, E].
        support: the demonstrations, [1, shot, step, ...].
    """
    probabilities = log_odds(matcher, known, support)[0].sigmoid().tolist()
    return sorted(zip(tasks, probabilities, strict=True), key=lambda pair: -pair[1])


def adapt_from(
    learner: Transfer, start: Parameters, support: Batch, config: FineTuneConfig | None = None
) -> Parameters:
    """The skill after fine-tuning on `support` from the skill `start`, by default with the learner's own settings.

    From the pre-trained parameters this is `Transfer.adapt`.
    """
    return fine_tune(learner.base.loss, start, config or learner.config, support)


def starting_skills(
    learner: Transfer,
    matcher: TaskSiamese,
    known: DemonstrationSet,
    support: Batch,
    config: FineTuneConfig,
    seed: int = 0,
) -> dict[str, Parameters]:
    """The skills [task, ...] that learning a new task, one for each of `support` [task, shot, ...], can start from.

    Args:
        config: how the skill of a known task is fine-tuned on all its demonstrations.

    Returns:
        'matched': the skill of the most similar known task; 'random': of one drawn at random; 'pre-trained': of none.
    """
    with torch.no_grad():
        matched = log_odds(matcher, matcher.embed(known.batch), support).argmax(1)
    drawn = torch.randint(len(known), matched.shape, generator=torch.Generator().manual_seed(seed))
    needed, place = torch.cat([matched, drawn]).unique(return_inverse=True)
    parts = []
    with progress("skills of known tasks", len(needed)) as advance:
        for chosen in needed.split(_TASKS_AT_ONCE):
            demonstrations = Batch(*(tensor[chosen] for tensor in known.batch))
            parts.append(adapt_many(learner, _pre_trained(learner, len(chosen)), demonstrations, config))
            advance(len(chosen))
    skills = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {
        "matched": {name: values[place[: len(matched)]] for name, values in skills.items()},
        "random": {name: values[place[len(matched) :]] for name, values in skills.items()},
        "pre-trained": _pre_trained(learner, len(matched)),
    }


def _pre_trained(learner: Transfer, tasks: int) -> Parameters:
    """The pre-trained parameters, once for each of so many tasks."""
    return {name: p.detach().expand(tasks, *p.shape) for name, p in learner.begin().items()}


def adapt_many(learner: Transfer, starts: Parameters, support: Batch, config: FineTuneConfig) -> Parameters:
    """`adapt_from` for many tasks: starts and support are [task, ...]."""

    def adapt(start: Parameters, demonstrations: Batch) -> Parameters:
        return adapt_from(learner, start, demonstrations, config)

    return dict(over_tasks(adapt, dict(starts), support, chunk=_TASKS_AT_ONCE))


def as_support(demonstrations: Sequence[Demonstration], scaling: Scaling | None = None) -> Batch:
    """Demonstrations of one task as a batch [1, shot, step, ...], in the units of the learner with this scaling."""
    return collate([demonstrations], np.zeros((1, 0), "f4"), scaling)


def _only_shot(batch: Batch) -> Batch:
    """[task, 1, step, ...] to [task, step, ...]."""
    return Batch(batch.x[:, 0], batch.y[:, 0], batch.mask[:, 0], batch.hidden)
