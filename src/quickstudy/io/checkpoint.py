"""Checkpoints: a folder of safetensors and JSON that is there whole or not at all, and that loads without pickle.

    model.safetensors       the learner's state_dict
    config.json             what it is: method, family, configuration, step, metrics, versions, checksums
    training.safetensors    optional, with training.json: optimiser, schedule, random states, to resume exactly

A save writes the sibling `.NAME.partial`, flushes it to the disk and renames it. A folder that is there already steps
aside as `.NAME.previous` for the moment between two renames; `load` and `exists` find it there, so that a whole
checkpoint can be read whenever the machine stops. One with a training state stays as `.NAME.before` until the next
save, and is taken where the newer one turns out to be damaged.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from quickstudy.errors import QuickstudyError, listed, sound
from quickstudy.io.files import parse_json, reason
from quickstudy.io.migration import renamed
from quickstudy.io.progress import console
from quickstudy.io.provenance import versions

FORMAT = "quickstudy-checkpoint-1"

MODEL = "model.safetensors"
CONFIG = "config.json"
TRAINING = "training.json"
TRAINING_TENSORS = "training.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes:
        tensors: the learner's state_dict, on the CPU.
        config: the mapping that was saved, with `versions` added.
        training: the nested state that was saved, or None.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    training: Any | None


def save(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], training: Any | None = None) -> None:
    """Writes a checkpoint, in place of one that is already there.

    Args:
        tensors: a state_dict; on any device, tied weights allowed.
        config: numbers, strings, paths, None, and lists and mappings of them. A number that is not finite becomes null.
        training: nested dicts, lists and tuples of tensors, numbers, strings and None; dict keys may be integers.

    Raises:
        QuickstudyError: a tensor holds NaN or infinity, a value has no place in a checkpoint, or the disk refuses. In
            each case the checkpoint that was there before stays as it was.
    """
    folder = Path(folder)
    files = _contents(tensors, config, training)
    partial = _sibling(folder, "partial")
    if folder.exists() and not folder.is_dir():
        raise QuickstudyError(f"Cannot write a checkpoint to '{folder}': a file of that name is in the way.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        partial.mkdir()
        for name, content in files.items():
            _write(partial / name, content)
        _sync_folder(partial)
        _replace(folder, partial, keep=training is not None)
    except OSError as error:
        _remove(partial)
        kept = "; the checkpoint that was there before is untouched" if exists(folder) else ""
        raise QuickstudyError(f"Could not write checkpoint '{folder}': {reason(error)}{kept}.") from error


def exists(folder: Path) -> bool:
    """Whether `load` would find a checkpoint there; it may still turn out to be damaged."""
    return _present(Path(folder)).is_dir()


def load(folder: Path) -> Checkpoint:
    """Reads what `save` wrote, onto the CPU; never unpickles.

    Where it is damaged and the one before it is there, that one is taken, which is said.

    Raises:
        QuickstudyError: there is no such folder, it is not a checkpoint, or a file of it is missing or damaged.
    """
    folder = _present(Path(folder))
    before = _sibling(folder, "before")
    try:
        return _load(folder)
    except QuickstudyError as error:
        if not folder.is_dir() or not _is_whole(before):
            raise
        console.print(f"{error} The checkpoint before it is whole and is taken.", markup=False, soft_wrap=True)
        return _load(before)


def _is_whole(folder: Path) -> bool:
    try:
        _load(folder)
    except QuickstudyError:
        return False
    return True


def _load(folder: Path) -> Checkpoint:
    if folder.is_file():
        raise QuickstudyError(f"'{folder}' is a file; a checkpoint is a folder that holds {CONFIG} and {MODEL}.")
    if not folder.is_dir():
        raise QuickstudyError(f"There is no checkpoint folder '{folder}'.")
    if not (folder / CONFIG).is_file():
        raise QuickstudyError(f"'{folder}' is not a checkpoint: it holds no {CONFIG}.")
    config = parse_json(_read(folder / CONFIG), f"'{folder / CONFIG}' is damaged: it")
    if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
        raise QuickstudyError(f'\'{folder / CONFIG}\' does not say "format": "{FORMAT}"; it is no checkpoint of ours.')
    checksums = config.pop("sha256", None)
    if not isinstance(checksums, dict) or MODEL not in checksums:
        raise QuickstudyError(f"'{folder / CONFIG}' is damaged: it lacks the checksum of {MODEL}.")
    names = [name for name in (MODEL, TRAINING, TRAINING_TENSORS) if name in checksums]
    content = {name: _read_checked(folder / name, checksums[name]) for name in names}
    training = None
    if TRAINING in content:
        with sound(f"'{folder / TRAINING}' is damaged"):
            leaves = _parse_tensors(folder / TRAINING_TENSORS, content[TRAINING_TENSORS])
            training = _decode(parse_json(content[TRAINING], f"'{folder / TRAINING}'"), leaves)
    return Checkpoint(_parse_tensors(folder / MODEL, content[MODEL]), config, training)


def load_to_resume(folder: Path, now: Mapping[str, Any], defaults: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint whose training goes on with the settings `now`; one added since then has its default.

    Raises:
        QuickstudyError: as `load` does; or without a training state, or trained with other settings.
    """
    try:
        saved = load(folder)
    except QuickstudyError as error:
        best = folder.with_name("best")
        if not _is_whole(best):
            raise
        raise QuickstudyError(f"{error} '{best}' is whole: 'quickstudy evaluate' and 'adapt' use it.") from error
    if saved.training is None:
        raise QuickstudyError(f"'{folder}' has no training state to resume from.")
    then = {**defaults, **renamed(saved.config.get("training", {}))}
    if then != now:
        changed = [name for name, value in now.items() if then.get(name) != value]
        raise QuickstudyError(
            f"'{folder}' was trained with other settings ({', '.join(changed)}); resume with the same ones or train in "
            "a new folder."
        )
    return saved


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copies a state_dict into a module that must have exactly its names and shapes.

    Args:
        where: what the tensors came from, for the error's sentence.

    Raises:
        QuickstudyError: names are missing or unexpected, shapes or types differ, or a number is not finite; the module
            is then unchanged.
    """
    own = module.state_dict()
    shapes = [
        f"{name} is {list(tensors[name].shape)} where {list(own[name].shape)} is wanted"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} is {tensors[name].dtype} where {own[name].dtype} is wanted"
        for name in own
        if name in tensors and tensors[name].dtype != own[name].dtype
    ]
    faults = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": shapes,
        "of another type": kinds,
        "not finite": [name for name, one in tensors.items() if one.is_floating_point() and not one.isfinite().all()],
    }
    said = "; ".join(f"{fault}: {listed(names)}" for fault, names in faults.items() if names)
    if said:
        raise QuickstudyError(f"'{where}' does not fit this {type(module).__name__} ({said}).")
    module.load_state_dict(dict(tensors))


def _contents(tensors: Mapping[str, Tensor], config: Mapping[str, Any], training: Any | None) -> dict[str, bytes]:
    """The files of a checkpoint by name; config.json comes last, because it vouches for the others."""
    files = {MODEL: _serialise(tensors)}
    if training is not None:
        leaves: dict[str, Tensor] = {}
        files[TRAINING] = _json(_encode(training, "training", leaves))
        files[TRAINING_TENSORS] = _serialise(leaves)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    about = _plain(config, "config")
    files[CONFIG] = _json({"format": FORMAT, "versions": versions(), **about, "sha256": checksums})
    return files


def _serialise(tensors: Mapping[str, Tensor]) -> bytes:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex():
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                raise QuickstudyError(
                    f"Refused to write a checkpoint: tensor '{name}' has {bad} of {tensor.numel()} values that are not "
                    "finite."
                )
    # Clones, because safetensors refuses tensors that share memory (tied weights, views of one buffer).
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    return tensors_to_bytes(own, {"format": "pt"})


def _plain(value: Any, where: str) -> Any:
    """`value` as strict JSON can hold it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}/{place}") for place, item in enumerate(value)]
    raise _homeless(value, where)


