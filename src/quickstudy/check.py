"""The contract of a family, point by point: what learners, evaluation and comparison rely on.

`quickstudy check my_module:MyFamily` goes through it. Each point is a function that returns what it found, raises
`BrokenError` with what to do about it, or raises `SkippedError` where it does not apply.
"""

import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import torch

from quickstudy.data import Batch, collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families import own as families
from quickstudy.io.progress import progress
from quickstudy.methods.demonstrations.baselines import NearestNeighbour, recorded_base
from quickstudy.task import Policy, Task, TaskFamily

TASKS, EPISODES, PAIRS = 6, 3, 30
"""Tasks and episodes that are run, and tasks whose demonstrations are compared."""
EXPERT, NOTHING = 0.9, 0.2
"""The least that an expert, and the most that doing nothing, may succeed."""
LARGEST = 1e3
"""Observations and actions beyond this are a sign of units that no network likes."""


class BrokenError(Exception):
    """A point of the contract is broken; its text says what was found and what to do."""


class SkippedError(Exception):
    """A point does not apply to this family; its text says why."""


@dataclass(frozen=True)
class Point:
    """What came of one point.

    Attributes:
        name: what the contract asks for.
        passed: None where it does not apply.
        said: what was found, or what to do.
    """

    name: str
    passed: bool | None
    said: str


def load(name: str) -> TaskFamily:
    """A family by its name, by a file `<name>.npz`, or by `module:attribute`.

    The attribute is a family, or something that gives one when it is called without arguments; the module may lie in
    the working directory.

    Raises:
        QuickstudyError: there is no such family, module or attribute, or it is no family.
    """
    if ":" not in name:
        return families.get(name)
    module_name, attribute = name.split(":", 1)
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way
        raise QuickstudyError(f"Could not import '{module_name}' ({type(error).__name__}: {error}).") from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(module, attribute):
        raise QuickstudyError(f"Module '{module_name}' has no '{attribute}'.")
    found = getattr(module, attribute)
    if not isinstance(found, TaskFamily) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise QuickstudyError(f"'{name}' could not be made ({type(error).__name__}: {error}).") from error
    if not isinstance(found, TaskFamily):
        raise QuickstudyError(f"'{name}' is no TaskFamily, nor does it give one; got {type(found).__name__}.")
    return found


def check(family: TaskFamily) -> list[Point]:
    """Goes through all points of the contract of a family."""
    return go_through(f"checking {getattr(family, 'name', '?')}", POINTS, _Looked(family))


def go_through(title: str, points: Mapping[str, Callable[[Any], str]], subject: Any) -> list[Point]:
    """Looks at every point; one that fails, however it does, does not keep the others from being looked at."""
    found = []
    with progress(title, len(points)) as advance:
        for name, look in points.items():
            try:
                found.append(Point(name, True, look(subject)))
            except SkippedError as reason:
                found.append(Point(name, None, str(reason)))
            except BrokenError as reason:
                found.append(Point(name, False, str(reason)))
            except QuickstudyError as reason:
                found.append(Point(name, False, str(reason)))
            except Exception as error:  # a user's code may fail in any way, and the report has to go on
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"in {place.name}, {os.path.basename(place.filename)}, line {place.lineno}"
                found.append(Point(name, False, f"{type(error).__name__}: {error} ({where})"))
            advance()
    return found


class _Looked:
    """A family and what several points look at, made once."""

    def __init__(self, family: TaskFamily) -> None:
        self.family = family

    @cached_property
    def tasks(self) -> list[Task]:
        """Some tasks of the first test split; of training where there is no test."""
        split = (self.family.test_splits or ["train"])[0]
        return self.family.tasks(split, min(TASKS, self.family.sizes[split]))

    @cached_property
    def demonstrations(self) -> list[list[Demonstration]]:
        return self.family.demonstrate(self.tasks, 2, seed=0)

    @cached_property
    def nothing(self) -> dict[str, np.ndarray]:
        return self.run(zeros(self.family))

    def run(self, policy: Policy) -> dict[str, np.ndarray]:
        return self.family.run(self.tasks, EPISODES, policy, seed=0)


def zeros(family: TaskFamily) -> Policy:
    """Does nothing, always."""
    return lambda seen: np.zeros((*seen.shape[:2], family.action_size))


# ---- the points


