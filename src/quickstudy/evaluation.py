"""Few-shot evaluation: adapt to held-out tasks from k demonstrations, run a fixed quota of episodes, count each one."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.batching import adapt_tasks, threads_for
from quickstudy.data import Batch, DemonstrationSet, collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.io import files
from quickstudy.io.progress import progress
from quickstudy.learner import MetaLearner, Skill
from quickstudy.method import Experience
from quickstudy.task import Task, TaskFamily

_TASKS_AT_ONCE = 50
"""Tasks that are run at once: each (task, episode) may keep a simulated world."""

_SKILLS_AT_ONCE = 200
"""Tasks that are adapted to at once: a skill may be as large as the network."""


@dataclass(frozen=True)
class Evaluation:
    """What a learner reached on a split, with its axes kept.

    Attributes:
        tasks: names of the tasks.
        shots: numbers of demonstrations, or of own episodes, that it adapted from.
        metrics: by name, [shots, task, episode].
        adaptation_ms: [shots], median wall time of adapting to one task alone, in milliseconds; by trial, the time of
            everything up to there, simulation included.
        learns_from: 'demonstrations', or 'trials'.
        steps: [shots], adaptations so far, of a learner by trial that adapts to all episodes of a task at once.
    """

    split: str
    tasks: list[str]
    shots: list[int]
    metrics: dict[str, np.ndarray]
    adaptation_ms: list[float]
    learns_from: Experience = "demonstrations"
    steps: list[int] | None = None

    def save(self, path: Path) -> None:
        """Writes JSON; the file appears whole or not at all."""
        plain = asdict(self) | {"metrics": {name: values.tolist() for name, values in self.metrics.items()}}
        files.write(path, json.dumps(plain))

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Reads what `save` wrote.

        Raises:
            QuickstudyError: not such a file.
        """
        try:
            plain = json.loads(path.read_text())
            metrics = {name: np.asarray(values) for name, values in plain.pop("metrics").items()}
            return cls(**plain, metrics=metrics)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise QuickstudyError(f"'{path}' is not an evaluation ({error}).") from error


class SkillPolicy:
    """Acts for every (task, episode) with the skill of its task, all in one batched forward pass.

    Args:
        skills: a tree with a leading task axis.
        transductive: show the learner the observations of all episodes of a task together. Only a network with batch
            statistics takes notice; by default each episode is alone, as it is on a robot.
    """

    def __init__(self, learner: MetaLearner, skills: Skill, transductive: bool = False) -> None:
        self.learner, self.skills, self.transductive = learner, skills, transductive
        self._size = sum(p.numel() for p in learner.parameters())
        self._stateful = type(learner).act is not MetaLearner.act
        self._spread = False

    @torch.no_grad()
    def __call__(self, observations: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(observations, "f4")).to(self.learner.base.mean.device)
        with threads_for(x.shape[0] * x.shape[1] * self._size):
            return self._act(x)

    def _act(self, x: Tensor) -> np.ndarray:
        if not self._stateful:
            predict = self.learner.predict if self.transductive else vmap(self.learner.predict, (None, 0))
            return vmap(predict)(self.skills, x).cpu().numpy()
        if not self._spread:
            self.skills = tree_map(lambda t: spread(t, x.shape[1]), self.skills)
            self._spread = True
        actions, self.skills = vmap(vmap(self.learner.act))(self.skills, x)
        return actions.cpu().numpy()


def spread(tensor: Tensor, episodes: int) -> Tensor:
    """[task, ...] to [task, episode, ...]: every episode carries on with a skill of its own."""
    return tensor.unsqueeze(1).expand(-1, episodes, *tensor.shape[1:])


@torch.no_grad()
def skills_after(learner: MetaLearner, support: Batch, shots: int) -> Skill:
    """The skills after the first `shots` demonstrations of each task; `support` is [task, shot, ...]."""
    tasks = len(support.x)
    if shots == 0:
        return tree_map(lambda t: t.detach().expand(tasks, *t.shape), learner.begin())
    return adapt_tasks(learner, first_shots(support, shots))


