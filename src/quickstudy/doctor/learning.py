"""From the demonstrations alone: how many of a new task would be needed, and whether meta-learning helps at all.

Tasks are left out in turn: a learner is meta-trained on the others and judged on those, after 1, 2, ... of their
demonstrations, by its error on demonstrations that it was not shown. Beside it stand the floors, which need no other
tasks: replay, the nearest recorded step, and a network trained from scratch. Errors are relative: 1 is the error of
always doing the mean of all actions. Over tasks they are averaged as ratios are, by their logarithms, so that one task
on which adaptation failed does not decide alone; how many those are is told.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quickstudy import families
from quickstudy.demonstration import Demonstration
from quickstudy.doctor.findings import Finding, Recordings, plural
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment, on_validation
from quickstudy.io.progress import progress
from quickstudy.results.statistics import bootstrap
from quickstudy.task import TaskFamily

FLOORS = ("replay", "nearest", "scratch")
LEARNERS = ("matching", "anil")
"""A metric and learned initial parameters, the two that train fastest; each fold takes the better on its validation."""
_FOLDS = 5
_SHOTS = (1, 2, 3, 5, 8)
_SECONDS_A_STEP, _SECONDS_A_FOLD = 0.02, 3.0
"""On one core of a laptop, for demonstrations of some hundred steps."""
_LEAST = 1e-6
"""Relative error that counts as none, so that it has a logarithm."""
_HELPS = 0.9
"""Of the best floor's error: what is above it is no help."""


@dataclass(frozen=True)
class Curves:
    """Relative errors after each number of demonstrations.

    Attributes:
        shots: numbers of demonstrations.
        errors: by 'meta-learned' or floor, [task, shots]; every task was left out of training once.
        tasks: their labels.
    """

    shots: tuple[int, ...]
    errors: dict[str, np.ndarray]
    tasks: tuple[str, ...]

    def mean(self, who: str) -> np.ndarray:
        """The geometric mean over tasks, [shots]."""
        return np.asarray(np.exp(self._logarithms(who).mean(0)))

    def interval(self, who: str) -> np.ndarray:
        """95 % interval of the mean over tasks, [2, shots]."""
        return np.exp([_sure(errors) for errors in self._logarithms(who).T]).T

    def ratio(self, who: str, other: str, at: int) -> tuple[float, float, float]:
        """Error of one over that of the other after the `at`-th number of shots; its 95 % interval, task by task."""
        apart = self._logarithms(who)[:, at] - self._logarithms(other)[:, at]
        ratio, low, high = np.exp([apart.mean(), *_sure(apart)])
        return float(ratio), float(low), float(high)

    def _logarithms(self, who: str) -> np.ndarray:
        return np.asarray(np.log(np.maximum(self.errors[who], _LEAST)))


