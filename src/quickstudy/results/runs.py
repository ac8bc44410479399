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

import dataclasses
import re
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from quickstudy import families, methods, outside
from quickstudy.data import Seen
from quickstudy.errors import QuickstudyError, one_line, printable, sound
from quickstudy.experiment import Experiment
from quickstudy.families.grasping.family import OBJECTS
from quickstudy.families.recorded import RecordedDemonstrations
from quickstudy.families.remote import RemoteFamily, about_of
from quickstudy.io import checkpoint, files
from quickstudy.io.migration import migrated
from quickstudy.io.progress import console
from quickstudy.io.provenance import NOTE, at_work, read_note
from quickstudy.results.evidence import Cell
from quickstudy.results.rows import rows, rows_by_task, write_cell
from quickstudy.results.tables import in_words
from quickstudy.settings import Settings, flat, from_plain
from quickstudy.task import TaskFamily

State = Literal["finished", "running", "stopped", "damaged"]


@dataclass(frozen=True)
class Run:
    """A run or a comparison, as `quickstudy runs` lists it.

    Attributes:
        folder: where it is.
        kind: 'training' or 'comparison'.
        family, method: what was asked for; the methods of a comparison, joined.
        state: 'running' where the process that does it is alive on this machine; 'damaged' where it cannot be read.
        progress: done and wanted: outer steps, or (method, seed, split) evaluations.
        headline: its best figure so far, in words; of a damaged one, what is wrong.
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
    return sorted(map(_listed, own), key=lambda run: -run.changed)


def _listed(folder: Path) -> Run:
    """A run as it is listed; one that is damaged hides no other."""
    try:
        return _described(folder)
    except Exception as error:  # files that others wrote, changed or cut off hold anything
        told = isinstance(error, QuickstudyError)
        said = str(error) if told else f"{folder} holds what no run holds ({type(error).__name__}: {one_line(error)})"
        return Run(folder, "training", "", "", "damaged", (0, 0), said, _changed(folder))


def _changed(folder: Path) -> float:
    """When something in a folder changed last; what vanishes meanwhile, or leads nowhere, does not count."""
    times = [0.0]
    for path in folder.rglob("*"):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def _described(folder: Path) -> Run:
    note = read_note(folder) if (folder / NOTE).exists() else {}
    settings = note.get("settings", {})
    where = next((w for w in ("last", "best") if checkpoint.exists(folder / "checkpoints" / w)), None)
    if is_comparison(folder):
        each = files.read_json(folder / "settings.json")
        family, method = next((s["family"] for s in each.values()), ""), " ".join(note.get("methods", each))
        progress, kind = _evaluated(folder, note, len(each)), "comparison"
    else:
        config = checkpoint.load(folder / "checkpoints" / where).config if where else {}
        settings = migrated(config.get("settings", settings))
        family, method, kind = settings.get("family", ""), settings.get("method", ""), "training"
        steps = int(settings.get("training", {}).get("steps", 0))
        at_once = where == "best" and "step" not in config  # a method that is not trained
        progress = (1, 1) if at_once else (int(config.get("step", 0)), steps)
    state: State = "finished" if progress[0] >= progress[1] > 0 else "running" if _alive(note) else "stopped"
    family, method, headline = (printable(str(one)) for one in (family, method, _headline(folder, where)))
    return Run(folder, kind, family, method, state, progress, headline, _changed(folder))


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison, and not a training."""
    trained = any(checkpoint.exists(folder / "checkpoints" / which) for which in ("last", "best"))
    return (folder / "settings.json").exists() and not trained


def _evaluated(folder: Path, note: Mapping[str, Any], compared: int) -> tuple[int, int]:
    """How many evaluations there are, and how many there will be."""
    found = folder.glob("*-seed*/*-*x*-shots-*.json")
    done = {(path.parent.name, re.sub(r"-\d+x\d+-shots-.*", "", path.name)) for path in found}
    splits, seeds = note.get("splits", []), int(note.get("protocol", {}).get("seeds", 0))
    return len(done), max(len(done), len(splits) * seeds * len(note.get("methods", [])) or compared)


def _alive(note: Mapping[str, Any]) -> bool:
    process = note.get("process")
    if note.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    return files.is_alive(process)


def _headline(folder: Path, where: str | None) -> str:
    """The best method of the first table after its most experience, or the last validation figure of a training."""
    for path in sorted((folder / "results").glob("*.json")):
        cell = Cell.read(path)
        rows = [row for row in cell.rows if row.value is not None and not row.workload]
        best = next((row.method for row in rows if row.role == "meta-learner"), rows[0].method)
        whose = "" if where else f"{best}: "
        return whose + in_words(cell, [row for row in rows if row.method == best][-1])
    history = checkpoint.load(folder / "checkpoints" / where).config.get("history", []) if where else []
    figures = [(key, f[key]) for f in history for key in f if key.startswith("validation/") and f[key] is not None]
    return f"{figures[-1][0].replace('/', ' ')} {figures[-1][1]:.3g}" if figures else ""


