"""The contract of a family, point by point: what learners, evaluation and comparison rely on.

What a family does not have is no fault: the points about demonstrations, say, do not apply to one that is learned by
trial only. Those about its vector environment are in `quickstudy.check.environments`.
"""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import torch

from quickstudy import methods
from quickstudy.check.points import BrokenError, SkippedError
from quickstudy.data import Batch, collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.methods.demonstrations.baselines import NearestNeighbour, recorded_base
from quickstudy.task import Policy, Task, TaskFamily

EXPERT, NOTHING = 0.9, 0.2
"""The least that an expert, and the most that doing nothing, may succeed."""
LARGEST = 1e3
"""Observations and actions beyond this are a sign of units that no network likes."""
OTHERS, BETTER = 5, 0.55
"""Tasks whose demonstrations are compared with a task's own, and how often its own has to be better."""


@dataclass(frozen=True)
class Amount:
    """How much of a family is looked at.

    Attributes:
        tasks, episodes: that are run.
        pairs: training tasks whose demonstrations are compared.
        drawn: tasks of each split that are drawn twice.
        compared: tasks of each split that are compared with those of other splits.
    """

    tasks: int = 6
    episodes: int = 3
    pairs: int = 30
    drawn: int = 50
    compared: int = 300


class Looked:
    """A family and what several points look at, made once."""

    def __init__(self, family: TaskFamily, amount: Amount) -> None:
        self.family, self.amount = family, amount

    @cached_property
    def tasks(self) -> list[Task]:
        """Some tasks of the first test split that has any; of training where there is no test."""
        family = self.family
        split = next((split for split in family.test_splits if family.sizes[split]), "train")
        return family.tasks(split, min(self.amount.tasks, family.sizes[split]))

    @property
    def episodes(self) -> int:
        """Episodes of each task that are run."""
        return min(self.amount.episodes, self.family.most_episodes or self.amount.episodes)

    @property
    def recorded(self) -> bool:
        """Whether its demonstrations are a given number of recordings, some of which are its episodes."""
        return self.family.most_episodes is not None

    def needs_demonstrations(self) -> None:
        """Raises SkippedError where nobody demonstrates."""
        if "demonstrations" not in self.family.learned_from:
            raise SkippedError("it is learned by trial only")

    @cached_property
    def demonstrations(self) -> list[list[Demonstration]]:
        """Two of each task; one where recordings allow no more."""
        self.needs_demonstrations()
        try:
            return self.family.demonstrate(self.tasks, 2, seed=0)
        except QuickstudyError:
            if not self.recorded:
                raise
            return self.family.demonstrate(self.tasks, 1, seed=0)

    @cached_property
    def nothing(self) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """What `run` returns for actions of zero, and what it showed the policy, step by step."""
        seen: list[np.ndarray] = []

        def policy(observations: np.ndarray) -> np.ndarray:
            seen.append(np.array(observations))
            return np.zeros((*observations.shape[:2], self.family.action_size))

        return self.run(policy), seen

    @cached_property
    def expert(self) -> dict[str, np.ndarray]:
        """What `run` says of the expert."""
        family = self.family
        if self.recorded or family.labelled or not family.higher_is_better:
            raise SkippedError("its demonstrations are data, not an expert's")
        if not family.has_expert:
            raise SkippedError("it has no expert")
        if not hasattr(family, "run_expert"):
            raise SkippedError(
                "give the family run_expert(tasks, episodes, seed), what run says of its expert, to have it checked"
            )
        return dict(family.run_expert(self.tasks, self.episodes, 0))

    def run(self, policy: Policy) -> dict[str, np.ndarray]:
        return self.family.run(self.tasks, self.episodes, policy, seed=0)


def zeros(family: TaskFamily) -> Policy:
    """Does nothing, always."""
    return lambda seen: np.zeros((*seen.shape[:2], family.action_size))


# ---- the points