def _sure(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean over tasks, of which there are five or more."""
    return bootstrap(values[None], shares=False) or (float(values.min()), float(values.max()))


def cost(found: Recordings, steps: int) -> tuple[int, float]:
    """How many trainings `curves` takes, and about how many seconds on one core; 0 where it refuses."""
    usable = _usable(found)
    folds = min(_FOLDS, len(usable) // 2) if len(usable) >= 5 else 0
    return folds * len(LEARNERS), folds * (_SECONDS_A_STEP * steps * len(LEARNERS) + _SECONDS_A_FOLD)


def _usable(found: Recordings) -> dict[str, list[Demonstration]]:
    usable = {task: _demonstrations(some) for task, some in found.tasks.items()}
    return {task: some for task, some in usable.items() if len(some) >= 3}


def curves(found: Recordings, steps: int = 300, seed: int = 0) -> Curves:
    """Leaves tasks out in turn and measures.

    Args:
        steps: outer steps of every meta-training.

    Raises:
        QuickstudyError: fewer than five tasks with three episodes that can be learned from.
    """
    usable = _usable(found)
    if len(usable) < 5:
        raise QuickstudyError(
            f"'{found.path}' has {len(usable)} tasks with three whole episodes or more; leaving some out takes five."
        )
    labels = [list(usable)[i] for i in np.random.default_rng(seed).permutation(len(usable))]
    folds = [labels[i :: min(_FOLDS, len(labels) // 2)] for i in range(min(_FOLDS, len(labels) // 2))]
    queries = 2 if min(map(len, usable.values())) > 3 else 1
    shots = tuple(k for k in _SHOTS if k <= min(map(len, usable.values())) - queries)
    variance = float(np.concatenate([d.actions for some in usable.values() for d in some]).astype(float).var(0).mean())
    errors: dict[str, list[np.ndarray]] = {who: [] for who in (*FLOORS, "meta-learned")}
    with progress("leaving tasks out", len(folds) * (len(FLOORS) + len(LEARNERS))) as advance:
        for number, left_out in enumerate(folds):
            family = _family(usable, left_out, folds[(number + 1) % len(folds)], queries, seed, found)
            best: tuple[float, np.ndarray] | None = None
            for name in (*FLOORS, *LEARNERS):
                changes = {} if name in FLOORS else {"training": {"steps": steps, "validate_every": steps}}
                experiment = Experiment.of(family, name, seed, changes)
                learner = experiment.train()
                result = experiment.evaluate(
                    learner, "test", shots=shots, tasks=len(left_out), episodes=queries, seed=seed
                )
                error = np.full((len(left_out), len(shots)), np.nan)  # a task may have no figure
                names = [task.name for task in family.tasks("test", len(left_out))]
                rows = [names.index(name) for name in result.tasks]
                error[rows] = np.moveaxis(result.metrics["error"].mean(-1), 0, 1) / max(variance, 1e-12)
                if name in FLOORS:
                    errors[name].append(error)
                else:
                    told = np.nan_to_num(
                        on_validation(learner, family, 1, family.sizes["validation"], queries), nan=np.inf
                    )
                    best = min(best, (told, error), key=lambda pair: pair[0]) if best else (told, error)
                advance()
            assert best is not None
            errors["meta-learned"].append(best[1])
    made = {who: np.concatenate(parts) for who, parts in errors.items()}
    known = np.isfinite(np.stack(list(made.values()))).all((0, 2))
    if known.sum() < 5:
        raise QuickstudyError(
            f"Only {known.sum()} tasks of '{found.path}' have figures of all methods; five are needed."
        )
    kept = tuple(label for label, fine in zip((t for fold in folds for t in fold), known, strict=True) if fine)
    return Curves(shots, {who: values[known] for who, values in made.items()}, kept)


def _demonstrations(episodes) -> list[Demonstration]:  # type: ignore[no-untyped-def]
    made = []
    for episode in episodes:
        try:
            made.append(episode.demonstration())
        except QuickstudyError:
            continue
    return made


def _family(
    usable: dict[str, list[Demonstration]],
    test: Sequence[str],
    validation: Sequence[str],
    queries: int,
    seed: int,
    found: Recordings,
) -> TaskFamily:
    train = [label for label in usable if label not in (*test, *validation)]
    return families.from_demonstrations(
        [one for some in usable.values() for one in some],
        [label for label, some in usable.items() for _ in some],
        splits={"train": train, "validation": list(validation), "test": list(test)},
        queries=queries,
        seed=seed,
        name="doctor",
        rate=found.about.rate,
    )


def judged(made: Curves) -> Iterator[Finding]:
    """What the curves say, as findings."""
    means = {who: made.mean(who) for who in made.errors}
    last = len(made.shots) - 1
    meta = means["meta-learned"]
    floors = {who: means[who] for who in FLOORS}
    strongest = min(floors, key=lambda who: floors[who][0])
    ratio, low, high = made.ratio("meta-learned", strongest, 0)
    said = (
        f"After one demonstration of a task that training never had, the error is {meta[0]:.2f} of always doing the "
        f"mean action; the best floor, {strongest}, has {floors[strongest][0]:.2f} (ratio {ratio:.2f}, 95 % interval "
        f"{low:.2f} to {high:.2f} over {len(made.tasks)} tasks)"
    )
    worse = [task for task, error in zip(made.tasks, made.errors["meta-learned"][:, 0], strict=True) if error > 1]
    if worse:
        said += f", and more than 1 on {plural(len(worse), 'task')}, such as '{worse[0]}'"
    if high < 1 and ratio < _HELPS:
        yield Finding("learning", "meta-learning helps", "good", f"{said}.")
    elif low > 1:
        remedy = f"Use {strongest} ('quickstudy train PATH --method {strongest}'), or record more tasks."
        yield Finding("learning", "meta-learning helps", "bad", f"{said}: it does not help here.", remedy)
    else:
        remedy = "More tasks would tell; 'quickstudy compare PATH' measures more methods."
        yield Finding("learning", "meta-learning helps", "note", f"{said}: that cannot be told from chance.", remedy)
    nearest = min(FLOORS, key=lambda who: floors[who][last])
    if meta[last] > 0.9 and floors[nearest][last] <= 0.9:
        said = (
            f"After {made.shots[last]} demonstrations the error is {meta[last]:.2f} of that of the mean action, and "
            f"{floors[nearest][last]:.2f} with {nearest}: there is more to learn than was learned in this time."
        )
        yield Finding("learning", "enough", "note", said, "Give it more --steps, or record more tasks.")
        return
    if meta[last] > 0.9:
        said = f"Even after {made.shots[last]} demonstrations the error is {meta[last]:.2f} of that of the mean action."
        remedy = "What must be known may not be in the observations, or demonstrations contradict each other."
        yield Finding("learning", "enough", "bad", said, remedy)
        return
    enough = next(k for k, error in zip(made.shots, meta, strict=True) if error <= 1.1 * meta.min())
    low_end, high_end = made.interval("meta-learned")[:, made.shots.index(enough)]
    said = (
        f"A new task would need about {enough} demonstration{'s' if enough > 1 else ''}: the error is then "
        f"{meta[made.shots.index(enough)]:.2f} [{low_end:.2f}, {high_end:.2f}]"
    )
    if enough == made.shots[last] and last > 0:
        said += f", and still falls at {enough}, the most that this data set can tell"
    scratch = next((k for k, e in zip(made.shots, means["scratch"], strict=True) if e <= meta[0]), None)
    said += (
        f"; from scratch it takes {scratch} to be as good as after one" if scratch else
        f"; from scratch, {made.shots[last]} are not yet as good as one"
    )  # fmt: skip
    yield Finding("learning", "demonstrations needed", "good", f"{said}.")
