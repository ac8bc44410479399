"""Recorded motions: a whole movement is predicted from one to three demonstrations of it and a new start.

A task is one motion of real recordings (`quickstudy.families.motions.recordings`): a robot's tasks taught by hand,
letters, drawn shapes. Some of its demonstrations are shown; a learner then gets the start pose of another one and has
to give its pose at every phase. Positions are relative to the end of the motion, which is known (it is where the object
is), orientations are rotation vectors in a frame of the task. From both the start pose is subtracted, less and less
with phase, so to repeat a demonstration is to move it to the new start.

Where a demonstration hurries and where it pauses is partly chance, so some of its own pace is taken out of what is
shown (`time_normalised`), as much as helps on motions that are not held out; what is judged is as it was recorded.

Training tasks are the other motions, rotated, mirrored, scaled and with another pace, and made-up ones
(`quickstudy.families.motions.training`). A motion that is held out occurs in training in no form.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from quickstudy.data import Batch, SupportQuery, check_shots
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.motions import recordings, training
from quickstudy.families.motions.recordings import Motion
from quickstudy.families.motions.trajectories import (
    OBSERVATION,
    STEPS,
    Curves,
    actions,
    at_phases,
    best_share,
    curves,
    errors,
    observe,
    phases,
    start_offset,
    time_normalised,
)
from quickstudy.settings import Changes
from quickstudy.task import Policy, Task, TaskFamily

FOLDS = 6
OUTLINE = 10
"""Phases of the mean trajectory that the oracle receives."""
KNOWN = 200
"""Training tasks that learners take the mean and deviation of observations from."""


class Motions(TaskFamily):
    """The family; see the module's text.

    A task of a held-out split is a motion and an order of its demonstrations: one motion gives many tasks, which differ
    in what is shown and what is judged.

    Attributes:
        motions: of each split, the recorded motions that it holds; they are disjoint.
        share: of its own pace that is taken out of a demonstration that is shown; chosen on the motions that are not
            held out.
    """

    protocol = (
        "a recorded motion that training held in no form: some demonstrations of it, and the start pose and the end "
        "of another are given, its whole trajectory is to be predicted"
    )
    metric: str = "rmse"
    higher_is_better: ClassVar[bool] = False
    observation_size, action_size, hidden_size, horizon = OBSERVATION, 6, 6 * OUTLINE, STEPS
    default_method = "matching"
    shots = (1, 2, 3)

    def __init__(
        self,
        path: Path | None = None,
        fold: int = 0,
        motions: Sequence[Motion] | None = None,
        name: str = "motions",
    ) -> None:
        """
        Args:
            path: a file of motions; $QUICKSTUDY_MOTIONS by default.
            fold: which sixth of the motions is held out; the sixth after it is for validation.
            motions: recorded motions, instead of a file.
            name: of the family; the fold is added where it is not the first.

        Raises:
            QuickstudyError: no such file, not motions, or too few of them.
        """
        found = recordings.load(path) if motions is None else list(motions)
        folds = min(FOLDS, len(found))
        if folds < 3:
            raise QuickstudyError(f"Motions need at least three tasks, for three splits; got {len(found)}.")
        if not 0 <= fold < folds:
            raise QuickstudyError(f"These motions have folds 0 to {folds - 1}; got {fold}.")
        self.name = self.named(name, fold)
        parts: dict[str, list[Motion]] = {"train": [], "validation": []}
        for i, motion in enumerate(found):
            away = (i % folds - fold) % folds
            held_out = "poses" if motion.has_orientation else "positions"
            parts.setdefault({0: held_out, 1: "validation"}.get(away, "train"), []).append(motion)
        self.motions: Mapping[str, list[Motion]] = parts
        fewest = min(len(motion.demonstrations) for motion in found)
        self.most_episodes, self.method_settings = fewest // 2, _method_settings(fewest)
        self.sizes = {split: 10**9 if split == "train" else 10_000 for split in parts}
        self._of = {motion.name: motion for motion in found}
        if len(self._of) < len(found):
            raise QuickstudyError("Every recorded motion needs a name of its own.")
        self._curves = {motion.name: curves(motion) for motion in found}
        self.share = best_share([self._curves[motion.name] for motion in parts["train"] + parts["validation"]])

    @staticmethod
    def named(name: str, fold: int) -> str:
        """The name of a family's fold."""
        return name if fold == 0 else f"{name}-fold{fold}"

    def task(self, split: str, index: int) -> Task:
        """Held-out motions take turns, so that each is in equally many tasks."""
        drawn = super().task(split, index)
        if split == "train":
            return drawn
        motions = self.motions[split]
        return Task(self.name, split, index, {**drawn.parameters, "motion": motions[index % len(motions)].name})

    def task_key(self, task: Task) -> str:
        """The motion: other orders of its demonstrations are no other task."""
        return str(task.parameters["motion"]) if task.split != "train" else super().task_key(task)

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        if split == "train":
            return training.sample([motion.name for motion in self.motions["train"]], rng)
        motions = self.motions[split]
        return {"motion": motions[rng.integers(len(motions))].name, "seed": int(rng.integers(1 << 31))}

    def trajectories(self, task: Task) -> Curves:
        """All demonstrations of a task, in its order: those that are shown come first."""
        p = task.parameters
        if task.split == "train":
            return training.build(p, self._curves)
        found = self._curves[p["motion"]]
        return found.some(np.random.default_rng(p["seed"]).permutation(len(found.positions)))

    def hidden(self, task: Task) -> np.ndarray:
        """The mean of all demonstrations at some phases, flattened."""
        mean = actions(self.trajectories(task)).mean(0)
        return at_phases(mean, phases(OUTLINE)).astype("f4").ravel()

    def fresh(self) -> "FreshMotions":
        return FreshMotions(self)

    def split_demonstrations(self, task: Task, seed: int) -> tuple[Curves, Curves]:
        """What may be shown and what is judged, in the seed's order: half of the demonstrations each."""
        found = self.trajectories(task)
        shown = (len(found.positions) + 1) // 2
        rng = task.generator(seed)
        return tuple(  # type: ignore[return-value]
            part.some(rng.permutation(len(part.positions)))
            for part in (found.some(slice(shown)), found.some(slice(shown, None)))
        )

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        made = []
        for task in tasks:
            shown, judged = self.split_demonstrations(task, seed)
            if task.split == "train":  # where nothing is judged
                shown = Curves(*(np.concatenate(pair) for pair in zip(shown, judged, strict=True)))
            if not 1 <= count <= len(shown.positions):
                raise QuickstudyError(
                    f"Asked for {count} demonstrations of {task.name}; {len(shown.positions)} may be shown."
                )
            shown = time_normalised(shown.some(slice(count)), self.share)
            made.append([Demonstration(x, y) for x, y in zip(observe(shown), actions(shown), strict=True)])
        return made

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Asks for the trajectories of `episodes` demonstrations of every task that are never shown.

        Returns:
            see `errors`; each [task, episode].
        """
        judged = [self.split_demonstrations(task, seed)[1] for task in tasks]
        fewest = min(len(one.positions) for one in judged)
        if not 1 <= episodes <= fewest:
            raise QuickstudyError(
                f"Asked for {episodes} episodes a task of '{self.name}'; each is a recorded demonstration, and "
                f"the task with the fewest has {fewest} that are not shown."
            )
        judged = [one.some(slice(episodes)) for one in judged]
        seen = np.stack([observe(one) for one in judged])
        given = np.stack([policy(seen[:, :, step]) for step in range(STEPS)], 2)
        scale = [self.unit(task) for task in tasks]
        poses = [y + start_offset(one.poses[:, 0]) for one, y in zip(judged, given, strict=True)]
        rows = [errors(one, pose, unit) for one, pose, unit in zip(judged, poses, scale, strict=True)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def caption(self, task: Task) -> str:
        return str(task.parameters["motion"]) or "made up"

    def unit(self, task: Task) -> float:
        """How many of the recorded units of length count as 1."""
        motion = self._of.get(task.parameters["motion"])
        return 1.0 if motion is None else motion.unit


class FreshMotions:
    """Meta-batches of training tasks that were never seen before: a `quickstudy.data.Source`.

    The support is time-normalised, as what is shown is; the query is not, as what is judged is not.

    Attributes:
        fewest: demonstrations of a training task.
        batch: of the first `KNOWN` training tasks, as they are shown.
    """

    def __init__(self, family: Motions) -> None:
        self.family, self._last = family, list[Task]()
        self.fewest = min(training.DEMONSTRATIONS, *(len(m.demonstrations) for m in family.motions["train"]))
        known = family.tasks("train", KNOWN)
        shown = [time_normalised(family.trajectories(task).some(slice(self.fewest)), family.share) for task in known]
        self.batch = self._collated(known, shown)

    def sample(self, rng: torch.Generator, tasks: int, shots: int, queries: int) -> SupportQuery:
        """See `quickstudy.data.Source`.

        Raises:
            QuickstudyError: fewer than one of either, or more than the motion with the fewest demonstrations has.
        """
        check_shots(shots, queries, self.fewest, "demonstrations a task")
        indices = torch.randint(self.family.sizes["train"], (tasks,), generator=rng).tolist()
        self._last = [self.family.task("train", index) for index in indices]
        found = [self.family.trajectories(task) for task in self._last]
        shown = [time_normalised(one.some(slice(shots)), self.family.share) for one in found]
        judged = [one.some(slice(shots, shots + queries)) for one in found]
        return SupportQuery(self._collated(self._last, shown), self._collated(self._last, judged))

    def names(self) -> list[str]:
        return [task.name for task in self._last]

    def _collated(self, tasks: Sequence[Task], some: Sequence[Curves]) -> Batch:
        x, y = (np.stack([part(one) for one in some]) for part in (observe, actions))
        hidden = np.stack([self.family.hidden(task) for task in tasks])
        return Batch(*(torch.from_numpy(array) for array in (x, y, np.ones(x.shape[:-1], "f4"), hidden)))


def _method_settings(fewest: int) -> Mapping[str, Changes]:
    """What methods do otherwise here, for motions of which each has `fewest` demonstrations or more."""
    regression = {"head": "local-linear", "scale": 30.0, "ridge": 1e-3}
    return {
        "demonstrations": {
            "network": {"hidden": (64, 64), "embedding": 32},
            "training": {
                "steps": 1000,
                "meta_batch": 8,
                "shots": 1,
                "most_shots": 3,
                "queries": min(3, fewest - 3),
                "rate": 2e-3,
                "validate_every": 500,
            },
            "data": {"validation_tasks": 16, "validation_episodes": min(3, fewest // 2)},
        },
        **{method: {"algorithm": {"inner_steps": 3}} for method in ("maml", "fomaml", "anil", "meta-sgd")},
        # Cosines of waves of phase are a kernel that is the same at every phase.
        "matching": {"network": {"embedding": 0}, "training": {"rate": 1e-2}, "algorithm": regression},
        "matching-fce": {"algorithm": regression},
        "matching-convex": {"algorithm": {"scale": 30.0, "ridge": 1e-3}},
    }