def declares(looked: Looked) -> str:
    family = looked.family
    if not isinstance(family, TaskFamily):
        raise BrokenError(f"A family is a quickstudy.TaskFamily; got {type(family).__name__}.")
    for name in ("name", "protocol", "metric"):
        if not isinstance(getattr(family, name, None), str) or not getattr(family, name):
            raise BrokenError(f"Set {name} to a text; it is {getattr(family, name, None)!r}.")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", family.name):
        raise BrokenError(
            f"The name becomes part of folders' names: use letters, digits, dashes and dots; it is '{family.name}'."
        )
    for name, least in (("observation_size", 1), ("action_size", 1), ("hidden_size", 0), ("horizon", 1)):
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
    ways = family.learned_from
    if not ways or not set(ways) <= {"demonstrations", "trials"}:
        raise BrokenError(f"learned_from must hold 'demonstrations', 'trials' or both; it is {ways!r}.")
    if "trials" in ways and not isinstance(family, SimulatedFamily):
        raise BrokenError("Who is learned by trial has a vector environment: derive the family from SimulatedFamily.")
    return (
        f"'{family.name}': {family.observation_size} observed, {family.action_size} acted, {family.horizon} steps, "
        f"learned from {' and '.join(ways)}"
    )


def settings_are_known(looked: Looked) -> str:
    family = looked.family
    usual = methods.get(family.default_method)
    if reason := usual.why_not(family):
        raise BrokenError(f"default_method is '{usual.name}', which cannot learn its tasks: {reason}")
    known = [record for record in methods.records().values() if not record.why_not(family)]
    for record in known:
        try:
            record.defaults(family.name, family)
        except (TypeError, AttributeError) as error:
            raise BrokenError(f"method_settings has a setting that '{record.name}' does not have: {error}.") from error
    others = [name for name in family.method_settings if name not in ("demonstrations", "trials", *methods.names())]
    mine = f"; {', '.join(others)} {'is' if len(others) == 1 else 'are'} no method of quickstudy" if others else ""
    return f"those of {len(known)} methods that suit it, '{usual.name}' by default{mine}"


def draws_tasks(looked: Looked) -> str:
    family, count = looked.family, 0
    for split, size in family.sizes.items():
        once, again = (family.tasks(split, min(looked.amount.drawn, size)) if size else [] for _ in range(2))
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
            if not isinstance(family.caption(one), str):
                raise BrokenError(f"caption({one.name}) must be a text; got {family.caption(one)!r}.")
    return f"{count} tasks are plain data and the same in every call"


def splits_are_disjoint(looked: Looked) -> str:
    family = looked.family
    if family.labelled:
        return _examples_are_disjoint(family)
    if not family.holds_out_tasks:
        raise SkippedError("its test splits have tasks that training has too, as it says by holds_out_tasks")
    of: dict[str, dict[str, Task]] = {}
    for split, size in family.sizes.items():
        tasks = family.tasks(split, min(looked.amount.compared, size)) if size else []
        of[split] = {json.dumps(task.parameters, sort_keys=True): task for task in reversed(tasks)}
    for split in family.test_splits:
        for other in (name for name in of if name != split):
            if shared := of[split].keys() & of[other].keys():
                task = of[split][min(shared)]
                raise BrokenError(f"{task.name} is a task of split '{other}' too: what is tested was trained on.")
    shared = of["train"].keys() & of["validation"].keys()
    also = f"; {len(shared)} tasks of 'validation' are training's, with other episodes" if shared else ""
    return f"{sum(map(len, of.values()))} tasks of {len(of)} splits, none of a test split in another{also}"


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


def hidden_is_as_wide_as_said(looked: Looked) -> str:
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


def demonstrates(looked: Looked) -> str:
    family = looked.family
    found = looked.demonstrations
    if len(found) != len(looked.tasks) or (not looked.recorded and any(len(some) != 2 for some in found)):
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
    if largest > LARGEST and not looked.recorded:  # learners standardise recordings, whatever their units
        raise BrokenError(f"An observation or action is as large as {largest:.2g}: scale them to about -1..1.")
    lengths = [len(d) for some in found for d in some]
    return f"{min(lengths)} to {max(lengths)} steps, values up to {largest:.2g}"


