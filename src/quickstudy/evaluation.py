"""Few-shot evaluation: adapt to held-out tasks from k demonstrations, run a fixed quota of episodes, count each one."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy import outside
from quickstudy.batching import adapt_tasks, threads_for
from quickstudy.data import Batch, collate, recorded
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, listed, sound
from quickstudy.io import files
from quickstudy.io.progress import progress
from quickstudy.learner import MetaLearner, Skill
from quickstudy.method import Experience
from quickstudy.task import Policy, Task, TaskFamily

NOT_FINITE = "is not finite"

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
        broken: tasks that have no figure of their own, by name, and why; they are counted as failed where success or
            accuracy is measured, and are not among `tasks` otherwise.
    """

    split: str
    tasks: list[str]
    shots: list[int]
    metrics: dict[str, np.ndarray]
    adaptation_ms: list[float]
    learns_from: Experience = "demonstrations"
    steps: list[int] | None = None
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """A sentence about broken tasks; empty where there is none."""
        if not self.broken:
            return ""
        failed = any(name in self.tasks for name in self.broken)
        count = len(self.tasks) + (0 if failed else len(self.broken))
        said = listed([f"{name} ({reason})" for name, reason in self.broken.items()], 3)
        return f"{len(self.broken)} of {count} tasks {'counted as failed' if failed else 'left out'}: {said}."

    def only(self, tasks: Sequence[str]) -> "Evaluation":
        """Of these of its tasks alone."""
        rows = [self.tasks.index(name) for name in tasks]
        return replace(self, tasks=list(tasks), metrics={name: v[:, rows] for name, v in self.metrics.items()})

    def drawn(self, family: TaskFamily) -> list[Task]:
        """Its tasks, as the family that it was made with has them."""
        ends = [name.rsplit("/", 1)[-1] for name in self.tasks]  # somebody's own tasks may be named otherwise
        return [family.task(self.split, int(end) if end.isdigit() else i) for i, end in enumerate(ends)]

    def save(self, path: Path) -> None:
        """Writes JSON, in which a figure that does not exist is null; the file appears whole or not at all."""
        metrics: dict[str, Any] = {}
        for name, values in self.metrics.items():
            known = values.astype(object)
            known[~np.isfinite(values)] = None
            metrics[name] = known.tolist()
        files.write_json(path, asdict(self) | {"metrics": metrics})

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Reads what `save` wrote.

        Raises:
            QuickstudyError: not such a file.
        """
        with sound(f"'{path}' is not an evaluation"):
            said = files.checked(_Saved, files.read_json(path), f"'{path}'")
            metrics = {name: np.array(values, np.float64) for name, values in said.metrics.items()}
        form = len(said.shots), len(said.tasks)
        for name, values in metrics.items():
            if values.ndim != 3 or values.shape[:2] != form or np.isinf(values).any():
                raise QuickstudyError(
                    f"'{path}': {name[:60]} must be numbers [{form[0]}, {form[1]}, episode]; got shape {values.shape}."
                )
        return cls(**{name: getattr(said, name) for name in _Saved.model_fields} | {"metrics": metrics})


class _Saved(BaseModel, extra="forbid", strict=True):
    """What a file of an evaluation holds."""

    split: str
    tasks: list[str]
    shots: list[Annotated[int, Field(ge=0)]]
    metrics: dict[str, list[list[list[float | None]]]]
    adaptation_ms: list[float]
    learns_from: Experience = "demonstrations"
    steps: list[int] | None = None
    broken: dict[str, str] = {}


class SkillPolicy:
    """Acts for every (task, episode) with the skill of its task, all in one batched forward pass.

    Observations and actions are in the family's units, whatever the learner learns in.

    Args:
        skills: a tree with a leading task axis.
        transductive: show the learner the observations of all episodes of a task together. Only a network with batch
            statistics takes notice; by default each episode is alone, as it is on a robot.
    """

    def __init__(self, learner: MetaLearner, skills: Skill, transductive: bool = False) -> None:
        self.learner, self.skills, self.transductive = learner, skills, transductive
        self._size = sum(p.numel() for p in learner.parameters())
        self.stateful = type(learner).act is not MetaLearner.act
        self._spread = False

    @torch.no_grad()
    def __call__(self, observations: np.ndarray) -> np.ndarray:
        scaling = self.learner.scaling
        seen = observations if scaling is None else scaling.observations(observations)
        x = torch.from_numpy(np.ascontiguousarray(seen, "f4")).to(self.learner.base.mean.device)
        with threads_for(x.shape[0] * x.shape[1] * self._size):
            actions = self._act(x)
        return actions if scaling is None else scaling.restored(actions)

    def _act(self, x: Tensor) -> np.ndarray:
        if not self.stateful:
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

    A task whose demonstrations lie too far outside of training, or where a skill or an action is not finite, is named.
    Where success or accuracy counts it has failed; another figure cannot be had of it, so it is left out.

    Raises:
        QuickstudyError: an unknown or empty split, too many tasks, a negative number of shots, or no task that has a
            figure.
    """
    if not shots or min(shots) < 0 or episodes < 1:
        raise QuickstudyError(f"Evaluation needs shots >= 0 and episodes >= 1; got {list(shots)} and {episodes}.")
    chosen = family.tasks(split, tasks)
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in shots]
    broken: list[dict[str, str]] = [{} for _ in shots]
    with progress(f"{split}: {tasks} tasks x {episodes} episodes", tasks * len(shots)) as advance:
        for start in range(0, tasks, _SKILLS_AT_ONCE):
            some = chosen[start : start + _SKILLS_AT_ONCE]
            shown = recorded(family, some, max(1, *shots), seed)
            hidden = np.stack([family.hidden(task) for task in some])
            support = collate(shown, hidden, learner.scaling).to(learner.base.mean.device)
            for k, part, out in zip(shots, parts, broken, strict=True):
                out |= _too_far(learner, family, some, shown, k)
                skills = skills_after(learner, support, k)
                part.append(run_tasks(family, some, episodes, learner, skills, seed, transductive, out))
                advance(len(some))
    metrics = {name: np.stack([np.concatenate([run[name] for run in part]) for part in parts]) for name in parts[0][0]}
    times = [adaptation_ms(learner, first_shots(support, k)) if k else 0.0 for k in shots]
    made = Evaluation(split, [task.name for task in chosen], list(shots), metrics, times)
    return _without_broken(made, family.metric, broken)