def declares(looked: _Looked) -> str:
    family = looked.family
    for name, kind in {"name": str, "protocol": str, "metric": str}.items():
        if not isinstance(getattr(family, name, None), kind) or not getattr(family, name):
            raise BrokenError(f"Set the class attribute {name} to a text.")
    for name, least in {"observation_size": 1, "action_size": 1, "hidden_size": 0, "horizon": 1}.items():
        value = getattr(family, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BrokenError(f"Set {name} to a whole number of at least {least}; it is {value!r}.")
    sizes = dict(getattr(family, "sizes", {}))
    missing = [split for split in ("train", "validation") if split not in sizes]
    if missing or not family.test_splits:
        raise BrokenError(
            f"sizes must hold 'train', 'validation' and a test split; it holds {', '.join(sizes) or 'nothing'}."
        )
    if sizes["train"] < 1 or all(sizes[split] < 1 for split in family.test_splits):
        raise BrokenError(f"The training split and one test split need tasks; sizes is {sizes}.")
    return f"'{family.name}': {family.observation_size} observed, {family.action_size} acted, {family.horizon} steps"


def draws_tasks(looked: _Looked) -> str:
    family, count = looked.family, 0
    for split, size in family.sizes.items():
        once, again = (family.tasks(split, min(50, size)) if size else [] for _ in range(2))
        count += len(once)
        for one, other in zip(once, again, strict=True):
            if one != other:
                raise BrokenError(
                    f"{one.name} differs from call to call: draw it from the generator that `sample` is given."
                )
            try:
                same = json.loads(json.dumps(one.parameters)) == one.parameters
            except TypeError as error:
                raise BrokenError(
                    f"The parameters of {one.name} must be plain numbers, texts and lists ({error})."
                ) from error
            if not same:
                raise BrokenError(
                    f"The parameters of {one.name} change when they go through JSON: use lists, not tuples."
                )
    return f"{count} tasks are plain data and the same in every call"


def splits_are_disjoint(looked: _Looked) -> str:
    family, owner = looked.family, dict[str, str]()
    if family.labelled:
        return _examples_are_disjoint(family)
    for split, size in family.sizes.items():
        for task in family.tasks(split, min(300, size)) if size else []:
            key = json.dumps(task.parameters, sort_keys=True)
            if owner.setdefault(key, split) != split:
                raise BrokenError(f"{task.name} is a task of split '{owner[key]}' too: what is tested was trained on.")
    return f"{len(owner)} tasks of {len(family.sizes)} splits, none in two"


def _examples_are_disjoint(family: TaskFamily) -> str:
    """The classes of recognition are numbered anew in each split: what is compared are the examples."""
    owner: dict[bytes, str] = {}
    for split, size in family.sizes.items():
        tasks = family.tasks(split, min(60, size)) if size else []
        for task, (shown,) in zip(tasks, family.demonstrate(tasks, 1, seed=0), strict=True):
            for example in shown.observations:
                if owner.setdefault(example.tobytes(), split) != split:
                    raise BrokenError(f"An example of {task.name} is one of split '{owner[example.tobytes()]}' too.")
    return f"{len(owner)} examples of {len(family.sizes)} splits, none in two"


def hidden_is_as_wide_as_said(looked: _Looked) -> str:
    family = looked.family
    seen = [np.asarray(family.hidden(task)) for task in looked.tasks]
    for task, one in zip(looked.tasks, seen, strict=True):
        if one.shape != (family.hidden_size,) or not np.isfinite(one).all():
            raise BrokenError(
                f"hidden({task.name}) must be {family.hidden_size} finite numbers; got shape {one.shape}: {one}."
            )
    if family.hidden_size == 0:
        raise SkippedError("nothing is told to an oracle")
    if len(looked.tasks) > 1 and np.ptp(seen, axis=0).max() == 0:
        raise BrokenError("hidden is the same for all tasks: it must say what makes a task different.")
    return f"{family.hidden_size} numbers, at most {np.abs(seen).max():.2g}"


def demonstrates(looked: _Looked) -> str:
    family = looked.family
    found = looked.demonstrations
    if len(found) != len(looked.tasks) or any(len(some) != 2 for some in found):
        raise BrokenError("demonstrate(tasks, 2, seed) must return two demonstrations for each task.")
    for task, some in zip(looked.tasks, found, strict=True):
        for one in some:
            widths = one.observations.shape[1], one.actions.shape[1]
            if widths != (family.observation_size, family.action_size):
                raise BrokenError(f"A demonstration of {task.name} has widths {widths}; the family says "
                             f"{(family.observation_size, family.action_size)}.")  # fmt: skip
            if len(one) > family.horizon and not family.labelled:
                raise BrokenError(
                    f"A demonstration of {task.name} has {len(one)} steps; the horizon is {family.horizon}."
                )
    largest = max(float(np.abs(a).max()) for some in found for d in some for a in (d.observations, d.actions))
    if largest > LARGEST:
        raise BrokenError(f"An observation or action is as large as {largest:.2g}: scale them to about -1..1.")
    lengths = [len(d) for some in found for d in some]
    return f"{min(lengths)} to {max(lengths)} steps, values up to {largest:.2g}"


def demonstrations_are_deterministic(looked: _Looked) -> str:
    again = looked.family.demonstrate(looked.tasks, 2, seed=0)
    if not _alike(looked.demonstrations, again):
        raise BrokenError("Two calls with one seed differ: draw from task.generator(seed, ...) alone.")
    alone = looked.family.demonstrate(looked.tasks[-1:], 2, seed=0)
    if not _alike(looked.demonstrations[-1:], alone):
        raise BrokenError(
            "A task's demonstrations depend on which other tasks are asked for: draw from its own generator."
        )
    other = looked.family.demonstrate(looked.tasks, 2, seed=1)
    if _alike(looked.demonstrations, other):
        raise BrokenError("Another seed gives the same demonstrations: let the seed draw the start.")
    return "the same in every call and company; another seed gives others"


def starts_are_new(looked: _Looked) -> str:
    if looked.family.horizon == 1 and looked.family.labelled:
        raise SkippedError("a demonstration of recognition has no start")
    for task, (one, other) in zip(looked.tasks, looked.demonstrations, strict=True):
        if np.array_equal(one.observations, other.observations):
            raise BrokenError(f"Two demonstrations of {task.name} are one: draw the start of each anew.")
        if len(one) == len(other) > 1 and np.array_equal(one.actions, other.actions):
            raise BrokenError(f"Two demonstrations of {task.name} have the same actions: replaying one would do.")
    starts = np.stack([[d.observations[0] for d in some] for some in looked.demonstrations])
    if np.array_equal(starts[:, 0], starts[:, 1]):
        raise BrokenError("Both demonstrations of every task start alike: draw the start anew for each.")
    seen: list[np.ndarray] = []

    def watches(observations: np.ndarray) -> np.ndarray:
        seen.append(np.array(observations))
        return np.zeros((*observations.shape[:2], looked.family.action_size))

    looked.run(watches)
    shown = {d.observations[0].tobytes() for some in looked.demonstrations for d in some}
    if any(start.astype("f4").tobytes() in shown for row in seen[0] for start in row):
        raise BrokenError(
            "An episode starts where a demonstration with the same seed does: draw them for different purposes."
        )
    return "each demonstration and each episode has a start of its own"


def runs_a_quota(looked: _Looked) -> str:
    family, shape = looked.family, (len(looked.tasks), EPISODES)
    if family.metric not in looked.nothing:
        raise BrokenError(f"run must return '{family.metric}', its metric; it returns {', '.join(looked.nothing)}.")
    for name, values in looked.nothing.items():
        if np.shape(values) != shape:
            raise BrokenError(
                f"run's '{name}' must be [task, episode], {shape}; got {np.shape(values)}: count every episode."
            )
        if not np.isfinite(values).all():
            raise BrokenError(
                f"run's '{name}' holds a number that is not finite: every episode counts, failed ones too."
            )
    if family.metric in ("success", "accuracy"):
        values = looked.nothing[family.metric]
        if values.min() < 0 or values.max() > 1:
            raise BrokenError(f"'{family.metric}' must be within 0..1; got {values.min()} to {values.max()}.")
    again = looked.run(zeros(family))
    if any(not np.array_equal(again[name], values) for name, values in looked.nothing.items()):
        raise BrokenError("run with one policy and seed gives two results: draw from task.generator(seed, ...) alone.")
    return f"exactly {EPISODES} episodes of each task, the same in every call"


def shows_a_policy_all_episodes(looked: _Looked) -> str:
    family, shapes = looked.family, set[tuple[int, ...]]()

    def watches(observations: np.ndarray) -> np.ndarray:
        shapes.add(np.shape(observations))
        return np.zeros((*observations.shape[:2], family.action_size))

    looked.run(watches)
    wanted = (len(looked.tasks), EPISODES, family.observation_size)
    if shapes != {wanted}:
        raise BrokenError(
            f"A policy must be shown observations [task, episode, obs], {wanted}; it was shown {sorted(shapes)}."
        )
    return "[task, episode, obs]"


def expert_succeeds(looked: _Looked) -> str:
    family = looked.family
    if not family.higher_is_better or family.labelled:
        raise SkippedError("its demonstrations are data, not an expert's")
    if hasattr(family, "expert_policy"):
        found = looked.run(family.expert_policy(looked.tasks))
    elif hasattr(family, "run_expert"):
        found = family.run_expert(looked.tasks, EPISODES, 0)
    else:
        raise SkippedError("give the family expert_policy(tasks), a policy for run on these tasks, to have it checked")
    mean = float(found[family.metric].mean())
    if mean < EXPERT:
        raise BrokenError(
            f"The expert reaches {mean:.0%}; at least {EXPERT:.0%} is needed: no learner does better than it."
        )
    return f"{mean:.0%}"


def doing_nothing_fails(looked: _Looked) -> str:
    family = looked.family
    if not family.higher_is_better:
        raise SkippedError("its metric is an error")
    most = 1.5 / family.action_size if family.labelled else NOTHING
    mean = float(looked.nothing[family.metric].mean())
    if mean > most:
        raise BrokenError(f"Actions of zero reach {mean:.0%}: start farther from the goal, or ask for more.")
    return f"actions of zero reach {mean:.0%}"


def environment_is_gymnasiums(looked: _Looked) -> str:
    family, task = looked.family, looked.tasks[0]
    try:
        env = family.make(task)
    except QuickstudyError as reason:
        raise SkippedError(str(reason)) from reason
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=True)
        except Exception as error:
            raise BrokenError(f"Gymnasium's check_env says: {error}") from error
    seen, does = (_width(space) for space in (env.observation_space, env.action_space))
    env.close()
    if (seen, does) != (family.observation_size, family.action_size):
        raise BrokenError(f"make(task) observes {seen} and acts {does} numbers; the family says "
                     f"{(family.observation_size, family.action_size)}.")  # fmt: skip
    return f"check_env passes{f', with {len(heard)} warnings' if heard else ''}"