def demonstrations_are_deterministic(looked: Looked) -> str:
    count = len(looked.demonstrations[0])
    alone = looked.family.demonstrate(looked.tasks[-1:], count, seed=0)
    if not _alike(looked.demonstrations[-1:], alone):
        again = looked.family.demonstrate(looked.tasks, count, seed=0)
        if not _alike(looked.demonstrations, again):
            raise BrokenError("Two calls with one seed differ: draw from task.generator(seed, ...) alone.")
        raise BrokenError(
            "A task's demonstrations depend on which other tasks are asked for: draw from its own generator."
        )
    if looked.recorded:
        return "the same in every call and company"
    other = looked.family.demonstrate(looked.tasks, count, seed=1)
    if _alike(looked.demonstrations, other):
        raise BrokenError("Another seed gives the same demonstrations: let the seed draw the start.")
    return "the same in every call and company; another seed gives others"


def starts_are_new(looked: Looked) -> str:
    family = looked.family
    if family.horizon == 1 and family.labelled:
        raise SkippedError("a demonstration of recognition has no start")
    if looked.recorded:
        return _judged_are_not_shown(looked)
    for task, (one, other) in zip(looked.tasks, looked.demonstrations, strict=True):
        if np.array_equal(one.observations, other.observations):
            raise BrokenError(f"Two demonstrations of {task.name} are one: draw the start of each anew.")
        if len(one) == len(other) > 1 and np.array_equal(one.actions, other.actions):
            raise BrokenError(f"Two demonstrations of {task.name} have the same actions: replaying one would do.")
    if family.fixed_start:
        return "no two demonstrations are alike; all episodes of a task start alike, as it says by fixed_start"
    starts = np.stack([[d.observations[0] for d in some] for some in looked.demonstrations])
    if np.array_equal(starts[:, 0], starts[:, 1]):
        raise BrokenError(
            "Both demonstrations of every task start alike: draw the start anew for each; where a task has one start "
            "only, set fixed_start = True."
        )
    shown = [{d.observations[0].tobytes() for d in some} for some in looked.demonstrations]
    first = looked.nothing[1][0].astype("f4")
    if any(start.tobytes() in known for row, known in zip(first, shown, strict=True) for start in row):
        raise BrokenError(
            "An episode starts where a demonstration with the same seed does: draw them for different purposes."
        )
    return "each demonstration and each episode has a start of its own"


def _judged_are_not_shown(looked: Looked) -> str:
    """Episodes of recordings are recordings themselves: what is observed in them does not depend on the policy."""
    seen = np.stack(looked.nothing[1], 2)
    for task, episodes, some in zip(looked.tasks, seen, looked.demonstrations, strict=True):
        for one in some:
            kind = one.observations.dtype
            if any(np.array_equal(episode[: len(one)], one.observations) for episode in episodes.astype(kind)):
                raise BrokenError(f"A demonstration of {task.name} is one that it is judged by: keep them apart.")
    return "no recording is both shown and judged"


def runs_a_quota(looked: Looked) -> str:
    family, shape = looked.family, (len(looked.tasks), looked.episodes)
    outcome = looked.nothing[0]
    for name in (family.metric, *family.secondary_metrics):
        if name not in outcome:
            raise BrokenError(f"run must return '{name}', its metric; it returns {', '.join(outcome)}.")
    for name, values in outcome.items():
        if np.shape(values) != shape:
            raise BrokenError(
                f"run's '{name}' must be [task, episode], {shape}; got {np.shape(values)}: count every episode."
            )
        if not np.isfinite(values).all():
            raise BrokenError(
                f"run's '{name}' holds a number that is not finite: every episode counts, failed ones too."
            )
    if _is_share(family):
        values = outcome[family.metric]
        if values.min() < 0 or values.max() > 1:
            raise BrokenError(f"'{family.metric}' must be within 0..1; got {values.min()} to {values.max()}.")
    again = looked.run(zeros(family))
    if any(not np.array_equal(again[name], values) for name, values in outcome.items()):
        raise BrokenError("run with one policy and seed gives two results: draw from task.generator(seed, ...) alone.")
    return f"exactly {looked.episodes} episodes of each task, the same in every call"


def shows_a_policy_all_episodes(looked: Looked) -> str:
    shapes = {np.shape(observations) for observations in looked.nothing[1]}
    wanted = (len(looked.tasks), looked.episodes, looked.family.observation_size)
    if shapes != {wanted}:
        raise BrokenError(
            f"A policy must be shown observations [task, episode, obs], {wanted}; it was shown {sorted(shapes)}."
        )
    return "[task, episode, obs]"


