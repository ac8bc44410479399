"""A trained learner as a robot's program uses it: load, adapt, act; arrays or named channels in, NumPy out."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, sound
from quickstudy.evaluation import SkillPolicy, adapt
from quickstudy.io.files import parse_json
from quickstudy.results import runs
from quickstudy.results.adaptation import about_learner, demonstrations_in, leaf_names, save_skill
from quickstudy.task import TaskFamily

Given = Demonstration | tuple[Any, Any] | Mapping[str, Any] | Path | str
"""A demonstration: itself, (observations, actions), a mapping with these two keys, or a file of one task."""


class Robot:
    """A trained learner, ready to learn tasks from demonstrations.

    Attributes:
        family: what it was trained on: names, units and widths of its channels, and the rate.
        first_call_s: seconds that the first adaptation and action took, once it is warmed up.
    """

    def __init__(self, run: Path, learner: Any, family: TaskFamily, about: Mapping[str, Any]) -> None:
        self.run, self.learner, self.family, self.about = run, learner, family, dict(about)
        self.first_call_s: float | None = None

    def adapt(self, demonstrations: Sequence[Given] | Given) -> "LearnedSkill":
        """Learns one task from its demonstrations.

        Raises:
            QuickstudyError: none at all, or one that cannot be used.
        """
        every = [demonstrations] if isinstance(demonstrations, Demonstration | Mapping | Path | str) else demonstrations
        shown = [one for given in every for one in self._shown(given)]
        return LearnedSkill(self, adapt(self.learner, shown, self.family))

    def begin(self) -> "LearnedSkill":
        """The skill before any demonstration."""
        return LearnedSkill(self, self.learner.begin())

    def warm_up(self) -> float:
        """Adapts and acts once, so that no later call loads modules; gives the seconds that it took."""
        started = time.perf_counter()
        example = runs.example_of(self.run)
        skill = self.begin() if example is None else self.adapt(example)
        skill.act(self.learner.base.mean.double().numpy())
        self.first_call_s = time.perf_counter() - started
        return self.first_call_s

    def _shown(self, given: Given) -> list[Demonstration]:
        if isinstance(given, Demonstration):
            return [given]
        if isinstance(given, str | Path):
            return demonstrations_in(Path(given), self.family)
        if isinstance(given, Mapping):
            missing = {"observations", "actions"} - given.keys()
            if missing:
                raise QuickstudyError(f"A demonstration needs 'observations' and 'actions'; it lacks '{min(missing)}'.")
            given = given["observations"], given["actions"]
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise QuickstudyError("A demonstration must be (observations, actions), a mapping with these, or a file.")
        observations, actions = given
        return [
            Demonstration(
                _in_order(observations, self.family.observation_channels, self.family.observation_size, "observations"),
                _in_order(actions, self.family.action_channels, self.family.action_size, "actions"),
            )
        ]


class LearnedSkill:
    """What a robot learned of one task; it keeps what it remembers while it acts."""

    def __init__(self, robot: Robot, skill: Any) -> None:
        self.robot, self._skill = robot, skill
        self.reset()

    @property
    def tree(self) -> Any:
        """The skill itself, as `quickstudy.learner.MetaLearner.adapt` made it."""
        return self._skill

    def reset(self) -> None:
        """A new episode: memories and clocks start again; what was learned stays."""
        self._policy: SkillPolicy | None = None
        self._count = 0

    def act(self, observation: Any) -> np.ndarray:
        """The action [act] for an observation [obs], or [robot, act] for [robot, obs]; named channels likewise.

        Every robot of a batch remembers its own episode, until `reset`.

        Raises:
            QuickstudyError: another width, a channel that is lacking, or a number that is not finite.
        """
        family = self.robot.family
        x = _in_order(observation, family.observation_channels, family.observation_size, "observation")
        single = x.ndim == 1
        rows = np.atleast_2d(x)
        if rows.ndim != 2 or not len(rows):
            raise QuickstudyError(f"An observation must be [obs] or [robot, obs]; got shape {x.shape}.")
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            name = family.observation_channels[bad[0][1]] if family.observation_channels else str(bad[0][1])
            raise QuickstudyError(f"An observation must be finite; channel {name} is {rows[tuple(bad[0])]}.")
        if self._policy is None or self._count != len(rows):
            if self._policy is not None and self._policy.stateful:
                raise QuickstudyError(f"{self._count} robots acted so far, and now {len(rows)}; reset() comes between.")
            self._policy, self._count = (
                SkillPolicy(self.robot.learner, tree_map(lambda t: t[None], self._skill)),
                len(rows),
            )
        action = np.asarray(self._policy(rows[None])[0])
        if not np.isfinite(action).all():
            raise QuickstudyError("What the skill does is not finite; the robot should stay where it is.")
        return action[0] if single else action

    def save(self, path: Path | str) -> None:
        """Writes the skill as .safetensors with what it is of; the file appears whole or not at all."""
        save_skill(self._skill, Path(path), self.robot.about)


def load(run: Path | str, *, warm_up: bool = False) -> Robot:
    """A trained learner from its run folder.

    Args:
        warm_up: adapt and act once now, so that the first real call is as fast as the others.

    Raises:
        QuickstudyError: not a run folder, damaged, or a learner by trial.
    """
    run = Path(run)
    experiment, learner = runs.load(run, adapting=True)
    if experiment.by_trial:
        raise QuickstudyError(
            f"'{run}' holds a '{experiment.method.name}', which learns by its own trials: 'quickstudy export' makes a "
            "bundle of it, whose rewards a robot's program gives step by step."
        )
    robot = Robot(run, learner, experiment.family, about_learner(run, experiment, learner))
    if warm_up:
        robot.warm_up()
    return robot


def load_skill(path: Path | str, robot: Robot | None = None) -> LearnedSkill:
    """A skill that `LearnedSkill.save` or `quickstudy adapt` wrote.

    Args:
        robot: the learner that it is of; loaded from the folder that the file names where not given.

    Raises:
        QuickstudyError: no such file, damaged, or the learner is gone or another.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            about = parse_json((file.metadata() or {}).get("quickstudy", "null"), "metadata")
    except Exception as error:  # damaged files make it raise anything
        raise QuickstudyError(f"'{path}' is not a skill: it cannot be read as .safetensors.") from error
    if not isinstance(about, dict) or "learner" not in about:
        raise QuickstudyError(f"'{path}' does not say which learner's skill it is; 'quickstudy adapt' writes it anew.")
    robot = robot or load(Path(str(about.get("run", ""))))
    if robot.about["learner"] != about["learner"]:
        raise QuickstudyError(f"'{path}' is a skill of another learner than that of '{robot.run}'.")
    begun = robot.learner.begin()
    names, (leaves, spec) = leaf_names(begun), tree_flatten(begun)
    if set(names) != tensors.keys() or any(
        (tensors[n].ndim, tensors[n].dtype) != (leaf.ndim, leaf.dtype) for n, leaf in zip(names, leaves, strict=True)
    ):
        raise QuickstudyError(f"'{path}' does not hold the tensors of a skill of '{robot.about['method']}'.")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise QuickstudyError(f"'{path}' is damaged: a number in it is not finite.")
    skill = LearnedSkill(robot, tree_unflatten([tensors[name] for name in names], spec))
    with sound(f"'{path}' does not hold a skill of '{robot.about['method']}'"):
        skill.act(robot.learner.base.mean.double().numpy())  # its tensors fit together
    skill.reset()
    return skill


def _in_order(given: Any, names: Sequence[str], width: int, what: str) -> np.ndarray:
    """Numbers [..., channel] from an array in order, or from a mapping of named channels, float64."""
    if isinstance(given, Mapping):
        if not names:
            raise QuickstudyError(
                f"This learner's channels have no names; give its {what} as {width} numbers in order."
            )
        missing = [name for name in names if name not in given]
        if missing:
            raise QuickstudyError(f"The {what} lack the channel '{missing[0]}'; the learner has {', '.join(names)}.")
        given = np.stack(np.broadcast_arrays(*(np.asarray(given[name]) for name in names)), -1)
    values = np.asarray(given)
    if values.dtype.kind not in "fiub" or values.ndim < 1 or values.shape[-1] != width:
        raise QuickstudyError(f"The {what} must be numbers [..., {width}]; got shape {values.shape} of {values.dtype}.")
    return values.astype(np.float64)