def new_folder(root: Path, family: str, method: str) -> Path:
    """`root/<family>-<method>/<time>`, not yet there."""
    return root / f"{family}-{method.split(':')[-1]}" / datetime.now().strftime("%Y-%m-%d-%H%M%S")


def check_folder(folder: Path, settings: Settings, resume: bool) -> None:
    """Raises QuickstudyError where a training must not start in this folder, before anything is computed."""
    if not begun(folder):
        if folder.is_file():
            raise QuickstudyError(f"'{folder}' is a file; a run needs a folder of its own.")
        if is_comparison(folder):
            raise QuickstudyError(f"'{folder}' holds a comparison; a run needs a folder of its own.")
        if resume:
            raise QuickstudyError(f"There is nothing to resume in '{folder}': it has no checkpoints/last.")
        return
    if not resume:
        raise QuickstudyError(f"'{folder}' holds a run already; add --resume to go on with it, or name another folder.")
    then = load_settings(folder, "last")
    then_family = families.located(then.family)  # older versions kept a user's own path as it was typed
    if then.method != settings.method or then_family != settings.family:
        raise QuickstudyError(
            f"'{folder}' holds a checkpoint of '{then.method}' on '{then.family}', not of '{settings.method}' on "
            f"'{settings.family}'."
        )
    before, now = flat(asdict(then) | {"family": then_family}), flat(asdict(settings))
    changed = [f"{name} ({before.get(name)})" for name, value in now.items() if before.get(name) != value]
    if changed:
        raise QuickstudyError(
            f"'{folder}' was trained with other settings: {', '.join(changed)}; "
            f"'quickstudy resume {shlex.quote(str(folder))}' goes on with its own."
        )


def begun(folder: Path) -> bool:
    """Whether a training in this folder has a checkpoint to go on from."""
    return checkpoint.exists(folder / "checkpoints/last")


def is_finished(folder: Path) -> bool:
    """Whether a training in this folder has made all its steps and has a best learner."""
    if not begun(folder) or not checkpoint.exists(folder / "checkpoints/best"):
        return False
    config = checkpoint.load(folder / "checkpoints/last").config
    return int(config.get("step", 0)) >= load_settings(folder, "last").training.steps


def settings_from_plain(plain: Mapping[str, Any], where: str) -> Settings:
    """Settings from what JSON kept of them, also by an older version, whose names are translated.

    Raises:
        QuickstudyError: an unknown method, or settings that the method does not have.
    """
    plain = migrated(plain)
    if not isinstance(plain.get("method"), str) or not isinstance(plain.get("family"), str):
        raise QuickstudyError(f"'{where}' does not say which method was trained on which family.")
    method = methods.get(plain["method"])
    surplus = plain.keys() - {field.name for field in dataclasses.fields(Settings)}
    if surplus:
        raise QuickstudyError(f"'{where}' has the unknown setting {', '.join(sorted(surplus))}.")
    kinds = {"network": method.network, "algorithm": method.settings, "training": method.training}
    parts = {name: from_plain(kind, plain.get(name, {}), where) for name, kind in kinds.items()}
    made: Settings = from_plain(Settings, {n: v for n, v in plain.items() if n not in kinds}, where)
    # Files of older versions may name other values of what the method's name stands for; it was built with these.
    return dataclasses.replace(made, **parts).changed({"algorithm": method.fixed})


def load_settings(run: Path, which: str = "best") -> Settings:
    """The settings of a run folder.

    Raises:
        QuickstudyError: not a run folder, or a damaged checkpoint.
    """
    where = Path(run) / "checkpoints" / which
    if not checkpoint.exists(where):
        if is_comparison(Path(run)):
            each = sorted(path.parent.parent for path in Path(run).glob("*-seed*/checkpoints/best"))
            one = f", such as '{each[0]}'" if each else ""
            raise QuickstudyError(f"'{run}' is a comparison; name one of the runs in it{one}.")
        raise QuickstudyError(
            f"'{run}' is not a run folder: it has no checkpoints/{which}. 'quickstudy train' makes one and says where."
        )
    plain = checkpoint.load(where).config.get("settings")
    if not isinstance(plain, dict):
        raise QuickstudyError(f"'{where}/config.json' does not say with which settings it was trained.")
    return settings_from_plain(plain, f"{where}/config.json")