def expert_succeeds(looked: Looked) -> str:
    family = looked.family
    mean, without = (float(outcome[family.metric].mean()) for outcome in (looked.expert, looked.nothing[0]))
    if not _is_share(family) or "demonstrations" not in family.learned_from:
        said = f"a mean '{family.metric}' of {mean:.3g}, actions of zero {without:.3g}"
        if mean <= without:
            raise BrokenError(f"The expert reaches {said}: it must do better than nothing.")
        return said
    if mean < EXPERT:
        raise BrokenError(
            f"The expert reaches {mean:.0%}; at least {EXPERT:.0%} is needed: no learner does better than it."
        )
    return f"{mean:.0%}"


def doing_nothing_fails(looked: Looked) -> str:
    family = looked.family
    if not family.higher_is_better:
        raise SkippedError("its metric is an error")
    if not _is_share(family):
        raise SkippedError(f"its metric, '{family.metric}', is no share of successes")
    most = 1.5 / family.action_size if family.labelled else NOTHING
    mean = float(looked.nothing[0][family.metric].mean())
    if mean > most:
        raise BrokenError(f"Actions of zero reach {mean:.0%}: start farther from the goal, or ask for more.")
    return f"actions of zero reach {mean:.0%}"


def environment_is_gymnasiums(looked: Looked) -> str:
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


def demonstration_is_needed(looked: Looked) -> str:
    """Nearest neighbours on a task's own demonstration imitate it better than on those of other tasks."""
    looked.needs_demonstrations()
    family = looked.family
    split = "train" if family.sizes["train"] >= 2 else looked.tasks[0].split
    tasks = family.tasks(split, min(looked.amount.pairs, family.sizes[split]))
    if len(tasks) < 2:
        raise SkippedError(f"split '{split}' has one task only")
    batch = collate(family.demonstrate(tasks, 2, seed=2), np.zeros((len(tasks), 0), "f4"))
    learner = NearestNeighbour(recorded_base(family.observation_size), family.action_size)
    learner.standardise(batch)
    # [task, 0: the own demonstration, then others', one and the other one of the two]
    away = range(min(OTHERS, len(tasks) - 1) + 1)
    errors = np.array([[_imitations(learner, batch, i - k, i) for k in away] for i in range(len(tasks))])
    own, other = errors[:, :1], errors[:, 1:]
    better = float((own < other).mean())
    said = (
        f"nearest neighbours on the own demonstration err by {np.median(own):.3g} (median), on another task's by "
        f"{np.median(other):.3g}; the own one is better in {better:.0%} of {other.size} cases"
    )
    if better < BETTER:
        raise BrokenError(f"{said}: either nothing is hidden, or a demonstration does not reveal it.")
    return said


POINTS: dict[str, Callable[[Looked], str]] = {
    "says what it is": declares,
    "settings are known": settings_are_known,
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


def _imitations(learner: NearestNeighbour, batch: Batch, shown: int, judged: int) -> list[float]:
    """Errors on either demonstration of one task after the other one of another, or of the same."""
    x, y, mask, hidden = batch
    errors = []
    for first, second in ((0, 1), (1, 0)):
        support = Batch(x[shown, [first]], y[shown, [first]], mask[shown, [first]], hidden[shown])
        with torch.no_grad():
            predicted = learner.predict(learner.adapt(support), x[judged, second])
        missed = (predicted - y[judged, second]).square().mean(-1)
        errors.append(float((missed * mask[judged, second]).sum() / mask[judged, second].sum()))
    return errors


def _alike(one: Sequence[Sequence[Demonstration]], other: Sequence[Sequence[Demonstration]]) -> bool:
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return all(
        np.array_equal(a.observations, b.observations) and np.array_equal(a.actions, b.actions) for a, b in pairs
    )


def _width(space: gymnasium.Space[Any]) -> int:
    return int(np.prod(space.shape or ()))


def _is_share(family: TaskFamily) -> bool:
    """Whether the metric is a share of episodes or examples, from 0 to 1."""
    return family.metric.startswith("success") or family.metric == "accuracy"
