"""Run folders: where a training's checkpoints, figures and report lie, and what can be done with one afterwards.

<run>/checkpoints/best, last    the learner, see `quickstudy.checkpoint`
<run>/tensorboard               curves
<run>/examples                  a demonstration of a held-out task, to try `adapt` with
<run>/results/<cell>.json       tables of evaluations
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from quickstudy import checkpoint, datasets, families, files
from quickstudy.compare import Protocol, rows, write_cell
from quickstudy.data import collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.evaluate import Evaluation, adapt, evaluate
from quickstudy.learner import MetaLearner, Skill
from quickstudy.methods import METHODS, Settings, build, from_plain
from quickstudy.results import Cell
from quickstudy.skills.elsewhere import Elsewhere
from quickstudy.task import TaskFamily


def new_folder(root: Path, family: str, method: str) -> Path:
    """`root/<family>-<method>/<time>`, not yet there."""
    return root / f"{family}-{method}" / datetime.now().strftime("%Y-%m-%d-%H%M%S")


def check_folder(folder: Path, settings: Settings, resume: bool) -> None:
    """Raises QuickstudyError where a training must not start in this folder, before anything is computed."""
    where = folder / "checkpoints/last"
    if not checkpoint.exists(where):
        if folder.is_file():
            raise QuickstudyError(f"'{folder}' is a file; a run needs a folder of its own.")
        if resume:
            raise QuickstudyError(f"There is nothing to resume in '{folder}': it has no checkpoints/last.")
        return
    if not resume:
        raise QuickstudyError(f"'{folder}' holds a run already; add --resume to go on with it, or name another folder.")
    then = load_settings(folder, "last")
    if then.method != settings.method or then.family != settings.family:
        raise QuickstudyError(
            f"'{folder}' holds a checkpoint of '{then.method}' on '{then.family}', not of '{settings.method}' on "
            f"'{settings.family}'."
        )
    changed = [name for name, value in asdict(settings).items() if asdict(then)[name] != value]
    if changed:
        raise QuickstudyError(
            f"'{folder}' was trained with other settings of {', '.join(changed)}; resume with the same."
        )


def load_settings(run: Path, which: str = "best") -> Settings:
    """The settings of a run folder.

    Raises:
        QuickstudyError: not a run folder, or a damaged checkpoint.
    """
    where = Path(run) / "checkpoints" / which
    if not checkpoint.exists(where):
        raise QuickstudyError(
            f"'{run}' is not a run folder: it has no checkpoints/{which}. 'quickstudy train' makes one and says where."
        )
    plain = checkpoint.load(where).config.get("settings")
    if not isinstance(plain, dict):
        raise QuickstudyError(f"'{where}/config.json' does not say with which settings it was trained.")
    settings: Settings = from_plain(Settings, plain, f"{where}/config.json")
    if settings.method not in METHODS:
        raise unknown(f"method in '{where}/config.json'", settings.method, METHODS)
    return settings


def load(run: Path, which: str = "best") -> tuple[Settings, TaskFamily, MetaLearner]:
    """The settings, family and trained learner of a run folder.

    Args:
        which: 'best' on validation tasks, or 'last'.

    Raises:
        QuickstudyError: not a run folder, a damaged checkpoint, or one that does not fit its own settings.
    """
    settings = load_settings(run, which)
    where = Path(run) / "checkpoints" / which
    found = checkpoint.load(where)
    known = found.config.get("interface")  # of a learner that was pulled, whose tasks may be elsewhere
    away = settings.family not in families.FAMILIES and isinstance(known, dict)
    family = Elsewhere(settings.family, known or {}) if away else families.get(settings.family)
    learner = build(settings, family)
    checkpoint.load_into(learner, found.tensors, str(where))
    return settings, family, learner.eval()


def save_example(family: TaskFamily, folder: Path) -> Path:
    """Puts a demonstration of the first task of the first test split into the run folder."""
    split = family.test_splits[0]
    path = folder / "examples" / f"{split}-0.npz"
    family.demonstrate(family.tasks(split, 1), 1, seed=0)[0][0].save(path)
    return path


def evaluate_run(
    run: Path,
    split: str | None,
    shots: Sequence[int],
    tasks: int | None,
    episodes: int | None,
    seed: int,
    which: str,
    command: str,
) -> list[Cell]:
    """Evaluates a run's learner on one split, or on every test split, and writes each table to the run folder.

    Args:
        tasks: of each split; by default 100, or all where there are fewer.
        episodes: of each task; by default 5, or all where there are fewer.
    """
    settings, family, learner = load(run, which)
    cells = []
    each = episodes or min(5, family.most_episodes or 5)
    for name in [split] if split else family.test_splits:
        many = tasks or min(100, family.sizes.get(name) or 100)
        started = time.perf_counter()
        result: Evaluation = evaluate(learner, family, name, shots=shots, tasks=many, episodes=each, seed=seed)
        protocol = Protocol(1, (name,), tuple(shots), many, each)
        made = rows(settings.method, family, protocol, [result])
        cells.append(write_cell(family, name, made, time.perf_counter() - started, run, command))
    return cells


def adapt_run(run: Path, files: Sequence[Path], output: Path | None) -> tuple[Path, float, float, float]:
    """Adapts a run's learner to demonstrations of one task in files or data sets, and saves the skill as safetensors.

    Returns:
        where the skill is, the imitation error on the demonstrations before and after, and the milliseconds it took.
    """
    _, family, learner = load(run)
    demonstrations = [one for path in files for one in demonstrations_in(path, family.rate)]
    adapt(learner, demonstrations)  # the first call of a process loads modules for seconds, which no robot waits for
    started = time.perf_counter()
    skill = adapt(learner, demonstrations)
    milliseconds = (time.perf_counter() - started) * 1e3
    batch = collate([demonstrations], np.zeros((1, 0)))
    with torch.no_grad():
        before, after = (
            float(
                learner.base.criterion(learner.predict(s, batch.x[0]), batch._replace(y=batch.y[0], mask=batch.mask[0]))
            )
            for s in (learner.begin(), skill)
        )
    path = output or run / "skill.safetensors"
    save_skill(skill, path)
    return path, before, after, milliseconds


def demonstrations_in(path: Path, rate: float | None) -> list[Demonstration]:
    """The demonstrations of a file, or of a data set of one task.

    Args:
        rate: the steps a second that they must have, if both sides say it.

    Raises:
        QuickstudyError: not a demonstration or a data set, several tasks, or another rate.
    """
    if path.suffix == ".npz" and not datasets.holds(path, "task"):
        return [Demonstration.load(path)]
    recording = datasets.load(path)
    labels = sorted(recording.counts)
    if len(labels) > 1:
        raise QuickstudyError(f"'{path}' has {len(labels)} tasks ('{labels[0]}', '{labels[1]}'); one is adapted to.")
    theirs = recording.about.rate
    if rate and theirs and not np.isclose(rate, theirs, rtol=0.01):
        raise QuickstudyError(f"'{path}' has {theirs:g} steps a second; this learner was trained at {rate:g}.")
    return [one for one, _ in recording.demonstrations()]


def save_skill(skill: Skill, path: Path) -> None:
    """Writes a skill's tensors by their place in its tree; the file appears whole or not at all."""
    leaves, _ = tree_flatten_with_path(skill)
    tensors = {keystr(where): leaf.detach().contiguous().clone() for where, leaf in leaves}
    files.write(path, safetensors.torch.save(tensors))