def load(
    run: Path | str, which: str = "best", objects: Path | None = None, unit: str = "m", adapting: bool = False
) -> tuple[Experiment, Any]:
    """The experiment and the trained learner of a run folder.

    Args:
        which: 'best' on validation tasks, or 'last'.
        objects, unit: mesh files for the family, see `families.get`.
        adapting: only to adapt to new demonstrations: a user's own data that was trained on is not read again.

    Raises:
        QuickstudyError: not a run folder, a damaged checkpoint, or one that does not fit its own settings.
    """
    with sound(f"'{run}' cannot be loaded"):
        return _load(Path(run), which, objects, unit, adapting)


def _load(run: Path, which: str, objects: Path | None, unit: str, adapting: bool) -> tuple[Experiment, Any]:
    settings = load_settings(run, which)
    where = run / "checkpoints" / which
    found = checkpoint.load(where)
    known = found.config.get("interface")  # not of a learner of an older version
    family = _family(settings, known if isinstance(known, dict) else None, objects, unit, adapting)
    experiment = Experiment(family, methods.get(settings.method), settings)
    learner = experiment.build()
    if not experiment.by_trial:
        if not any(name.startswith("scaling.") for name in found.tensors):
            learner.scaling = None  # its training was before there was any
        learner.seen = _seen(found, family)
    checkpoint.load_into(learner, found.tensors, str(where))
    return experiment, learner.eval()


def _family(
    settings: Settings, known: Mapping[str, Any] | None, objects: Path | None, unit: str, adapting: bool
) -> TaskFamily:
    """The family of a run: what its learner knows of it where that must do, or the family itself."""
    name, is_path = settings.family, families.is_path(settings.family)
    if known is not None and families.is_elsewhere(name) and ":" not in name:
        remote = RemoteFamily(name, known)
        if adapting or not is_path or not Path(name).exists():
            return remote
        family = families.get(name, objects, unit, settings.reading)
        if isinstance(family, RecordedDemonstrations) and about_of(family) != about_of(remote):
            return families.from_dataset(Path(name), reading=settings.reading, like=about_of(remote))
        return family
    return families.get(name, objects, unit, settings.reading)


def _seen(found: checkpoint.Checkpoint, family: TaskFamily) -> Seen | None:
    """What training showed a learner."""
    known = (found.config.get("interface") or {}).get("seen")
    if known:
        return outside.from_plain(known)
    mean, deviation = (found.tensors.get(f"base.{name}") for name in ("mean", "deviation"))
    if mean is None or deviation is None or len(mean) != family.observation_size:
        return None
    return outside.roughly(mean.double().numpy(), deviation.double().numpy(), family.action_size)


def train_run(experiment: Experiment, folder: Path, resume: bool, command: str, device: str = "cpu") -> None:
    """Trains in a run folder, which gets a note of how it was made and an example to adapt to."""
    settings = experiment.settings
    check_folder(folder, settings, resume)
    experiment.start(device)  # what cannot be had is told before anything is written
    source = experiment.source()
    goes_on = f"quickstudy resume {shlex.quote(str(folder))} goes on from there"
    with at_work(folder, "training", command, {"settings": asdict(settings)}):
        check_folder(folder, settings, resume)  # another one may have begun since
        experiment.train(folder, source=source, resume=resume, device=device, goes_on=goes_on)
    if not experiment.by_trial:
        save_example(experiment.family, folder)


def save_example(family: TaskFamily, folder: Path) -> Path:
    """Puts a demonstration of the first task of the first test split into the run folder."""
    split = family.test_splits[0]
    path = folder / "examples" / f"{split}-0.npz"
    family.demonstrate(family.tasks(split, 1), 1, seed=0)[0][0].save(path)
    return path


def example_of(run: Path) -> Path | None:
    """A demonstration of a held-out task that lies in a run folder, if there is one."""
    return next(iter(sorted((run / "examples").glob("*.npz"))), None)


def evaluate_run(
    run: Path,
    split: str | None,
    shots: Sequence[int] | None,
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
        shots, tasks, episodes: of each split, see `Experiment.evaluate`.
        objects, unit: mesh files, each of which is a task of the split 'objects'; that split alone is evaluated where
            no other is named, object by object.
    """
    experiment, learner = load(run, which, objects, unit)
    family, method = experiment.family, experiment.method
    if objects is not None and split is None:
        split = OBJECTS
    shots = experiment.default_shots if shots is None else shots
    cells = []
    for name in [split] if split else family.test_splits:
        started = time.perf_counter()
        result = experiment.evaluate(learner, name, shots=shots, tasks=tasks, episodes=episodes, seed=seed)
        if result.note:
            console.print(escape(result.note), soft_wrap=True)
        count, each = result.metrics[family.metric].shape[1:]
        words = "-".join(map(str, shots))
        result.save(run / "evaluations" / f"{name}-{count}x{each}-shots-{words}.json")
        made = rows(method, family, [result])
        if name == OBJECTS:
            made += rows_by_task(method, family, [result])
        cells.append(write_cell(family, name, made, time.perf_counter() - started, run, command))
    return cells
