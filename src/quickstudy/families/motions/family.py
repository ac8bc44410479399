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
from typing import Any, ClassVar, NamedTuple

import numpy as np

from quickstudy.data import Source
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.motions import recordings
from quickstudy.families.motions.recordings import Motion
from quickstudy.families.motions.trajectories import (
    angles_between,
    at_phases,
    dynamic_time_warping,
    phases,
    turns,
    unit_quaternions,
)
from quickstudy.settings import Changes
from quickstudy.task import Policy, Task, TaskFamily

STEPS = 50
"""Phases of a trajectory."""
WAVES = (1, 2, 3, 5, 8, 12)
"""Half periods of the cosines and sines that an observation describes the phase by, beside the phase itself."""
SHARES = np.linspace(0.0, 0.5, 11)
"""Shares of its own pace that may be taken out of a demonstration that is shown."""
FOLDS = 6
OUTLINE = 10
"""Phases of the mean trajectory that the oracle receives."""


class Curves(NamedTuple):
    """Demonstrations of one task at `STEPS` phases.

    Attributes:
        positions: seen from their end, in units of the task, [demonstration, step, 3].
        turns: orientations as rotation vectors in the task's frame, radians, [demonstration, step, 3].
    """

    positions: np.ndarray
    turns: np.ndarray

    def some(self, chosen: np.ndarray | slice) -> "Curves":
        return Curves(self.positions[chosen], self.turns[chosen])

    @property
    def poses(self) -> np.ndarray:
        """Positions and turns, [demonstration, step, 6]."""
        return np.concatenate([self.positions, self.turns], -1)


def curves(motion: Motion) -> Curves:
    """A recorded motion at evenly spaced phases; flat ones lie in the plane of x and y."""
    where = phases(STEPS)
    at = np.stack([at_phases(one, where) for one in motion.demonstrations])
    positions = np.zeros((len(at), STEPS, 3))
    width = min(3, at.shape[-1])
    positions[..., :width] = (at[..., :width] - at[:, -1:, :width]) / motion.unit
    if not motion.has_orientation:
        return Curves(positions, np.zeros_like(positions))
    return Curves(positions, turns(at[..., 3:] / np.linalg.norm(at[..., 3:], axis=-1, keepdims=True)))


def time_normalised(given: Curves, share: float) -> Curves:
    """Demonstrations with a share of their own pace taken out: phase is time and, by this share, the way gone."""
    poses, time = given.poses, phases(STEPS)
    gone = np.pad(np.linalg.norm(np.diff(poses, axis=1), axis=-1).cumsum(1), ((0, 0), (1, 0)))
    whole = gone[:, -1:]
    clocks = (1.0 - share) * time + share * np.where(whole > 0, gone / np.where(whole > 0, whole, 1.0), time)
    even = at_phases(poses, np.stack([np.interp(time, clock, time) for clock in clocks]))
    return Curves(even[..., :3], even[..., 3:])


def best_share(motions: Sequence[Curves]) -> float:
    """The one of `SHARES` of their pace to take out of demonstrations: best for the motion that it is worst for.

    How good it is for a motion: every demonstration, time-normalised and moved to the other's start, predicts every
    other one as it is; their mean error, relative to that at its own pace. The motion it is worst for decides, since
    the next one may be of any kind.
    """
    worst = np.zeros(len(SHARES))
    for motion in motions:
        others = ~np.eye(len(motion.positions), dtype=bool)
        away = [actions(time_normalised(motion, share))[:, None] - actions(motion) for share in SHARES]
        missed = np.array([np.sqrt(np.square(one).sum(-1).mean(-1))[others].mean() for one in away])
        worst = np.maximum(worst, missed / max(missed[0], 1e-9))
    return float(SHARES[worst.argmin()])


def observe(given: Curves) -> np.ndarray:
    """What a learner sees at each phase, [demonstration, step, obs], float32.

    The phase, the start pose, and how far from the end and how much turned that is.
    """
    phase = phases(STEPS)
    waves = np.pi * np.array(WAVES) * phase[:, None]
    clock = np.concatenate([2 * phase[:, None] - 1, np.cos(waves), np.sin(waves)], 1)
    start = given.poses[:, :1]
    away = np.linalg.norm(start.reshape(-1, 1, 2, 3), axis=-1)
    shape = (len(start), STEPS)
    parts = [np.broadcast_to(part, (*shape, part.shape[-1])) for part in (clock, start, away)]
    return np.concatenate(parts, -1).astype("f4")


OBSERVATION = 1 + 2 * len(WAVES) + 8


def start_offset(start: np.ndarray) -> np.ndarray:
    """What is left of start poses [demonstration, 6] at each phase, [demonstration, step, 6]: all, less, then none."""
    return (1.0 - phases(STEPS))[:, None] * start[:, None]


def actions(given: Curves) -> np.ndarray:
    """What a learner has to give at each phase, [demonstration, step, 6], float32: the pose less `start_offset`."""
    return (given.poses - start_offset(given.poses[:, 0])).astype("f4")


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

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        if split == "train":
            from quickstudy.families.motions import training

            return training.sample([motion.name for motion in self.motions["train"]], rng)
        motions = self.motions[split]
        return {"motion": motions[rng.integers(len(motions))].name, "seed": int(rng.integers(1 << 31))}

    def trajectories(self, task: Task) -> Curves:
        """All demonstrations of a task, in its order: those that are shown come first."""
        p = task.parameters
        if task.split == "train":
            from quickstudy.families.motions import training

            return training.build(p, self._curves)
        found = self._curves[p["motion"]]
        return found.some(np.random.default_rng(p["seed"]).permutation(len(found.positions)))

    def hidden(self, task: Task) -> np.ndarray:
        """The mean of all demonstrations at some phases, flattened."""
        mean = actions(self.trajectories(task)).mean(0)
        return at_phases(mean, phases(OUTLINE)).astype("f4").ravel()

    def fresh(self) -> Source:
        from quickstudy.families.motions.training import FreshMotions

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


def errors(true: Curves, poses: np.ndarray, unit: float) -> dict[str, np.ndarray]:
    """How far predicted poses [demonstration, step, 6] are from the recorded ones, each [demonstration].

    Returns:
        'rmse': the root of the mean over phases of the squared distance (in units of the task) plus the squared angle
        (radians); 'position' and 'position_dtw' in recorded units, 'orientation' and 'orientation_dtw' in degrees: root
        mean square over phases, and mean along the best alignment in time.
    """
    positions, turned = poses[..., :3], poses[..., 3:]
    apart = np.linalg.norm(positions - true.positions, axis=-1)
    given, wanted = unit_quaternions(turned), unit_quaternions(true.turns)
    turns_count = true.turns.any()  # flat motions have no orientation
    angle = angles_between(given, wanted) * turns_count
    between = np.linalg.norm(positions[:, :, None] - true.positions[:, None], axis=-1)
    around = angles_between(given[:, :, None], wanted[:, None]) * turns_count
    return {
        "rmse": np.sqrt((apart**2 + angle**2).mean(-1)),
        "position": unit * np.sqrt((apart**2).mean(-1)),
        "position_dtw": unit * dynamic_time_warping(between),
        "orientation": np.degrees(np.sqrt((angle**2).mean(-1))),
        "orientation_dtw": np.degrees(dynamic_time_warping(around)),
    }
