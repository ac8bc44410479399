"""Trained learners that are handed on, in the layout of the Hugging Face Hub.

    README.md              the model card: what it is, its results, its limits, how to use it
    config.json            settings, family, versions and checksums
    model.safetensors      the learner
    results/*.json         the tables of its evaluations
    examples/*.npz         demonstrations of held-out tasks, to try `adapt` with

The two files in the middle are a checkpoint, see `quickstudy.io.checkpoint`; nothing is ever unpickled.
"""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quickstudy import families
from quickstudy.errors import QuickstudyError, printable
from quickstudy.experiment import Experiment
from quickstudy.families.remote import interface
from quickstudy.io import checkpoint, files
from quickstudy.results import runs
from quickstudy.results.evidence import Cell
from quickstudy.results.tables import in_markdown, to_markdown
from quickstudy.task import TaskFamily

CARD = "README.md"
_KEPT = ("results/*.json", "examples/*.npz")
_LARGEST = 1 << 30
"""Bytes of a file that is pulled."""


def push(run: Path, target: str, license: str = "") -> str:
    """Puts the best learner of a run into a folder that is not there yet, or into a repository of the Hub.

    Args:
        target: 'owner/name' for a repository, unless it is a path that exists; './folder' or such for a folder.
        license: of the learner, as the Hub names licences.

    Returns:
        where it is.

    Raises:
        QuickstudyError: not a run, a place that is taken, or a Hub that refuses or is out of reach.
    """
    experiment, _ = runs.load(run, adapting=True)
    if not is_repository(target):
        with files.partial_folder(Path(target)) as folder:
            _pack(run, folder, experiment, target, license)
        return target
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "learner"
        _pack(run, folder, experiment, target, license)
        return _upload(folder, target)


def pull(source: str, output: Path | None = None) -> Path:
    """Makes a run folder of what `push` put into a folder or a repository of the Hub.

    Args:
        output: the run folder, which is not there yet; runs/<name> by default.

    Raises:
        QuickstudyError: nothing there, a file missing or damaged, a learner of another version of quickstudy, or a Hub
            that is out of reach.
    """
    run = output or Path("runs") / Path(source).absolute().name
    if run.exists():
        raise QuickstudyError(f"'{run}' is there already; name another --output-dir.")
    folder = _download(source) if is_repository(source) else Path(source)
    if not folder.is_dir():
        raise QuickstudyError(
            f"There is no folder '{source}'; a learner is pulled from a folder that push made, or from 'owner/name' on "
            "the Hugging Face Hub."
        )
    _check_inside(folder, [checkpoint.CONFIG, checkpoint.MODEL, CARD, *_KEPT], is_repository(source))
    found = checkpoint.load(folder)
    with files.partial_folder(run) as made:
        checkpoint.save(made / "checkpoints/best", found.tensors, found.config)
        runs.load(made)  # refuses what does not fit before anything has its name
        _copy(folder, made, [CARD, *_KEPT])
    return run


def _check_inside(folder: Path, patterns: Sequence[str], is_cache: bool) -> None:
    """Raises QuickstudyError where what is pulled is no plain file of that folder, or longer than a learner is.

    Args:
        is_cache: the Hub's cache keeps the files themselves beside the snapshot, which links to them.
    """
    home = folder.resolve().parents[1] if is_cache else folder.resolve()
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        real = path.resolve()
        if not real.is_file() or home not in real.parents:
            raise QuickstudyError(f"'{path}' is no file of that folder, and is not copied.")
        if real.stat().st_size > _LARGEST:
            raise QuickstudyError(f"'{path}' has {real.stat().st_size >> 20} MB; a learner's files have fewer.")


def is_repository(place: str) -> bool:
    """Whether this names a repository of the Hub and not a folder."""
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", place) is not None and not Path(place).exists()


def _pack(run: Path, folder: Path, experiment: Experiment, target: str, license: str) -> None:
    best, family = checkpoint.load(run / "checkpoints/best"), experiment.family
    settings = _portable(asdict(experiment.settings), family)
    known = best.config.get("interface") or {}
    about = {**best.config, "settings": settings, "interface": {**known, **interface(family)}}
    checkpoint.save(folder, best.tensors, about)
    _copy(run, folder, _KEPT)
    cells = [Cell.read(path) for path in sorted((folder / "results").glob("*.json"))]
    name = Path(target).absolute().name
    (folder / CARD).write_text(
        _card(name, target, experiment, cells, license, runs.example_of(folder)), encoding="utf-8"
    )


