"""The command `adapt`: a skill from a user's own demonstrations, and what is to be told about them."""

import hashlib
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves

from quickstudy import datasets, outside
from quickstudy.data import collate
from quickstudy.datasets import angles
from quickstudy.datasets.channels import as_in
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import adapt
from quickstudy.experiment import Experiment
from quickstudy.families.remote import about_of
from quickstudy.io import files
from quickstudy.io.provenance import versions
from quickstudy.learner import MetaLearner, Skill
from quickstudy.results import runs
from quickstudy.settings import ReadingConfig
from quickstudy.task import TaskFamily

_PARTS = 4
"""Parts of a demonstration that are left out in turn, to see whether the rest of it teaches them."""
_SHORTEST = 3
"""Steps of such a part."""


@dataclass(frozen=True)
class Adapted:
    """What `adapt_run` found.

    Attributes:
        skill: where the skill is.
        before, after: imitation error on the demonstrations, in their own units squared.
        milliseconds: that adaptation took.
        outside: the channel that lies farthest outside of training; None where nothing is known of training.
        unseen: imitation errors on each part that was left out in turn, of the skill before any demonstration and of
            that which the rest of the demonstrations taught, [part, 2]; None where there is too little.
    """

    skill: Path
    before: float
    after: float
    milliseconds: float
    outside: outside.Outside | None
    unseen: np.ndarray | None

    @property
    def verdict(self) -> str:
        """Whether adapting is any better than not to, in a sentence or two."""
        if self.unseen is None:
            return "The demonstration is too short to tell whether adapting is better than not to."
        without, adapted = self.unseen.mean(0)
        better, parts = int((self.unseen[:, 1] < self.unseen[:, 0]).sum()), len(self.unseen)
        said = (
            f"On parts that it was not shown, each left out in turn, the error is {adapted:.4g} adapted and "
            f"{without:.4g} without: "
        )
        if adapted >= without:
            return f"{said}adapting is no better than not to, so do not rely on this skill."
        sure = "surely" if better == parts and adapted < without / 2 else "probably"
        return f"{said}adapting {sure} helps (in {better} of {parts} parts)."


def adapt_run(run: Path, demos: Sequence[Path], output: Path | None, reading: ReadingConfig | None = None) -> Adapted:
    """Adapts a run's learner to demonstrations of one task in files or data sets, and saves the skill as safetensors.

    Args:
        reading: how the demonstrations are read; as the data of the training by default.

    Raises:
        QuickstudyError: not a run folder, a learner by trial, demonstrations that do not fit or lie too far outside of
            training, or a skill that is not finite; nothing is written then.
    """
    experiment, learner = runs.load(run, adapting=True)
    if experiment.by_trial:
        raise QuickstudyError(
            f"'{run}' holds a '{experiment.method.name}', which learns a task by its own trials and takes no "
            f"demonstration; quickstudy evaluate {shlex.quote(str(run))} lets it try."
        )
    demonstrations = all_demonstrations(demos, experiment, reading)
    family = experiment.family
    adapt(learner, demonstrations, family)  # the first call of a process loads modules for seconds, no robot's wait
    started = time.perf_counter()
    skill = adapt(learner, demonstrations, family)
    milliseconds = (time.perf_counter() - started) * 1e3
    before, after = (imitation_error(learner, some, demonstrations, family) for some in (learner.begin(), skill))
    if not np.isfinite([before, after]).all():
        raise QuickstudyError(
            f"No skill came of the demonstration: its imitation error is {before:.4g} before and {after:.4g} after, "
            "and only finite numbers are a result."
        )
    far = None if learner.seen is None else outside.farthest(learner.seen, demonstrations, family)
    path = output or run / "skill.safetensors"
    save_skill(skill, path, about_learner(run, experiment, learner))
    return Adapted(path, before, after, milliseconds, far, _unseen(learner, demonstrations, family))


def all_demonstrations(
    paths: Sequence[Path], experiment: Experiment, reading: ReadingConfig | None = None
) -> list[Demonstration]:
    """The demonstrations of one task in files or data sets, with the channels of the experiment's family.

    Args:
        reading: how they are read; as the data of the training by default.

    Raises:
        QuickstudyError: as `demonstrations_in`.
    """
    used = reading if reading not in (None, ReadingConfig()) else experiment.settings.reading
    return [one for path in paths for one in demonstrations_in(path, experiment.family, used)]