def demonstration_is_needed(looked: _Looked) -> str:
    """Nearest neighbours on a task's own demonstration imitate it better than on another task's."""
    family = looked.family
    split = "train" if family.sizes["train"] >= 2 else looked.tasks[0].split
    tasks = family.tasks(split, min(PAIRS, family.sizes[split]))
    if len(tasks) < 2:
        raise SkippedError(f"split '{split}' has one task only")
    pairs = family.demonstrate(tasks, 2, seed=2)
    batch = collate(pairs, np.zeros((len(tasks), 0), "f4"))
    learner = NearestNeighbour(recorded_base(family.observation_size), family.action_size)
    learner.standardise(batch)
    own = np.array([_imitation(learner, batch, i, i) for i in range(len(tasks))])
    other = np.array([_imitation(learner, batch, i - 1, i) for i in range(len(tasks))])
    better = float((own < other).mean())
    if own.mean() >= other.mean() or better < 0.6:
        raise BrokenError(
            f"A demonstration of the task itself is followed with an error of {own.mean():.3g}, one of another "
            f"task with {other.mean():.3g}; the own one is better in {better:.0%} of {len(tasks)} tasks only: either "
            "nothing is hidden, or a demonstration does not reveal it."
        )
    return f"nearest neighbours err by {own.mean():.3g} on the own demonstration, {other.mean():.3g} on another task's"