def _portable(settings: Mapping[str, Any], family: TaskFamily) -> dict[str, Any]:
    """Settings without the paths of this machine: what a path was says nothing elsewhere."""
    named = family.name if families.is_elsewhere(settings["family"]) else settings["family"]
    return {**settings, "family": named, "start": ""}


def _copy(source: Path, target: Path, patterns: Iterable[str]) -> None:
    for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _card(name: str, target: str, experiment: Experiment, cells: list[Cell], license: str, example: Path | None) -> str:
    """The model card."""
    from huggingface_hub import EvalResult, ModelCardData

    settings, family, training = experiment.settings, experiment.family, experiment.settings.training
    results = [
        EvalResult(
            task_type="robotics",
            dataset_type=cell.cell,
            dataset_name=cell.cell,
            metric_type=cell.metric,
            metric_name=f"{cell.metric} after {row.shots} shots",
            metric_value=row.value,
        )
        for cell in cells
        for row in cell.rows
        if row.value is not None
    ]
    data = ModelCardData(
        license=license or None,
        library_name="quickstudy",
        pipeline_tag="robotics",
        tags=[
            "meta-learning",
            "reinforcement-learning" if experiment.by_trial else "few-shot-imitation",
            "robotics",
            experiment.method.name,
        ],
        model_name=name,
        eval_results=results or None,
    )
    if not families.is_elsewhere(settings.family):
        kind, judged, again = "the family", "Its tasks are simulated", f"quickstudy evaluate runs/{name}"
    else:
        kind, judged = "tasks of somebody's own,", "Its tasks are not part of this package"
        again = "# it cannot be evaluated without its family, which is not part of it"
    rate = f", {family.rate:g} steps a second" if family.rate else ""
    if experiment.by_trial:
        adapts, use = "from its own trials and their rewards", again
        needs = f"Observations are {family.observation_size} wide, actions {family.action_size}{rate}."
        each = f"{training.meta_batch} tasks and {training.episodes_per_task} episodes of each"
    else:
        adapts = "from one or a few demonstrations"
        shown = f"runs/{name}/examples/{example.name}" if example else "DEMO.npz"
        use = f"quickstudy adapt runs/{name} --demo {shown}\n{again}"
        needs = (
            f"A demonstration is an .npz with `observations` [step, {family.observation_size}] and `actions`\n"
            f"[step, {family.action_size}]{rate}."
        )
        each = f"{training.meta_batch} tasks each, {training.shots} demonstration(s) to adapt from"
    called, learner = in_markdown(family.name), in_markdown(experiment.method.name)
    name, protocol, target = in_markdown(name), in_markdown(family.protocol), shlex.quote(printable(target))
    tables = "\n\n".join(f"### {cell.cell}\n\n{to_markdown(cell).strip()}" for cell in cells)
    return f"""---
{data.to_yaml().strip()}
---

# {name}

A `{learner}` learner, meta-trained by quickstudy on {kind} `{called}`: it adapts to a new task
{adapts}.

## How to use it

```bash
quickstudy pull {target} --output-dir runs/{name}
{use}
```

{needs} What the channels mean is the family's, and must be the same for yours.

## Results

{tables or "It was not evaluated."}

## Limits

- It was trained for this: {protocol}.
- What it was not trained on (other robots, channels, units or rates) it cannot be expected to do; the intervals above
  say nothing about that.
- {judged}: before it moves a real robot, limit speed and force, and stand by.

## Training

{training.steps} outer steps with {each}, seed {settings.seed}; `config.json` has every setting and the versions.
"""


def _upload(folder: Path, repository: str) -> str:
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        url = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add a learner trained by quickstudy")
    except Exception as error:  # whatever a network, an account or the Hub has against it
        raise _refused(f"Could not push to '{repository}'", error) from error
    return str(url)


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [CARD, checkpoint.CONFIG, checkpoint.MODEL, *_KEPT]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # as above
        raise _refused(f"Could not pull from '{repository}'", error) from error


def _refused(what: str, error: Exception) -> QuickstudyError:
    said = " ".join(str(error).split()) or type(error).__name__
    return QuickstudyError(
        f"{what} on the Hugging Face Hub ({said[:300]}); 'hf auth login' signs in, and a folder is written './folder'."
    )