def run_tasks(
    family: TaskFamily,
    tasks: Sequence[Task],
    episodes: int,
    learner: MetaLearner,
    skills: Skill,
    seed: int,
    transductive: bool = False,
    broken: dict[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """`TaskFamily.run` with the skills [task, ...], some tasks at a time, so that it can tell how far it is.

    Args:
        broken: gets the names of tasks for which an action is not finite, with the reason; it is then zero. An action
            that is not finite goes to the family, and is its to refuse, where nobody asks for them.
    """
    parts = []
    with progress(f"{len(tasks)} tasks x {episodes} episodes", len(tasks)) as advance:
        for start in range(0, len(tasks), _TASKS_AT_ONCE):
            some = slice(start, start + _TASKS_AT_ONCE)
            policy: Policy = SkillPolicy(learner, tree_map(lambda t, some=some: t[some], skills), transductive)
            if broken is not None:
                policy = _finite(policy, tasks[some], broken)
            parts.append(family.run(tasks[some], episodes, policy, seed))
            advance(len(tasks[some]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _finite(policy: Policy, tasks: Sequence[Task], broken: dict[str, str]) -> Policy:
    """The policy with zeros where its actions are not finite; the tasks of those are noted in `broken`."""

    def act(observations: np.ndarray) -> np.ndarray:
        actions = policy(observations)
        fine = np.isfinite(actions)
        if fine.all():
            return actions
        for i in np.flatnonzero(~fine.all((1, 2))).tolist():
            broken.setdefault(tasks[i].name, f"what the learner does {NOT_FINITE}")
        return np.where(fine, actions, 0.0)

    return act


def _too_far(
    learner: MetaLearner,
    family: TaskFamily,
    tasks: Sequence[Task],
    shown: Sequence[Sequence[Demonstration]],
    shots: int,
) -> dict[str, str]:
    """Which tasks' first `shots` demonstrations lie too far outside of training, and by which channel.

    A family of this house has held-out tasks on purpose, and its episodes tell what becomes of them.
    """
    if learner.seen is None or shots == 0 or not family.scales_actions:
        return {}
    found = [outside.farthest(learner.seen, some[:shots], family) for some in shown]
    return {task.name: str(one) for task, one in zip(tasks, found, strict=True) if one.too_far}


def _without_broken(made: Evaluation, metric: str, broken: Sequence[dict[str, str]]) -> Evaluation:
    """The evaluation with its broken tasks failed or left out; `broken` has those after each number of shots."""
    for found, out in zip(made.metrics[metric], broken, strict=True):
        for task in np.flatnonzero(~np.isfinite(found).all(-1)).tolist():
            out.setdefault(made.tasks[task], f"its {metric} {NOT_FINITE}")
    reasons = {name: reason for out in broken for name, reason in out.items()}
    if not reasons:
        return made
    if not is_share(metric):
        kept = [name for name in made.tasks if name not in reasons]
        if not kept:
            said = listed([f"{name}: {reason}" for name, reason in reasons.items()], 2)
            raise QuickstudyError(f"No task of split '{made.split}' has a figure: {said}.")
        return replace(made.only(kept), broken=reasons)
    for name in filter(is_share, made.metrics):
        for i, out in enumerate(broken):
            made.metrics[name][i, [made.tasks.index(broken_task) for broken_task in out]] = 0.0
    return replace(made, broken=reasons)


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1 by its nature; a task that cannot be tried counts as failed there."""
    return metric.startswith(("success", "accuracy"))


def adaptation_ms(learner: MetaLearner, support: Batch, repeats: int = 7) -> float:
    """Median wall time of adapting to one task, in milliseconds, after a first call that is not counted."""
    one = Batch(*(tensor[0] for tensor in support))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        tree_map(lambda t: t.detach(), learner.adapt(one))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) * 1e3


def adapt(learner: MetaLearner, demonstrations: Sequence[Demonstration], family: TaskFamily | None = None) -> Skill:
    """The skill learned from a user's own demonstrations of one task.

    Args:
        family: that it was trained on, which says what channels are called; numbers do where not given.

    Raises:
        QuickstudyError: no demonstration, one whose widths are not the learner's, one too far outside of training, or
            a skill that is not finite.
    """
    support = as_support(learner, demonstrations)
    if learner.seen is not None:
        outside.check(learner.seen, demonstrations, family)
    skill = tree_map(lambda t: t.detach(), learner.adapt(support))
    bad = sum(int((~leaf.isfinite()).sum()) for leaf in tree_leaves(skill))
    if bad:
        count = sum(leaf.numel() for leaf in tree_leaves(skill))
        raise QuickstudyError(
            f"No skill came of the demonstration: {bad} of its {count} numbers are not finite, as steps that are too "
            "large make them; does it look like those of training?"
        )
    return skill


def as_support(learner: MetaLearner, demonstrations: Sequence[Demonstration]) -> Batch:
    """Demonstrations of one task as a learner's `adapt` takes them, in its units: [shot, step, ...].

    Raises:
        QuickstudyError: none, or one whose widths are not the learner's.
    """
    if not demonstrations:
        raise QuickstudyError("Adaptation needs at least one demonstration; got none.")
    seen, acts = (len(part.mean) for part in learner.seen) if learner.seen is not None else (len(learner.base.mean), 0)
    acts = acts or len(learner.predict(learner.begin(), learner.base.mean))
    for one in demonstrations:
        if one.observations.shape[1] != seen:
            raise QuickstudyError(
                f"The demonstration's observations are {one.observations.shape[1]} wide; this learner takes {seen}."
            )
        if one.actions.shape[1] != acts:
            raise QuickstudyError(
                f"The demonstration's actions are {one.actions.shape[1]} wide; this learner gives {acts}."
            )
    batch = collate([demonstrations], np.zeros((1, 0), "f4"), learner.scaling)
    return Batch(*(tensor[0].to(learner.base.mean.device) for tensor in batch))