POINTS: dict[str, Callable[[_Looked], str]] = {
    "says what it is": declares,
    "tasks are plain data": draws_tasks,
    "splits share no task": splits_are_disjoint,
    "hidden has the stated size": hidden_is_as_wide_as_said,
    "demonstrations have the stated form": demonstrates,
    "demonstrations are deterministic": demonstrations_are_deterministic,
    "demonstrations start anew": starts_are_new,
    "a policy sees every episode": shows_a_policy_all_episodes,
    "every episode counts": runs_a_quota,
    "the expert succeeds": expert_succeeds,
    "doing nothing does not": doing_nothing_fails,
    "the environment is Gymnasium's": environment_is_gymnasiums,
    "the demonstration is needed": demonstration_is_needed,
}


def _imitation(learner: NearestNeighbour, batch: Batch, shown: int, judged: int) -> float:
    """Error on the second demonstration of one task after the first one of another."""
    x, y, mask, hidden = batch
    support = Batch(x[shown, :1], y[shown, :1], mask[shown, :1], hidden[shown])
    query = Batch(x[judged, 1:], y[judged, 1:], mask[judged, 1:], hidden[judged])
    with torch.no_grad():
        predicted = learner.predict(learner.adapt(support), query.x)
    error = (predicted - query.y).square().mean(-1)
    return float((error * query.mask).sum() / query.mask.sum())


def _alike(one: Sequence[Sequence[Demonstration]], other: Sequence[Sequence[Demonstration]]) -> bool:
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return all(
        np.array_equal(a.observations, b.observations) and np.array_equal(a.actions, b.actions) for a, b in pairs
    )


def _width(space: gymnasium.Space[Any]) -> int:
    return int(np.prod(space.shape or ()))
