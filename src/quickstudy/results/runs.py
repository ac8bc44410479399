"""Run folders: where a training's checkpoints, figures and report lie, and what can be done with one afterwards.

<run>/checkpoints/best, last    the learner, see `quickstudy.io.checkpoint`
<run>/tensorboard               curves
<run>/examples                  a demonstration of a held-out task, to try `adapt` with
<run>/results/<cell>.json       tables of evaluations
<run>/evaluations               what these tables are made of, with all axes kept
<run>/run.json                  what was asked for, by whom it is being done, and where: see `Run`

A comparison is a folder of such runs, `<method>-seed<number>`, with a run.json of its own. The folder alone is enough
to go on with either (`quickstudy resume RUN`) or to repeat it (`quickstudy resume RUN --anew FOLDER`).
"""

import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from quickstudy import datasets
from quickstudy.data import collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.evaluate import Evaluation, adapt, evaluate
from quickstudy.families import own as families
from quickstudy.families.grasping.family import OBJECTS
from quickstudy.families.remote import RemoteFamily
from quickstudy.io import checkpoint, files
from quickstudy.io.provenance import NOTE, read_note
from quickstudy.learner import MetaLearner, Skill
from quickstudy.methods.catalogue import METHODS, UNTRAINED, Settings, build, from_plain
from quickstudy.results.compare import Protocol, rows, rows_by_task, write_cell
from quickstudy.results.evidence import BASELINES, Cell, table
from quickstudy.task import TaskFamily

State = Literal["finished", "running", "stopped"]


@dataclass(frozen=True)
class Run:
    """A run or a comparison, as `quickstudy runs` lists it.

    Attributes:
        folder: where it is.
        kind: 'training' or 'comparison'.
        family, method: what was asked for; the methods of a comparison, joined.
        state: 'running' where the process that does it is alive on this machine.
        progress: done and wanted: outer steps, or (method, seed, split) evaluations.
        headline: its best figure so far, in words.
        changed: when something in it changed last, seconds since 1970.
    """

    folder: Path
    kind: str
    family: str
    method: str
    state: State
    progress: tuple[int, int]
    headline: str
    changed: float


def listed(root: Path) -> list[Run]:
    """The runs and comparisons below a folder, the last changed first; runs of a comparison are not listed apart."""
    folders = {path.parent for path in root.glob(f"**/{NOTE}")}
    folders |= {path.parent.parent for path in root.glob("**/checkpoints/*") if path.is_dir()}
    comparisons = {path.parent for path in root.glob("**/settings.json") if any(path.parent.glob("*-seed*"))}
    own = (folders | comparisons) - {f for f in folders if f.parent in comparisons}
    return sorted((_described(folder) for folder in own), key=lambda run: -run.changed)


def _described(folder: Path) -> Run:
    note = read_note(folder) if (folder / NOTE).exists() else {}
    settings = note.get("settings", {})
    where = next((w for w in ("last", "best") if checkpoint.exists(folder / "checkpoints" / w)), None)
    if (folder / "settings.json").exists() and where is None:
        each = json.loads((folder / "settings.json").read_text())
        family, method = next((s["family"] for s in each.values()), ""), " ".join(note.get("methods", each))
        progress, kind = _evaluated(folder, note, len(each)), "comparison"
    else:
        config = checkpoint.load(folder / "checkpoints" / where).config if where else {}
        settings = config.get("settings", settings)
        family, method, kind = settings.get("family", ""), settings.get("method", ""), "training"
        steps = int(settings.get("training", {}).get("steps", 0))
        progress = (1, 1) if method in UNTRAINED and where else (int(config.get("step", 0)), steps)
    state: State = "finished" if progress[0] >= progress[1] > 0 else "running" if _alive(note) else "stopped"
    changed = max((p.stat().st_mtime for p in folder.rglob("*")), default=0.0)
    return Run(folder, kind, family, method, state, progress, _headline(folder, where), changed)


def _evaluated(folder: Path, note: Mapping[str, Any], methods: int) -> tuple[int, int]:
    """How many evaluations there are, and how many there will be."""
    found = folder.glob("*-seed*/*-*x*-shots-*.json")
    done = {(path.parent.name, re.sub(r"-\d+x\d+-shots-.*", "", path.name)) for path in found}
    splits, seeds = note.get("splits", []), int(note.get("protocol", {}).get("seeds", 0))
    return len(done), max(len(done), len(splits) * seeds * len(note.get("methods", [])) or methods)


def _alive(note: Mapping[str, Any]) -> bool:
    process = note.get("process")
    if note.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _headline(folder: Path, where: str | None) -> str:
    """The best row of the first table, or the best validation figure of a training that was not evaluated yet."""
    for path in sorted((folder / "results").glob("*.json")):
        cell = Cell.read(path)
        made = table(cell)
        place, label = (
            max(i for i, h in enumerate(made.headers) if h.startswith(cell.metric)),
            made.headers.index("method"),
        )
        known = [row for row in made.rows if row[label] not in BASELINES and row[place] != "–"] or made.rows
        return f"{known[0][label]}: {made.headers[place]}: {known[0][place]}"
    history = checkpoint.load(folder / "checkpoints" / where).config.get("history", []) if where else []
    figures = [(key, f[key]) for f in history for key in f if key.startswith("validation/") and f[key] is not None]
    return f"{figures[-1][0]} {figures[-1][1]:.3g}" if figures else ""


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


def begun(folder: Path) -> bool:
    """Whether a training in this folder has a checkpoint to go on from."""
    return checkpoint.exists(folder / "checkpoints/last")


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


def load(
    run: Path, which: str = "best", objects: Path | None = None, unit: str = "m"
) -> tuple[Settings, TaskFamily, MetaLearner]:
    """The settings, family and trained learner of a run folder.

    Args:
        which: 'best' on validation tasks, or 'last'.
        objects, unit: mesh files for the family, see `families.get`.

    Raises:
        QuickstudyError: not a run folder, a damaged checkpoint, or one that does not fit its own settings.
    """
    settings = load_settings(run, which)
    where = Path(run) / "checkpoints" / which
    found = checkpoint.load(where)
    known = found.config.get("interface")  # of a learner that was pulled, whose tasks may be elsewhere
    away = settings.family not in families.FAMILIES and isinstance(known, dict)
    family = RemoteFamily(settings.family, known or {}) if away else families.get(settings.family, objects, unit)
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
    objects: Path | None = None,
    unit: str = "m",
) -> list[Cell]:
    """Evaluates a run's learner on one split, or on every test split, and writes each table to the run folder.

    Args:
        tasks: of each split; by default 100, or all where there are fewer.
        episodes: of each task; by default 5, or all where there are fewer.
        objects, unit: mesh files, each of which is a task of the split 'objects'; that split alone is evaluated where
            no other is named, object by object.
    """
    settings, family, learner = load(run, which, objects, unit)
    if objects is not None and split is None:
        split = OBJECTS
    cells = []
    each = episodes or min(5, family.most_episodes or 5)
    for name in [split] if split else family.test_splits:
        many = tasks or min(100, family.sizes.get(name) or 100)
        started = time.perf_counter()
        result: Evaluation = evaluate(learner, family, name, shots=shots, tasks=many, episodes=each, seed=seed)
        words = "-".join(map(str, shots))
        result.save(run / "evaluations" / f"{name}-{many}x{each}-shots-{words}.json")
        protocol = Protocol(1, (name,), tuple(shots), many, each)
        made = rows(settings.method, family, protocol, [result])
        if name == OBJECTS:
            made += rows_by_task(settings.method, family, [result])
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
