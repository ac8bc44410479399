"""The task families: every module or folder here holds its classes, their settings and its records, `FAMILIES`.

Those of other packages are found by the entry points `quickstudy.families`, or named as `package.module:attribute`; the
attribute is a family, or gives one when it is called without arguments; an entry point may also name a tuple of
records. A path names a user's own data. How a family is made of one's own arrays, demonstrations or environments in
Python: `from_arrays`, `from_demonstrations`, `from_dataset`, `from_file`, `from_gymnasium`.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from quickstudy import datasets
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.base import FamilyRecord
from quickstudy.io.plugins import load_attribute, with_installed
from quickstudy.settings import ReadingConfig
from quickstudy.task import TaskFamily

_OWN = ("from_arrays", "from_dataset", "from_demonstrations", "from_file", "from_gymnasium", "draw")


def __getattr__(name: str) -> Any:
    if name in _OWN:
        return getattr(importlib.import_module("quickstudy.families.own"), name)
    raise AttributeError(f"module 'quickstudy.families' has no attribute '{name}'")


@functools.cache
def records() -> dict[str, FamilyRecord]:
    """All families by name: those here, then those of entry points."""
    found = {record.name: record for module in _modules() for record in getattr(module, "FAMILIES", ())}
    return dict(sorted(with_installed(found, "quickstudy.families", _record).items()))


def get(name: str, objects: Path | None = None, unit: str = "m", reading: ReadingConfig | None = None) -> TaskFamily:
    """The family of this name, at `package.module:attribute`, or of a user's own data at this path, see `from_file`.

    `ml1-<task>` is any of Meta-World's 50 tasks.

    Args:
        objects: a folder of mesh files, which become the test split 'objects' of a family of grasping.
        unit: of length in these files.
        reading: how a user's own data is read, see `quickstudy.datasets.load`.

    Raises:
        QuickstudyError: there is none, its data is missing, or it has no use for objects.
    """
    if objects is not None:
        users = [known.name for known in records().values() if known.takes_objects]
        if name not in users:
            raise QuickstudyError(f"Objects are for {' and '.join(users)}; '{name}' has no use for mesh files.")
        return records()[name].build(objects=objects, unit=unit)
    if name in records():
        return records()[name].build()
    if ":" in name and not Path(name).exists():
        return _made(load_attribute(name), name)
    for module in _modules():
        if (build := getattr(module, "find", lambda name: None)(name)) is not None:
            return build()
    if datasets.may_be(name):
        from quickstudy.families.own import from_file

        return from_file(Path(name), reading)
    raise unknown("family", name, records())


def is_path(name: str) -> bool:
    """Whether it names a place of a user's own data, which may be gone."""
    return is_elsewhere(name) and (Path(name).exists() or (":" not in name and Path(name).name != name))


def located(name: str) -> str:
    """The same name; of a user's own data, wherever it is used from."""
    return str(Path(name).expanduser().absolute()) if is_path(name) else name


def is_elsewhere(name: str) -> bool:
    """Whether it takes more than this package to make it: a user's own data or module."""
    return name not in records() and not any(getattr(module, "find", lambda name: None)(name) for module in _modules())


def _modules() -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        yield importlib.import_module(module.name)


def _record(name: str, where: str, attribute: Any) -> FamilyRecord:
    """The record of what an entry point names."""
    if isinstance(attribute, FamilyRecord):
        return attribute
    summary = (inspect.getdoc(attribute) or where).split("\n")[0].rstrip(".")
    return FamilyRecord(name, summary, functools.partial(_made, attribute, where))


def _made(attribute: Any, name: str) -> TaskFamily:
    """The family that an attribute is, or gives."""
    if not isinstance(attribute, TaskFamily) and callable(attribute):
        try:
            attribute = attribute()
        except QuickstudyError:
            raise
        except Exception as error:  # a user's class may fail in any way
            raise QuickstudyError(f"'{name}' could not be made ({type(error).__name__}: {error}).") from error
    if not isinstance(attribute, TaskFamily):
        raise QuickstudyError(f"'{name}' is no TaskFamily, nor does it give one; got {type(attribute).__name__}.")
    return attribute