def _encode(value: Any, where: str, leaves: dict[str, Tensor]) -> Any:
    """`value` as JSON from which `_decode` makes the very same tree; its tensors go to `leaves` under their path."""
    if isinstance(value, Tensor):
        name = where if where not in leaves else f"{where}#{len(leaves)}"  # keys 1 and "1" have one path
        leaves[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Mapping):
        # Pairs and not an object, whose keys JSON would turn into strings.
        items = [[_key(key, where), _encode(item, f"{where}/{key}", leaves)] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{where}/{place}", leaves) for place, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    raise _homeless(value, where)


def _decode(value: Any, leaves: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, leaves) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return leaves[content]
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_decode(item, leaves) for item in content)
    return {key: _decode(item, leaves) for key, item in content}


def _key(key: Any, where: str) -> str | int:
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return key
    raise QuickstudyError(f"A checkpoint's dicts have strings and integers as keys; '{where}' has the key {key!r}.")


def _homeless(value: Any, where: str) -> QuickstudyError:
    return QuickstudyError(
        f"A checkpoint has no place for '{where}', a {type(value).__name__}; it holds tensors, numbers, strings, "
        "true, false, None, and dicts, lists and tuples of them."
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    with sound(f"'{path}' is damaged: it is not a valid safetensors file"):
        return tensors_from_bytes(content)


def _read_checked(path: Path, checksum: str) -> bytes:
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != checksum:
        raise QuickstudyError(f"'{path}' is damaged: its content is not what {CONFIG} has the checksum of.")
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise QuickstudyError(f"Checkpoint '{path.parent}' is incomplete: {path.name} is missing.") from error
    except OSError as error:
        raise QuickstudyError(f"Could not read '{path}': {error.strerror or error}.") from error


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(folder: Path, partial: Path, keep: bool) -> None:
    """Renames `partial` to `folder`; at every moment one of `folder` and its `.previous` is a whole checkpoint."""
    previous = _sibling(folder, "previous")
    if folder.exists():
        _remove(previous)
        folder.rename(previous)
    try:
        partial.rename(folder)
    except OSError:
        if previous.exists():
            previous.rename(folder)
        raise
    _sync_folder(folder.parent)
    if keep and previous.exists():
        before = _sibling(folder, "before")
        _remove(before)
        previous.rename(before)
    _remove(previous)


def _present(folder: Path) -> Path:
    """The folder itself or, where a save was cut off between its two renames, the one that stepped aside."""
    previous = _sibling(folder, "previous")
    return previous if not folder.exists() and previous.is_dir() else folder


def _sibling(folder: Path, suffix: str) -> Path:
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.{suffix}")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Makes renames in a folder last through a power cut, where the system can (Windows cannot open folders)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