def demonstrations_in(path: Path, family: TaskFamily, reading: ReadingConfig | None = None) -> list[Demonstration]:
    """The demonstrations of a file, or of a data set of one task, with the channels of a family by name.

    Raises:
        QuickstudyError: not a demonstration or a data set, several tasks, another rate, or a channel that is lacking
            or in another unit.
    """
    if path.suffix == ".npz" and not datasets.holds(path, "task"):
        return [Demonstration.load(path)]
    recording = as_in(datasets.load(path, reading), about_of(family))
    labels = sorted(recording.counts)
    if len(labels) > 1:
        raise QuickstudyError(f"'{path}' has {len(labels)} tasks ('{labels[0]}', '{labels[1]}'); one is adapted to.")
    ours, theirs = family.rate, recording.about.rate
    if ours and theirs and not np.isclose(ours, theirs, rtol=0.01):
        raise QuickstudyError(
            f"'{path}' has {theirs:g} steps a second; this learner was trained at {ours:g}, which --rate {ours:g} "
            "brings it to."
        )
    return [one for one, _ in recording.demonstrations()]


def imitation_error(
    learner: MetaLearner, skill: Skill, demonstrations: Sequence[Demonstration], family: TaskFamily
) -> float:
    """How badly a skill imitates demonstrations: the mean squared error of actions in their own units, angles the
    short way round; where classes are recognised, the cross-entropy."""
    if family.labelled:
        batch = collate([demonstrations], np.zeros((1, 0)), learner.scaling)
        whole = batch._replace(y=batch.y[0], mask=batch.mask[0])
        with torch.no_grad():
            return float(learner.base.criterion(learner.predict(skill, batch.x[0]), whole))
    wraps = angles.find([d.actions for d in demonstrations], family.action_channels, family.action_units)
    scaling, errors = learner.scaling, []
    for one in demonstrations:
        x = one.observations if scaling is None else scaling.observations(one.observations)
        with torch.no_grad():
            done = learner.predict(skill, torch.from_numpy(x.astype("f4"))).numpy()
        done = done if scaling is None else scaling.restored(done)
        errors.append(np.square(wraps.difference(done, one.actions)).mean(-1))
    return float(np.concatenate(errors).mean())


def _unseen(learner: MetaLearner, demonstrations: Sequence[Demonstration], family: TaskFamily) -> np.ndarray | None:
    """See `Adapted.unseen`."""
    errors = []
    for shown, left_out in _left_out(demonstrations):
        skills = learner.begin(), adapt(learner, shown, family)
        errors.append([imitation_error(learner, skill, left_out, family) for skill in skills])
    return np.array(errors) if errors else None


def _left_out(
    demonstrations: Sequence[Demonstration],
) -> Iterator[tuple[list[Demonstration], list[Demonstration]]]:
    """Each demonstration in turn and the others; or, of one alone, each part in turn and the others."""
    every = list(demonstrations)
    if len(every) > 1:
        for i, one in enumerate(every):
            yield every[:i] + every[i + 1 :], [one]
        return
    (whole,) = every
    if len(whole) < _PARTS * _SHORTEST:
        return
    ends = np.linspace(0, len(whole), _PARTS + 1).astype(int)
    for first, last in pairwise(ends.tolist()):
        others = [slice(0, first), slice(last, None)]
        parts = [
            Demonstration(whole.observations[part], whole.actions[part])
            for part in others
            if len(whole.observations[part])
        ]
        yield parts, [Demonstration(whole.observations[first:last], whole.actions[first:last])]


def about_learner(run: Path, experiment: Experiment, learner: MetaLearner) -> dict[str, Any]:
    """What a skill file says of the learner that it is of, as plain data."""
    family, made = experiment.family, hashlib.sha256()
    for name, tensor in sorted(learner.state_dict().items()):
        made.update(name.encode())
        made.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "run": str(run.resolve()), "method": experiment.settings.method, "family": family.name, "rate": family.rate,
        "observation": list(family.observation_channels), "action": list(family.action_channels),
        "observation_units": list(family.observation_units), "action_units": list(family.action_units),
        "learner": made.hexdigest(), "versions": versions(),
    }  # fmt: skip


def save_skill(skill: Skill, path: Path, about: Mapping[str, Any]) -> None:
    """Writes a skill's tensors by their place in its tree, and what it is of; the file appears whole or not at all.

    Raises:
        QuickstudyError: one holds a number that is not finite.
    """
    tensors = {n: t.detach().contiguous().clone() for n, t in zip(leaf_names(skill), tree_leaves(skill), strict=True)}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise QuickstudyError(f"'{path}' was not written: the skill's '{name}' holds a number that is not finite.")
    files.write(path, safetensors.torch.save(tensors, {"quickstudy": json.dumps(about, allow_nan=False)}))


def leaf_names(tree: Any) -> list[str]:
    """A name for each tensor of a tree, in its order, of letters, digits, dots and underscores."""
    places = [keystr(where) for where, _ in tree_flatten_with_path(tree)[0]]
    made = [re.sub(r"[^\w.]+", "_", place).strip("_.") or "skill" for place in places]
    return [name if made.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(made)]