def first_shots(support: Batch, shots: int) -> Batch:
    """`support` [task, shot, ...] cut to its first shots."""
    x, y, mask, hidden = support
    return Batch(x[:, :shots], y[:, :shots], mask[:, :shots], hidden)


def evaluate(
    learner: MetaLearner,
    family: TaskFamily,
    split: str,
    *,
    shots: Sequence[int] = (0, 1),
    tasks: int = 100,
    episodes: int = 5,
    seed: int = 0,
    transductive: bool = False,
) -> Evaluation:
    """Adapts to the first `tasks` tasks of a split and runs `episodes` episodes of each, for each number of shots.

    The same demonstrations, starts and noise serve every learner that is evaluated with the same seed. Episodes are
    run one at a time, as far as the learner can tell, unless `transductive`.

    Raises:
        QuickstudyError: an unknown or empty split, too many tasks, or a negative number of shots.
    """
    if not shots or min(shots) < 0 or episodes < 1:
        raise QuickstudyError(f"Evaluation needs shots >= 0 and episodes >= 1; got {list(shots)} and {episodes}.")
    chosen = family.tasks(split, tasks)
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in shots]
    with progress(f"{split}: {tasks} tasks x {episodes} episodes", tasks * len(shots)) as advance:
        for start in range(0, tasks, _SKILLS_AT_ONCE):
            some = chosen[start : start + _SKILLS_AT_ONCE]
            support = DemonstrationSet.record(family, some, max(1, *shots), seed).batch.to(learner.base.mean.device)
            for k, part in zip(shots, parts, strict=True):
                skills = skills_after(learner, support, k)
                part.append(run_tasks(family, some, episodes, learner, skills, seed, transductive))
                advance(len(some))
    return Evaluation(
        split,
        [task.name for task in chosen],
        list(shots),
        {name: np.stack([np.concatenate([run[name] for run in part]) for part in parts]) for name in parts[0][0]},
        [adaptation_ms(learner, first_shots(support, k)) if k else 0.0 for k in shots],
    )


def run_tasks(
    family: TaskFamily,
    tasks: Sequence[Task],
    episodes: int,
    learner: MetaLearner,
    skills: Skill,
    seed: int,
    transductive: bool = False,
) -> dict[str, np.ndarray]:
    """`TaskFamily.run` with the skills [task, ...], some tasks at a time, so that it can tell how far it is."""
    parts = []
    with progress(f"{len(tasks)} tasks x {episodes} episodes", len(tasks)) as advance:
        for start in range(0, len(tasks), _TASKS_AT_ONCE):
            some = slice(start, start + _TASKS_AT_ONCE)
            policy = SkillPolicy(learner, tree_map(lambda t, some=some: t[some], skills), transductive)
            parts.append(family.run(tasks[some], episodes, policy, seed))
            advance(len(tasks[some]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def adaptation_ms(learner: MetaLearner, support: Batch, repeats: int = 7) -> float:
    """Median wall time of adapting to one task, in milliseconds, after a first call that is not counted."""
    one = Batch(*(tensor[0] for tensor in support))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        tree_map(lambda t: t.detach(), learner.adapt(one))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) * 1e3


def adapt(learner: MetaLearner, demonstrations: Sequence[Demonstration]) -> Skill:
    """The skill learned from a user's own demonstrations of one task.

    Raises:
        QuickstudyError: no demonstration, or one whose widths are not the learner's.
    """
    if not demonstrations:
        raise QuickstudyError("Adaptation needs at least one demonstration; got none.")
    batch = collate([demonstrations], np.zeros((1, 0), "f4"))
    expected, width = len(learner.base.mean), batch.x.shape[-1]
    if width != expected:
        raise QuickstudyError(f"The demonstration's observations are {width} wide; this learner takes {expected}.")
    one = Batch(*(tensor[0].to(learner.base.mean.device) for tensor in batch))
    acts = learner.predict(learner.begin(), one.x).shape[-1]
    if batch.y.shape[-1] != acts:
        raise QuickstudyError(f"The demonstration's actions are {batch.y.shape[-1]} wide; this learner gives {acts}.")
    return tree_map(lambda t: t.detach(), learner.adapt(one))
