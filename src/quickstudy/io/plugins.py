"""Things of other packages: `package.module:attribute`, also of the working directory; and what entry points name."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console


def load_attribute(name: str) -> Any:
    """What a module calls by this name; from now on, modules are found in the working directory too.

    Raises:
        QuickstudyError: no such module or attribute, or the module fails.
    """
    module_name, attribute = name.split(":", 1)
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise QuickstudyError(f"Name a module as Python imports it, such as '{dotted}:{attribute}'; got '{name}'.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # and it stays there: such a module may import others when they are needed
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way
        raise QuickstudyError(f"Could not import '{module_name}' ({type(error).__name__}: {error}).") from error
    if not hasattr(module, attribute):
        raise QuickstudyError(f"Module '{module_name}' has no '{attribute}'.")
    return getattr(module, attribute)


class Named(Protocol):
    """A record of a method or a family."""

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=Named)


def with_installed(known: Mapping[str, R], group: str, record: Callable[[str, str, Any], R]) -> dict[str, R]:
    """Records by name: the known ones, then those of the entry points of other packages.

    What cannot be loaded, or has a name that is known already, is said and left out: it must not keep all else from
    working.

    Args:
        record: makes one of an entry point's name, its `package.module:attribute` and that attribute; of each element
            where that is a tuple.
    """
    found = dict(known)
    for entry in entry_points(group=group):
        try:
            attribute = entry.load()
            made = [record(entry.name, entry.value, one) for one in _elements(attribute)]
            for taken in (one.name for one in made if one.name in found):
                raise QuickstudyError(f"there is one of the name '{taken}' already")
        except Exception as error:  # somebody else's package may fail in any way
            said = str(error) if isinstance(error, QuickstudyError) else f"{type(error).__name__}: {error}"
            where = f"Entry point '{entry.name}' of {group}, '{entry.value}', was left out"
            console.print(f"{where}: {said}", soft_wrap=True, markup=False, highlight=False)
            continue
        found |= {one.name: one for one in made}
    return found


def _elements(attribute: Any) -> tuple[Any, ...]:
    return attribute if isinstance(attribute, tuple) else (attribute,)
